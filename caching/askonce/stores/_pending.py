"""Writes that were promised and not made yet: bounded, the latest for each key, seen by readers.

A write waits in the queue, then flies: it was taken by the writer, and the store is being told. Both are
visible to readers. Deleting a key puts a removal in the place of its write; one that flies lands anyway, so
it is marked, and followed by the removal.

A write whose expiry is past is a removal: the store may hold an older value of that key, with a longer life.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from askonce._clock import Clock

_GONE: Final = float("-inf")


@dataclass(slots=True, eq=False)
class Write:
    """One promised write.

    Attributes:
        void: deleted by somebody while it flies.
        strikes: how often it failed although others had succeeded in between.
        seen: how many had succeeded when it last failed; the writer's.
    """

    key: str
    value: bytes
    expires_at: float | None
    void: bool = False
    strikes: int = 0
    seen: int | None = None

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return len(self.key) + len(self.value)

    def live(self, now: float) -> bool:
        """Not expired."""
        return self.expires_at is None or now < self.expires_at


class Forgotten(NamedTuple):
    """What `Pending.forget` did.

    Attributes:
        alive: the keys known there, and whether they held a value.
        flies: whether a write of any of them flies.
        removals: what stands in the queue for them, for `Pending.settled`.
    """

    alive: dict[str, bool]
    flies: bool
    removals: list[Write]


class Pending:
    """The queue and what flies. Its one lock is held for moments only, never while a store works.

    Args:
        max_entries: bound on the writes held, those that fly included.
        max_bytes: bound on their keys and values.
        clock: seconds since the epoch, for expiry.

    Attributes:
        changed: notified when writes are added, and when they have landed or come back.
    """

    def __init__(self, max_entries: int, max_bytes: int, clock: Clock) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self.begin_empty()

    def begin_empty(self) -> None:
        """Forget everything, locks included: at first, and in a forked child."""
        self.changed = threading.Condition()
        self._queue: OrderedDict[str, Write] = OrderedDict()
        self._flying: dict[str, Write] = {}
        self._bytes = 0
        self._wakers: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._queue) + len(self._flying)

    def __bool__(self) -> bool:
        return bool(self._queue or self._flying)

    @property
    def bytes(self) -> int:
        """Of all keys and values held."""
        return self._bytes

    @property
    def waiting(self) -> bool:
        """Something can be taken."""
        return bool(self._queue)

    def put(self, write: Write) -> list[Write]:
        """Promise a write; it replaces a waiting one for its key. Returns what had to go for it."""
        lost: list[Write] = []
        with self.changed:
            self._discard(write.key)
            if write.size > self._max_bytes:
                return [write]
            self._bytes += write.size
            self._queue[write.key] = write
            while self._bytes > self._max_bytes or len(self) > self._max_entries:
                oldest = self._discard(next(iter(self._queue)))
                assert oldest is not None  # noqa: S101 - it was just seen
                lost.append(oldest)
            self.changed.notify_all()
        return lost

    def find(self, key: str) -> Write | None:
        """The promised write of a key, the removal of it, or None: the store knows."""
        with self.changed:
            write = self._queue.get(key)
            if write is None:
                write = self._flying.get(key)
                if write is not None and write.void:
                    return Write(key, b"", _GONE)
            return write

    def under(self, prefix: str) -> dict[str, bool]:
        """The keys with a promised write or removal, and whether they are alive."""
        now = self._clock()
        with self.changed:
            writes = {**self._flying, **self._queue}
        return {
            key: write.live(now) and not write.void for key, write in writes.items() if key.startswith(prefix)
        }

    def forget(self, keys: Iterable[str]) -> Forgotten:
        """Unpromise: readers find the keys gone, whatever the store may still have of them.

        That stands in the queue as a removal, until `settled`: should the caller fail to remove them from
        the store, a value that was overwritten here would be back else.
        """
        now = self._clock()
        alive: dict[str, bool] = {}
        removals: list[Write] = []
        flies = False
        with self.changed:
            for key in dict.fromkeys(keys):
                flying, waiting = self._flying.get(key), self._discard(key)
                latest = waiting or flying  # it says what the key held
                if latest is None:
                    continue
                alive[key] = latest.live(now) and not latest.void
                if flying is not None:
                    flies = flying.void = True
                removals.append(Write(key, b"", _GONE))
                self._return(removals[-1], last=True)
        return Forgotten(alive, flies, removals)

    def settled(self, removals: Iterable[Write]) -> None:
        """The store has nothing of these any more: no removal is needed."""
        with self.changed:
            for removal in removals:
                if self._queue.get(removal.key) is removal:
                    self._discard(removal.key)
            self.changed.notify_all()

    def drop_all(self) -> list[Write]:
        """Empty the queue; what was alive in it. What flies goes on."""
        now = self._clock()
        with self.changed:
            lost = [write for write in self._queue.values() if write.live(now)]
            for key in list(self._queue):
                self._discard(key)
            self.changed.notify_all()
        return lost

    # -- the writer's side ----------------------------------------------------------------------

    def take(self, most: int, most_bytes: int) -> list[Write]:
        """Let the oldest fly, at least one if any waits. Only one batch flies at a time."""
        batch: list[Write] = []
        size = 0
        with self.changed:
            for key, write in self._queue.items():
                size += write.size
                if batch and (len(batch) >= most or size > most_bytes):
                    break
                self._flying[key] = write
                batch.append(write)
            for write in batch:
                del self._queue[write.key]
        return batch

    def landed(self, back: Iterable[Write] = (), *, last: bool = False) -> None:
        """What flew has ended; `back` has to be tried again, as the first or the last in the queue."""
        with self.changed:
            flown, self._flying = self._flying, {}
            self._bytes -= sum(write.size for write in flown.values())
            for write in reversed(list(back)):
                if not write.void and write.key not in self._queue:
                    self._return(write, last=last)
            for write in flown.values():
                if write.void and write.key not in self._queue:
                    self._return(Write(write.key, b"", _GONE), last=True)
            wakers, self._wakers = self._wakers, []
            self.changed.notify_all()
        for wake in wakers:
            with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                wake()

    def _return(self, write: Write, *, last: bool) -> None:
        self._queue[write.key] = write
        self._queue.move_to_end(write.key, last=last)
        self._bytes += write.size

    def _discard(self, key: str) -> Write | None:
        write = self._queue.pop(key, None)
        if write is not None:
            self._bytes -= write.size
        return write

    # -- waiting --------------------------------------------------------------------------------

    def flies(self, keys: Iterable[str]) -> bool:
        """Whether a write of any of the keys flies."""
        return any(key in self._flying for key in keys)

    def wait(self, over: Callable[[], bool], timeout: float) -> bool:
        """Wait in a thread until `over()`, checked after each change; whether it came true."""
        end = time.monotonic() + timeout
        with self.changed:
            while not over():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(left)
        return True

    async def await_(self, over: Callable[[], bool], timeout: float) -> bool:  # noqa: ASYNC109 - it returns
        """`wait`, in a task: checked after each landing."""
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        loop = asyncio.get_running_loop()
        end = time.monotonic() + timeout
        while True:
            landing = asyncio.Event()
            with self.changed:
                if over():
                    return True
                self._wakers.append(partial(loop.call_soon_threadsafe, landing.set))
            try:
                await asyncio.wait_for(landing.wait(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                return False
