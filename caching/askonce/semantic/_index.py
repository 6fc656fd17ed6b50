"""What an index is: vectors in partitions, and what lies near one of them. And the rows it keeps.

Contract, for every index (`askonce.testing.IndexContract` checks it):

* `search` gives what is nearest by cosine, best first, of its own partition only. Vectors have length one.
* `add` with a `name` that is there replaces that row: its vector, its facts and its life.
* A row is gone at its `expires_at`, whether or not anybody searched meanwhile: a hit never extends a life.
* Bounded: when there is no room, older rows go.
* Methods may be called from any thread, at the same time, and in a child after `fork`.
* A failure is an exception: the layer goes on by exact means, and counts it.

An index is not trusted: what it returns is checked against the entry that it points to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector


class Row(NamedTuple):
    """A question in an index.

    Attributes:
        name: digest of the exact key of its answer, 64 hex digits.
        vector: float32, of length one.
        facts: what guards and checks need, opaque to the index.
        expires_at: seconds since the epoch; None: never.
        owner: who shares its answers, as a digest: quotas are by owner.
    """

    name: str
    vector: Vector
    facts: bytes
    expires_at: float | None = None
    owner: str = ""

    def __repr__(self) -> str:
        return f"<Row {self.name[:8]}, {len(self.vector)} dimensions>"


class Near(NamedTuple):
    """A row that a search found: its name, its facts, and its cosine with what was searched for."""

    name: str
    facts: bytes
    similarity: float

    def __repr__(self) -> str:
        return f"<Near {self.name[:8]}, {self.similarity:.4f}>"


class Index(Protocol):
    """See the module's text for the contract."""

    @property
    def blocking(self) -> bool:
        """True when calls may wait for a network: they are made by worker threads, within a time budget."""
        ...

    @property
    def durable(self) -> bool:
        """True when it keeps its rows itself. Others have them kept in the cache's store."""
        ...

    def add(self, partition: str, row: Row) -> None:
        """Keep a row."""
        ...

    def search(self, partition: str, vector: Vector, limit: int, least: float = -1.0) -> list[Near]:
        """The rows nearest to a vector, best first, at most `limit`, of a cosine of at least `least`."""
        ...

    def remove(self, partition: str, name: str) -> None:
        """Drop a row; harmless when it is not there."""
        ...

    def close(self) -> None:
        """Give back connections. The index may be used again."""
        ...


@runtime_checkable
class AsyncIndex(Protocol):
    """The asyncio twin of an index, for those that have one. Works on any event loop."""

    @property
    def native(self) -> bool:
        """False when this index, as it was made, has to be called by threads all the same."""
        ...

    async def aadd(self, partition: str, row: Row) -> None:
        """See `Index.add`."""
        ...

    async def asearch(self, partition: str, vector: Vector, limit: int, least: float = -1.0) -> list[Near]:
        """See `Index.search`."""
        ...

    async def aremove(self, partition: str, name: str) -> None:
        """See `Index.remove`."""
        ...


class Place(NamedTuple):
    """Where an index has a row.

    Attributes:
        partition: the first 32 digits of it.
        name: of the row.
        dimensions: of its vector.
    """

    partition: str
    name: str
    dimensions: int


@runtime_checkable
class Portable(Protocol):
    """For indexes that keep their rows themselves: their rows travel with exports and imports.

    Such an index tells partitions apart by their first 32 digits. Failures are exceptions.
    """

    def places(self) -> Iterator[Place]:
        """Where rows are, of all partitions and namespaces, each once, without loading them all at once."""
        ...

    def take(self, places: Sequence[Place]) -> list[tuple[Place, Row]]:
        """Rows by their places; what is not there is left out. Lives and owners need not be told."""
        ...

    def add_many(self, rows: Sequence[tuple[str, Row]], *, overwrite: bool = False) -> int:
        """Keep rows, each with its partition's first 32 digits, a few hundred at a time; how many were kept.

        Without `overwrite`, what is there under a row's name stays.
        """
        ...
