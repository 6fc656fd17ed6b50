"""One cache under every client of the process that asks an allow-listed host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary

from askonce import Cache, ConfigurationError
from askonce.doors import missing_extra, register_door
from askonce_httpx._families import installed, load
from askonce_httpx._transport import cached, is_cached

_METHOD = "_transport_for_url"


@dataclass(eq=False)
class _Layer:
    """One `enable_cache`: a cache, the hosts it serves, and its transports by those they stand before."""

    cache: Cache
    hosts: tuple[str, ...]
    stands_in: bool = False
    made: WeakKeyDictionary[Any, Any] = field(default_factory=WeakKeyDictionary[Any, Any])

    def before(self, transport: Any, *, awaits: bool) -> Any:
        known = self.made.get(transport)
        if known is None:
            known = self.made.setdefault(transport, self.wrapped(_Held(transport), awaits=awaits))
        return known

    def wrapped(self, transport: Any, *, awaits: bool) -> Any:
        made = cached(self.cache, transport, awaits=awaits)
        made.stands_in = self.stands_in
        return made


class _Held:
    """A transport held weakly by what stands before it, so that a client's end is its end."""

    def __init__(self, transport: Any) -> None:
        from weakref import ref  # noqa: PLC0415

        self._transport = ref(transport)

    @property
    def behind(self) -> Any:
        """The transport, None when it is gone."""
        return self._transport()

    def handle_request(self, request: Any) -> Any:
        return self._there().handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        return await self._there().handle_async_request(request)

    def _there(self) -> Any:
        transport = self._transport()
        if transport is None:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        return transport


class _Everywhere:
    """The state of the process-wide hook. The last to be enabled, among those for a host, answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: tuple[_Layer, ...] = ()
        self._installed: list[tuple[type, Any, Any]] = []

    def layer_for(self, host: str) -> _Layer | None:
        for layer in reversed(self._layers):
            if any(fnmatchcase(host, pattern) for pattern in layer.hosts):
                return layer
        return None

    def enable(self, cache: Cache | None, hosts: tuple[str, ...]) -> Cache:
        with self._lock:
            self._install()
            mine = [layer.cache for layer in self._layers if not layer.stands_in]
            found = cache or (mine[-1] if mine else Cache())
            self._layers = (*self._layers, _Layer(found, hosts))
            return found

    def disable(self) -> None:
        with self._lock:
            mine = [layer for layer in self._layers if not layer.stands_in]
            self._remove(mine[-1:])

    def stand_in(self, cache: Cache) -> Callable[[], None]:
        """Serve every host, for a replay block; returns the way out. Without either package: nobody."""
        if not installed():
            return lambda: None
        layer = _Layer(cache, ("*",), stands_in=True)
        with self._lock:
            self._install()
            self._layers = (*self._layers, layer)

        def leave() -> None:
            with self._lock:
                self._remove([layer])

        return leave

    def _remove(self, layers: list[_Layer]) -> None:
        # At once, in every thread; then the methods go back.
        self._layers = tuple(layer for layer in self._layers if layer not in layers)
        if not self._layers:
            self._uninstall()

    def _install(self) -> None:
        try:
            import wrapt  # noqa: PLC0415 - only for those who want the hook
        except ImportError as error:
            raise missing_extra("wrapt", "httpx", "askonce_httpx.enable_cache()") from error
        names = installed()
        if not names:
            raise missing_extra("httpx", "httpx", "askonce_httpx.enable_cache()")
        ours = {id(wrapper) for _, _, wrapper in self._installed}
        for package in map(load, names):
            for owner, awaits in ((package.Client, False), (package.AsyncClient, True)):
                attributes: dict[str, Any] = {**vars(owner)}
                present = attributes.get(_METHOD)
                if present is None:
                    raise ConfigurationError(
                        f"{package.__name__} {package.__version__} has no {_METHOD}; "
                        "allowed: httpx 0.23 or later, httpx2"
                    )
                if id(present) not in ours:
                    wrapper = wrapt.FunctionWrapper(present, self._hook(awaits=awaits))
                    setattr(owner, _METHOD, wrapper)
                    self._installed.append((owner, present, wrapper))

    def _hook(self, *, awaits: bool) -> Callable[..., Any]:
        def transport_for_url(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            transport = wrapped(*args, **kwargs)
            url = args[0] if args else kwargs.get("url")
            layer = None if url is None else self.layer_for(url.host)
            if layer is None or is_cached(transport):
                return transport
            try:
                return layer.before(transport, awaits=awaits)
            except TypeError:  # a transport that nobody can refer to weakly, or that is no key
                return layer.wrapped(transport, awaits=awaits)

        return transport_for_url

    def _uninstall(self) -> None:
        """Put back what was there, wherever nobody has wrapped on top of us; else ours passes through."""
        left: list[tuple[type, Any, Any]] = []
        for owner, original, ours in reversed(self._installed):
            if vars(owner).get(_METHOD) is ours:
                setattr(owner, _METHOD, original)
            else:
                left.append((owner, original, ours))
        self._installed = left[::-1]


_everywhere = _Everywhere()


def enable_cache(cache: Cache | None = None, *, hosts: Sequence[str]) -> Cache:
    """Answer the repeated questions of every httpx and httpx2 client of this process, to some hosts.

    Serves clients that exist and those to come, with their mounts and proxies, and `httpx.post`. May be
    called again; each call wants its own `disable_cache`, and the cache given last answers for its hosts.

    Args:
        cache: the cache to use; None: the one enabled before, else a new `Cache()`.
        hosts: whom to serve, such as `["api.openai.com", "*.openai.azure.com"]`; `*` globs. All others
            are left alone, as is everything that is no question to a language model.

    Returns:
        The cache in use.

    Raises:
        ConfigurationError: without hosts, for an argument of the wrong kind, or without the packages of
            the extra `httpx`.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigurationError(f"cache={type(cache).__name__} is not allowed; allowed: a Cache or None")
    if isinstance(hosts, str) or not hosts or not all(isinstance(host, str) and host for host in hosts):
        raise ConfigurationError(
            f'hosts={hosts!r} is not allowed; allowed: a list of host names, such as ["api.openai.com"]'
        )
    return _everywhere.enable(cache, tuple(host.lower() for host in hosts))


def disable_cache() -> None:
    """Take back one `enable_cache`; the last one restores the client classes as they were.

    Does nothing when nothing is enabled. The cache itself stays open.
    """
    _everywhere.disable()


register_door("httpx", _everywhere.stand_in)
