"""The Redis tier: answers that many processes and hosts share."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from askonce._clock import Clock, wall
from askonce._errors import ConfigurationError, not_allowed
from askonce._units import Duration, seconds
from askonce.stores import _redis_wire as wire
from askonce.stores._redis_address import read_address, whole
from askonce.stores._redis_connect import Connector, redis_package
from askonce.stores._redis_health import PING, QUESTIONS, health, unreachable
from askonce.stores._redis_leases import LeaseCommands
from askonce.stores._redis_listener import Listener
from askonce.stores._redis_talk import Talk
from askonce.stores._redis_ways import GivenClients, OwnConnections, Way
from askonce.stores.protocol import Health, Hear, Item, Stored

if TYPE_CHECKING:
    from askonce.stores._redis_async import AsyncLink
    from askonce.stores._redis_loops import Loops

URL_OPTIONS: Final = frozenset({"prefix", "timeout", "max_connections", "front_staleness", "write"})
_AT_ONCE: Final = 1000
T = TypeVar("T")


class RedisStore:
    """Values in Redis or Valkey: one server, a Unix socket, a Cluster, or the master that Sentinel names.

    Works from any thread and any event loop, and in forked children. Within a call of the cache, no
    operation takes longer than the cache's `store_timeout`, connecting included.

    A value is written with its absolute expiry in front and with PX; keys begin with `prefix`, and nothing
    else in the server is touched. Every write is announced on the channel `<prefix>changes`, so that other
    processes' front tiers drop their copies. An ACL user needs `~<prefix>*`, `~lease!<prefix>*`,
    `~tally!<prefix>*`, `&<prefix>changes`, and the commands GET MGET SET UNLINK GETRANGE SCAN PUBLISH
    SUBSCRIBE PING INFO TIME HINCRBYFLOAT HGETALL, with EVAL PEXPIRE DEL for `coalesce="fleet"`.

    Args:
        url: where; see `askonce.stores._redis_address` for the forms. None: `redis://localhost:6379`, or the
            clients given.
        client: a redis-py client or connection pool of the caller's, for threads. Used, never closed. Its
            own time-outs should be short: a call that is given up occupies one of 32 workers meanwhile.
        async_client: an asyncio client of the caller's, for the event loop it belongs to.
        credential_provider: redis-py's `CredentialProvider`, such as one for cloud IAM tokens.
        prefix: what all keys begin with.
        timeout: seconds for connecting, and for operations outside of a call.
        max_connections: connections at most, per process for threads and per event loop.
        front_staleness: how long a front tier may hold what others changed, when the connection on which
            changes are announced is lost. On a healthy one it is milliseconds.
        write: "through", or "behind" a queue, so that no call waits for a write.
        clock: seconds since the epoch, for expiry.

    Options may stand in the URL as well: `redis://host/0?timeout=1s&max_connections=20`.

    Raises:
        ConfigurationError: for a bad option, or when the package `redis` is missing.
    """

    name = wire.NAME
    blocking = True
    remote = True

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        async_client: Any = None,
        credential_provider: Any = None,
        prefix: str = "askonce:",
        timeout: Duration = 2.0,
        max_connections: int = 64,
        front_staleness: Duration = 30.0,
        write: str = "through",
        clock: Clock = wall,
    ) -> None:
        redis_package()
        given = client is not None or async_client is not None
        address = None if given else read_address(url or "redis://localhost:6379", URL_OPTIONS)
        if url is not None and given:
            raise ConfigurationError("url and a client are given together; allowed: one of them")
        if address is not None and address.rest:
            prefix = address.rest.get("prefix", prefix)
            timeout = address.rest.get("timeout", timeout)
            front_staleness = address.rest.get("front_staleness", front_staleness)
            write = address.rest.get("write", write)
            max_connections = whole("max_connections", address.rest.get("max_connections", max_connections))
        if not isinstance(prefix, str) or not prefix.isprintable():
            raise not_allowed("prefix", prefix, "a text of printable characters")
        if type(max_connections) is not int or max_connections < 1:
            raise not_allowed("max_connections", max_connections, "a whole number >= 1")
        if write not in {"through", "behind"}:
            raise not_allowed("write", write, ("through", "behind"))
        self.write = write
        self._timeout = seconds("timeout", timeout) or 0.001
        self._clock = clock
        self._loops: Loops[AsyncLink] | None = None
        self._way: Way
        if address is None:
            self._way = GivenClients(client, async_client, timeout=self._timeout)
        else:
            connector = Connector(address, timeout=self._timeout, credential_provider=credential_provider)
            self._way = OwnConnections(connector, timeout=self._timeout, limit=max_connections)
        self._talk = Talk(wire.encoded(prefix), clock, routed=self._way.routed)
        self._leases = LeaseCommands(self._talk.prefix, self._talk.channel)
        self._link = self._way.link()
        staleness = seconds("front_staleness", front_staleness)
        self._listener = Listener(self._way.listening, self._talk.channel, self._talk.origin, staleness)
        weakref.finalize(self, self._listener.stop).atexit = False  # forgotten without being closed

    def _run(self, commands: Sequence[wire.Command]) -> list[Any]:
        if self._listener.wanted:
            self._listener.start()
        return self._link.run(commands)

    async def _arun(self, commands: Sequence[wire.Command]) -> list[Any]:
        if self._listener.wanted:
            self._listener.start()
        return await (await self._alink()).run(commands)

    async def _alink(self) -> AsyncLink:
        if self._loops is None:
            from askonce.stores._redis_loops import Loops  # noqa: PLC0415 - asyncio, for those who use it

            self._loops = Loops(self._way.async_link)
        return await self._loops.link()

    # -- for threads ----------------------------------------------------------------------------

    def get(self, key: str) -> Stored | None:
        """See `Store.get`."""
        return self._talk.got(self._run(self._talk.get(key)))

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """See `Store.set`."""
        self.set_many([(key, value, expires_at)])

    def delete(self, *keys: str) -> int:
        """See `Store.delete`."""
        removed = 0
        for batch in _batches(dict.fromkeys(keys)):
            removed += self._talk.were_deleted(self._run(self._talk.delete(batch)), len(batch))
        return removed

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """See `Store.get_many`. One round trip (in a Cluster, one to each node at once) per 1,000 keys."""
        found: dict[str, Stored] = {}
        for batch in _batches(dict.fromkeys(keys)):
            found |= self._talk.got_many(batch, self._run(self._talk.get_many(batch)))
        return found

    def set_many(self, items: Iterable[Item]) -> None:
        """See `Store.set_many`. One round trip per 1,000 items."""
        for batch in _batches(items):
            self._talk.was_set(self._run(self._talk.set(batch)), len(batch))

    def scan(self, prefix: str) -> Iterator[str]:
        """See `Store.scan`."""
        seen: set[str] = set()
        for names in self._link.names(self._talk.pattern(prefix), _AT_ONCE):
            for key in self._talk.live(names, self._run(self._talk.look(names)) if names else ()):
                if key not in seen:
                    seen.add(key)
                    yield key

    def ping(self) -> Health:
        """See `Store.ping`. Its kind names the server and its version, its detail memory and policy."""
        start = time.perf_counter()
        try:
            replies = self._run([PING])
            latency = time.perf_counter() - start
            for question in QUESTIONS:
                try:
                    replies += self._run([question])
                except Exception as error:  # noqa: BLE001 - a question that may not be asked here
                    replies.append(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, it is told
            return unreachable(error, time.perf_counter() - start)
        return health(replies, latency, self._clock())

    def close(self) -> None:
        """Close connections of ours and stop listening. The next use opens them again."""
        self._listener.close()
        self._link.close()

    # -- for event loops ------------------------------------------------------------------------

    async def aget(self, key: str) -> Stored | None:
        """See `Store.get`."""
        return self._talk.got(await self._arun(self._talk.get(key)))

    async def aset(self, key: str, value: bytes, expires_at: float | None) -> None:
        """See `Store.set`."""
        await self.aset_many([(key, value, expires_at)])

    async def adelete(self, *keys: str) -> int:
        """See `Store.delete`."""
        removed = 0
        for batch in _batches(dict.fromkeys(keys)):
            removed += self._talk.were_deleted(await self._arun(self._talk.delete(batch)), len(batch))
        return removed

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """See `get_many`."""
        found: dict[str, Stored] = {}
        for batch in _batches(dict.fromkeys(keys)):
            found |= self._talk.got_many(batch, await self._arun(self._talk.get_many(batch)))
        return found

    async def aset_many(self, items: Iterable[Item]) -> None:
        """See `set_many`."""
        for batch in _batches(items):
            self._talk.was_set(await self._arun(self._talk.set(batch)), len(batch))

    async def ascan(self, prefix: str) -> list[str]:
        """See `Store.scan`."""
        seen: dict[str, None] = {}
        async for names in (await self._alink()).names(self._talk.pattern(prefix), _AT_ONCE):
            replies = await self._arun(self._talk.look(names)) if names else ()
            seen |= dict.fromkeys(self._talk.live(names, replies))
        return list(seen)

    async def aping(self) -> Health:
        """See `ping`."""
        start = time.perf_counter()
        try:
            replies = await self._arun([PING])
            latency = time.perf_counter() - start
            for question in QUESTIONS:
                try:
                    replies += await self._arun([question])
                except Exception as error:  # noqa: BLE001
                    replies.append(error)
        except Exception as error:  # noqa: BLE001
            return unreachable(error, time.perf_counter() - start)
        return health(replies, latency, self._clock())

    async def aclose(self) -> None:
        """Close this loop's connections, and what `close` closes."""
        if self._loops is not None:
            await self._loops.close()
        import asyncio  # noqa: PLC0415

        await asyncio.to_thread(self.close)

    # -- abilities ------------------------------------------------------------------------------

    def listen(self, hear: Hear) -> Callable[[], None]:
        """See `Announcing.listen`."""
        return self._listener.add(hear)

    def acquire(self, key: str, token: str, life: float) -> bool:
        """See `Leasing.acquire`."""
        return _granted(self._run(self._leases.acquire(key, token, life)))

    def renew(self, key: str, token: str, life: float) -> bool:
        """See `Leasing.renew`."""
        return _granted(self._run(self._leases.renew(key, token, life)))

    def release(self, key: str, token: str) -> None:
        """See `Leasing.release`."""
        self._run(self._leases.release(key, token))

    async def aacquire(self, key: str, token: str, life: float) -> bool:
        """See `Leasing.acquire`."""
        return _granted(await self._arun(self._leases.acquire(key, token, life)))

    def on_release(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Leasing.on_release`."""
        return self._listener.on_release(key, wake)

    def tally(self, name: str, counts: Mapping[str, float]) -> None:
        """See `Tallying.tally`."""
        for reply in self._run(self._talk.tally(name, counts)):
            wire.raised(reply)

    def tallies(self, name: str) -> dict[str, float]:
        """See `Tallying.tallies`."""
        return self._talk.tallied(self._run(self._talk.tallies(name)))

    def __repr__(self) -> str:
        return f"<RedisStore {self._way}>"


def _granted(replies: Sequence[Any]) -> bool:
    wire.raised(replies[0])
    return bool(replies[0])


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
