"""Worker threads whose callers wait no longer than they may, whatever the work does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from askonce._deadline import set_deadline, time_left
from askonce._fork import renew_after_fork

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
        self._count = count
        self._name = name
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's threads do not exist in a forked child."""
        self._lock = threading.Lock()
        self._pool = None

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Have `work(*args)` done, with the caller's deadline in force."""
        left = time_left()
        when = None if left is None else time.monotonic() + left
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self._name)
            return self._pool.submit(_with_deadline, when, work, args)

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
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _with_deadline(when: float | None, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    set_deadline(when)
    try:
        return work(*args)
    finally:
        set_deadline(None)
