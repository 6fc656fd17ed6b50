"""A socket whose waits end at one point in time, however many they are."""

from __future__ import annotations

import time
from typing import Any


class PunctualSocket:
    """A connected socket with a deadline. Everything else is the socket's own.

    A socket's time-out bounds each `recv` on its own: a server that sends a byte now and then would be
    waited for without end.

    Args:
        sock: the socket, plain or with TLS.

    Attributes:
        until: when waiting ends, a time of `time.monotonic`; None: the socket's own time-out holds.
    """

    __slots__ = ("_sock", "until")

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.until: float | None = None

    def _hurry(self) -> None:
        if self.until is not None:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time is over")
            self._sock.settimeout(left)

    def recv(self, *args: Any) -> Any:
        """As a socket's."""
        self._hurry()
        return self._sock.recv(*args)

    def recv_into(self, *args: Any) -> Any:
        """As a socket's."""
        self._hurry()
        return self._sock.recv_into(*args)

    def sendall(self, *args: Any) -> Any:
        """As a socket's."""
        self._hurry()
        return self._sock.sendall(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def punctual(connection: Any) -> Any:
    """A redis-py connection, connected, that now has such a socket."""
    connection._sock = PunctualSocket(connection._sock)  # noqa: SLF001 - no public way in all versions
    connection._parser.on_connect(connection)  # noqa: SLF001 - it reads from the socket as well
    return connection
