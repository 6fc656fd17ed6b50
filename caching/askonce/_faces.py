"""How the flow waits, calls and goes on in the background: once for threads, once for tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from askonce._bridge import step
from askonce._exchange import AsyncExchange, Exchange, Opened, discard
from askonce._flights import Flight, Owner, State
from askonce._fork import renew_after_fork
from askonce._reader import Reader, waker
from askonce.stores.guard import Guard
from askonce.stores.tiered import Tiers

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task

_CHECK_SECONDS: Final = 1.0
_MAX_BACKGROUND: Final = 8

Work = Callable[[], Coroutine[Any, Any, None]]
Register = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is called to wake somebody; returns what ends that."""


class Face(Protocol):
    """What the flow needs from the side it runs on."""

    def tiers(self) -> Tiers: ...
    def owner(self) -> Owner: ...
    async def open(self, exchange: Any) -> Opened: ...
    async def again(self, exchange: Any) -> Opened: ...
    async def instead(self, exchange: Any, body: bytes) -> Opened: ...
    async def gather(self, opened: Opened) -> bytes: ...
    async def breathe(self) -> None: ...
    async def wait(self, flight: Flight, patience: float | None) -> State | None: ...
    async def pause(self, register: Register, seconds: float) -> bool: ...
    async def read(self, reader: Reader, patience: float | None) -> bytes | None: ...
    async def leave(self, reader: Reader) -> None: ...
    def spawn(self, work: Work, over: Callable[[], None]) -> bool: ...


class SyncFace:
    """For threads: blocks."""

    def __init__(self, guard: Guard) -> None:
        self.tiers = guard.tiers
        self._slots = threading.BoundedSemaphore(_MAX_BACKGROUND)
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's refreshes run in the parent."""
        self._slots = threading.BoundedSemaphore(_MAX_BACKGROUND)

    def owner(self) -> Owner:
        return Owner(threading.current_thread(), None)

    async def open(self, exchange: Exchange) -> Opened:
        return exchange.open()

    async def again(self, exchange: Exchange) -> Opened:
        return exchange.again()

    async def instead(self, exchange: Exchange, body: bytes) -> Opened:
        return exchange.instead(body)

    async def gather(self, opened: Opened) -> bytes:
        """The raw body of a live response, which is closed then."""
        source: Any = opened.source
        try:
            return b"".join(source)
        finally:
            await discard(opened)

    async def breathe(self) -> None:
        """Threads need no help to take turns."""

    async def wait(self, flight: Flight, patience: float | None) -> State | None:
        """Until the flight is no longer pending; its state, or None when patience ran out."""
        gate = threading.Lock()
        gate.acquire()
        if not flight.add_waker(gate.release):
            return flight.state
        waited = 0.0
        while not gate.acquire(timeout=(slice_ := _slice(waited, patience))):
            waited += slice_
            if flight.owner.is_lost():
                return State.FAILED
            if patience is not None and waited >= patience:
                return None
        return flight.state

    async def pause(self, register: Register, seconds: float) -> bool:
        """Until woken, at most `seconds`; whether it was woken."""
        woken = threading.Event()
        remove = register(woken.set)
        try:
            return woken.wait(seconds)
        finally:
            remove()

    async def read(self, reader: Reader, patience: float | None) -> bytes | None:
        return reader.read(patience)

    async def leave(self, reader: Reader) -> None:
        reader.close()

    def spawn(self, work: Work, over: Callable[[], None]) -> bool:
        """Run `work` in a daemon thread, then `over()`; False when enough run already."""
        if not self._slots.acquire(blocking=False):
            return False

        slots = self._slots

        def run() -> None:
            try:
                step(work())
            finally:
                slots.release()
                over()

        try:
            threading.Thread(target=run, name="askonce-refresh", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is going down
            slots.release()
            return False
        return True


class AsyncFace:
    """For tasks: awaits."""

    def __init__(self, guard: Guard) -> None:
        self.tiers = guard.tiers
        self._tasks: set[Task[None]] = set()  # loops hold their tasks weakly
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's refreshes run in the parent."""
        self._tasks = set()

    def owner(self) -> Owner:
        return Owner(threading.current_thread(), _loop())

    async def open(self, exchange: AsyncExchange) -> Opened:
        return await exchange.open()

    async def again(self, exchange: AsyncExchange) -> Opened:
        return await exchange.again()

    async def instead(self, exchange: AsyncExchange, body: bytes) -> Opened:
        return await exchange.instead(body)

    async def gather(self, opened: Opened) -> bytes:
        """The raw body of a live response, which is closed then."""
        source: Any = opened.source
        try:
            return b"".join([chunk async for chunk in source])
        finally:
            await discard(opened)

    async def breathe(self) -> None:
        """Let other tasks have a turn amid long work."""
        import asyncio  # noqa: PLC0415

        await asyncio.sleep(0)

    async def wait(self, flight: Flight, patience: float | None) -> State | None:
        """See SyncFace.wait."""
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        loop = _loop()
        arrived: Future[None] = loop.create_future()
        if not flight.add_waker(waker(loop, arrived)):
            return flight.state
        waited = 0.0
        while not (await asyncio.wait([arrived], timeout=(slice_ := _slice(waited, patience))))[0]:
            waited += slice_
            if flight.owner.is_lost():
                return State.FAILED
            if patience is not None and waited >= patience:
                return None
        return flight.state

    async def pause(self, register: Register, seconds: float) -> bool:
        """See SyncFace.pause."""
        import asyncio  # noqa: PLC0415

        loop = _loop()
        woken: Future[None] = loop.create_future()
        remove = register(waker(loop, woken))
        try:
            await asyncio.wait([woken], timeout=seconds)
        finally:
            remove()
        return woken.done()

    async def read(self, reader: Reader, patience: float | None) -> bytes | None:
        return await reader.aread(patience)

    async def leave(self, reader: Reader) -> None:
        await reader.aclose()

    def spawn(self, work: Work, over: Callable[[], None]) -> bool:
        """Run `work` in a task of its own, then `over()`, also when it was cancelled before it began."""
        if len(self._tasks) >= _MAX_BACKGROUND:
            # Tasks of a loop that ended in their middle never report back.
            lost = [task for task in list(self._tasks) if task.done() or not task.get_loop().is_running()]
            self._tasks.difference_update(lost)
        if len(self._tasks) >= _MAX_BACKGROUND:
            return False
        task = _loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: over())
        return True


def _slice(waited: float, patience: float | None) -> float:
    return _CHECK_SECONDS if patience is None else max(0.001, min(_CHECK_SECONDS, patience - waited))


def _loop() -> AbstractEventLoop:
    import asyncio  # noqa: PLC0415

    return asyncio.get_running_loop()
