"""redis-py's TLS connections, made to share what costs much and to close at once."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from askonce._fork import renew_after_fork

_KEPT: Final = 60.0
"""Seconds: certificates are renewed on disk while programs run."""

if TYPE_CHECKING:

    class _Connection:
        """What redis-py's connections for threads have, so far as it matters here."""

        host: str
        check_hostname: bool
        cert_reqs: ssl.VerifyMode
        certfile: str | None
        keyfile: str | None
        ca_certs: str | None
        ca_path: str | None

    class _AsyncConnection:
        """The same of those for event loops."""

        _writer: Any
        ssl_context: Any

        def __init__(self, *args: Any, **options: Any) -> None: ...
        async def disconnect(self, *args: Any, **options: Any) -> None: ...

else:
    _Connection = _AsyncConnection = object


class _Kept:
    """A value that is made once a minute, at most by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Any = None
        self._until = 0.0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The lock may be another thread's, of the parent."""
        self._lock = threading.Lock()

    def get(self, make: Callable[[], Any]) -> Any:
        with self._lock:
            if time.monotonic() >= self._until:
                self._value = make()
                self._until = time.monotonic() + _KEPT
            return self._value


class _Thrifty(_Connection):
    """Comes before a connection class for threads.

    redis-py reads the system's authorities anew for each connection: 70 ms of pure work. A few callers at
    once, in a program's first moments, would all run out of time.
    """

    askonce_kept: _Kept

    def _wrap_socket_with_ssl(self, sock: Any) -> ssl.SSLSocket:
        context: ssl.SSLContext = self.askonce_kept.get(self._made)
        return context.wrap_socket(sock, server_hostname=self.host)

    def _made(self) -> ssl.SSLContext:
        """As redis-py makes it of the options that an address can have."""
        context = ssl.create_default_context()
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile or "", self.keyfile)
        if self.ca_certs or self.ca_path:
            context.load_verify_locations(self.ca_certs, self.ca_path)
        return context


class _Abrupt(_AsyncConnection):
    """Comes before a connection class for event loops, which reads the authorities on the loop.

    And when it closes, TLS says goodbye and waits for the other side's. From a side that is silent none
    comes, and with the end of the loop the socket would stay open for good.
    """

    askonce_kept: _Kept

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # It makes the context when it is first asked for one, and keeps that.
        own = self.ssl_context
        self.ssl_context = self.askonce_kept.get(lambda: own)

    async def disconnect(self, *args: Any, **options: Any) -> None:
        writer = self._writer
        if writer is not None:
            writer.transport.abort()
        await super().disconnect(*args, **options)


def thrifty(kind: Any) -> Any:
    """The connection class for threads; all its connections have the same options."""
    return type(f"Thrifty{kind.__name__}", (_Thrifty, kind), {"askonce_kept": _Kept()})


def abrupt(kind: Any) -> Any:
    """The connection class for event loops; all its connections have the same options."""
    return type(f"Abrupt{kind.__name__}", (_Abrupt, kind), {"askonce_kept": _Kept()})
