"""Single flight: of several identical asks at one time, one flies and the others wait for it.

The table is shared by threads and event loops. What differs is only how one waits: a thread blocks
on a lock, a task awaits a future; both hand the flight a function that wakes them.

Rules, in the order in which they are asked:

* A key whose last answer could not be stored is not waited for: everybody asks on their own for a
  while (Varnish calls it hit-for-miss). Otherwise callers of an uncacheable key would queue up.
* A waiter whose leader failed tries to lead; the first one does, the rest follow it. When that leader
  fails too, everybody asks on their own: nobody pays for more than two failures of others.
* A leader that was cancelled hands over; that is nobody's failure and does not count.
* A leader whose thread or event loop has died is not waited for.
* Whoever would wait for something that only they could do (the same thread, the same loop) does not,
  nor does a call made from inside a leader's own provider call: two such calls could wait for each other.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from askonce._fork import renew_after_fork

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from askonce._entry import Entry
    from askonce._layer import Similar
    from askonce._shared import SharedStream

Wake = Callable[[], None]
leading: ContextVar[tuple[Flight, ...]] = ContextVar("askonce_leading", default=())
"""The flights inside whose provider calls the current code runs."""

_PASS_SECONDS: Final = 10.0
_PASS_LIMIT: Final = 10_000


class State(Enum):
    """Where a flight is."""

    PENDING = "the provider has not answered yet"
    LIVE = "a stream is running"
    LANDED = "there is an answer"
    FAILED = "there is none; one of the waiters leads next"
    RELEASED = "the answer is not to be shared; everybody asks on their own"


_UNDECIDED: Final = (State.PENDING, State.LIVE)  # no set: hashing a member is a call


class Owner(NamedTuple):
    """Who runs a call: a thread, and the event loop when it is a task."""

    thread: threading.Thread
    loop: AbstractEventLoop | None

    def is_lost(self) -> bool:
        """True when it can never finish: its loop stopped, or its thread ended."""
        if self.loop is not None:
            return self.loop.is_closed() or not self.loop.is_running()
        return not self.thread.is_alive()

    def would_wait_for_itself(self, leader: Owner, *, live: bool) -> bool:
        """True when waiting for `leader` from here could never end."""
        if self.thread is not leader.thread:
            return False
        if self.loop is None:
            # A blocked thread cannot run its own loop; its own open stream it can read on itself.
            return leader.loop is not None or not live
        return leader.loop is None and not live


class Flight:
    """One provider call that several callers share."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_lock",
        "_stream",
        "_wakers",
        "entry",
        "head",
        "key",
        "owner",
        "similar",
        "state",
        "turn",
    )

    def __init__(self, key: str, owner: Owner, turn: int, lock: threading.RLock) -> None:
        self.key = key
        self.owner = owner
        self.turn = turn
        self.state = State.PENDING
        self.entry: Entry | None = None
        self.similar: Similar | None = None  # the entry is another question's; not everybody may want it
        self.head: list[tuple[bytes, bytes]] = []  # a stream's response headers, for those who read along
        self._stream: weakref.ref[SharedStream] | None = None
        self._wakers: list[Wake] = []
        self._ended: weakref.finalize[[], Flight] | None = None
        self._lock = lock

    @property
    def stream(self) -> SharedStream | None:
        """The running stream. Held weakly: an abandoned one must be free to be collected."""
        return None if self._stream is None else self._stream()

    @property
    def over(self) -> bool:
        """True once it landed, failed or was released; nothing changes it after that."""
        return self.state not in _UNDECIDED

    @property
    def flies(self) -> bool:
        """True while its leader may still come back with an answer."""
        return not self.over and not self.owner.is_lost()

    def on_end(self, tell: Callable[[], None]) -> None:
        """Have `tell()` called when it is over, or is forgotten without having ended. It must not block."""
        with self._lock:
            if not self.over:
                self._ended = weakref.finalize(self, tell)
                self._ended.atexit = False
                return
        tell()

    def add_waker(self, wake: Wake) -> bool:
        """Have `wake()` called at the next change of state; False when there was one already."""
        with self._lock:
            if self.state is not State.PENDING:
                return False
            self._wakers.append(wake)
            return True

    def tell_end(self) -> None:
        """Call what `on_end` was given, once."""
        if self._ended is not None:
            self._ended()

    def change(self, state: State, stream: weakref.ref[SharedStream] | None = None) -> list[Wake]:
        """Go to a state; who has to be woken. Only under the table's lock."""
        self.state = state
        self._stream = stream
        wakers, self._wakers = self._wakers, []
        return wakers


