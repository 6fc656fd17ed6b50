"""A TCP relay in a thread of its own: what TLS and faults are put into."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self

from servers.process import LOOPBACK

CHUNK = 65_536
HELD = 16
"""Chunks that one direction of a connection holds before reading stops."""
Chunks = asyncio.Queue[tuple[float, bytes]]
"""Each with the time at which it is due; the last one is empty."""


class Link:
    """One client's connection and its other half, towards the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.upstream: asyncio.StreamWriter | None = None
        self.lost = False
        """Nothing is forwarded any more, and neither side is told."""
        self.sent = 0
        """Bytes that reached the client since `counted_for` was set."""
        self.counted_for: object = None

    def reset(self) -> None:
        """Abort both halves; the client sees a reset, not an end."""
        for writer in (self.writer, self.upstream):
            if writer is not None:
                _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() != -1:
        with contextlib.suppress(OSError):
            # Lingering for zero seconds makes the system send RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def finish(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until that is done: a reset right after would overtake it."""
    writer.close()
    await writer.wait_closed()


class Relay:
    """Forwards connections to one address. Use it as a context manager; every method is thread-safe."""

    host = LOOPBACK

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.connections = 0
        """Connections accepted so far."""
        self.port = 0
        self._open: set[Link] = set()
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=repr(self), daemon=True)
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self.host, self.port

    @property
    def open_connections(self) -> int:
        """Connections that their clients have not closed, as far as the system told us."""
        return len(self._open)

    def drop(self) -> None:
        """Reset all connections."""
        self._run(self._drop())

    def close(self) -> None:
        """Stop listening, reset all connections, end the thread."""
        if self._thread is None:
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._thread = None
        if self._failures:
            raise RuntimeError(f"{self!r} failed itself") from self._failures[0]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = socket.create_server((self.host, 0), backlog=512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)

    async def _drop(self) -> None:
        for link in self._links:
            link.reset()
        self._open.clear()
        await asyncio.sleep(0)

    async def _end(self) -> None:
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        self._listener.close()
        # Transports close in the loop's next rounds; a closed loop would leave them to the collector.
        for _ in range(5):
            await asyncio.sleep(0)

    async def _accept(self) -> None:
        # Not asyncio's own server: that one's connections are not ours to wait for and to end.
        loop = asyncio.get_running_loop()
        while True:
            raw, _ = await loop.sock_accept(self._listener)
            self.connections += 1
            self._start(self._greet(raw))

    async def _greet(self, raw: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, raw)
        await self._serve(Link(reader, asyncio.StreamWriter(transport, protocol, reader, loop)))

    async def _serve(self, link: Link) -> None:
        self._links.add(link)
        self._open.add(link)
        pumps: list[asyncio.Task[None]] = []
        try:
            up: Chunks = asyncio.Queue(HELD)
            down: Chunks = asyncio.Queue(HELD)
            loop = asyncio.get_running_loop()
            await self.greet(link)
            # The client is read from the start: its end is seen while the server is not reached.
            pumps.append(loop.create_task(self._read(link, link.reader, up, down=False)))
            await self.admit(link)
            reader, link.upstream = await asyncio.open_connection(*self.upstream)
            pumps += [
                loop.create_task(self._read(link, reader, down, down=True)),
                loop.create_task(self._write(link, link.upstream, up, down=False)),
                loop.create_task(self._write(link, link.writer, down, down=True)),
            ]
            await asyncio.gather(*pumps)
        except OSError:
            pass
        finally:
            # Before anything is awaited: here, too, the task may be cancelled.
            link.reset()
            self._open.discard(link)
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _read(self, link: Link, reader: asyncio.StreamReader, queue: Chunks, *, down: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(CHUNK):
                await queue.put((loop.time() + self.delay(down=down), data))
        finally:
            if not down:
                self._open.discard(link)
        await queue.put((loop.time() + self.delay(down=down), b""))

    async def _write(self, link: Link, writer: asyncio.StreamWriter, queue: Chunks, *, down: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self.admit(link)
            if not data:
                break
            await self.forward(link, writer, data, down=down)
        if down or not writer.can_write_eof():
            # Nothing can follow: the server ended, or (through TLS) there are no half-closed connections.
            await finish(writer)
            raise ConnectionAbortedError
        writer.write_eof()

    async def greet(self, link: Link) -> None:
        """What comes before all else; may put other streams into the link."""

    def delay(self, *, down: bool) -> float:
        """Seconds that a chunk takes."""
        return 0.0

    async def admit(self, link: Link) -> None:
        """Return when the link may forward; raise ConnectionError to reset it."""

    async def forward(self, link: Link, writer: asyncio.StreamWriter, data: bytes, *, down: bool) -> None:
        """Write what arrives of a chunk."""
        writer.write(data)
        await writer.drain()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port} -> {self.upstream[1]}>"
