"""Until when the store operation at hand may take: set by the guard, asked for by stores that wait.

An operation of a network store has many waits in it: for a free connection, a name, a handshake, a reply.
One point in time bounds them all. It travels in a context variable, so that the store protocol stays free
of time-outs.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("askonce_deadline", default=None)


def time_left() -> float | None:
    """Seconds the operation at hand may still take, 0.0 when they are over; None: no bound was set."""
    when = _deadline.get()
    return None if when is None else max(0.0, when - time.monotonic())


def deadline() -> float | None:
    """When the operation at hand must be over, a time of `time.monotonic`; None: no bound was set."""
    return _deadline.get()


def set_deadline(when: float | None) -> None:
    """Bound the operations that follow in this context by a time of `time.monotonic`; None: no bound."""
    _deadline.set(when)
