"""The index in a Redis with the query engine, by way of redisvl: one for a whole fleet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from askonce._errors import ConfigurationError, missing_extra, not_allowed
from askonce._fork import renew_after_fork
from askonce._units import Duration, seconds
from askonce.semantic._index import Near, Place, Row
from askonce.semantic._local import need_numpy
from askonce.semantic._redis_rows import Layout, check, found, popped, row_of
from askonce.stores._redis_loops import Loops

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

_ALGORITHMS: Final = ("flat", "hnsw")
_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


class RedisIndex:
    """Vectors in a Redis that has the query engine (Redis 8, Redis Stack, Redis Cloud).

    Threads share one client; every event loop has one of its own, which closes with the loop.

    Args:
        url: `redis://...` or `rediss://...`.
        client: a `redis.Redis` of yours instead, which stays yours to close. Its time-outs hold then, and
            event loops use it by worker threads.
        name: of the search indexes and the keys.
        algorithm: "hnsw" (default), or "flat": exact, and slower from some ten thousand vectors on.
        max_rows_per_scope: rows of one scope (tenant) and one number of dimensions; its oldest go first.
            None: as many as there are.
        timeout: seconds for one command; the layer's own time-out holds besides.

    Raises:
        ConfigurationError: for a bad option, or without redisvl.
    """

    blocking = True
    durable = True

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        name: str = "askonce-rows",
        algorithm: str = "hnsw",
        max_rows_per_scope: int | None = None,
        timeout: Duration = 1.0,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigurationError("RedisIndex needs a url or a client; allowed: one of them")
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
            raise not_allowed(
                "url", url.partition(":")[0], 'a URL that begins with "redis://" or "rediss://"'
            )
        if not name or not _NAME.issuperset(name):
            raise not_allowed("name", name, "letters, digits and _ - . only, at least one")
        if algorithm not in _ALGORITHMS:
            raise not_allowed("algorithm", algorithm, _ALGORITHMS)
        most = max_rows_per_scope
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise not_allowed("max_rows_per_scope", most, "a whole number of rows, at least 1, or None")
        need_numpy("RedisIndex")
        if find_spec("redisvl") is None:
            raise missing_extra("redisvl", "redisvl", "RedisIndex")
        self._layout = Layout(name, algorithm, most)
        self._timeout = seconds("timeout", timeout)
        self._url = url
        self._client = client
        self._indexes: dict[int, Any] = {}
        self._bare: Any = None  # where no search index is needed, nor made
        self._loops = Loops(self._async_link)
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child. redis-py's connections notice a fork themselves."""
        self._lock = threading.Lock()

    @property
    def native(self) -> bool:
        """See `AsyncIndex.native`: with a URL."""
        return self._url is not None

    def create(self, dimensions: int) -> None:
        """Make the search index for vectors of so many dimensions, or see that the one there is it.

        Not needed: the first row does it. Here a mismatch is an error, there it is counted and passed by.

        Raises:
            ConfigurationError: one of this name is there with another schema. Nothing is overwritten.
            Exception: whatever redis-py raises.
        """
        self._index(dimensions)

    # -- for threads ------------------------------------------------------------------------------

    def add(self, partition: str, row: Row) -> None:
        """See `Index.add`."""
        client = self._index(len(row.vector)).client
        pipe = client.pipeline(transaction=True)
        self._layout.write(pipe, partition, row)
        pipe.execute()
        entering = client.pipeline(transaction=False)
        if self._layout.enter(entering, partition, row):
            mine, many = self._layout.excess(row, entering.execute())
            if many:
                gone = popped(client.zpopmin(mine, many))
                if gone:  # another process may have been faster
                    client.unlink(*gone)

    def search(self, partition: str, vector: Vector, limit: int, least: float = -1.0) -> list[Near]:
        """See `Index.search`."""
        index = self._index(len(vector))
        try:
            return found(index.query(self._layout.query(partition, vector, limit)), least)
        except Exception:
            self._indexes.pop(len(vector), None)  # dropped by somebody, maybe: it is made again the next time
            raise

    def remove(self, partition: str, name: str) -> None:
        """See `Index.remove`."""
        for dimensions, index in list(self._indexes.items()):
            index.client.unlink(self._layout.key(dimensions, partition, name))

    def close(self) -> None:
        """See `Index.close`."""
        indexes, self._indexes = self._indexes, {}
        bare, self._bare = self._bare, None
        if self._client is None:
            for client in (*(index.client for index in indexes.values()), bare):
                if client is not None:
                    client.close()

    # -- for those who move rows, see `Portable` --------------------------------------------------

    def places(self) -> Iterator[Place]:
        """See `Portable.places`. Goes through all keys of the server, a thousand at a time."""
        for key in self._plain().scan_iter(match=self._layout.pattern, count=1000):
            place = self._layout.place(key)
            if place is not None:
                yield place

    def take(self, places: Sequence[Place]) -> list[tuple[Place, Row]]:
        """See `Portable.take`."""
        pipe = self._plain().pipeline(transaction=False)
        for place in places:
            key = self._layout.key(place.dimensions, place.partition, place.name)
            # Bytes, whatever a client of the user's makes of answers.
            pipe.execute_command("HMGET", key, "vector", "facts", NEVER_DECODE=[])
        rows = [(place, row_of(place, fields)) for place, fields in zip(places, pipe.execute(), strict=True)]
        return [(place, row) for place, row in rows if row is not None]

    def add_many(self, rows: Sequence[tuple[str, Row]], *, overwrite: bool = False) -> int:
        """See `Portable.add_many`."""
        written = 0
        for dimensions in sorted({len(row.vector) for _, row in rows}):
            client = self._index(dimensions).client
            mine = [(partition, row) for partition, row in rows if len(row.vector) == dimensions]
            if not overwrite:
                asking = client.pipeline(transaction=False)
                for partition, row in mine:
                    asking.exists(self._layout.key(dimensions, partition, row.name))
                mine = [one for one, there in zip(mine, asking.execute(), strict=True) if not there]
            if mine:
                self._write_many(client, mine)
                written += len(mine)
        return written

    def _write_many(self, client: Any, rows: Sequence[tuple[str, Row]]) -> None:
        pipe = client.pipeline(transaction=True)
        for partition, row in rows:
            self._layout.write(pipe, partition, row)
        pipe.execute()
        entering = client.pipeline(transaction=False)
        if all(self._layout.enter(entering, partition, row) for partition, row in rows):
            for owned, many in self._layout.excesses([row for _, row in rows], entering.execute()).items():
                if many:
                    client.unlink(*popped(client.zpopmin(owned, many)))

    # -- for event loops --------------------------------------------------------------------------

    async def aadd(self, partition: str, row: Row) -> None:
        """See `AsyncIndex.aadd`."""
        client = (await self._link(len(row.vector))).client
        pipe = client.pipeline(transaction=True)
        self._layout.write(pipe, partition, row)
        await pipe.execute()
        entering = client.pipeline(transaction=False)
        if self._layout.enter(entering, partition, row):
            mine, many = self._layout.excess(row, await entering.execute())
            if many:
                gone = popped(await client.zpopmin(mine, many))
                if gone:
                    await client.unlink(*gone)

    async def asearch(self, partition: str, vector: Vector, limit: int, least: float = -1.0) -> list[Near]:
        """See `AsyncIndex.asearch`."""
        dimensions = len(vector)
        index = (await self._link(dimensions)).index(self._layout.schema(dimensions))
        try:
            return found(await index.query(self._layout.query(partition, vector, limit)), least)
        except Exception:
            self._indexes.pop(dimensions, None)  # as in `search`
            raise

    async def aremove(self, partition: str, name: str) -> None:
        """See `AsyncIndex.aremove`."""
        for dimensions in list(self._indexes):
            await (await self._link(dimensions)).client.unlink(self._layout.key(dimensions, partition, name))

    async def aclose(self) -> None:
        """Give back the running loop's connections, and those of threads."""
        await self._loops.close()
        self.close()

    def __repr__(self) -> str:
        return f"<RedisIndex {self._layout.name}>"

    # -- connections ------------------------------------------------------------------------------

    def _plain(self) -> Any:
        with self._lock:
            if self._bare is None:
                self._bare = self._client or self._connected("redis")
            return self._bare

    async def _link(self, dimensions: int) -> _AsyncLink:
        if dimensions not in self._indexes:  # once: made or checked as threads do it, beside the loop
            await asyncio.to_thread(self._index, dimensions)
        return await self._loops.link()

    def _async_link(self) -> _AsyncLink:
        return _AsyncLink(self._connected("redis.asyncio"))

    def _index(self, dimensions: int) -> Any:
        known = self._indexes.get(dimensions)
        if known is not None:
            return known
        with self._lock:
            if dimensions not in self._indexes:
                self._indexes[dimensions] = self._opened(dimensions)
            return self._indexes[dimensions]

    def _opened(self, dimensions: int) -> Any:
        client = self._client or self._connected("redis")
        kind = import_module("redisvl.index").SearchIndex
        index = kind.from_dict(self._layout.schema(dimensions), redis_client=client)
        if not index.exists():
            try:
                index.create(overwrite=False)
            except Exception:
                if not index.exists():  # else another process was faster
                    raise
        label = self._layout.label(dimensions)
        check(index, kind.from_existing(label, redis_client=client), label)
        return index

    def _connected(self, package: str) -> Any:
        retries = import_module(f"{package}.retry")
        retry = retries.Retry(import_module("redis.backoff").NoBackoff(), 0)
        # redis-py's own defaults retry a dead server for a minute.
        return import_module(package).Redis.from_url(
            self._url, socket_timeout=self._timeout, socket_connect_timeout=self._timeout, retry=retry
        )


class _AsyncLink:
    """One event loop's client, and its view of the search indexes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._indexes: dict[str, Any] = {}

    def index(self, schema: dict[str, Any]) -> Any:
        """The search index of this schema, which is there."""
        label = schema["index"]["name"]
        if label not in self._indexes:
            kind = import_module("redisvl.index").AsyncSearchIndex
            self._indexes[label] = kind.from_dict(schema, redis_client=self.client)
        return self._indexes[label]

    async def close(self) -> None:
        """Give the connections back. One that does not say goodbye in time is closed all the same."""
        with suppress(Exception):
            await self.client.aclose()
