"""Entries as bytes: a versioned, checksummed envelope. No pickle, no eval, anywhere.

    magic "ao" | version 1 byte | flags 1 byte | CRC-32 4 bytes | header length 4 bytes | header | body

The header is JSON, the body the answer's bytes. Flags: 1 = the body is zstd-compressed, 2 = header and
body are sealed (AES-256-GCM, the key as associated data). The checksum covers everything after it *and
the key*, so an entry that was moved to another key, cut short, or flipped in one bit is not an entry.
A checksum finds accidents; against an attacker there is the seal.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import Any, Final, cast
from zlib import crc32

import orjson

from askonce._entry import Entry, Meta
from askonce._seal import Seal

VERSION: Final = 1
_MAGIC: Final = b"ao"
_ZSTD: Final = 1
_SEALED: Final = 2
_HEAD = Struct(">2sBBII")
_COMPRESS_FROM: Final = 1024
_LEVEL: Final = 3


class Undecodable(Exception):
    """These bytes are no entry of ours under this key. Says why in one word or two."""


def encode(key: str, entry: Entry, seal: Seal | None = None) -> bytes:
    """The envelope for `entry` under `key`."""
    meta = entry.meta
    header = orjson.dumps([
        entry.status, entry.headers, meta.created_at, meta.expires_at, meta.stale_until, meta.model,
        meta.surface, meta.url, meta.usage, meta.latency, meta.tags, meta.fingerprint,
    ])  # fmt: skip
    body, flags = entry.body, 0
    if len(body) >= _COMPRESS_FROM:
        packed = _zstd().compress(body, level=_LEVEL)
        if len(packed) < len(body):
            body, flags = packed, _ZSTD
    content = header + body
    if seal is not None:
        flags |= _SEALED
        content = seal.close(content, _context(key, flags, len(header)))
    check = crc32(content, crc32(_context(key, flags, len(header))))
    return _HEAD.pack(_MAGIC, VERSION, flags, check, len(header)) + content


def _context(key: str, flags: int, length: int) -> bytes:
    """What an envelope's content belongs to: checksummed with it, and the seal's associated data."""
    return b"%d %d %d %b" % (VERSION, flags, length, key.encode("utf-8", "surrogatepass"))


def decode(key: str, data: bytes, seal: Seal | None = None, *, limit: int = 1 << 31) -> Entry:
    """The entry that `encode` wrote under the same key.

    Args:
        key: the key the bytes were found under.
        data: the bytes.
        seal: the cache's seal, when it has a secret.
        limit: refuse bodies that would unpack to more bytes than this.

    Raises:
        Undecodable: for anything else, whatever is wrong with it.
    """
    head, packed, flags = _open(key, data, seal)
    body = _unpack(packed, limit) if flags & _ZSTD else packed
    meta = _meta(head)
    return Entry(
        status=head[0],
        headers=tuple([(name, value) for name, value in head[1]]),
        body=body,
        meta=meta,
    )


def decode_meta(key: str, data: bytes, seal: Seal | None = None) -> Meta:
    """The Meta alone: the body stays packed.

    Raises:
        Undecodable: as `decode`, except for what is wrong with a packed body.
    """
    return _meta(_open(key, data, seal)[0])


def check(key: str, data: bytes) -> None:
    """See that these bytes are an undamaged envelope of this key, sealed or not.

    Raises:
        Undecodable: when they are not.
    """
    _verified(key, data)


def _meta(head: list[Any]) -> Meta:
    if not _is_well_formed(head):
        raise Undecodable("shape")
    _, _, created, expires, stale, model, surface, url, usage, latency, tags, print_ = head
    return Meta(
        created_at=created,
        expires_at=expires,
        stale_until=stale,
        model=model,
        surface=surface,
        url=url,
        usage=usage,
        latency=latency,
        tags=tuple(tags),
        fingerprint=print_,
    )


_NUMBER: Final = (int, float)
_TIME: Final = (int, float, type(None))
_PAIR: Final = [str, str]
_INT: Final = frozenset({int})
_STR: Final = frozenset({str})
_TYPES: Final[tuple[Any, ...]] = (int, list, _NUMBER, _TIME, _TIME, str, str, str, dict, _NUMBER, list, dict)


def _is_well_formed(head: list[Any]) -> bool:
    """A checksum says that nothing was damaged, not that it was us who wrote: types are checked."""
    if len(head) != len(_TYPES):
        return False
    for part, kind in zip(head, _TYPES, strict=True):
        if not isinstance(part, kind):
            return False
    headers: list[Any] = head[1]
    usage: dict[str, Any] = head[8]
    tags: list[Any] = head[10]
    print_: dict[str, Any] = head[11]
    for pair in headers:
        if type(pair) is not list or [*map(type, cast("list[Any]", pair))] != _PAIR:
            return False
    return (
        _INT.issuperset(map(type, usage.values()))
        and _STR.issuperset(map(type, tags))
        and _STR.issuperset(map(type, print_.values()))
    )


def _verified(key: str, data: bytes) -> tuple[int, int, bytes, bytes]:
    """Flags, length of the header, content, and what the content belongs to."""
    if len(data) < _HEAD.size:
        raise Undecodable("too short")
    magic, version, flags, check, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise Undecodable("foreign")
    if version != VERSION or flags & ~(_ZSTD | _SEALED):
        raise Undecodable("version")
    content = data[_HEAD.size :]
    context = _context(key, flags, length)
    if crc32(content, crc32(context)) != check:
        raise Undecodable("checksum")
    return flags, length, content, context


def _open(key: str, data: bytes, seal: Seal | None) -> tuple[list[Any], bytes, int]:
    """The header, the body as it is packed, and the flags."""
    flags, length, content, context = _verified(key, data)
    if bool(flags & _SEALED) != (seal is not None):
        raise Undecodable("seal")
    if seal is not None:
        opened = seal.open(content, context)
        if opened is None:
            raise Undecodable("seal")
        content = opened
    if length > len(content):
        raise Undecodable("header")
    try:
        header: Any = orjson.loads(memoryview(content)[:length])
    except ValueError:
        raise Undecodable("header") from None
    if type(header) is not list:
        raise Undecodable("header")
    header = cast("list[Any]", header)
    return header, content[length:], flags


def _unpack(packed: bytes, limit: int) -> bytes:
    """Unpack exactly one frame, never to more than `limit` bytes."""
    zstd = _zstd()
    machine = zstd.ZstdDecompressor()
    try:
        body: bytes = machine.decompress(packed, limit)
    except zstd.ZstdError:
        raise Undecodable("zstd") from None
    if not machine.eof or machine.unused_data:
        raise Undecodable("size")
    return body


def _zstd() -> Any:
    """The standard library's zstd, or its backport; loaded when the first large answer needs it."""
    global _loaded  # noqa: PLW0603 - a module is loaded once
    if _loaded is None:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415
        _loaded = zstd
    return _loaded


_loaded: Any = None
