"""Who saw a prefix, and when: a few bytes for each of the last deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final
from zlib import crc32

_HEAD: Final = Struct(">2sBI")  # magic, version, CRC-32 of the name and the rows
_ROW: Final = Struct(">8sd")
_MAGIC: Final = b"ap"
_VERSION: Final = 1
_MOST: Final = 8


def tag_of(candidate: str) -> bytes:
    """A candidate's name, made short. It may be a URL with a key in it: none is stored."""
    return blake2b(candidate.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def encode(name: str, seen: Mapping[bytes, float]) -> bytes:
    """The latest sightings, for storing under a name."""
    latest = sorted(seen.items(), key=lambda one: -one[1])[:_MOST]
    rows = b"".join(_ROW.pack(tag, when) for tag, when in latest)
    return _HEAD.pack(_MAGIC, _VERSION, crc32(rows, crc32(name.encode()))) + rows


def decode(name: str, value: bytes | None) -> dict[bytes, float]:
    """Sightings by tag; empty for what is none."""
    if value is None or len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ROW.size:
        return {}
    magic, version, check = _HEAD.unpack_from(value)
    rows = value[_HEAD.size :]
    if magic != _MAGIC or version != _VERSION or check != crc32(rows, crc32(name.encode())):
        return {}
    found: Iterable[tuple[bytes, float]] = _ROW.iter_unpack(rows)
    return dict(found)
