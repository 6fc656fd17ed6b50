"""How many values to read at once: as many as fit, judged by those just read."""

from __future__ import annotations

from typing import Final

MOST: Final = 200
MOST_BYTES: Final = 8 << 20
_FIRST: Final = 16


class Stride:
    """Grows while values are small, shrinks when they are not: answers may be a few bytes or megabytes.

    Attributes:
        count: how many to read next, 1 to 200.
    """

    def __init__(self) -> None:
        self.count = _FIRST

    def saw(self, size: int) -> None:
        """So many bytes came of the last `count` values."""
        self.count = max(1, self.count // 2) if size > MOST_BYTES else min(MOST, self.count * 2)