class Flights:
    """The flights of one cache in this process."""

    def __init__(self) -> None:
        # Re-entrant, as every lock that closing a stream may need: the collector may close a forgotten
        # stream at any allocation, also at one made under this very lock.
        self._lock = threading.RLock()
        self._flying: dict[str, Flight] = {}
        self._passes: dict[str, float] = {}
        self.landings = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The leaders are in the parent; a child starts with an empty sky."""
        self._lock = threading.RLock()
        self._flying = {}

    def __len__(self) -> int:
        return len(self._flying)

    def join(self, key: str, owner: Owner, after: Flight | None) -> tuple[Flight | None, bool]:
        """Take part in the flight for `key`.

        Args:
            key: what is asked.
            owner: who asks.
            after: the failed flight this caller waited for before; None at first.

        Returns:
            (flight, True) to lead it, (flight, False) to wait for it, (None, False) to ask alone.
        """
        with self._lock:
            if self._passes and self._is_passed(key):
                return None, False
            known = self._flying.get(key)
            if known is not None and self._can_be_joined(known):
                if any(led.flies for led in leading.get()) or owner.would_wait_for_itself(
                    known.owner, live=known.state is State.LIVE
                ):
                    return None, False
                return known, False
            turn = 0 if after is None else after.turn
            if turn > 1:
                return None, False
            flight = Flight(key, owner, turn, self._lock)
            self._flying[key] = flight
            return flight, True

    @staticmethod
    def _can_be_joined(flight: Flight) -> bool:
        if flight.state is State.PENDING:
            return not flight.owner.is_lost()
        if flight.state is State.LIVE:
            stream = flight.stream
            return stream is not None and stream.joinable(lost=flight.owner.is_lost())
        return False

    def _is_passed(self, key: str) -> bool:
        until = self._passes.get(key)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._passes[key]
        return False

    def go_live(self, flight: Flight, stream: SharedStream) -> None:
        """The leader's stream has begun; waiters may read along."""
        flights = weakref.ref(self)
        known = weakref.ref(flight)

        def collected(_: object) -> None:
            # Runs wherever the collector runs: it must not wait for the lock.
            table, gone = flights(), known()
            if table is not None and gone is not None and table._flying.get(gone.key) is gone:  # noqa: SLF001
                table._flying.pop(gone.key, None)  # noqa: SLF001

        with self._lock:
            wakers = flight.change(State.LIVE, weakref.ref(stream, collected))
        _wake_all(wakers)

    def land(self, flight: Flight, entry: Entry, similar: Similar | None = None) -> None:
        """There is an answer, and it is in the store: this question's own, or a similar one's."""
        if flight.over:
            return
        flight.entry = entry
        flight.similar = similar
        self._end(flight, State.LANDED)

    def fail(self, flight: Flight, *, counts: bool) -> None:
        """There is no answer. `counts` is False when the leader was cancelled or left."""
        if flight.over:
            return
        if counts:
            flight.turn += 1
        self._end(flight, State.FAILED)

    def release(self, flight: Flight) -> None:
        """The answer is complete but must not be shared: nobody waits for this key for a while."""
        with self._lock:
            if len(self._passes) >= _PASS_LIMIT:
                self._passes.clear()
            self._passes[flight.key] = time.monotonic() + _PASS_SECONDS
        self._end(flight, State.RELEASED)

    def cacheable(self, key: str) -> None:
        """An answer for this key was stored after all: callers may wait for each other again."""
        self._passes.pop(key, None)

    def _end(self, flight: Flight, state: State) -> None:
        with self._lock:
            self.landings += 1
            if self._flying.get(flight.key) is flight:
                del self._flying[flight.key]
            wakers = flight.change(state)
        flight.tell_end()
        _wake_all(wakers)


def _wake_all(wakers: list[Wake]) -> None:
    for wake in wakers:
        wake()
