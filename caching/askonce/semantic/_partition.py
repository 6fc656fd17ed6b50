"""The rows of one partition in memory: vectors in blocks, searched by one product each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from askonce.semantic._index import Near, Row

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

_BLOCK: Final = 1024
_FEW: Final = 8
_ROUNDING: Final = 1e-6
_NEVER: Final = float("inf")


class Partition:
    """Rows of one number of dimensions. Not for use by several threads at once.

    Vectors lie in blocks of 1024, so that a growing partition copies nothing and wastes little: the
    first block grows by doubling until it is full. Places are filled without gaps; the last row moves into
    the place of one that is removed.

    Args:
        dimensions: of every vector.
        owner: whose rows these are.
    """

    __slots__ = ("_blocks", "_expires", "_facts", "_names", "dimensions", "owner", "size", "turn")

    def __init__(self, dimensions: int, owner: str) -> None:
        self.dimensions = dimensions
        self.owner = owner
        self.size = 0
        self.turn = 0  # the place whose row goes next when there is no room
        self._blocks: list[Any] = []
        self._facts: list[bytes] = []
        self._names = np.zeros(1, np.uint64)
        self._expires = np.zeros(1, np.float64)

    def put(self, row: Row, most: int) -> int:
        """Add or replace a row; by how many rows the partition has grown."""
        place = self.place_of(row.name)
        grown = 0
        if place is None:
            if self.size >= most:
                place, self.turn = self.turn % self.size, self.turn + 1
            else:
                place, grown = self.size, 1
                self._grow()
        self._facts[place] = bytes.fromhex(row.name) + row.facts
        self._names[place] = short(row.name)
        self._expires[place] = _NEVER if row.expires_at is None else row.expires_at
        self._blocks[place // _BLOCK][place % _BLOCK] = row.vector
        return grown

    def place_of(self, name: str) -> int | None:
        """Where the row of this name is."""
        wanted = bytes.fromhex(name)
        for place in np.flatnonzero(self._names[: self.size] == short(name)):
            if self._facts[place].startswith(wanted):
                return int(place)
        return None

    def drop(self, name: str) -> int:
        """Remove a row; how many that were."""
        place = self.place_of(name)
        if place is None:
            return 0
        self._drop_at(place)
        return 1

    def drop_oldest(self) -> int:
        """Remove the row whose turn it is; how many that were."""
        if not self.size:
            return 0
        self._drop_at(self.turn % self.size)
        return 1

    def drop_expired(self, now: float) -> int:
        """Remove rows past their lives; how many they were."""
        doomed = np.flatnonzero(self._expires[: self.size] <= now)
        for place in doomed[::-1]:  # from the end: a row that moves is none of those still to go
            self._drop_at(int(place))
        return len(doomed)

    def nearest(self, vector: Vector, limit: int, least: float, now: float) -> list[Near]:
        """The rows nearest to a vector, best first, of a cosine of at least `least`."""
        if not self.size:
            return []
        scores = np.empty(self.size, np.float32)
        for number, block in enumerate(self._blocks):
            start = number * _BLOCK
            end = min(start + _BLOCK, self.size)
            np.dot(block[: end - start], vector, out=scores[start:end])
        # Rounding puts a cosine of -1, or the very least, a little below itself.
        best = np.flatnonzero(scores >= least - _ROUNDING)
        if best.size > _FEW:
            best = best[self._expires[best] > now]
            if best.size > limit:
                best = best[np.argpartition(scores[best], -limit)[-limit:]]
        ordered = best[np.argsort(scores[best])[::-1]]
        found = [
            self.near(int(place), float(scores[place])) for place in ordered if self._expires[place] > now
        ]
        return found[:limit]

    def near(self, place: int, similarity: float) -> Near:
        """A row as a search tells of it."""
        facts = self._facts[place]
        return Near(facts[:32].hex(), facts[32:], min(1.0, similarity))

    @property
    def bytes(self) -> int:
        """What the rows take, about."""
        facts = sum(map(len, self._facts)) + 41 * len(self._facts)  # the object itself, and its place
        return (
            sum(int(block.nbytes) for block in self._blocks)
            + facts
            + self._names.nbytes
            + self._expires.nbytes
        )

    def _grow(self) -> None:
        if self.size == len(self._names):
            more = min(max(1, self.size), _BLOCK)
            self._names = np.concatenate((self._names, np.zeros(more, np.uint64)))
            self._expires = np.concatenate((self._expires, np.zeros(more, np.float64)))
        block, place = divmod(self.size, _BLOCK)
        if block == len(self._blocks):
            self._blocks.append(np.empty((_BLOCK if block else 1, self.dimensions), np.float32))
        elif place == len(self._blocks[block]):
            old = self._blocks[block]
            new = np.empty((min(_BLOCK, 2 * place), self.dimensions), np.float32)
            new[:place] = old
            self._blocks[block] = new
        self._facts.append(b"")
        self.size += 1

    def _drop_at(self, place: int) -> None:
        last = self.size - 1
        if place != last:
            self._facts[place] = self._facts[last]
            self._names[place] = self._names[last]
            self._expires[place] = self._expires[last]
            moved = self._blocks[last // _BLOCK][last % _BLOCK]
            self._blocks[place // _BLOCK][place % _BLOCK] = moved
        self._facts.pop()
        self.size = last
        if last % _BLOCK == 0 and len(self._blocks) > 1:
            self._blocks.pop()


def short(name: str) -> Any:
    """The beginning of a name as a number: enough to find the few places to look at."""
    return np.uint64(int(name[:16], 16))
