"""Hearing what other processes change in a Redis, as it happens.

By publish/subscribe on one channel, and not by the server's client tracking: tracking tells a writer of its
own writes as well, and merges the news of two writers into one. A process could not tell whether the key
it has just written was overwritten by somebody else, and would have to drop every entry it writes. A
message with its origin in it can. It travels with the write in one round trip, works the same on a
standalone server, behind Sentinel and in a Cluster, and needs no further rights than its channel. What is
not said there is what other programs do to the keys by hand, and what the server evicts: neither makes an
answer wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from askonce._events import warn
from askonce._fork import renew_after_fork
from askonce.stores._redis_wire import announced
from askonce.stores.protocol import Hear

CHANGED: Final = "changed"
RELEASED: Final = "released"
_SLICE: Final = 0.5
_SETTLING: Final = 0.02  # by then everybody else has renewed their locks after a fork
_PING_AFTER: Final = 2.0
_DEAD_AFTER: Final = 5.0
_MOST_WAIT: Final = 2.0
_PARTS: Final = 3  # kind, channel, payload; a pong has two


class Listener:
    """One connection and one daemon thread per store and process, from the first use of the store on.

    Args:
        connect: makes a connection, not yet connected.
        channel: where changes are announced.
        origin: our own name: what we announce ourselves is not told.
        staleness: seconds for which nothing can be heard before everything counts as changed; again and
            again, while it lasts.
    """

    def __init__(
        self, connect: Callable[[], Any], channel: bytes, origin: Callable[[], str], staleness: float
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._origin = origin
        self._staleness = staleness
        self._hearing: tuple[Hear, ...] = ()
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._stopped = threading.Event()
        self.connected = False

    def after_fork(self) -> None:
        """The parent's thread listens for the parent.

        The child has a copy of the parent's front tiers: who asks only for what is in them never uses the
        store, and would hear of no change. So the child listens at once.
        """
        connection = self._connection
        listened = self._thread is not None
        self._begin()
        self._waiting = {}
        if connection is not None:
            with suppress(Exception):
                connection.disconnect()
        if listened and self._hearing:
            self.start(_SETTLING)

    def add(self, hear: Hear) -> Callable[[], None]:
        """Have `hear` told of changes; returns the way out."""
        self._hearing = (*self._hearing, hear)

        def remove() -> None:
            self._hearing = tuple(one for one in self._hearing if one is not hear)

        return remove

    def on_release(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when the lease of a key is given back, or when messages may have been missed."""
        with self._lock:
            self._waiting.setdefault(key, []).append(wake)

        def remove() -> None:
            with self._lock:
                wakers = self._waiting.get(key)
                if wakers is not None and wake in wakers:
                    wakers.remove(wake)
                    if not wakers:
                        del self._waiting[key]

        return remove

    @property
    def wanted(self) -> bool:
        """Whether somebody hears or waits, and no thread runs yet."""
        return self._thread is None and bool(self._hearing or self._waiting)

    def start(self, wait: float = 0.0) -> None:
        """Listen, unless that is done already; begin after `wait` seconds."""
        with self._lock:
            if self._thread is None:
                self._stopped = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stopped, wait), name="askonce-redis-listener", daemon=True
                )
                with suppress(RuntimeError):  # the interpreter is going down
                    self._thread.start()

    def stop(self) -> threading.Thread | None:
        """Have the thread end; the next use of the store begins a new one. Waits for nothing."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopped.set()
            connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.disconnect()  # it wakes up from its waiting
        return thread

    def close(self) -> None:
        """`stop`, and wait until it has."""
        thread = self.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_SLICE * 2 + 1.0)

    def _run(self, stopped: threading.Event, wait: float) -> None:
        lost = time.monotonic()
        stopped.wait(wait)
        wait = 0.05
        while not stopped.is_set():
            connection: Any = None
            try:
                self._connection = connection = self._subscribed()
                wait = 0.05
                self.connected = True
                self._tell(None)  # whatever was said before nobody heard
                self._listen(connection, stopped)
            except Exception as error:  # noqa: BLE001 - it tries again, whatever it was
                if not stopped.is_set():
                    warn("stores", "cannot hear changes in Redis (%s); trying again", type(error).__name__)
            finally:
                if self.connected and stopped is self._stopped:
                    self.connected = False
                    lost = time.monotonic()
                    self._wake_all()
                if connection is not None:
                    with suppress(Exception):
                        connection.disconnect()
            if stopped.wait(wait):
                break
            wait = min(wait * 2, _MOST_WAIT)
            if time.monotonic() - lost >= self._staleness:
                lost = time.monotonic()
                self._tell(None)

    def _subscribed(self) -> Any:
        connection = self._connect()
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            connection.read_response(disable_decoding=True)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _listen(self, connection: Any, stopped: threading.Event) -> None:
        heard = time.monotonic()
        asked = heard
        while not stopped.is_set():
            if connection.can_read(timeout=_SLICE):
                message: Any = connection.read_response(disable_decoding=True)
                heard = time.monotonic()
                kind, _, payload = message if len(message) == _PARTS else (b"", b"", b"")
                if kind == b"message":
                    self._take(payload)
                continue
            now = time.monotonic()
            if now - heard > _DEAD_AFTER:
                raise TimeoutError("silence")
            if now - max(heard, asked) > _PING_AFTER:
                asked = now
                connection.send_command("PING", check_health=False)

    def _take(self, payload: object) -> None:
        said = announced(payload)
        if said is None:
            return
        origin, kind, keys = said
        if kind == RELEASED:
            for key in keys:
                self._wake(key)
        elif origin != self._origin():
            self._tell(keys)

    def _tell(self, keys: tuple[str, ...] | None) -> None:
        for hear in self._hearing:
            try:
                hear(keys)
            except Exception as error:  # noqa: BLE001 - the others are told all the same
                warn("stores", "a front tier could not drop a changed key (%s)", type(error).__name__)

    def _wake(self, key: str) -> None:
        with self._lock:
            wakers = self._waiting.pop(key, [])
        for wake in wakers:
            wake()

    def _wake_all(self) -> None:
        for key in [*self._waiting]:
            self._wake(key)
