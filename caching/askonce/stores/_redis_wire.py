"""What goes over the wire to a Redis, and what comes back: pure helpers of both faces.

A value is stored with its absolute expiry in front: two bytes of a mark and a double, big-endian
(infinite: never). So a reader has the exact expiry from the same GET that brings the bytes, whatever
anybody does to the key's own time to live. The server is given a *relative* time (PX), which holds also
when its clock is wrong; it is what frees the memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias, cast

import orjson

from askonce._errors import Refused, StoreError
from askonce.stores.protocol import Stored

Command: TypeAlias = tuple[Any, ...]

_HEAD: Final = Struct(">2sd")
_MARK: Final = b"ao"
HEAD_LAST: Final = _HEAD.size - 1
_LONGEST_MS: Final = 10**14
_ANNOUNCED_AT_ONCE: Final = 500
NAME: Final = "redis"


def encoded(key: str) -> bytes:
    """A key as bytes, whatever text it is."""
    return key.encode("utf-8", "surrogatepass")


def decoded(raw: bytes) -> str:
    """The text that `encoded` made into bytes; foreign bytes come back in some readable form."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace")


def set_command(key: bytes, value: bytes, expires_at: float | None, now: float) -> Command:
    """SET with what is left of the life; UNLINK when nothing is."""
    if expires_at is None:
        return ("SET", key, _HEAD.pack(_MARK, math.inf) + value)
    left = expires_at - now
    if left <= 0:
        return ("UNLINK", key)
    life = min(math.ceil(left * 1000), _LONGEST_MS)
    return ("SET", key, _HEAD.pack(_MARK, expires_at) + value, "PX", life)


def expiry(reply: object, now: float) -> float | None:
    """The expiry of a live value of ours (infinite: never), from its first bytes; None for anything else."""
    if not isinstance(reply, bytes) or len(reply) < _HEAD.size:
        return None
    mark, expires_at = _HEAD.unpack_from(reply)
    return expires_at if mark == _MARK and expires_at > now else None


def stored(reply: object, now: float) -> Stored | None:
    """The live value in the reply to a GET; None when there is none."""
    expires_at = expiry(reply, now)
    if expires_at is None or not isinstance(reply, bytes):
        return None
    return Stored(reply[_HEAD.size :], None if expires_at == math.inf else expires_at, NAME)


def pattern(prefix: bytes) -> bytes:
    """A glob that matches exactly what begins with `prefix`."""
    out = bytearray()
    for byte in prefix:
        if byte in b"*?[]\\^-":
            out += b"\\"
        out.append(byte)
    return bytes(out + b"*")


def announcements(channel: bytes, origin: str, kind: str, keys: Iterable[str]) -> list[Command]:
    """PUBLISH commands that name keys; `kind` says what happened to them."""
    names = list(keys)
    return [
        (
            "PUBLISH",
            channel,
            orjson.dumps([origin, kind, *map(_packable, names[start : start + _ANNOUNCED_AT_ONCE])]),
        )
        for start in range(0, len(names), _ANNOUNCED_AT_ONCE)
    ]


def _packable(key: str) -> str:
    """JSON holds no lone surrogates; a key with one is announced as its bytes in hex."""
    return "s" + key if key.isascii() else "x" + encoded(key).hex()


def announced(payload: object) -> tuple[str, str, tuple[str, ...]] | None:
    """Origin, kind and keys of a message; None for one that is not ours."""
    try:
        said: object = orjson.loads(payload) if isinstance(payload, bytes | str) else None
        if not isinstance(said, list):
            return None
        texts = [text if isinstance(text, str) else "" for text in cast("list[object]", said)]
        if len(texts) < 3:  # noqa: PLR2004 - origin, kind, one key
            return None
        origin, kind, *names = texts
        keys = tuple(
            name[1:] if name[:1] == "s" else decoded(bytes.fromhex(name[1:])) for name in names if name
        )
    except ValueError:
        return None
    return origin, kind, keys


def scanned(reply: Any) -> tuple[int, list[bytes]]:
    """Cursor and names of a client's answer to SCAN; that of a Cluster has a cursor for each node."""
    cursor: Any = reply[0]
    if isinstance(cursor, dict):
        (cursor,) = cast("dict[str, Any]", cursor).values()
    return int(cursor), reply[1]


def demoted(replies: Sequence[object]) -> bool:
    """Whether a server says that it is a replica: it was the master when the connection was made."""
    return any(isinstance(reply, Exception) and type(reply).__name__ == "ReadOnlyError" for reply in replies)


_FULL: Final = ("OutOfMemoryError", "ReadOnlyError", "NoPermissionError")
_FULL_TEXTS: Final = ("OOM", "READONLY", "MISCONF", "NOPERM", "NOREPLICAS")


def raised(reply: object) -> None:
    """Raise for a reply that is an error.

    Raises:
        Refused: the server is well and will not keep this: full, read-only, forbidden.
        StoreError: any other error reply. Its text is the error's code: the rest may name keys.
    """
    if not isinstance(reply, Exception):
        return
    code = str(reply).partition(" ")[0]
    name = type(reply).__name__
    if name in _FULL or code in _FULL_TEXTS:
        raise Refused(f"Redis refuses the write ({name if name in _FULL else code})") from None
    raise StoreError(f"Redis answered with an error ({name})") from None
