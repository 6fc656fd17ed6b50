"""Rows as the cache's store keeps them: bytes under keys of a namespace of their own.

    key     NAMESPACE~rows:<32 digits of the partition><32 digits of the answer's key>
    value   magic "ar" | version 1 byte | sealed 1 byte | CRC-32 4 bytes | content
    content the answer's key 32 bytes | length of the facts 2 bytes | facts | vector, float32, little-endian

The checksum covers the key as well; with a secret the content is sealed, with the key as associated data.
A row lives exactly as long as its entry. What cannot be read is no row, and deleted.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

from askonce._seal import Seal
from askonce.semantic._index import Row

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

_MAGIC: Final = b"ar"
_VERSION: Final = 1
_HEAD: Final = Struct(">2sBBI")
_INNER: Final = Struct(">32sH")
_HALF: Final = 32
_MOST_DIMENSIONS: Final = 1 << 16


def prefix_of(namespace: str) -> str:
    """What the keys of a namespace's rows begin with."""
    return f"{namespace}~rows:"


def key_of(namespace: str, partition: str, name: str) -> str:
    """Under which key a row is kept."""
    return f"{prefix_of(namespace)}{partition[:_HALF]}{name[:_HALF]}"


def partition_in(key: str) -> str:
    """The first half of the partition's digest, which stands in a row's key."""
    return key.rpartition(":")[2][:_HALF]


def is_sound(key: str, value: bytes) -> bool:
    """Whether these bytes are an undamaged row of this key, sealed or not. Needs no numpy."""
    if len(value) < _HEAD.size:
        return False
    magic, version, _, check = _HEAD.unpack_from(value)
    return bool(
        magic == _MAGIC
        and version == _VERSION
        and crc32(memoryview(value)[_HEAD.size :], crc32(key.encode())) == check
    )


def encode(key: str, row: Row, seal: Seal | None) -> bytes:
    """A row's bytes."""
    content = _INNER.pack(bytes.fromhex(row.name), len(row.facts)) + row.facts + row.vector.tobytes()
    context = key.encode()
    if seal is not None:
        content = seal.close(content, context)
    return _HEAD.pack(_MAGIC, _VERSION, seal is not None, crc32(content, crc32(context))) + content


def decode(key: str, value: bytes, seal: Seal | None) -> tuple[str, bytes, Vector] | None:
    """Name, facts and vector; None for what is no row of this key."""
    import numpy as np  # noqa: PLC0415 - loaded with the first row

    if len(value) < _HEAD.size:
        return None
    magic, version, sealed, check = _HEAD.unpack_from(value)
    content: bytes | None = value[_HEAD.size :]
    context = key.encode()
    if magic != _MAGIC or version != _VERSION or sealed != (seal is not None):
        return None
    if content is None or crc32(content, crc32(context)) != check:
        return None
    if seal is not None:
        content = seal.open(content, context)
    if content is None or len(content) < _INNER.size:
        return None
    name, length = _INNER.unpack_from(content)
    start = _INNER.size + length
    size = len(content) - start
    if size <= 0 or size % 4 or size // 4 > _MOST_DIMENSIONS or name.hex()[:_HALF] != key[-_HALF:]:
        return None
    vector: Vector = np.frombuffer(content, "<f4", offset=start).astype(np.float32)
    if not abs(float(vector @ vector) - 1.0) < 0.01:  # noqa: PLR2004 - also a NaN
        return None
    return name.hex(), content[_INNER.size : start], vector
