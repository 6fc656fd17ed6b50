"""From an address to redis-py's connections and clients, of versions 5 to 8. Nothing here connects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from askonce._errors import missing_extra
from askonce.stores._redis_address import Address
from askonce.stores._redis_tls import abrupt, thrifty

_PROTOCOL: Final = 2  # RESP2: a connection of ours never gets anything that it did not ask for
_FIRST_WITH_RETRY: Final = 6


def redis_package() -> Any:
    """The package `redis`.

    Raises:
        ConfigurationError: when it is not installed.
    """
    try:
        return import_module("redis")
    except ImportError as error:
        raise missing_extra("redis", "redis", "RedisStore") from error


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes connections.

    Attributes:
        make: makes one, not yet connected.
        helpers: clients that it asks where to connect to; closed with the connections.
    """

    make: Callable[[], Any]
    helpers: Sequence[Any] = ()


class Connector:
    """Makes what speaks to an address.

    Args:
        address: where.
        timeout: seconds for a connection attempt, and for a reply where nobody is in a hurry.
        credential_provider: redis-py's way to fresh passwords, such as cloud tokens; None: those of the
            address.
    """

    def __init__(self, address: Address, *, timeout: float, credential_provider: Any = None) -> None:
        self.address = address
        self._redis = redis_package()
        self._timeout = timeout
        self._options: dict[str, Any] = {"protocol": _PROTOCOL, **address.options}
        if credential_provider is not None:
            self._options["credential_provider"] = credential_provider

    def _waits(self, *, deadlines: bool) -> dict[str, Any]:
        """Time-outs and retries: none of redis-py's own, which wait for a minute.

        The asyncio side has deadlines around everything, and needs none beneath.
        """
        retry = "redis.asyncio.retry" if deadlines else "redis.retry"
        timeout = None if deadlines else self._timeout
        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": import_module(retry).Retry(import_module("redis.backoff").NoBackoff(), 0),
        }

    def maker(self) -> Maker:
        """Makes connections for threads."""
        return self._maker("redis.connection", "redis.sentinel", deadlines=False)

    def async_maker(self) -> Maker:
        """Makes connections for the running event loop."""
        return self._maker("redis.asyncio.connection", "redis.asyncio.sentinel", deadlines=True)

    def _maker(self, connections: str, sentinels: str, *, deadlines: bool) -> Maker:
        address = self.address
        options = {**self._options, **self._waits(deadlines=deadlines)}
        if address.kind == "sentinel":
            return self._master_maker(import_module(sentinels), options, deadlines=deadlines)
        module = import_module(connections)
        if address.kind == "unix":
            return Maker(lambda: module.UnixDomainSocketConnection(**options))
        kind = module.SSLConnection if address.tls else module.Connection
        if address.tls:
            kind = (abrupt if deadlines else thrifty)(kind)
        ((host, port),) = address.nodes
        return Maker(lambda: kind(host=host, port=port, socket_keepalive=True, **options))

    def _master_maker(self, module: Any, options: dict[str, Any], *, deadlines: bool) -> Maker:
        address = self.address
        waits = self._waits(deadlines=deadlines)
        tls = {"ssl": True, **{name: value for name, value in options.items() if name.startswith("ssl_")}}
        asked = {**address.sentinel_options, **waits, "protocol": _PROTOCOL, **(tls if address.tls else {})}
        if deadlines:
            asked |= {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        sentinel = module.Sentinel([*address.nodes], sentinel_kwargs=asked)
        pool = module.SentinelConnectionPool(address.service, sentinel, ssl=address.tls, **options)
        if address.tls:
            pool.connection_class = (abrupt if deadlines else thrifty)(pool.connection_class)

        def make() -> Any:  # holds the pool, of which the connections know only weakly
            return pool.connection_class(**pool.connection_kwargs)

        return Maker(make, sentinel.sentinels)

    def cluster(self) -> Any:
        """A client of a Cluster, for threads. Asks for the cluster's nodes at once."""
        node = self._redis.cluster.ClusterNode
        return self._redis.RedisCluster(**self._cluster_options(node, deadlines=False))

    def async_cluster(self) -> Any:
        """A client of a Cluster, for the running event loop."""
        module = import_module("redis.asyncio.cluster")
        return module.RedisCluster(**self._cluster_options(module.ClusterNode, deadlines=True))

    def _cluster_options(self, node: Any, *, deadlines: bool) -> dict[str, Any]:
        options = {**self._options, **self._waits(deadlines=deadlines)}
        options |= {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        options.pop("db", None)
        if int(str(self._redis.__version__).partition(".")[0]) < _FIRST_WITH_RETRY:
            del options["retry"]
            options["cluster_error_retry_attempts"] = 1
        else:  # one more try, so that a MOVED or a promoted replica is followed
            retry = "redis.asyncio.retry" if deadlines else "redis.retry"
            options["retry"] = import_module(retry).Retry(import_module("redis.backoff").NoBackoff(), 1)
        return {
            **options,
            "startup_nodes": [node(host, port) for host, port in self.address.nodes],
            "require_full_coverage": False,
            "ssl": self.address.tls,
        }

    def listening(self) -> Any:
        """A connection to subscribe with, not yet connected; any node of a Cluster hears all messages."""
        if self.address.kind != "cluster":
            return self.maker().make()
        client = self.cluster()
        try:
            node = client.get_default_node()
        finally:
            client.close()
        module = import_module("redis.connection")
        kind = module.SSLConnection if self.address.tls else module.Connection
        return kind(host=node.host, port=node.port, **self._options, **self._waits(deadlines=False))
