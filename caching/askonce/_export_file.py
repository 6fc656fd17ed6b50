"""The lines of an export file, each with what shows that it is what was written.

The first names format, version and namespace; each further one is an entry, its value in base64 as the
store has it (sealed values stay sealed) with a checksum; the last one says how many there are, with a
digest of all that stands before it.

    {"askonce":"export","version":1,"namespace":"default"}
    {"key":"default:9f2c...","expires_at":1790000000.0,"check":"c0ffee...","value":"YW8B..."}
    {"end":true,"entries":1,"sha256":"..."}
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO, Final, cast

import orjson

from askonce._errors import AskOnceError
from askonce.stores.protocol import Item

VERSION: Final = 1
LONGEST: Final = 1 << 30
"""A line beyond it is no line of ours."""


class TransferError(AskOnceError):
    """A file cannot be imported, or an export cannot go on in it. The text says which line, and why."""


def head_line(namespace: str) -> bytes:
    """The first line of an export."""
    return line_of({"askonce": "export", "version": VERSION, "namespace": namespace})


def line_of(said: dict[str, Any]) -> bytes:
    """A line that says this."""
    return orjson.dumps(said) + b"\n"


def item_line(item: Item) -> bytes:
    """The line of an entry."""
    key, value, expires_at = item
    check = _check(key, value, expires_at)
    packed = b64encode(value).decode()
    return line_of({"key": key, "expires_at": expires_at, "check": check, "value": packed})


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, with their ends."""
    while line := file.readline(LONGEST):
        yield line


def object_in(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; an empty one when there is none."""
    try:
        said: object = orjson.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def check_head(said: dict[str, Any], name: str, namespace: str | None) -> str:
    """The namespace in a first line.

    Raises:
        TransferError: it is none, or of another namespace than this.
    """
    found = said.get("namespace")
    if said.get("askonce") != "export" or not isinstance(found, str):
        raise TransferError(f"{name} is no export of askonce")
    if said.get("version") != VERSION:
        raise TransferError(
            f"{name} is an export of version {said.get('version')}; this askonce reads version {VERSION}"
        )
    if namespace is not None and found != namespace:
        raise TransferError(
            f"{name} has the namespace {found!r}, which is part of every key in it; the cache's is "
            f"{namespace!r}"
        )
    return found


def item_in(said: dict[str, Any]) -> Item:
    """The entry in a line.

    Raises:
        ValueError: it is none, or not the one that was written.
    """
    key, expires_at, check, packed = (said.get(name) for name in ("key", "expires_at", "check", "value"))
    if not (
        isinstance(key, str)
        and isinstance(packed, str)
        and isinstance(expires_at, float | int | None)
        and not isinstance(expires_at, bool)
    ):
        raise ValueError("it is no entry")  # noqa: TRY004 - what a file says is a value, not a type
    value = b64decode(packed, validate=True)
    if check != _check(key, value, expires_at):
        raise ValueError("its checksum differs")
    return key, value, expires_at


def _check(key: str, value: bytes, expires_at: float | None) -> str:
    about = orjson.dumps([key, None if expires_at is None else float(expires_at)])
    return sha256(about + b"\n" + value).hexdigest()[:32]
