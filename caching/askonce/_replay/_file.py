"""The file of a test's recordings: read strictly, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias, cast

from askonce._entry import Entry, Meta
from askonce._errors import ConfigurationError
from askonce._replay._bodies import exact, readable
from askonce._replay._printed import printed

VERSION: Final = 1
_NOTE: Final = "recorded answers"
_OURS: Final = re.compile(rb'\s*\{\s*"askonce": "recorded answers"')
_KEY: Final = re.compile(r"[^:]+:[0-9a-f]{64}")

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One answer of a file.

    Attributes:
        key: of the ask.
        entry: the answer.
        about: what was asked, in a few words.
    """

    key: str
    entry: Entry
    about: str

    def __str__(self) -> str:
        meta = self.entry.meta
        return f"{meta.surface} {meta.model} {self.key}"


class _Wrong(Exception):
    """What is wrong with a recording, in words."""


def read(path: Path) -> list[Recorded]:
    """The recordings of a file; none when it does not exist.

    Raises:
        ConfigurationError: when it is damaged, or something else.
        OSError: when it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    if not _OURS.match(content):
        _refuse(path, "it is something else")
    try:
        said: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        _refuse(path, f"it is damaged ({where})")
    if not isinstance(said, dict) or cast("Json", said).get("version") != VERSION:
        _refuse(path, f"it is not of version {VERSION}")
    given: Any = cast("Json", said).get("recordings")
    if not isinstance(given, list):
        _refuse(path, "it is damaged (no list of recordings)")
    found: dict[str, Recorded] = {}
    for number, one in enumerate(cast("list[Any]", given), 1):
        try:
            recorded = _recorded(one)
        except _Wrong as wrong:
            _refuse(path, f"recording {number} is damaged ({wrong})")
        if recorded.key in found:
            _refuse(path, f"recording {number} has the key of one before it")
        found[recorded.key] = recorded
    return list(found.values())


def check_is_ours(path: Path) -> None:
    """See that writing to this path would destroy nothing of somebody else's.

    Raises:
        ConfigurationError: when something else stands there.
    """
    try:
        with path.open("rb") as file:
            content = file.read(200)
    except FileNotFoundError:
        return
    if content.strip() and not _OURS.match(content):
        _refuse(path, "it is something else")


def write(path: Path, recorded: list[Recorded]) -> None:
    """Write a file, in a fixed order; readers see the old one or the new one."""
    ordered = sorted(recorded, key=_order)
    content: Json = {"askonce": _NOTE, "version": VERSION, "recordings": [_told(one) for one in ordered]}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        beside.write_bytes(printed(content).encode() + b"\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _order(one: Recorded) -> tuple[str, ...]:
    meta = one.entry.meta
    return (meta.url, meta.model, one.about, one.key)


def _told(one: Recorded) -> Json:
    entry, meta = one.entry, one.entry.meta
    return {
        "key": one.key,
        "request": {
            "surface": meta.surface,
            "model": meta.model,
            "url": meta.url,
            "about": one.about,
            "parts": dict(sorted(meta.fingerprint.items())),
        },
        "answer": {
            "recorded": datetime.fromtimestamp(meta.created_at, UTC).isoformat(timespec="seconds"),
            "seconds": round(meta.latency, 3),
            "usage": dict(sorted(meta.usage.items())),
            "status": entry.status,
            "headers": [f"{name}: {value}" for name, value in entry.headers],
            "body": readable(entry.body),
        },
    }


def _recorded(said: Any) -> Recorded:
    key = _field(said, "key", str)
    if not _KEY.fullmatch(key):
        raise _Wrong('"key" is no key')
    request, answer = _field(said, "request", dict), _field(said, "answer", dict)
    try:
        created = datetime.fromisoformat(_field(answer, "recorded", str)).timestamp()
        body = exact(answer.get("body"))
    except (ValueError, OverflowError, OSError):
        raise _Wrong('"recorded" or "body" is not as it was written') from None
    headers: list[tuple[str, str]] = []
    for line in _field(answer, "headers", list):
        name, colon, value = line.partition(": ") if isinstance(line, str) else ("", "", "")
        if not colon or "\n" in value:
            raise _Wrong('"headers" are texts such as "content-type: application/json"')
        headers.append((name, value))
    meta = Meta(
        created_at=created,
        expires_at=None,
        stale_until=None,
        model=_field(request, "model", str),
        surface=_field(request, "surface", str),
        url=_field(request, "url", str),
        usage=_named(answer, "usage", int),
        latency=_field(answer, "seconds", (int, float)),
        fingerprint=_named(request, "parts", str),
    )
    entry = Entry(status=_field(answer, "status", int), headers=tuple(headers), body=body, meta=meta)
    return Recorded(key=key, entry=entry, about=_field(request, "about", str))


def _field(said: Any, name: str, kind: Any) -> Any:
    value = cast("Json", said).get(name) if isinstance(said, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Wrong(f'"{name}" is missing or of another kind')
    return value


def _named(said: Any, name: str, kind: type) -> dict[str, Any]:
    found: Json = _field(said, name, dict)
    if not all(type(value) is kind for value in found.values()):
        raise _Wrong(f'"{name}" is of another kind')
    return found


def _refuse(path: Path, why: str) -> NoReturn:
    raise ConfigurationError(
        f"{path} cannot be replayed: {why}; allowed: a file that askonce recorded. Restore it, or remove it "
        "and record anew"
    )
