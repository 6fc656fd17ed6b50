"""Leases that this process holds: kept alive while their calls run, given back when they end.

One daemon thread does both, so that neither costs a call anything. It knows the store and its queue,
nothing else: nobody who forgets a cache or a stream is kept alive by it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from secrets import token_hex
from typing import Final, NamedTuple

from askonce._events import warn
from askonce._fork import renew_after_fork
from askonce.stores.protocol import Leasing

LIFE: Final = 4.5
"""Seconds a lease lives without being renewed. What a dead leader costs, together with one look more."""
LOOK: Final = 0.4
"""Seconds after which a waiter looks again by itself."""
_RENEW: Final = 1.5
_LONGEST: Final = 300.0  # a stream that nobody reads on and nobody closes


class _Note(NamedTuple):
    """To the thread: a lease is held from now on, or is given back."""

    key: str
    token: str
    held: bool


class LeaseKeeper:
    """Holds leases in one store.

    Args:
        store: where they are.
    """

    def __init__(self, store: Leasing) -> None:
        self.store = store
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        # Its put never blocks and may be called from within itself: the collector may give a lease back.
        self._notes: SimpleQueue[_Note | None] = SimpleQueue()
        self._running = False
        self._over = weakref.finalize(self, self._notes.put, None)
        self._over.atexit = False

    def after_fork(self) -> None:
        """The parent holds its leases."""
        self._over.detach()
        self._begin()

    def hold(self, key: str, token: str) -> Callable[[], None]:
        """Keep a lease that was taken; returns what gives it back, once, from anywhere."""
        with self._lock:
            if not self._running:
                thread = threading.Thread(
                    target=_keep, args=(self.store, self._notes), name="askonce-leases", daemon=True
                )
                try:
                    thread.start()
                    self._running = True
                except RuntimeError:  # the interpreter is going down
                    return _nothing
        notes = self._notes
        notes.put(_Note(key, token, held=True))
        return lambda: notes.put(_Note(key, token, held=False))

    def close(self) -> None:
        """Give everything back and end the thread; the next lease begins a new one."""
        with self._lock:
            if self._running:
                self._running = False
                self._notes.put(None)
                self._notes = SimpleQueue()
                self._over.detach()
                self._over = weakref.finalize(self, self._notes.put, None)
                self._over.atexit = False


def new_token() -> str:
    """A name for one holder of one lease."""
    return token_hex(12)


def _nothing() -> None:
    pass


def _keep(store: Leasing, notes: SimpleQueue[_Note | None]) -> None:
    held: dict[tuple[str, str], tuple[float, float]] = {}  # when it was taken, when to renew it
    while True:
        now = time.monotonic()
        due = min((when for _, when in held.values()), default=None)
        try:
            note = notes.get(timeout=None if due is None else max(0.0, due - now))
        except Empty:
            _renew(store, held)
            continue
        if note is None:
            for key, token in held:
                _give_back(store, key, token)
            return
        if note.held:
            held[note.key, note.token] = (now, now + _RENEW)
        else:
            held.pop((note.key, note.token), None)
            _give_back(store, note.key, note.token)


def _renew(store: Leasing, held: dict[tuple[str, str], tuple[float, float]]) -> None:
    now = time.monotonic()
    for (key, token), (since, due) in [*held.items()]:
        if due > now:
            continue
        try:
            ours = now - since < _LONGEST and store.renew(key, token, LIFE)
        except Exception as error:  # noqa: BLE001 - it is tried again, and at worst somebody else leads
            warn("stores", "a lease could not be renewed (%s)", type(error).__name__)
            ours = True
        if ours:
            held[key, token] = (since, now + _RENEW)
        else:
            del held[key, token]


def _give_back(store: Leasing, key: str, token: str) -> None:
    try:
        store.release(key, token)
    except Exception as error:  # noqa: BLE001 - it ends by itself
        warn("stores", "a lease could not be given back (%s)", type(error).__name__)
