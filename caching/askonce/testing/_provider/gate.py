"""Waiting for a release while watching the connection.

A thread that waits on a `threading.Event` cannot see that its client has gone. So what it waits for
is a socket too: `Latch`. One poll covers the client, the latch and the server's own stop, without a
timer, however many hundreds of threads wait.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
import weakref
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import threading

if sys.platform == "win32":
    _Selector = selectors.SelectSelector
else:
    # Not DefaultSelector: epoll and kqueue take a file descriptor each, and several hundred
    # connections on both ends come near the usual limit of 1024.
    _Selector = selectors.PollSelector

# Below this a pause is a plain sleep: poll counts in whole milliseconds.
_SHORT = 0.01
# How often a `threading.Event` is looked at: it cannot be polled together with the connection.
_EVENT_INTERVAL = 0.01


class HangUpError(ConnectionError):
    """The client closed its end before it had its answer."""


class StoppingError(Exception):
    """The server is closing; the call gets no answer."""


class Latch:
    """Opens once, for everybody who waits with a selector."""

    def __init__(self) -> None:
        reader, writer = socket.socketpair()
        self.reader = reader
        self._writer = writer
        # Waiters keep the latch alive beyond its opening; the last one out closes the sockets.
        weakref.finalize(self, _close_all, reader, writer)

    def open(self) -> None:
        """Wake everybody, now and in future."""
        # The end of file at the other end is readable for any number of pollers; nobody consumes it.
        # Closing alone would not do: a child forked meanwhile has the descriptor as well.
        with contextlib.suppress(OSError):
            self._writer.shutdown(socket.SHUT_RDWR)
        self._writer.close()

    @property
    def is_open(self) -> bool:
        """Whether `open` was called."""
        return self._writer.fileno() < 0


def _close_all(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


class Ticket(NamedTuple):
    """What the gate said when a call came in.

    Attributes:
        latch: opens with the next `release()` after the call came in, however late the call looks.
        held: the status line waits for it.
        after: a position in the body that waits for it; None: none does.
    """

    latch: Latch
    held: bool
    after: int | None


class Gate:
    """The provider-wide hold. Not synchronised; the desk calls it under its lock."""

    def __init__(self) -> None:
        self._latch = Latch()
        self._held = False
        self._after: int | None = None

    def hold(self, after: int | None) -> None:
        """Hold calls from now on: before their status line, or at a position of the body."""
        self._held = after is None
        self._after = after

    def release(self) -> None:
        """Let go of everything that waits and hold no more."""
        self._held = False
        self._after = None
        self._latch.open()
        self._latch = Latch()

    def ticket(self) -> Ticket:
        """The state for a call that comes in now."""
        return Ticket(self._latch, self._held, self._after)


class Line:
    """One connection as seen while an answer is under way: waits, and notices a hang-up."""

    def __init__(self, connection: socket.socket, stop: Latch) -> None:
        self._connection = connection
        self._stop = stop
        self._selector = _Selector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._selector.register(stop.reader, selectors.EVENT_READ)

    def close(self) -> None:
        """Give back the selector; the connection stays as it is."""
        self._selector.close()

    def check(self) -> None:
        """Raise HangUpError or StoppingError when there is nobody to go on for."""
        self._poll(0)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the client hangs up or the server stops meanwhile."""
        if seconds <= 0:
            return
        if seconds < _SHORT:
            time.sleep(seconds)
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll(left)

    def wait(self, latch: Latch) -> None:
        """Wait until `latch` is open."""
        self._selector.register(latch.reader, selectors.EVENT_READ)
        try:
            while not latch.is_open:
                self._poll(None)
        finally:
            self._selector.unregister(latch.reader)

    def wait_readable(self) -> None:
        """Wait until the connection, which may be a listening socket, has something to read."""
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._stop.reader in ready:
                raise StoppingError
            if ready:
                return

    def wait_for_event(self, event: threading.Event) -> None:
        """Wait until `event` is set."""
        while not event.wait(_EVENT_INTERVAL):
            self.check()

    def _poll(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._stop.reader:
                raise StoppingError
            if key.fileobj is self._connection:
                self._peek()

    def _peek(self) -> None:
        try:
            ahead = self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            ahead = b""
        if self._stop.is_open:
            raise StoppingError
        if not ahead:
            raise HangUpError
        # A pipelined request: alive, and readable for as long as this answer takes. Left in the
        # selector it would turn every wait into a spin.
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._connection)
