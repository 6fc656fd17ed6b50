"""Commands to a Redis from one event loop; `_redis_loops` keeps several apart."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from askonce._deadline import time_left
from askonce.stores._redis_connect import Maker
from askonce.stores._redis_sync import Link
from askonce.stores._redis_wire import Command, demoted, raised, scanned
from askonce.stores._workers import Workers

_LONGEST_CLOSE: Final = 1.0
_THREADS: Final = 16


class AsyncLink(Protocol):
    """`askonce.stores._redis_sync.Link`, awaited."""

    async def run(self, commands: Sequence[Command]) -> list[Any]: ...
    def names(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]: ...
    async def close(self) -> None: ...


class AsyncDirectLink:
    """`DirectLink`, for one event loop. Whoever has a deadline is cancelled by the guard when it comes."""

    def __init__(self, maker: Maker, *, limit: int, timeout: float) -> None:
        self._maker = maker
        self._limit = limit
        self._timeout = timeout
        self._idle: list[Any] = []
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._generation = 0
        self._connecting: set[asyncio.Task[Any]] = set()

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """See AsyncLink.

        Raises:
            TimeoutError: without a deadline, after the store's own time-out.
            Exception: what redis-py raises for a connection that fails.
        """
        if time_left() is None:
            async with asyncio.timeout(self._timeout):
                return await self._in_turn(commands)
        return await self._in_turn(commands)

    async def _in_turn(self, commands: Sequence[Command]) -> list[Any]:
        if self._used >= self._limit:
            await self._turn()
        else:
            self._used += 1
        try:
            return await self._run(commands)
        finally:
            self._next()

    async def _turn(self) -> None:
        """Wait until somebody hands over their place."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._next()  # handed over and cancelled at once: it goes on to the next
            else:
                self._waiting.remove(place)
            raise

    def _next(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._used -= 1

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415 - loaded with the store

        generation = self._generation
        if not self._idle:
            return await self._use(await self._connect(), commands, generation)
        try:
            replies = await self._use(self._idle.pop(), commands, generation)
            if not demoted(replies):
                return replies
        except Broken:
            pass
        generation = await self._renew(generation)  # see DirectLink
        return await self._use(await self._connect(), commands, generation)

    async def _use(self, connection: Any, commands: Sequence[Command], generation: int) -> list[Any]:
        from redis.exceptions import ResponseError  # noqa: PLC0415

        started = time.monotonic()
        replies: list[Any] = []
        try:
            if len(commands) == 1:
                await connection.send_command(*commands[0], check_health=False)
            else:
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            # Cancelled, too: a reply that nobody reads would be the next one's.
            await _drop(connection)
            if time_left() == 0.0 or time.monotonic() - started >= self._timeout:
                await self._forget(started)
            raise
        connection.askonce_used = time.monotonic()
        await self._give_back(connection, generation)
        return replies

    async def _forget(self, before: float) -> None:
        """See DirectLink."""
        dead = [connection for connection in self._idle if connection.askonce_used < before]
        self._idle = [connection for connection in self._idle if connection not in dead]
        for connection in dead:
            await _drop(connection)

    async def _give_back(self, connection: Any, generation: int) -> None:
        if generation == self._generation and len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            await _drop(connection)

    async def _renew(self, generation: int) -> int:
        if generation == self._generation:
            self._generation += 1
            idle, self._idle = self._idle, []
            for connection in idle:
                await _drop(connection)
        return self._generation

    async def _connect(self) -> Any:
        """A new connection; one that comes after its caller gave up is kept for the next."""
        generation = self._generation
        task = asyncio.get_running_loop().create_task(self._connected())
        self._connecting.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._keep(done, generation))
            raise
        finally:
            task.add_done_callback(self._connecting.discard)

    async def _connected(self) -> Any:
        connection = self._maker.make()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
        except BaseException:
            await _drop(connection)
            raise
        connection.askonce_used = time.monotonic()
        return connection

    def _keep(self, task: asyncio.Task[Any], generation: int) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        if generation == self._generation and len(self._idle) < self._limit:
            self._idle.append(task.result())
        else:
            dropping = asyncio.get_running_loop().create_task(_drop(task.result()))
            self._connecting.add(dropping)
            dropping.add_done_callback(self._connecting.discard)

    async def names(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """See Link."""
        cursor = 0
        while True:
            (reply,) = await self.run([("SCAN", cursor, "MATCH", pattern, "COUNT", count)])
            raised(reply)
            cursor = int(reply[0])
            yield reply[1]
            if not cursor:
                return

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        await self._renew(self._generation)
        for task in [*self._connecting]:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        for helper in self._maker.helpers:
            # One that does not say goodbye in time, on a busy machine, raises; the next must be closed too.
            with suppress(Exception):
                await helper.connection_pool.disconnect()
        await asyncio.sleep(0)  # a transport ends one turn of the loop after it was closed


class AsyncClientLink:
    """`ClientLink`, for one event loop: a redis-py asyncio client does the work."""

    def __init__(self, client: Callable[[], Any], *, own: bool, timeout: float) -> None:
        self._client = client()
        self._own = own
        self._timeout = timeout

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """See AsyncLink."""
        if time_left() is None:
            async with asyncio.timeout(self._timeout):
                return await self._run(commands)
        return await self._run(commands)

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        from redis.exceptions import ResponseError  # noqa: PLC0415

        if len(commands) == 1:
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            queued = pipeline.execute_command(*command)
            if isinstance(queued, Awaitable) and queued is not pipeline:
                await queued
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def names(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """See Link."""
        client = self._client
        nodes: list[Any] = [None]
        if hasattr(client, "get_primaries"):
            await client.initialize()
            nodes = client.get_primaries()
        for node in nodes:
            target = {} if node is None else {"target_nodes": node}
            cursor = 0
            while True:
                async with asyncio.timeout(self._timeout):
                    reply = await client.execute_command(
                        "SCAN", cursor, b"MATCH", pattern, b"COUNT", count, **target
                    )
                cursor, names = scanned(reply)
                yield names
                if not cursor:
                    break

    async def close(self) -> None:
        """Close a client of ours."""
        if self._own:
            await self._client.aclose()


class ThreadedLink:
    """A link for threads, for an event loop: the caller gave no asyncio client.

    On threads of its own: a loop's default ones belong to the program, and are gone in a forked child.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._workers = Workers(_THREADS, "askonce-redis-async")

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """See AsyncLink."""
        return await asyncio.wrap_future(self._workers.submit(self._link.run, commands))

    async def names(self, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
        """See Link."""
        names = self._link.names(pattern, count)

        def following() -> list[bytes] | None:
            return next(names, None)

        while (batch := await asyncio.wrap_future(self._workers.submit(following))) is not None:
            yield batch

    async def close(self) -> None:
        """Let the threads go; the link for threads is closed on its own."""
        self._workers.close()


async def _drop(connection: Any) -> None:
    """Close a connection; nothing that goes wrong with it matters any more."""
    with suppress(Exception):
        async with asyncio.timeout(_LONGEST_CLOSE):
            await connection.disconnect(nowait=True)
