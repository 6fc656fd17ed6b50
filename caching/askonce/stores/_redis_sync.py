"""Commands to a Redis from threads: over connections of our own, or a client that does the routing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from askonce._deadline import time_left
from askonce._errors import StoreError
from askonce._fork import renew_after_fork
from askonce.stores._redis_connect import Maker
from askonce.stores._redis_socket import punctual
from askonce.stores._redis_wire import Command, demoted, raised, scanned
from askonce.stores._workers import Workers

T = TypeVar("T")
_CONNECTING_AT_ONCE: Final = 16
_CALLING_AT_ONCE: Final = 32


class Link(Protocol):
    """Sends commands in one go and returns their replies in order; an error reply is an exception in it."""

    def run(self, commands: Sequence[Command]) -> list[Any]: ...
    def names(self, pattern: bytes, count: int) -> Iterator[list[bytes]]: ...
    def close(self) -> None: ...


class DirectLink:
    """One server, or the master that sentinels name; connections of our own.

    redis-py's connections do the protocol; its pool and client are left out, because neither bounds the
    whole of an operation: a name look-up, a handshake and a reply have a time-out *each* there. Here an
    operation on an open connection waits for the socket until the deadline, and a new connection is made
    on a worker thread: whoever gives up waiting leaves it to the next caller.

    Args:
        maker: makes connections.
        limit: how many connections at most.
        timeout: seconds for an operation without a deadline.
    """

    def __init__(self, maker: Maker, *, limit: int, timeout: float) -> None:
        self._maker = maker
        self._limit = limit
        self._timeout = timeout
        self._workers = Workers(_CONNECTING_AT_ONCE, "askonce-redis-connect")
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._idle: list[Any] = []
        self._slots = threading.BoundedSemaphore(self._limit)
        self._generation = 0

    def after_fork(self) -> None:
        """The parent goes on using its connections: the child makes new ones."""
        for connection in self._idle:
            with suppress(Exception):
                connection.disconnect()  # in a child this closes the child's handle, nothing more
        self._begin()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """See Link.

        Raises:
            TimeoutError: when it takes longer than it may.
            Exception: what redis-py raises for a connection that fails.
        """
        left = time_left()
        deadline = time.monotonic() + (self._timeout if left is None else left)
        slots = self._slots
        if not slots.acquire(blocking=False) and not slots.acquire(
            timeout=max(0.0, deadline - time.monotonic())
        ):
            raise TimeoutError("no connection became free")
        try:
            return self._run(commands, deadline)
        finally:
            slots.release()

    def _run(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415 - loaded with the store

        generation = self._generation
        try:
            connection: Any = self._idle.pop()
        except IndexError:
            return self._use(self._connect(deadline), commands, deadline, generation)
        try:
            replies = self._use(connection, commands, deadline, generation)
            if not demoted(replies):
                return replies
        except Broken:
            pass
        # It was closed while it lay idle, or its server is no master any more; so it is with the others.
        # All our commands may be sent twice.
        generation = self._renew(generation)
        return self._use(self._connect(deadline), commands, deadline, generation)

    def _use(
        self, connection: Any, commands: Sequence[Command], deadline: float, generation: int
    ) -> list[Any]:
        from redis.exceptions import ResponseError  # noqa: PLC0415
        from redis.exceptions import TimeoutError as Late  # noqa: PLC0415

        started = time.monotonic()
        replies: list[Any] = []
        try:
            connection._sock.until = deadline  # noqa: SLF001 - see PunctualSocket
            if len(commands) == 1:
                connection.send_command(*commands[0], check_health=False)
            else:
                connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(error)
        except BaseException as error:
            connection.disconnect()
            if isinstance(error, Late):
                self._forget(started)
            raise
        connection.askonce_used = time.monotonic()
        if generation == self._generation and len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.disconnect()
        return replies

    def _forget(self, before: float) -> None:
        """Give up what lay idle all the while that a reply did not come.

        When a firewall forgot us, all of them are dead, and each would cost a caller its time. What was
        used meanwhile works.
        """
        # One by one: others take from the list and put back meanwhile.
        for connection in [*self._idle]:
            if connection.askonce_used < before:
                with suppress(ValueError):
                    self._idle.remove(connection)
                    connection.disconnect()

    def _renew(self, generation: int) -> int:
        """Give up the idle connections of a generation; the number of the present one."""
        if generation == self._generation:
            self._generation += 1
            idle, self._idle = self._idle, []
            for connection in idle:
                connection.disconnect()
        return self._generation

    def _connect(self, deadline: float) -> Any:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left to connect")
        future = self._workers.submit(self._connected, self._generation)
        try:
            return future.result(left)
        except TimeoutError:
            if not future.cancel():
                future.add_done_callback(self._keep)
            raise

    def _connected(self, generation: int) -> Any:
        connection = self._maker.make()
        try:
            connection.connect()
        except BaseException:
            connection.disconnect()
            raise
        connection.askonce_generation = generation
        connection.askonce_used = time.monotonic()
        return punctual(connection)

    def _keep(self, future: Any) -> None:
        """A connection that came too late for the one who asked for it."""
        if future.cancelled() or future.exception() is not None:
            return
        connection = future.result()
        if connection.askonce_generation == self._generation and len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def names(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """The names of keys that match, about `count` at a time."""
        cursor = 0
        while True:
            (reply,) = self.run([("SCAN", cursor, "MATCH", pattern, "COUNT", count)])
            raised(reply)
            cursor = int(reply[0])
            yield reply[1]
            if not cursor:
                return

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._renew(self._generation)
        for helper in self._maker.helpers:
            helper.close()
        self._workers.close()


class ClientLink:
    """A redis-py client does the work: a Cluster's, or the caller's own.

    Its calls run on worker threads, because nothing bounds them as a whole: a cluster that looks for its
    nodes anew, for one. So the number of callers at once is that of the workers.

    Args:
        client: makes the client, or returns the caller's.
        own: whether it is ours to close.
        timeout: seconds for an operation without a deadline.
    """

    def __init__(self, client: Callable[[], Any], *, own: bool, timeout: float) -> None:
        self._factory = client
        self._own = own
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Any = None
        self._workers = Workers(_CALLING_AT_ONCE, "askonce-redis")
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A client of ours is made anew in the child; the caller's looks after itself."""
        self._lock = threading.Lock()
        self._client = None

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """See Link."""
        return self._bounded(self._run, commands)

    def _bounded(self, work: Callable[..., T], *args: Any) -> T:
        left = time_left()
        return self._workers.run(work, *args, timeout=self._timeout if left is None else left)

    def _ready(self) -> Any:
        client = self._client
        if client is None:
            with self._lock:
                client = self._client = self._client or self._factory()
        return client

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        from redis.exceptions import ResponseError  # noqa: PLC0415

        client = self._ready()
        if len(commands) == 1:
            try:
                return [client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def names(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """The names of keys that match, about `count` at a time, of all masters one after the other."""
        client = self._bounded(self._ready)
        nodes = self._bounded(client.get_primaries) if hasattr(client, "get_primaries") else [None]
        for node in nodes:
            target = {} if node is None else {"target_nodes": node}
            cursor = 0
            while True:
                ask = partial(
                    client.execute_command, "SCAN", cursor, b"MATCH", pattern, b"COUNT", count, **target
                )
                cursor, names = scanned(self._bounded(ask))
                yield names
                if not cursor:
                    break

    def close(self) -> None:
        """Close a client of ours."""
        with self._lock:
            client, self._client = self._client, None
        if self._own and client is not None:
            client.close()
        self._workers.close()


class NoLink:
    """The face for which the caller gave no client."""

    def __init__(self, given: str, wanted: str) -> None:
        self._text = f"this RedisStore was given {given} only; give it {wanted} as well"

    def run(self, commands: Sequence[Command]) -> list[Any]:  # noqa: ARG002 - as in Link
        """Say what is missing."""
        raise StoreError(self._text)

    def names(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:  # noqa: ARG002
        """Say what is missing."""
        raise StoreError(self._text)

    def close(self) -> None:
        """Nothing."""
