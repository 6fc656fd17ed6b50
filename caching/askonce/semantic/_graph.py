"""Rows of a large partition: the first ones searched exactly, those beyond by a graph (usearch, HNSW).

Nothing is moved from one part to the other, so that no single call pays for a graph of thousands of rows. A
graph finds nearly all of what is near: what it misses costs a hit, and no more, since the
similarity of what it does find is exact.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from askonce.semantic._index import Near, Row
from askonce.semantic._partition import Partition, short

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

_NEVER: Final = float("inf")
_CONNECTIVITY: Final = 8  # links of a row: more find more, and take more memory
_EXPANSION: Final = 96
_LINKS: Final = 200  # bytes a row takes besides its vector, measured with 50,000


class Large:
    """A partition of two parts, with the methods of `Partition`.

    Args:
        exact: the part that is searched exactly; it is full.
    """

    __slots__ = ("_exact", "_graph", "_most_exact", "turn")

    def __init__(self, exact: Partition) -> None:
        self._exact = exact
        self._graph = Graph(exact.dimensions)
        self._most_exact = exact.size
        self.turn = 0

    @property
    def dimensions(self) -> int:
        """Of every vector."""
        return self._exact.dimensions

    @property
    def owner(self) -> str:
        """Whose rows these are."""
        return self._exact.owner

    @property
    def size(self) -> int:
        """How many rows there are."""
        return self._exact.size + self._graph.size

    @property
    def bytes(self) -> int:
        """What the rows take, about."""
        return self._exact.bytes + self._graph.bytes

    def put(self, row: Row, most: int) -> int:
        """Add or replace a row; by how many rows the partition has grown."""
        gone = 0
        if self._exact.place_of(row.name) is None:
            gone = self._graph.drop(row.name)
            if self.size >= most:
                gone += self.drop_oldest()
            if self._exact.size >= self._most_exact:
                self._graph.add(row)
                return 1 - gone
        return self._exact.put(row, self._most_exact) - gone

    def drop(self, name: str) -> int:
        """Remove a row; how many that were."""
        return self._exact.drop(name) or self._graph.drop(name)

    def drop_oldest(self) -> int:
        """Remove an old row, of either part by its share; how many that were."""
        self.turn += 1
        if self._graph.size and self.turn % self.size >= self._exact.size:
            return self._graph.drop_oldest()
        return self._exact.drop_oldest() or self._graph.drop_oldest()

    def drop_expired(self, now: float) -> int:
        """Remove rows past their lives; how many they were."""
        return self._exact.drop_expired(now) + self._graph.drop_expired(now)

    def nearest(self, vector: Vector, limit: int, least: float, now: float) -> list[Near]:
        """The rows nearest to a vector, best first."""
        found = self._exact.nearest(vector, limit, least, now)
        found += self._graph.nearest(vector, limit, least, now)
        found.sort(key=lambda near: near.similarity, reverse=True)
        return found[:limit]


class Graph:
    """Rows in a graph. A row's key in it is its slot in the lists here; slots are used again."""

    __slots__ = ("_expires", "_facts", "_free", "_index", "_names", "_turn", "size")

    def __init__(self, dimensions: int) -> None:
        usearch: Any = import_module("usearch.index")
        self._index: Any = usearch.Index(
            ndim=dimensions,
            metric="ip",
            dtype="f32",
            connectivity=_CONNECTIVITY,
            expansion_search=_EXPANSION,
        )
        self._facts: list[bytes] = []
        self._names = np.zeros(16, np.uint64)
        self._expires = np.zeros(16, np.float64)
        self._free: list[int] = []
        self._turn = 0
        self.size = 0

    @property
    def bytes(self) -> int:
        """What the rows take, about."""
        facts = sum(map(len, self._facts)) + 41 * len(self._facts)
        # Not what the graph says of itself: that is address space, most of which is never touched.
        return (
            self.size * (4 * int(self._index.ndim) + _LINKS)
            + facts
            + self._names.nbytes
            + self._expires.nbytes
        )

    def add(self, row: Row) -> None:
        """Add a row whose name is not there."""
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._facts)
            self._facts.append(b"")
            if slot == len(self._names):
                more = min(slot, 4096)
                self._names = np.concatenate((self._names, np.zeros(more, np.uint64)))
                self._expires = np.concatenate((self._expires, np.zeros(more, np.float64)))
        self._facts[slot] = bytes.fromhex(row.name) + row.facts
        self._names[slot] = short(row.name)
        self._expires[slot] = _NEVER if row.expires_at is None else row.expires_at
        self._index.add(slot, row.vector)
        self.size += 1

    def drop(self, name: str) -> int:
        """Remove a row; how many that were."""
        wanted = bytes.fromhex(name)
        for slot in np.flatnonzero(self._names[: len(self._facts)] == short(name)):
            if self._facts[slot].startswith(wanted):
                return self._drop_at(int(slot))
        return 0

    def drop_oldest(self) -> int:
        """Remove the row whose turn it is; how many that were."""
        for _ in range(len(self._facts)):
            slot = self._turn % len(self._facts)
            self._turn += 1
            if self._facts[slot]:
                return self._drop_at(slot)
        return 0

    def drop_expired(self, now: float) -> int:
        """Remove rows past their lives; how many they were."""
        doomed = np.flatnonzero(self._expires[: len(self._facts)] <= now)
        return sum(self._drop_at(int(slot)) for slot in doomed)

    def nearest(self, vector: Vector, limit: int, least: float, now: float) -> list[Near]:
        """The rows nearest to a vector, best first, as far as the graph leads to them."""
        if not self.size:
            return []
        found = self._index.search(vector, limit)
        return [
            self._near(int(slot), 1.0 - float(distance))
            for slot, distance in zip(found.keys, found.distances, strict=True)
            if 1.0 - float(distance) >= least and self._facts[int(slot)] and self._expires[int(slot)] > now
        ]

    def _near(self, slot: int, similarity: float) -> Near:
        facts = self._facts[slot]
        return Near(facts[:32].hex(), facts[32:], min(1.0, similarity))

    def _drop_at(self, slot: int) -> int:
        if not self._facts[slot]:
            return 0
        self._index.remove(slot)
        self._facts[slot] = b""
        self._names[slot] = 0
        self._expires[slot] = _NEVER
        self._free.append(slot)
        self.size -= 1
        return 1
