"""Single calls on worker threads, whose callers wait no longer than they may, whatever the work does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from askonce._deadline import set_deadline, time_left
from askonce._fork import renew_after_fork
from askonce.stores._crew import Crew

T = TypeVar("T")


class Workers:
    """A bounded pool for calls that cannot be bounded themselves: name look-ups, handshakes, topologies.

    A caller that gives up leaves its call running; what is not begun yet is not begun any more. Waiting
    for a free worker counts as waiting.

    Args:
        count: how many calls run at once.
        name: what the threads are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._crew = Crew(count, name)
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's threads do not exist in a forked child."""
        self._crew.after_fork()

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Have `work(*args)` done, with the caller's deadline in force.

        Raises:
            StoreError: too many wait already.
        """
        left = time_left()
        when = None if left is None else time.monotonic() + left
        future: Future[T] = Future()

        def do(_: None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            set_deadline(when)
            try:
                result = work(*args)
            except BaseException as error:  # noqa: BLE001 - it belongs to who waits
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                set_deadline(None)

        self._crew.submit(do, [None])
        return future

    def run(self, work: Callable[..., T], *args: Any, timeout: float) -> T:
        """`work(*args)`, waited for at most `timeout` seconds.

        Raises:
            TimeoutError: when it took longer.
            Exception: whatever the work raised.
        """
        future = self.submit(work, *args)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def close(self) -> None:
        """Let the threads go when they are done; the next call starts new ones."""
        self._crew.close()
