"""Put a cache into a client that exists, in place: its proxies, limits and TLS settings stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from askonce import Cache, ConfigurationError
from askonce.doors import warn
from askonce_httpx._families import is_client
from askonce_httpx._transport import cached, is_cached

T = TypeVar("T")

# Where SDKs keep what holds their HTTP clients, and the clients themselves:
# openai, anthropic, groq, together, ollama `_client`; mistralai `sdk_configuration.client`; cohere
# `_client_wrapper.httpx_client.httpx_client`; google-genai `_api_client._httpx_client`; langchain-openai
# `root_client`; langchain-anthropic `_client`; both have async ones beside them.
_HOLDERS: Final = (
    "_client", "_async_client", "client", "async_client", "root_client", "root_async_client",
    "sdk_configuration", "_client_wrapper", "httpx_client", "async_httpx_client", "_api_client",
    "_httpx_client", "_async_httpx_client", "http_client", "http_async_client",
)  # fmt: skip
_DEEPEST: Final = 4


def wrap_client(client: T, cache: Cache | None = None) -> T:
    """Have a client's requests answered from a cache.

    Takes an httpx or httpx2 client, sync or async, or an SDK's client that holds one: openai, anthropic,
    mistralai, groq, cohere, ollama, together, google-genai, langchain-openai, langchain-anthropic and
    others made alike. All clients inside are wrapped, each transport and mount once: wrapping again only
    changes the cache. SDK clients that share an HTTP client (copies by `with_options()`, LangChain's
    models) share the cache.

    Args:
        client: the client; changed in place.
        cache: the cache to use; None: the one it has, else a new `Cache()`.

    Returns:
        The same client.

    Raises:
        ConfigurationError: when there is no httpx or httpx2 client to be found in it.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigurationError(f"cache={type(cache).__name__} is not allowed; allowed: a Cache or None")
    found = _clients_in(client)
    if not found:
        raise _unreachable(client)
    if _speaks_aiohttp(client):
        warn(
            "httpx",
            "the async calls of a %s go over aiohttp and are not cached; allowed: make it with http_options="
            'HttpOptions(async_client_args={"transport": AsyncCacheTransport(cache)})',
            type(client).__name__,
        )
    transports = [transport for one in found for transport in _transports(one)]
    for transport in filter(_is_ours, transports):
        transport.cache = cache or transport.cache
    if all(_serves(transport, cache) for transport in transports):
        return client
    fresh = cache or Cache()
    for one in found:
        _swap(one, partial(_wrapped, one, fresh, cache))
    return client


def unwrap_client(client: T) -> T:
    """Take back `wrap_client`: the client has its own transports again. Nothing to do is no error.

    A CacheTransport that the client was made with stays. Where somebody has put a transport on top of ours
    since, ours stays beneath it and passes everything through.

    Raises:
        ConfigurationError: when there is no httpx or httpx2 client to be found in it.
    """
    found = _clients_in(client)
    if not found:
        raise _unreachable(client)
    for one in found:
        for transport in _put_in.pop(one, ()):
            transport.off = True  # at once, wherever it stands
        _swap(one, _unwrapped)
    return client


_put_in: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


def _speaks_aiohttp(client: Any) -> bool:
    """Whether a client of google-genai makes its async calls over aiohttp, beside the httpx in it."""
    asked = getattr(getattr(client, "_api_client", None), "_use_aiohttp", None)
    try:
        return callable(asked) and asked() is True
    except Exception:  # noqa: BLE001 - theirs, and private
        return False


def _is_ours(transport: Any) -> bool:
    return is_cached(transport) and transport.put_in


def _serves(transport: Any, cache: Cache | None) -> bool:
    """Whether a transport answers from this cache already; None: from any."""
    return is_cached(transport) and (cache is None or transport.cache is cache)


def _wrapped(client: Any, fresh: Cache, wanted: Cache | None, transport: Any) -> Any:
    if _serves(transport, wanted):
        return transport
    made = cached(fresh, transport, awaits=hasattr(client, "aclose"))
    made.put_in = True
    _put_in.setdefault(client, []).append(made)
    return made


def _unwrapped(transport: Any) -> Any:
    return transport.inner if _is_ours(transport) else transport


def _transports(client: Any) -> list[Any]:
    mounted = list(client._mounts.values())  # noqa: SLF001 - where both packages keep them
    return [one for one in (client._transport, *mounted) if one is not None]  # noqa: SLF001


def _swap(client: Any, change: Callable[[Any], Any]) -> None:
    """Change a client's transport and mounts; the same transport under two mounts stays the same one."""
    known: dict[int, Any] = {}

    def changed(transport: Any) -> Any:
        if transport is None:  # a mount that says: no proxy here
            return None
        if id(transport) not in known:
            known[id(transport)] = change(transport)
        return known[id(transport)]

    client._transport = changed(client._transport)  # noqa: SLF001
    mounts = client._mounts  # noqa: SLF001
    for pattern, transport in list(mounts.items()):
        mounts[pattern] = changed(transport)


def _clients_in(thing: Any) -> list[Any]:
    """The httpx and httpx2 clients in an SDK's client, each once, itself included."""
    found: dict[int, Any] = {}
    seen: set[int] = set()

    def look(thing: Any, depth: int) -> None:
        if thing is None or id(thing) in seen or isinstance(thing, str | bytes | int | float | type):
            return
        seen.add(id(thing))
        if is_client(thing):
            found[id(thing)] = thing
            return
        if depth == _DEEPEST:
            return
        for name in _HOLDERS:
            try:
                held = getattr(thing, name, None)
            except Exception:  # noqa: BLE001, S112 - a property that wants more than we can give
                continue
            if not callable(held) or is_client(held) or hasattr(held, "_client"):
                look(held, depth + 1)

    look(thing, 0)
    return list(found.values())


def _unreachable(client: Any) -> ConfigurationError:
    kind = f"{type(client).__module__.partition('.')[0]}.{type(client).__name__}"
    return ConfigurationError(
        f"client={kind} holds no httpx or httpx2 client that could be found; allowed: a client of httpx or "
        "httpx2, or an SDK's client made of one. SDKs that make one for each call are reached by "
        'askonce_httpx.enable_cache(hosts=["their.host"]); those on other HTTP libraries are not'
    )
