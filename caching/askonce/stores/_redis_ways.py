"""The two ways to a Redis: connections of our own, or the caller's clients."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from askonce._errors import ConfigurationError, StoreError, not_allowed
from askonce.stores._redis_connect import Connector, redis_package
from askonce.stores._redis_sync import ClientLink, DirectLink, Link, NoLink

if TYPE_CHECKING:
    from askonce.stores._redis_async import AsyncLink


class Way(Protocol):
    """How a store gets to its server."""

    @property
    def routed(self) -> bool:
        """Whether several keys may lie on several servers."""
        ...

    def link(self) -> Link:
        """The link for threads."""
        ...

    def async_link(self) -> AsyncLink:
        """A link for the running event loop."""
        ...

    def listening(self) -> Any:
        """A new connection to subscribe with, not yet connected."""
        ...


class OwnConnections:
    """Connections made from an address."""

    def __init__(self, connector: Connector, *, timeout: float, limit: int) -> None:
        self._connector = connector
        self._timeout = timeout
        self._limit = limit
        self.routed = connector.address.kind == "cluster"

    def link(self) -> Link:
        if self.routed:
            return ClientLink(self._connector.cluster, own=True, timeout=self._timeout)
        return DirectLink(self._connector.maker(), limit=self._limit, timeout=self._timeout)

    def async_link(self) -> AsyncLink:
        from askonce.stores import _redis_async as links  # noqa: PLC0415 - asyncio, for those who use it

        if self.routed:
            return links.AsyncClientLink(self._connector.async_cluster, own=True, timeout=self._timeout)
        return links.AsyncDirectLink(self._connector.async_maker(), limit=self._limit, timeout=self._timeout)

    def listening(self) -> Any:
        return self._connector.listening()

    def __str__(self) -> str:
        return str(self._connector.address)


class GivenClients:
    """The caller's clients: used, never closed.

    Raises:
        ConfigurationError: for a client that makes texts of values, or that is something else.
    """

    def __init__(self, client: Any, async_client: Any, *, timeout: float) -> None:
        self._client = _checked("client", client)
        self._async_client = _checked("async_client", async_client)
        self._timeout = timeout
        self.routed = hasattr(self._client or self._async_client, "get_default_node")
        self._threads: Link
        if client is None:
            self._threads = NoLink("an asyncio client", "client=")
        else:
            self._threads = ClientLink(lambda: self._client, own=False, timeout=timeout)

    def link(self) -> Link:
        return self._threads

    def async_link(self) -> AsyncLink:
        from askonce.stores import _redis_async as links  # noqa: PLC0415

        if self._async_client is None:
            return links.ThreadedLink(self._threads)
        return links.AsyncClientLink(lambda: self._async_client, own=False, timeout=self._timeout)

    def listening(self) -> Any:
        """See Way. Made as the caller's own client makes its connections."""
        client = self._client
        if client is None:
            raise StoreError("a RedisStore with an asyncio client only hears no changes; give it client= too")
        if self.routed:
            client = client.get_redis_connection(client.get_default_node())
        pool = client.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def __str__(self) -> str:
        return "over a client of the caller's"


def _checked(option: str, client: Any) -> Any:
    if client is None:
        return None
    if hasattr(client, "get_connection") and not hasattr(client, "execute_command"):
        asynchronous = type(client).__module__.startswith("redis.asyncio")
        package: Any = import_module("redis.asyncio") if asynchronous else redis_package()
        client = package.Redis(connection_pool=client)
    if not hasattr(client, "execute_command"):
        raise not_allowed(option, type(client).__name__, "a redis-py client or connection pool")
    kwargs: dict[str, Any] = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
    if kwargs.get("decode_responses"):
        raise ConfigurationError(
            f"{option} has decode_responses=True; allowed: a client without it, because values are bytes"
        )
    return client
