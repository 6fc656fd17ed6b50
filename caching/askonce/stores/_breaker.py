"""Keeps a store that does not answer out of the way, and finds out when it answers again.

    closed     every operation is tried; five failures in a row open it
    open       nothing is tried, until a pause is over: 1 s, then twice as long each time, 30 s at most
    half-open  one operation is let through, the probe: its success closes, its failure opens again

Who is let in gets a ticket, the number of the state's generation, and reports with it. A report from an
earlier generation says nothing about the store as it is now, and is ignored: a late success does not close,
a late failure does not open again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from askonce._fork import renew_after_fork

State: TypeAlias = Literal["closed", "open", "half-open"]

_FAILURES: Final = 5
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_JITTER: Final = 0.25  # pauses are shorter by up to this share: a fleet must not probe at the same moment


def _draw() -> float:
    from random import random  # noqa: PLC0415 - only when something opens

    return random()  # noqa: S311


class Breaker:
    """One store's breaker. For threads and event loops alike; its lock is never held while waiting.

    Args:
        changed: told of each new state, after it holds, in the thread that brought it about.
        lease: seconds after which a probe that was not heard of again counts as failed.
        clock: seconds that never go back.
        chance: a number from 0 up to 1.
    """

    __slots__ = (
        "__weakref__",
        "_chance",
        "_changed",
        "_clock",
        "_failures",
        "_generation",
        "_lease",
        "_lock",
        "_pause",
        "_state",
        "_until",
    )

    def __init__(
        self,
        changed: Callable[[State], None],
        *,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _draw,
    ) -> None:
        self._changed = changed
        self._lease = lease
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._state: State = "closed"
        self._generation = 0
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._until = 0.0  # open: when a probe may be; half-open: when the probe's lease is over
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the child: a new lock, and no probe, which is the parent's."""
        self._lock = threading.Lock()
        if self._state == "half-open":
            self._generation += 1
            self._until = self._clock()
            self._state = "open"

    @property
    def state(self) -> State:
        """As of now. Open stays open until somebody asks to be let in."""
        return self._state

    def admit(self) -> int | None:
        """A ticket to try the store with, to be reported on; None: leave the store alone."""
        if self.state == "closed":
            return self._generation  # no lock: if it opens right now, the ticket is an old one
        with self._lock:
            now = self._clock()
            if self._state == "closed":
                return self._generation
            if now < self._until:
                return None
            ticket = None
            if self._state == "half-open":
                self._open(now, min(2 * self._pause, _LONGEST_PAUSE))
            else:
                self._until = now + self._lease
                ticket = self._move("half-open")
            state = self._state
        self._changed(state)
        return ticket

    def succeeded(self, ticket: int) -> None:
        """The store did what it was asked to, in time."""
        if self._state == "closed" and not self._failures:
            return
        with self._lock:
            if ticket != self._generation or self._state == "open":
                return
            self._failures = 0
            if self._state == "closed":
                return
            self._move("closed")
        self._changed("closed")

    def failed(self, ticket: int) -> None:
        """It did not, or not in time."""
        with self._lock:
            if ticket != self._generation or self._state == "open":
                return
            pause = min(2 * self._pause, _LONGEST_PAUSE)
            if self._state == "closed":
                self._failures += 1
                if self._failures < _FAILURES:
                    return
                pause = _FIRST_PAUSE
            self._open(self._clock(), pause)
        self._changed("open")

    def gave_up(self, ticket: int) -> None:
        """Nobody knows: cancelled, or interrupted. A probe hands its turn to the next one."""
        if self._state == "closed":
            return
        with self._lock:
            if ticket != self._generation or self._state != "half-open":
                return
            self._until = self._clock()
            self._move("open")
        self._changed("open")

    def _open(self, now: float, pause: float) -> None:
        self._pause = pause
        self._until = now + pause * (1 - _JITTER * self._chance())
        self._failures = 0
        self._move("open")

    def _move(self, state: State) -> int:
        self._generation += 1
        self._state = state
        return self._generation
