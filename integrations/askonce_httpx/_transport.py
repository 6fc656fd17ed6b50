"""A transport with a cache in front of another one.

It stands below the client, so redirects, authentication, event hooks, cookies and time-outs are the
client's as ever, and above the network. What it does not know as a question to a language model passes
through untouched and unread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, overload

from askonce import Cache, ConfigurationError, OfflineMiss
from askonce.doors import MARK, Reply, asked, content_of, is_form, on_asyncio, serving
from askonce_httpx._beneath import AsyncBeneath, Beneath, SyncBeneath, class_for, package_beneath
from askonce_httpx._exchanges import AsyncCall, SyncCall
from askonce_httpx._families import load, package_of

if TYPE_CHECKING:
    import httpx
    import httpx2

_GATEWAY_TIMEOUT: Final = 504


class _Cached(Beneath):
    """What the sync and the async transport share.

    Args:
        cache: answers the requests.
        inner: the transport that sends what is not answered; None: the default transport of the package
            that a request comes from, made when it is first needed.

    Attributes:
        put_in: by `wrap_client`, which may take it out again.
        off: everything passes through; for one that was taken back where others hold on to it.
        stands_in: under all clients of the process, in a replay block: what is no question may be anything.
    """

    def __init__(self, cache: Cache, inner: Any) -> None:
        super().__init__(inner)
        self.cache = cache
        self.put_in = False
        self.off = False
        self.stands_in = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cache!r}>"

    @property
    def __class__(self) -> type[Any]:
        """What it stands before, to whoever asks `isinstance`: a client looks as it did without a cache."""
        inner = self.__dict__.get("inner")
        return type(self) if inner is None else inner.__class__

    @__class__.setter
    def __class__(self, kind: type[Any]) -> None:
        raise TypeError("the class of a transport cannot be changed")

    def __getattr__(self, name: str) -> Any:
        """Whatever else people look for in a transport is that of the one beneath."""
        inner = self.__dict__.get("inner")
        if inner is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def _passes(self, request: Any, cache: Cache) -> bool:
        """True for a request that a door above has taken, or that no rule knows.

        Raises:
            OfflineMiss: for one that no rule knows, in offline mode: that never asks.
        """
        if self.off or MARK in request.extensions:
            return True
        if cache.considers(request.method, request.url.path):
            return False
        if cache.is_offline() and (not self.stands_in or cache.minds(request.url.host)):
            raise cache.offline_miss(f"this {request.method} request is never answered by the cache")
        return True


class _Sync(_Cached, SyncBeneath):
    shown_as = "CacheTransport"

    def handle_request(self, request: Any) -> Any:
        """Answer a request from the cache, or have it sent.

        Raises:
            ConfigurationError: for a Cache-Control directive with a bad value.
            OfflineMiss: in offline mode, when nothing is stored.
            Exception: whatever the inner transport raises, unchanged.
        """
        inner = self._inner_for(request)
        cache = serving(self.cache)
        if self._passes(request, cache):
            return inner.handle_request(request)
        body = content_of(request)
        if body is None and is_form(request):
            body = request.read()
        call = SyncCall(request, body, inner)
        try:
            reply = cache.ask(call)
        except OfflineMiss as miss:
            return _gateway_timeout(request, miss)
        if reply.bypassed:
            reply.native = call.send()
        return _with_age(call.answered(reply, live_async=False), reply)


class _Async(_Cached, AsyncBeneath):
    shown_as = "AsyncCacheTransport"

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request from the cache, or have it sent. Raises as `CacheTransport` does."""
        inner = self._inner_for(request)
        cache = serving(self.cache)
        if self._passes(request, cache):
            return await inner.handle_async_request(request)
        if not on_asyncio():
            if cache.never_asks(asked(request, None)):
                raise cache.offline_miss("only asyncio is answered from the cache")
            return await inner.handle_async_request(request)
        body = content_of(request)
        if body is None and is_form(request):
            body = await request.aread()
        call = AsyncCall(request, body, inner)
        try:
            reply = await cache.aask(call)
        except OfflineMiss as miss:
            return _gateway_timeout(request, miss)
        if reply.bypassed:
            reply.native = await call.send()
        return _with_age(call.answered(reply, live_async=True), reply)


