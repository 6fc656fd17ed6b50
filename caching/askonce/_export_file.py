"""The lines of an export file, each with what shows that it is what was written.

The first names format, version and namespace; each further one is an entry, its value in base64 as the
store has it (sealed values stay sealed) with a checksum; the last one says how many there are, with a
digest of all that stands before it.

    {"askonce":"export","version":1,"namespace":"default"}
    {"key":"default:9f2c...","expires_at":1790000000.0,"check":"c0ffee...","value":"YW8B..."}
    {"end":true,"entries":1,"sha256":"..."}

Version 2 is for files that carry more: after the last entry, what the semantic layer keeps beside the
entries. Each such line names the entry that it belongs to, with a digest of that entry as it stands in the
file, and lives as long as it. Readers of version 1 refuse such a file, and say so.

    {"beside":"default~rows:7b1e...9f2c...","of":"default:9f2c...","entry":"...","check":"...","value":"YXIB..."}
    {"end":true,"entries":1,"rows":1,"sha256":"..."}
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO, Final, NamedTuple, cast

import orjson

from askonce._errors import AskOnceError
from askonce.stores.protocol import Item

PLAIN: Final = 1
"""The version of a file of entries alone."""
CARRYING: Final = 2
"""The version of a file that carries rows as well."""
LONGEST: Final = 1 << 30
"""A line beyond it is no line of ours."""


class TransferError(AskOnceError):
    """A file cannot be imported, or an export cannot go on in it. The text says which line, and why."""


class Beside(NamedTuple):
    """What the semantic layer keeps beside an entry, as stores keep it.

    Attributes:
        key: under which it is kept.
        of: the key of the entry that it belongs to.
        entry: that entry's digest, see `digest_of`.
        value: the bytes, sealed where there is a secret.
    """

    key: str
    of: str
    entry: str
    value: bytes

    def __repr__(self) -> str:
        return f"<Beside {self.of[-64:][:8]}, {len(self.value)} bytes>"


def head_line(namespace: str, version: int) -> bytes:
    """The first line of an export. All versions' are of one length."""
    return line_of({"askonce": "export", "version": version, "namespace": namespace})


def line_of(said: dict[str, Any]) -> bytes:
    """A line that says this."""
    return orjson.dumps(said) + b"\n"


def item_line(item: Item) -> bytes:
    """The line of an entry."""
    key, value, expires_at = item
    check = _check(key, value, expires_at)
    packed = b64encode(value).decode()
    return line_of({"key": key, "expires_at": expires_at, "check": check, "value": packed})


def beside_line(row: Beside) -> bytes:
    """The line of what is kept beside an entry."""
    packed = b64encode(row.value).decode()
    said = {"beside": row.key, "of": row.of, "entry": row.entry, "check": _check_beside(row), "value": packed}
    return line_of(said)


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


def check_head(said: dict[str, Any], name: str, namespace: str | None) -> tuple[str, int]:
    """The namespace and the version in a first line.

    Raises:
        TransferError: it is none, or of another namespace than this.
    """
    found, version = said.get("namespace"), said.get("version")
    if said.get("askonce") != "export" or not isinstance(found, str):
        raise TransferError(f"{name} is no export of askonce")
    if version not in (PLAIN, CARRYING):
        raise TransferError(
            f"{name} is an export of version {version}; this askonce reads versions {PLAIN} and {CARRYING}"
        )
    if namespace is not None and found != namespace:
        raise TransferError(
            f"{name} has the namespace {found!r}, which is part of every key in it; the cache's is "
            f"{namespace!r}"
        )
    return found, version


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


def beside_in(said: dict[str, Any]) -> Beside:
    """What is kept beside an entry, in a line.

    Raises:
        ValueError: there is nothing of the kind, or not what was written.
    """
    key, of, entry, check, packed = (said.get(name) for name in ("beside", "of", "entry", "check", "value"))
    if not (
        isinstance(key, str) and isinstance(of, str) and isinstance(entry, str) and isinstance(packed, str)
    ):
        raise ValueError("it is no row")  # noqa: TRY004 - as in `item_in`
    row = Beside(key, of, entry, b64decode(packed, validate=True))
    if check != _check_beside(row):
        raise ValueError("its checksum differs")
    return row


def digest_of(key: str, value: bytes) -> str:
    """Tells one entry under a key from another: 32 hex digits. Without the expiry, which stores round."""
    return sha256(orjson.dumps(key) + b"\n" + value).hexdigest()[:32]


def _check_beside(row: Beside) -> str:
    return sha256(orjson.dumps([row.key, row.of, row.entry]) + b"\n" + row.value).hexdigest()[:32]


def _check(key: str, value: bytes, expires_at: float | None) -> str:
    about = orjson.dumps([key, None if expires_at is None else float(expires_at)])
    return sha256(about + b"\n" + value).hexdigest()[:32]
