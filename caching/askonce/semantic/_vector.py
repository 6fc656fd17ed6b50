"""Vectors: what an embedder gave, checked and brought to length one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]


class BadVector(Exception):
    """What an embedder gave cannot be compared. Says why, in a word or two."""


def unit(given: Any) -> Vector:
    """One text's vector, as a float32 array of length one.

    Args:
        given: what the embedder returned for one text: an array (1, d), or lists of numbers.

    Raises:
        BadVector: it is no such thing, holds a NaN or an infinity, or is all zeros.
    """
    import numpy as np  # noqa: PLC0415 - loaded with the first embedding, not with askonce

    try:
        # A copy: what an embedder keeps and changes later must not change what is compared.
        rows = np.array(given, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise BadVector("no numbers") from None
    if rows.ndim != 2 or rows.shape[0] != 1 or not rows.shape[1]:  # noqa: PLR2004
        raise BadVector("shape")
    vector: Vector = rows[0]
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length):
        raise BadVector("not finite")
    if not length:
        raise BadVector("zero")
    vector /= np.float32(length)
    if not np.isfinite(vector).all():
        raise BadVector("not finite")
    return vector


def of_bytes(value: bytes) -> Vector:
    """A vector from its bytes: float32, little-endian."""
    import numpy as np  # noqa: PLC0415 - as in `unit`

    vector: Vector = np.frombuffer(value, "<f4").astype(np.float32)
    return vector
