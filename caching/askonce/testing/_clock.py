"""A clock that tests move by hand."""

from __future__ import annotations

import threading


class ManualClock:
    """A `Clock` that stands still until it is moved.

    Args:
        now: where it starts, seconds since the epoch.

    Example:
        clock = ManualClock()
        store = MemoryStore(clock=clock)
        store.set("key", b"value", clock() + 60)
        clock.advance(60)
        assert store.get("key") is None
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._now = now

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move by `seconds` (back, if negative); the new time."""
        with self._lock:
            self._now += seconds
            return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"
