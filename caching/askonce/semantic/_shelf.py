"""Where rows outlive the process: in the cache's store, read back in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from askonce._backing import Backing
from askonce._bridge import step
from askonce._call import Call
from askonce._errors import StoreError
from askonce._events import warn
from askonce._fork import renew_after_fork
from askonce._seal import Seal
from askonce.semantic import _rows
from askonce.semantic._index import Index, Row
from askonce.stores._crew import Crew, TimedOut, wait_here, wait_in_loop

_BATCH: Final = 200
_LIST_EVERY: Final = 300.0


class Shelf:
    """Puts rows into the store, and gets those of earlier and other processes out of it.

    A partition's rows are asked for when it is first used, and read by a thread: the call at hand goes on
    without them. What others add is noticed every five minutes.

    Args:
        backing: the stores.
        index: where the rows belong.
        seal: of the cache.
        most: rows read of one partition.
        count: told of each row that was read.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        backing: Backing,
        index: Index,
        seal: Seal | None,
        *,
        most: int,
        count: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backing = backing
        self._index = index
        self._seal = seal
        self._most = most
        self._count = count
        self._clock = clock
        self._crew = Crew(1, "askonce-rows")
        self._known: dict[str, float] = {}  # partition -> when it was last asked for
        self._done: set[str] = set()  # of those, the partitions that have been read
        self._listed: dict[str, tuple[float, dict[str, list[str]]]] = {}  # namespace -> when, names
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's thread does not exist in a forked child."""
        self._crew.after_fork()
        self.forget()

    def forget(self) -> None:
        """Read everything anew."""
        self._known, self._done, self._listed = {}, set(), {}

    def want(self, namespace: str, partition: str, owner: str) -> None:
        """Have the rows of a partition read, unless they were a while ago."""
        now = self._clock()
        if now - self._known.get(partition, -_LIST_EVERY) < _LIST_EVERY:
            return
        if len(self._known) >= self._most:
            self._known.clear()
            self._done.clear()
        self._known[partition] = now
        self._done.discard(partition)
        try:
            self._crew.submit(lambda _: self._read(namespace, partition, owner), [None])
        except StoreError:  # too many are being read already
            self._known.pop(partition, None)

    async def wanted(self, call: Call, partition: str, patience: float) -> None:
        """Wait until the rows of a partition that are wanted have been read, so many seconds at most."""
        if partition in self._done:
            return
        on_loop = call.face.owner().loop is not None
        try:
            # The crew is one thread: whoever comes to his turn has all before him done.
            turn = self._crew.submit(lambda _: None, [None])
            await (wait_in_loop if on_loop else wait_here)(turn, patience)
        except (TimedOut, StoreError):
            return

    async def put(self, call: Call, namespace: str, partition: str, row: Row) -> None:
        """Keep a row, as long as its entry lives."""
        key = _rows.key_of(namespace, partition, row.name)
        await call.tiers.set(key, _rows.encode(key, row, self._seal), row.expires_at)

    def put_later(self, namespace: str, partition: str, row: Row) -> None:
        """`put`, by a thread that nobody waits for."""
        key = _rows.key_of(namespace, partition, row.name)
        step(self._backing.sync_guard.tiers().set(key, _rows.encode(key, row, self._seal), row.expires_at))

    async def drop(self, call: Call, namespace: str, partition: str, name: str) -> None:
        """Keep it no longer."""
        await call.tiers.delete(_rows.key_of(namespace, partition, name))

    def close(self) -> None:
        """Let the thread go."""
        self._crew.close()
        self.forget()

    def _read(self, namespace: str, partition: str, owner: str) -> None:
        try:
            names = iter(self._names(namespace).get(_rows.partition_in(f":{partition}"), ()))
            tiers = self._backing.sync_tiers
            while batch := list(islice(names, _BATCH)):
                found = step(tiers.get_many(batch, copy_up=False))
                doomed: list[str] = []
                for key, stored in found.items():
                    row = _rows.decode(key, stored.value, self._seal)
                    if row is None:
                        doomed.append(key)
                        continue
                    name, facts, vector = row
                    self._index.add(partition, Row(name, vector, facts, stored.expires_at, owner))
                    self._count("rows read")
                if doomed:
                    step(tiers.delete(*doomed))
        except Exception as error:  # noqa: BLE001 - rows are worth a hit, not an error
            warn("semantic", "the index could not be read from the store (%s)", type(error).__name__)
        self._done.add(partition)

    def _names(self, namespace: str) -> dict[str, list[str]]:
        """The keys of a namespace's rows, by partition. Listed for all at once: listing may be slow."""
        now = self._clock()
        listed = self._listed.get(namespace)
        if listed is not None and now - listed[0] < _LIST_EVERY:
            return listed[1]
        found: dict[str, list[str]] = {}
        for key in step(self._backing.sync_tiers.scan(_rows.prefix_of(namespace))):
            names = found.setdefault(_rows.partition_in(key), [])
            if len(names) < self._most:
                names.append(key)
        self._listed[namespace] = (now, found)
        return found
