"""Worker threads for a store whose calls wait for a network: bounded in number, fair, left when they hang.

A caller waits as long as it may and no longer, then goes on without its answer. What it asked for is not
begun any more; a call that hangs keeps its thread until the network gives up, and only that thread. The
threads are daemons: a server that hangs does not hold up the end of the program.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar, cast

from askonce._errors import StoreError

A = TypeVar("A")
T = TypeVar("T")

_WAITING_EACH = 64
"""Batches that may wait for each thread; more is not a queue but a server that is down."""

_local = threading.local()


class Abandoned(Exception):
    """Nobody waits any more for the work at hand."""


class TimedOut(Exception):
    """The time was over before the work was done."""


def give_up_if_abandoned() -> None:
    """Called by the work itself, where it can still stop: a request not sent is not applied late.

    Raises:
        Abandoned: the caller has gone.
    """
    batch: Batch[Any] | None = getattr(_local, "batch", None)
    if batch is not None and batch.abandoned:
        raise Abandoned


class Batch(Generic[T]):
    """The same work for several items. The first failure ends it.

    Attributes:
        future: the results, in the order of the items.
        abandoned: nobody waits for them any more.
    """

    def __init__(self, work: Callable[[A], T], items: Sequence[A]) -> None:
        self.future: Future[list[T]] = Future()
        self.abandoned = False
        self._lock = threading.Lock()
        self._work: Callable[[Any], T] = work
        self._items: Sequence[Any] = items
        self._next = 0
        self._results: list[T | None] = [None] * len(items)
        self._missing = len(items)

    def abandon(self) -> None:
        """Begin nothing more. Harmless when all is done."""
        with self._lock:
            self.abandoned = True
            self._items = ()  # values may be large, and this may wait in the queue for a while

    def step(self) -> bool:
        """Do the next item; False when there was none."""
        with self._lock:
            if self._next >= len(self._items):
                return False
            index, item = self._next, self._items[self._next]
            self._next += 1
        _local.batch = self
        try:
            result = self._work(item)
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits
            self.abandon()
            with contextlib.suppress(Exception):  # another item has failed before
                self.future.set_exception(error)
            return False
        finally:
            _local.batch = None
        with self._lock:
            self._results[index] = result
            self._missing -= 1
            if self._missing:
                return True
        self.future.set_result(cast(list[T], self._results))
        return False


class _Desk:
    """What the threads share. They do not know the crew, so a forgotten crew can end them."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Batch[Any] | None] = queue.SimpleQueue()
        self.idle: deque[None] = deque()  # one for each thread that waits; appending and popping are atomic
        self.threads = 0

    def dismiss(self) -> None:
        self.queue.put(None)


class Crew:
    """A bounded number of threads, started when needed.

    A batch occupies at most three quarters of them, and goes to the end of the queue after each item: a
    single call never waits behind all of somebody's thousand.

    Args:
        size: how many calls run at once.
        name: what the threads are called.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self.after_fork()

    def after_fork(self) -> None:
        """In the child, where the threads do not exist: begin with none."""
        self._lock = threading.Lock()
        self._desk = _Desk()

    @property
    def lanes(self) -> int:
        """How many items of one batch are worked on at once."""
        return max(1, self._size * 3 // 4)

    def submit(self, work: Callable[[A], T], items: Sequence[A]) -> Batch[T]:
        """Have `work` done for each of the items, of which there is at least one.

        Raises:
            StoreError: too many wait already.
        """
        batch = Batch(work, items)
        with self._lock:
            desk = self._desk
            if desk.queue.qsize() >= self._size * _WAITING_EACH:
                raise StoreError(f"{self._name}: all {self._size} workers are busy and the queue is full")
            for _ in range(min(len(items), self.lanes)):
                desk.queue.put(batch)
                try:
                    desk.idle.pop()
                except IndexError:
                    self._hire(desk)
        return batch

    def _hire(self, desk: _Desk) -> None:
        if desk.threads < self._size:
            name = f"{self._name}_{desk.threads}"
            threading.Thread(target=_serve, args=(desk,), name=name, daemon=True).start()
            desk.threads += 1

    def close(self) -> None:
        """Let the threads go when the queue is empty; the next call starts new ones."""
        with self._lock:
            desk, self._desk = self._desk, _Desk()
        desk.dismiss()

    def __del__(self) -> None:
        self._desk.dismiss()


def _serve(desk: _Desk) -> None:
    dismissed = False
    while True:
        try:
            batch = desk.queue.get_nowait()
        except queue.Empty:
            if dismissed:
                desk.queue.put(None)  # this one may have taken those of the others
                return
            desk.idle.append(None)
            batch = desk.queue.get()
        if batch is None:
            dismissed = True
        elif batch.step():
            desk.queue.put(batch)
        del batch  # its results belong to who waits


class Wait(Protocol):
    """How a face waits for a batch."""

    async def __call__(self, batch: Batch[T], seconds: float) -> list[T]:
        """The results; TimedOut after so many seconds."""
        ...


async def wait_here(batch: Batch[T], seconds: float) -> list[T]:
    """Block this thread; never suspends, so that a sync caller can step it."""
    try:
        return batch.future.result(seconds)
    except TimeoutError:
        if batch.future.done():  # just now, or it is the work's own error
            return batch.future.result()
        raise TimedOut from None
    finally:
        batch.abandon()


async def wait_in_loop(batch: Batch[T], seconds: float) -> list[T]:
    """Suspend this task."""
    import asyncio  # noqa: PLC0415 - whoever awaits has it already; sync programs never need it

    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle)

    batch.future.add_done_callback(wake)
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        raise TimedOut from None
    finally:
        batch.abandon()
    return batch.future.result()
