"""HTTP/1.1 on loopback: the listening socket, its connections and the requests on them."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from askonce.testing._provider.endpoints import endpoint_of
from askonce.testing._provider.exchange import Exchange
from askonce.testing._provider.gate import Latch, Line, StoppingError

if TYPE_CHECKING:
    from askonce.testing._provider.desk import Desk

# How long `stop` waits for connections to end. They are told to, so this is for the one that runs a
# caller's own `reply` function.
_STOP_SECONDS = 5.0


class Server(ThreadingHTTPServer):
    """The listening socket and its connections, one thread each."""

    daemon_threads = True
    # Several hundred clients may connect at once; the default of 5 would make them retry for seconds.
    request_queue_size = 1024
    # `handle_request` is called when a client is there; should it have left again, there is no wait.
    timeout = 0.0

    def __init__(self, host: str, port: int, desk: Desk) -> None:
        self.desk = desk
        self.stopping = Latch()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__((host, port), Handler)
        self._acceptor = threading.Thread(target=self._accept, name="askonce-fake-provider", daemon=True)

    def start(self) -> None:
        """Accept connections, on a thread of its own."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close everything: no thread and no socket is left. Calls under way get no answer."""
        self.stopping.open()
        self._acceptor.join()
        with self._lock:
            threads = list(self._open.values())
            for connection in self._open:
                # Wakes a thread that reads or writes; the thread itself closes the socket.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.server_close()

    def _accept(self) -> None:
        # Not `serve_forever`: it looks for its end by a timer, this waits for it like for a client.
        line = Line(self.socket, self.stopping)
        with contextlib.suppress(StoppingError), contextlib.closing(line):
            while True:
                line.wait_readable()
                self.handle_request()

    def server_bind(self) -> None:
        """Bind without the look-up of the host's full name, which may ask a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a connection's thread, and remember both."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="askonce-fake-connection",
            daemon=True,
        )
        with self._lock:
            self._open[request] = thread
        self.desk.connected()
        thread.start()

    def close_request(self, request: Any) -> None:
        """Close a connection's socket, and forget it."""
        super().close_request(request)
        with self._lock:
            known = self._open.pop(request, None)
        if known is not None:
            self.desk.disconnected()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is given
        """Let a defect of this server reach `threading.excepthook` instead of a print."""
        raise  # noqa: PLE0704 - called from the `except` clause of the base class


class Handler(BaseHTTPRequestHandler):
    """One connection: requests one after the other until either side closes."""

    protocol_version = "HTTP/1.1"
    server_version = "askonce-fake-provider"
    sys_version = ""
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Serve the connection; a client that resets it is no error."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: request lines and errors would end up in the output of the tests."""

    def version_string(self) -> str:
        """The `server` header."""
        return self.server_version

    def _serve(self) -> None:
        server = cast(Server, self.server)
        try:
            body = self._read_body()
        except ValueError:  # a length that is no number
            body = None
        if body is None:
            self.close_connection = True
            return
        target = urlsplit(self.path)
        call = server.desk.receive(
            method=self.command,
            path=target.path,
            query=target.query,
            headers=tuple((name.lower(), value) for name, value in self.headers.items()),
            body=body,
            endpoint=endpoint_of(target.path),
        )
        line = Line(self.connection, server.stopping)
        try:
            Exchange(self, server.desk, call, line).run()
        except StoppingError:
            self.close_connection = True
        except ConnectionError:
            self.close_connection = True
            # A write may fail because the server closed the connection itself.
            if not server.stopping.is_open:
                server.desk.hung_up(call)
        finally:
            line.close()
            server.desk.answered(call)

    # The base class finds these by the request's method.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        """The request's body; None when the client did not send all of it."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _read_chunks(self) -> bytes | None:
        parts: list[bytes] = []
        while True:
            head = self.rfile.readline()
            if not head.endswith(b"\n"):
                return None
            size = int(head.partition(b";")[0], 16)
            if size == 0:
                break
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)
