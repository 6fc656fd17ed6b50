"""The thread that makes promised writes: in batches, again after failures, and before the process ends.

It runs while there is something to write and a little longer. A store that fails is tried again with one
write at a time and growing pauses; nothing is given up for that, the queue's bound decides. Only a write
that fails while others succeed is given up after a few times, and one that the store refuses at once.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from askonce._clock import Clock
from askonce._deadline import set_deadline
from askonce._errors import Refused
from askonce.stores._pending import Pending, Write
from askonce.stores.protocol import Store

_BATCH: Final = 64
_BATCH_BYTES: Final = 8 << 20
_PATIENCE: Final = 10.0
"""Seconds that one batch may take."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_IDLE: Final = 5.0
"""Seconds that the thread stays without work."""
_STRIKES: Final = 3
_TRIES_AT_END: Final = 2
"""Failures in a row after which a flush gives up."""
EXIT_SECONDS: Final = 5.0
"""What the end of the process may wait for all queues together."""

_used: weakref.WeakSet[Writer] = weakref.WeakSet()


class Writer:
    """Makes the writes of one queue. At most one thread per queue writes.

    Args:
        store: where to.
        pending: what to write.
        clock: seconds since the epoch, for expiry.
        trouble: told of every failed write: operation, exception.
        lost: told of every write that is given up, and why.
    """

    def __init__(
        self,
        store: Store,
        pending: Pending,
        clock: Clock,
        trouble: Callable[[str, Exception], None],
        lost: Callable[[Write, str], None],
    ) -> None:
        self._store = store
        self._pending = pending
        self._clock = clock
        self._trouble = trouble
        self._lost = lost
        self.begin_idle()

    def begin_idle(self) -> None:
        """No thread, no past failures: at first, and in a forked child."""
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._batch = _BATCH
        self._successes = 0
        self.failures = 0
        self.pause_until = 0.0

    def wake(self) -> None:
        """Have a thread write what is pending."""
        if self._running():
            return
        with self._pending.changed:
            if self._running():
                return
            thread = threading.Thread(target=self._run, name=f"askonce-{self._store.name}", daemon=True)
            self._thread = thread
        _used.add(self)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down: the next write tries again
            self._thread = None

    def _running(self) -> bool:
        return self._thread is not None

    def finish(self, timeout: float) -> None:
        """Write what is pending, now; what cannot be written in time is given up. Ends the thread."""
        self.flush(timeout)
        self._end()

    async def afinish(self, timeout: float) -> None:  # noqa: ASYNC109 - it asks to give up, and goes on
        """`finish`, for event loops."""
        self._hurry()
        await self._pending.await_(self._over, timeout)
        self._end()

    def flush(self, timeout: float) -> bool:
        """Write what is pending, now; whether all of it was written.

        Pauses after failures are cut short; a store that fails twice in a row is given up on.
        """
        self._hurry()
        end = time.monotonic() + timeout
        while not self._running() and not self._over() and time.monotonic() < end:
            self.write_some()  # no thread could be started
        return self._pending.wait(self._over, end - time.monotonic()) and not self._pending

    def _hurry(self) -> None:
        with self._pending.changed:
            self.failures = 0
            self.pause_until = 0.0
            self._pending.changed.notify_all()
        if self._pending:
            self.wake()

    def _over(self) -> bool:
        return not self._pending or self.failures >= _TRIES_AT_END

    def _end(self) -> None:
        with self._pending.changed:
            self._thread = None
            self._pending.changed.notify_all()
        for write in self._pending.drop_all():
            self._lost(write, "closed")

    # -- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        me = threading.current_thread()
        try:
            while self._wait(me):
                self.write_some()
        finally:
            with self._pending.changed:
                if self._thread is me:
                    self._thread = None

    def _wait(self, me: threading.Thread) -> bool:
        """Until it is time to write; False when this thread is needed no more."""
        changed = self._pending.changed
        with changed:
            while self._thread is me:
                if self._pending.waiting:
                    pause = self.pause_until - time.monotonic()
                    if pause <= 0:
                        return True
                    changed.wait(pause)
                elif not changed.wait(_IDLE) and not self._pending.waiting:
                    self._thread = None  # under the lock: whoever adds a write from now on starts another
        return False

    def write_some(self) -> None:
        """Make one batch of writes, or fail to."""
        with self._turn:
            batch = self._pending.take(self._batch, _BATCH_BYTES)
            back = batch
            set_deadline(time.monotonic() + _PATIENCE)
            try:
                self._write(batch)
                back = []
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the thread goes on
                back = self._failed(batch, error)
            finally:
                set_deadline(None)
                self._pending.landed(back, last=len(batch) == 1)

    def _write(self, batch: list[Write]) -> None:
        now = self._clock()
        items = [(write.key, write.value, write.expires_at) for write in batch if write.live(now)]
        removals = [write.key for write in batch if not write.live(now)]
        if removals:
            # Expired while it waited: what the store may have of that key is older still.
            self._store.delete(*removals)
        if len(items) == 1:
            self._store.set(*items[0])
        elif items:
            self._store.set_many(items)
        self.failures = 0
        self._successes += len(batch)
        self._batch = min(2 * self._batch, _BATCH)

    def _failed(self, batch: list[Write], error: Exception) -> list[Write]:
        """What is to be tried again."""
        self._trouble("set_many" if len(batch) > 1 else "set", error)
        self._batch = 1  # the next one is a probe, and shows which of them it is
        refused = isinstance(error, Refused)
        if not refused:
            pause = min(_FIRST_PAUSE * 2.0**self.failures, _LONGEST_PAUSE)
            self.pause_until = time.monotonic() + pause
            self.failures += 1
        if len(batch) > 1:
            return batch
        (write,) = batch
        if refused:
            self._lost(write, "refused")
            return []
        if write.seen is not None and self._successes > write.seen:
            write.strikes += 1
        write.seen = self._successes
        if write.strikes >= _STRIKES:
            self._lost(write, "failed")
            return []
        return batch


def _at_exit() -> None:
    """Queues are worth a short wait: the answers in them were paid for."""
    end = time.monotonic() + EXIT_SECONDS
    for writer in list(_used):
        writer.finish(max(0.0, end - time.monotonic()))


atexit.register(_at_exit)