def _with_age(response: Any, reply: Reply) -> Any:
    """RFC 9111 section 5.1: what comes from a cache says how old it is."""
    if reply.entry is not None:
        response.headers["age"] = str(int(reply.outcome.age or 0))
    return response


def _gateway_timeout(request: Any, miss: OfflineMiss) -> Any:
    """What RFC 9111 section 5.2.1.7 wants for `only-if-cached`; in offline mode the miss itself is raised."""
    if "only-if-cached" not in request.headers.get("cache-control", "").lower():
        raise miss
    package = package_of(request)
    # SDKs retry a 504 unless they are told that it is of no use.
    headers = {"cache-status": "askonce; fwd=miss", "x-should-retry": "false"}
    return package.Response(
        _GATEWAY_TIMEOUT, headers=headers, stream=package.ByteStream(b""), request=request
    )


def _made(cache: Cache | None, inner: Any, family: str | None, *, awaits: bool) -> Any:
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigurationError(f"cache={type(cache).__name__} is not allowed; allowed: a Cache or None")
    own = _Async if awaits else _Sync
    package = package_beneath(own, inner)
    if family is not None:
        wanted = load(family)
        if package is not None and package is not wanted:
            raise ConfigurationError(
                f"family={family!r} with a transport of {package.__name__} is not allowed; "
                "allowed: leave family out"
            )
        package = wanted
    return class_for(own, package)(cache or Cache(), inner)


@overload
def CacheTransport(
    cache: Cache | None = None,
    inner: httpx.BaseTransport | None = None,
    *,
    family: Literal["httpx"] | None = None,
) -> httpx.BaseTransport: ...
@overload
def CacheTransport(
    cache: Cache | None = None, inner: httpx2.BaseTransport | None = None, *, family: Literal["httpx2"]
) -> httpx2.BaseTransport: ...
@overload
def CacheTransport(cache: Cache | None, inner: httpx2.BaseTransport) -> httpx2.BaseTransport: ...
@overload
def CacheTransport(cache: Cache | None = None, *, inner: httpx2.BaseTransport) -> httpx2.BaseTransport: ...
def CacheTransport(cache: Cache | None = None, inner: Any = None, *, family: str | None = None) -> Any:  # noqa: N802
    """A transport for `httpx.Client(transport=...)` or `httpx2.Client(transport=...)`.

    A client that is given a transport no longer makes its own with proxies, TLS settings, limits and
    HTTP/2: to keep those, `wrap_client` a client that has them.

    Args:
        cache: the cache to use; None: a new `Cache()`.
        inner: the transport that sends what is not answered; None: the package's default one. Closed with
            this one; the cache is not.
        family: "httpx" or "httpx2": whose `BaseTransport` it is derived from. None: that of `inner`; without
            `inner` it serves both packages and is derived from neither.

    Raises:
        ConfigurationError: for an argument of the wrong kind, or a package that is not installed.
    """
    return _made(cache, inner, family, awaits=False)


@overload
def AsyncCacheTransport(
    cache: Cache | None = None,
    inner: httpx.AsyncBaseTransport | None = None,
    *,
    family: Literal["httpx"] | None = None,
) -> httpx.AsyncBaseTransport: ...
@overload
def AsyncCacheTransport(
    cache: Cache | None = None, inner: httpx2.AsyncBaseTransport | None = None, *, family: Literal["httpx2"]
) -> httpx2.AsyncBaseTransport: ...
@overload
def AsyncCacheTransport(
    cache: Cache | None, inner: httpx2.AsyncBaseTransport
) -> httpx2.AsyncBaseTransport: ...
@overload
def AsyncCacheTransport(
    cache: Cache | None = None, *, inner: httpx2.AsyncBaseTransport
) -> httpx2.AsyncBaseTransport: ...
def AsyncCacheTransport(cache: Cache | None = None, inner: Any = None, *, family: str | None = None) -> Any:  # noqa: N802
    """`CacheTransport`, for `AsyncClient`. On trio requests pass through uncached."""
    return _made(cache, inner, family, awaits=True)


def cached(cache: Cache, inner: Any, *, awaits: bool) -> Any:
    """A caching transport in front of a given one."""
    return _made(cache, inner, None, awaits=awaits)


def is_cached(transport: Any) -> bool:
    """True for a transport of ours."""
    return isinstance(transport, _Cached)
