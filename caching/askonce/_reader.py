"""One caller's place in a shared stream: how threads and tasks read along, and leave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from askonce._buffer import PENDING, Pending, StreamBroken
from askonce._shared import SharedStream

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

_CHECK_SECONDS: Final = 1.0

Wake: TypeAlias = Callable[[], None]


class Reader:
    """One caller's place in a SharedStream.

    Attributes:
        leads: True for the caller whose provider call it is: it sees the provider's own errors.
        position: number of chunks it has had.
    """

    __slots__ = ("_unread", "leads", "position", "stream")

    def __init__(self, stream: SharedStream, *, leads: bool) -> None:
        self.stream = stream
        self.leads = leads
        self.position = 0
        self._unread: bytes | None = None

    @classmethod
    def of(cls, stream: SharedStream, *, leads: bool = False) -> Reader | None:
        """A reader from the first chunk on; None when that is no longer possible."""
        reader = cls(stream, leads=leads)
        return reader if stream.enter(reader) else None

    def unread(self, chunk: bytes) -> None:
        """Have the next read return `chunk`, which was read to see whether the stream gets going."""
        self._unread = chunk

    def _take(self) -> bytes | Pending | None:
        chunk, self._unread = self._unread, None
        return self.stream.take(self) if chunk is None else chunk

    def read(self, patience: float | None = None) -> bytes | None:
        """The next chunk, or None at the end; blocks.

        Raises:
            StreamBroken: when a stream that somebody else leads broke.
            TimeoutError: when nothing came for `patience` seconds.
        """
        stream = self.stream
        while True:
            chunk = self._take()
            if chunk is not PENDING:
                return chunk
            if stream.loop is None and stream.claim():
                stream.pull()
                continue
            gate = threading.Lock()
            gate.acquire()
            if stream.enlist(self, gate.release, claim=True):
                if stream.loop is None:
                    stream.pull()
                else:
                    stream.start_task_from_elsewhere()
            waited = 0.0
            while not gate.acquire(timeout=_slice(waited, patience)):
                waited = self._still_worth_it(waited, patience)

    def close(self) -> None:
        """Leave; the last reader closes the provider's response."""
        stream = self.stream
        if stream.leave(self):
            if stream.loop is None:
                stream.finish()
            else:
                stream.finish_from_elsewhere()

    async def aread(self, patience: float | None = None) -> bytes | None:
        """`read`, for tasks."""
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        stream = self.stream
        while True:
            chunk = self._take()
            if chunk is not PENDING:
                return chunk
            loop = asyncio.get_running_loop()
            arrived: Future[None] = loop.create_future()
            # A worker thread may be long in coming; until it pulls, others may.
            claim = stream.loop is not None
            if stream.enlist(self, waker(loop, arrived, here=stream.loop is loop), claim=claim):
                if stream.loop is loop:
                    stream.start_task()
                elif stream.loop is None:
                    loop.run_in_executor(None, stream.pull_unless_pulled)
                else:
                    stream.start_task_from_elsewhere()
            if self.leads:
                await arrived  # its own provider call has its own time-outs
                continue
            waited = 0.0
            while not (await asyncio.wait([arrived], timeout=_slice(waited, patience)))[0]:
                waited = self._still_worth_it(waited, patience)

    async def aclose(self) -> None:
        """`close`, for tasks."""
        import asyncio  # noqa: PLC0415

        stream = self.stream
        if stream.leave(self):
            loop = asyncio.get_running_loop()
            if stream.loop is loop:
                await stream.afinish()
            elif stream.loop is None:
                await loop.run_in_executor(None, stream.finish)
            else:
                stream.finish_from_elsewhere()

    def _still_worth_it(self, waited: float, patience: float | None) -> float:
        loop = self.stream.loop
        if loop is not None and (loop.is_closed() or not loop.is_running()):
            raise StreamBroken(None)
        waited += _slice(waited, patience)
        if patience is not None and waited >= patience:
            raise TimeoutError
        return waited


def _slice(waited: float, patience: float | None) -> float:
    return _CHECK_SECONDS if patience is None else max(0.001, min(_CHECK_SECONDS, patience - waited))


def waker(loop: AbstractEventLoop, future: Future[None], *, here: bool = False) -> Wake:
    """A function that completes `future`; `here` when it is only ever called on that loop."""

    def arrive() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(arrive)

    return arrive if here else wake
