"""The index in this process's memory: exact, in numpy, bounded."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from askonce import _clock
from askonce._clock import Clock
from askonce._errors import missing_extra, not_allowed
from askonce._fork import renew_after_fork
from askonce.semantic._index import Near, Row

if TYPE_CHECKING:
    from askonce.semantic._graph import Large
    from askonce.semantic._partition import Partition
    from askonce.semantic._vector import Vector

_MOST: Final = 100_000
_MOST_EACH: Final = 20_000
_EXACT: Final = 10_000


class LocalIndex:
    """Vectors in memory: a search takes some 30 us at 1,000 rows a partition, and 1 ms at 10,000.

    Up to 10,000 rows of a partition are searched exactly, and more of them by a graph where the package
    usearch is installed (extra `usearch`); without it they are searched exactly, too, and take longer.

    Rows are kept in the cache's store as well, so a new process, and others over the same store, know them.
    When there is no room, the oldest rows go, those of the owner who has too many first.

    Args:
        max_rows: rows in all; 100,000 of 384 dimensions take about 170 MB.
        max_rows_per_partition: rows of one partition.
        max_rows_per_scope: rows of one scope (tenant), in all its partitions; None: as many as there are.
        exact_rows: rows of a partition that are searched exactly, though usearch is installed.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: for a bad option, or without numpy.
    """

    blocking = False
    durable = False

    def __init__(
        self,
        *,
        max_rows: int = _MOST,
        max_rows_per_partition: int = _MOST_EACH,
        max_rows_per_scope: int | None = None,
        exact_rows: int = _EXACT,
        clock: Clock = _clock.wall,
    ) -> None:
        for option, value in (
            ("max_rows", max_rows),
            ("max_rows_per_partition", max_rows_per_partition),
            ("exact_rows", exact_rows),
            ("max_rows_per_scope", max_rows if max_rows_per_scope is None else max_rows_per_scope),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise not_allowed(option, value, "a whole number of rows, at least 1")
        need_numpy("LocalIndex")
        self._most = max_rows
        self._most_each = max_rows_per_partition
        self._most_owned = max_rows_per_scope or max_rows
        self._exact = exact_rows if find_spec("usearch") is not None else 0
        self._clock = clock
        self._lock = threading.RLock()
        self._forget()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child. Half a change that a thread was making is made good by forgetting."""
        self._lock = threading.RLock()
        self._forget()

    def add(self, partition: str, row: Row) -> None:
        """See `Index.add`."""
        from askonce.semantic._partition import Partition  # noqa: PLC0415 - numpy, with the first row

        now = self._clock()
        with self._lock:
            if row.expires_at is not None and row.expires_at <= now:
                self._drop(partition, row.name)
                return
            rows = self._partitions.get(partition)
            if rows is not None and rows.dimensions != len(row.vector):
                self._let_go(partition, rows)  # another model's: a new index, never a mix
                rows = None
            if rows is None:
                rows = self._partitions[partition] = Partition(len(row.vector), row.owner)
            self._use(partition, rows)
            if rows.size >= self._most_each:
                self._count(rows, -rows.drop_expired(now))
            if rows.size == self._exact and isinstance(rows, Partition):
                rows = self._partitions[partition] = self._large(rows)
            self._count(rows, rows.put(row, self._most_each))
            while self._owned[rows.owner] > self._most_owned:
                self._make_room(next(iter(self._of_owner[rows.owner])))
            while self._size > self._most:
                self._make_room(next(iter(self._partitions)))

    def search(self, partition: str, vector: Vector, limit: int, least: float = -1.0) -> list[Near]:
        """See `Index.search`."""
        with self._lock:
            rows = self._partitions.get(partition)
            if rows is None or rows.dimensions != len(vector):
                return []
            self._use(partition, rows)
            return rows.nearest(vector, limit, least, self._clock())

    def remove(self, partition: str, name: str) -> None:
        """See `Index.remove`."""
        with self._lock:
            self._drop(partition, name)

    def close(self) -> None:
        """Forget all rows: they are in the cache's store."""
        with self._lock:
            self._forget()

    def __len__(self) -> int:
        return self._size

    @property
    def bytes(self) -> int:
        """What the rows take in memory, about."""
        with self._lock:
            return sum(rows.bytes for rows in self._partitions.values())

    def __repr__(self) -> str:
        return f"<LocalIndex {self._size} rows in {len(self._partitions)} partitions>"

    def _forget(self) -> None:
        self._partitions: OrderedDict[str, Partition | Large] = OrderedDict()  # the least recently used first
        self._of_owner: dict[str, OrderedDict[str, None]] = {}  # likewise, each owner's
        self._owned: Counter[str] = Counter()
        self._size = 0

    @staticmethod
    def _large(rows: Partition) -> Large:
        from askonce.semantic._graph import Large  # noqa: PLC0415 - usearch, with the first large partition

        return Large(rows)

    def _use(self, partition: str, rows: Partition | Large) -> None:
        self._partitions.move_to_end(partition)
        theirs = self._of_owner.setdefault(rows.owner, OrderedDict())
        theirs[partition] = None
        theirs.move_to_end(partition)

    def _count(self, rows: Partition | Large, change: int) -> None:
        self._size += change
        self._owned[rows.owner] += change

    def _drop(self, partition: str, name: str) -> None:
        rows = self._partitions.get(partition)
        if rows is not None:
            self._count(rows, -rows.drop(name))
            if not rows.size:
                self._let_go(partition, rows)

    def _make_room(self, partition: str) -> None:
        rows = self._partitions[partition]
        self._count(rows, -rows.drop_oldest())
        if not rows.size:
            self._let_go(partition, rows)

    def _let_go(self, partition: str, rows: Partition | Large) -> None:
        """Forget a partition, whatever is in it."""
        self._count(rows, -rows.size)
        del self._partitions[partition]
        theirs = self._of_owner[rows.owner]
        del theirs[partition]
        if not theirs:
            del self._of_owner[rows.owner], self._owned[rows.owner]


def need_numpy(what: str) -> None:
    """See that numpy is there, without loading it.

    Raises:
        ConfigurationError: it is not; says how to install it.
    """
    if find_spec("numpy") is None:
        raise missing_extra("numpy", "semantic", what)
