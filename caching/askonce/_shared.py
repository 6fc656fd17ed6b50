"""A provider's live stream, read by its leader and by everybody who asked the same meanwhile.

Nothing reads ahead: whichever reader wants the next chunk first has it pulled, for all. So the provider
is read at the pace of the fastest reader, a leader that pauses or leaves does not stop the others, and
the connection is held exactly as long as somebody reads. The last reader to leave closes it.

An async source is pulled by a task of its own on the leader's loop, so that one reader's cancellation
never tears the connection under the others; a sync source is pulled by whichever thread needs it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from askonce._bridge import step
from askonce._buffer import PENDING, Buffer, Pending, Place, StreamBroken
from askonce._recorder import Recorder
from askonce._task import begin_task

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

_IDLE_SECONDS: Final = 2.0

Settle: TypeAlias = Callable[[Recorder], Coroutine[Any, Any, None]]
Wake: TypeAlias = Callable[[], None]


class SharedStream:
    """The stream and its chunks so far.

    Args:
        source: the provider's raw body: an iterator for sync clients, an async one otherwise.
        close: closes the provider's response; a coroutine function when the source is async.
        recorder: is fed every chunk, once.
        settle: run once, when the recorder is complete or has dropped the stream. Must not raise.
        limit: bytes kept for readers who lag behind, once the stream is not recorded any more.
        loop: the event loop of an async source; None for a sync one.
    """

    __slots__ = (
        "__weakref__", "_active", "_buffer", "_close", "_closed", "_ended", "_error", "_held", "_lock",
        "_orphaned", "_pulling", "_settle", "_settling", "_source", "_task", "_wakers", "loop", "recorder",
    )  # fmt: skip

    def __init__(
        self,
        *,
        source: Iterator[bytes] | AsyncIterator[bytes],
        close: Callable[[], Any],
        recorder: Recorder,
        settle: Settle,
        limit: int,
        loop: AbstractEventLoop | None,
    ) -> None:
        self.recorder = recorder
        self.loop = loop
        self._source: Any = source
        self._close = close
        self._settle: Settle | None = settle
        self._lock = threading.RLock()
        self._buffer = Buffer(limit)
        self._ended = False
        self._error: BaseException | None = None
        self._pulling = False
        self._closed = False
        self._orphaned = False  # the last reader left in the middle of a pull; who pulls, closes
        self._settling = False
        self._task: Task[None] | None = None  # the pull under way
        self._held: set[Task[None]] = set()
        self._wakers: list[Wake] = []
        self._active = time.monotonic()

    # -- who reads ------------------------------------------------------------------------------

    def joinable(self, *, lost: bool) -> bool:
        """Whether a newcomer can still get all of it, and soon. `lost`: the leader cannot go on."""
        if self._buffer.base or self._error is not None or self.recorder.state == "dropped":
            return False
        if self._ended:
            return True
        if self._closed or (lost and self.loop is not None):
            return False
        return self._pulling or time.monotonic() - self._active < _IDLE_SECONDS

    def enter(self, reader: Place) -> bool:
        """Somebody who reads from the first chunk on; False when that is no longer possible."""
        with self._lock:
            if self._buffer.base or (self._closed and not self._ended):
                return False
            self._buffer.readers.append(reader)
            return True

    def leave(self, reader: Place) -> bool:
        """The reader goes; True when it was the last one and has to close the source."""
        with self._lock:
            readers = self._buffer.readers
            if reader not in readers:
                return False
            readers.remove(reader)
            if readers or self._closed:
                return False
            self._closed = True
            if self._pulling and self.loop is None:
                self._orphaned = True
                return False
            return True

    # -- what was read --------------------------------------------------------------------------

    def take(self, reader: Place) -> bytes | Pending | None:
        """The reader's next chunk; None at the end; PENDING when it is not here yet.

        Raises:
            StreamBroken: for a follower, when there will be no more; the leader gets the error itself.
        """
        buffer, recorded = self._buffer, self.recorder.state != "dropped"
        with self._lock:
            if not recorded and not reader.leads and buffer.leader_lags():
                raise StreamBroken(None)
            chunk = buffer.take(reader)
            if chunk is not PENDING:
                if not recorded:
                    buffer.trim()
                return chunk
            if self._error is not None:
                raise self._error if reader.leads else StreamBroken(self._error)
            if not self._ended:
                return PENDING
            if not reader.leads and self.recorder.is_cut:
                raise StreamBroken(None)
            return None

    # -- pulling --------------------------------------------------------------------------------

    def claim(self) -> bool:
        """True when the caller must pull now; False when somebody does, or there is nothing left."""
        with self._lock:
            if self._pulling or self._ended or self._error is not None:
                return False
            self._pulling = True
            return True

    def enlist(self, reader: Place, wake: Wake, *, claim: bool) -> bool:
        """Have `wake()` called when there is something new.

        Returns:
            True when nobody pulls and the caller must see to it; with `claim`, the pull is the caller's.
        """
        with self._lock:
            if self._buffer.has_for(reader) or self._ended or self._error is not None:
                wake()
                return False
            self._wakers.append(wake)
            if self._pulling:
                return False
            self._pulling = claim
            return True

    def pull(self) -> None:
        """Pull one chunk of a sync source in this thread, after a claim."""
        chunk: bytes | None = None
        error: BaseException | None = None
        try:
            chunk = next(self._source, None)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            try:
                if self._record(chunk, error):
                    step(self._settled())
            finally:
                self._pulled(chunk, error)

    def pull_unless_pulled(self) -> None:
        """`pull`, on a worker thread, unless somebody else was faster."""
        if self.claim():
            self.pull()

    async def apull(self) -> None:
        """Pull one chunk of an async source on its own loop, after a claim."""
        chunk: bytes | None = None
        error: BaseException | None = None
        try:
            chunk = await anext(self._source, None)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            try:
                if self._record(chunk, error):
                    self._settling = True
                    await self._settled()
            finally:
                self._settling = False
                self._task = None
                self._pulled(chunk, error)

    def start_task(self) -> None:
        """`apull` in a task, on the source's loop, after a claim."""
        assert self.loop is not None  # noqa: S101 - sync sources are pulled by threads
        self._task = begin_task(self.loop, self.apull, self._held)

    def start_task_from_elsewhere(self) -> None:
        """`start_task` from another thread or loop."""
        assert self.loop is not None  # noqa: S101
        try:
            self.loop.call_soon_threadsafe(self.start_task)
        except RuntimeError:  # that loop is closed, and the connection with it
            self._pulled(None, StreamBroken(None))

    def _record(self, chunk: bytes | None, error: BaseException | None) -> bool:
        """Feed the recorder and hand a chunk out; True when there is something to settle.

        A chunk is its readers' at once, also the last one: they do not wait for a store. The end and an
        error they see only afterwards, so that whoever has read to the end finds the answer settled.
        """
        recorder = self.recorder
        if error is not None:
            recorder.abort("cut")
        elif chunk is None:
            recorder.eof()
        else:
            recorder.feed(chunk)
            with self._lock:
                self._buffer.append(chunk)
                if recorder.state == "dropped":
                    self._buffer.trim()
                wakers, self._wakers = self._wakers, []
            for wake in wakers:
                wake()
        return self._settle is not None and recorder.state != "recording"

    def _pulled(self, chunk: bytes | None, error: BaseException | None) -> None:
        """The pull is over: who wants more may pull; if nobody is left, close."""
        with self._lock:
            self._active = time.monotonic()
            self._pulling = False
            if error is not None:
                # Somebody's Ctrl-C or cancellation is nobody else's: to others the stream just broke.
                self._error = error if isinstance(error, Exception) else StreamBroken(error)
            elif chunk is None:
                self._ended = True
            wakers, self._wakers = self._wakers, []
            orphaned, self._orphaned = self._orphaned, False
        for wake in wakers:
            wake()
        if orphaned:
            self.finish()

    async def _settled(self) -> None:
        settle, self._settle = self._settle, None
        if settle is not None:
            await settle(self.recorder)

    # -- closing --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close a sync source; nobody reads any more."""
        try:
            self._close()
        finally:
            self.recorder.abort("closed early")
            step(self._settled())

    async def afinish(self) -> None:
        """Close an async source on its own loop; the caller was the last reader.

        The work is done in a task of its own: a cancellation of the caller, or a second one, must not
        leave the connection open.
        """
        import asyncio  # noqa: PLC0415 - we run on a loop

        await asyncio.shield(self._start_finish())

    def _start_finish(self) -> Task[None]:
        assert self.loop is not None  # noqa: S101
        return begin_task(self.loop, self._finish_task, self._held)

    async def _finish_task(self) -> None:
        import asyncio  # noqa: PLC0415

        pull = self._task
        try:
            if pull is not None:
                if not self._settling:  # what is whole is being stored: that much time there is
                    self.recorder.abort("closed early")
                    pull.cancel()
                await asyncio.wait([pull])
            await self._close()
        finally:
            self.recorder.abort("closed early")
            await self._settled()

    def finish_from_elsewhere(self) -> None:
        """`afinish` from another thread or loop; nobody waits for it."""
        assert self.loop is not None  # noqa: S101
        with suppress(RuntimeError):  # that loop is closed, and the connection with it
            self.loop.call_soon_threadsafe(self._start_finish)
