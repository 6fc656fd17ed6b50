"""Enabling and disabling: which clients are served by which cache."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from askonce import Cache, ConfigurationError
from askonce.doors import missing_extra, register_door, serving
from askonce_openai._creators import PLACES, Place

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_METHOD = "_send_request"


class _Enabled(NamedTuple):
    """A cache that serves clients, and whether by the short way too."""

    cache: Cache
    fast: bool


class _Installed(NamedTuple):
    """A method that leads through us."""

    owner: type
    name: str
    original: Any
    ours: Any


class _Patch:
    """The state of the door in this process.

    Enabling counts: every `enable_cache` wants its `disable_cache`, and the methods are patched exactly
    once, by the first. The last to be enabled is the one that answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._everywhere: list[_Enabled] = []
        # By the client's HTTP client: it is what `with_options()` and `copy()` hand on.
        self._single: WeakKeyDictionary[Any, list[_Enabled]] = WeakKeyDictionary()
        self._installed: list[_Installed] = []
        self._last_steps: list[_Installed] = []  # of these, the ones before the HTTP client
        self._wrapper: Any = None  # wrapt's, loaded when the door is opened
        self._pending: list[Place] = []  # short ways to what the SDK has not loaded yet
        self._held = 0
        self._waits = False

    def _enabled(self, client: Any) -> _Enabled | None:
        if self._single:
            own = self._single.get(client._client)  # noqa: SLF001 - the only handle that copies share
            if own:
                return own[-1]
        everywhere = self._everywhere
        return everywhere[-1] if everywhere else None

    def cache_of(self, client: Any) -> Cache | None:
        """The cache that serves a client, at this moment."""
        enabled = self._enabled(client)
        return serving(None if enabled is None else enabled.cache)

    def fast_cache_of(self, client: Any) -> Cache | None:
        """The same, where hits may take the short way: we are last before the SDK's HTTP client."""
        enabled = self._enabled(client)
        if enabled is None or not enabled.fast or serving(enabled.cache) is not enabled.cache:
            return None  # a replay block sees each ask whole
        for one in self._last_steps:
            if vars(one.owner).get(_METHOD) is not one.ours:
                return None  # a tracer on top of us wants to see each request
        return enabled.cache

    def enable(self, cache: Cache | None, client: Any, *, fast: bool) -> Cache:
        with self._lock:
            self._install()
            if client is None:
                found = cache or (self._everywhere[-1].cache if self._everywhere else Cache())
                self._everywhere = [*self._everywhere, _Enabled(found, fast)]
            else:
                known = self._single.get(client._client, [])  # noqa: SLF001
                found = cache or (known[-1].cache if known else Cache())
                self._single[client._client] = [*known, _Enabled(found, fast)]  # noqa: SLF001
            return found

    def disable(self, client: Any) -> None:
        with self._lock:
            # First nobody is served any more, at once and in every thread; then the methods go back.
            if client is None:
                self._everywhere = self._everywhere[:-1]
            else:
                known = self._single.pop(client._client, [])  # noqa: SLF001
                if known[:-1]:
                    self._single[client._client] = known[:-1]  # noqa: SLF001
            self._uninstall_unused()

    def hold(self) -> Callable[[], None]:
        """Have the methods lead through us, now or once the SDK is imported; returns the way out.

        For a replay block: `serving` says which cache answers.
        """
        with self._lock:
            self._held += 1
            if "openai" in sys.modules:
                self._install()
            else:
                self._install_later()

        def release() -> None:
            with self._lock:
                self._held -= 1
                self._uninstall_unused()

        return release

    def _install_later(self) -> None:
        if self._waits:
            return
        try:
            from wrapt import register_post_import_hook  # noqa: PLC0415
        except ImportError:  # without the extra nobody expects this door
            return
        self._waits = True
        register_post_import_hook(self._imported, "openai")

    def _imported(self, _: Any) -> None:
        with self._lock:
            self._waits = False
            if self._held:
                self._install()

    def _uninstall_unused(self) -> None:
        if not self._everywhere and not self._single and not self._held:
            self._uninstall()

    def _install(self) -> None:
        """See that each method leads through us. A second layer would be harmless: it passes through."""
        try:
            import openai  # noqa: PLC0415 - the door to a package loads it when it is opened
            from openai._base_client import AsyncAPIClient, SyncAPIClient  # noqa: PLC0415
            from wrapt import FunctionWrapper  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra("openai", "openai", "enable_cache()") from error
        from askonce_openai._hook import async_hook, sync_hook  # noqa: PLC0415

        self._wrapper = FunctionWrapper
        for leaf, base, hook in (
            (openai.OpenAI, SyncAPIClient, sync_hook),
            (openai.AsyncOpenAI, AsyncAPIClient, async_hook),
        ):
            owner: type = leaf if _METHOD in vars(leaf) else base
            if _METHOD not in vars(owner):
                raise ConfigurationError(
                    f"openai {openai.__version__} has no {_METHOD}; allowed: openai 2.31 or later"
                )
            self._wrap(owner, _METHOD, hook(self.cache_of, self.shorten))
        self._pending = [place for place in PLACES if not self._shorten(place)]

    def shorten(self) -> None:
        """Open the short way for what the SDK has loaded since."""
        if not self._pending:
            return
        with self._lock:
            if self._everywhere or self._single:
                self._pending = [place for place in self._pending if not self._shorten(place)]

    def _shorten(self, place: Place) -> bool:
        """True when that is done, or will never be."""
        classes = place.classes()
        if classes is None:
            return False
        from askonce_openai._client_state import is_plain  # noqa: PLC0415
        from askonce_openai._fast import async_create, sync_create  # noqa: PLC0415

        for owner, shortened in zip(classes, (sync_create, async_create), strict=True):
            if is_plain(vars(owner).get("create"), "openai"):  # else a tracer was first: it sees each call
                self._wrap(owner, "create", shortened(self.fast_cache_of))
        return True

    def _wrap(self, owner: type, name: str, wrapper: Callable[..., Any]) -> None:
        present = vars(owner)[name]
        if not self._leads_through_us(present):
            ours = self._wrapper(present, wrapper)
            setattr(owner, name, ours)
            self._installed.append(_Installed(owner, name, present, ours))
            self._last_steps = [one for one in self._installed if one.name == _METHOD]

    def _leads_through_us(self, method: Any) -> bool:
        """Whether one of our wrappers is in a chain of wrappers that says what it wraps."""
        ours = {id(one.ours) for one in self._installed}
        while method is not None:
            if id(method) in ours:
                return True
            method = getattr(method, "__wrapped__", None)
        return False

    def _uninstall(self) -> None:
        """Put back what was there, the latest first, wherever nobody has wrapped on top of us.

        Where somebody has, ours stays beneath and passes everything through.
        """
        left: list[_Installed] = []
        for one in reversed(self._installed):
            present = vars(one.owner).get(one.name)
            if present is one.ours:
                setattr(one.owner, one.name, one.original)
            elif present is not one.original:
                left.append(one)
        self._installed = left[::-1]


_patch = _Patch()


def enable_cache(
    cache: Cache | None = None, *, client: OpenAI | AsyncOpenAI | None = None, fast: bool = True
) -> Cache:
    """Answer the repeated calls of OpenAI clients from a cache.

    Serves every OpenAI and AsyncOpenAI client of this process, those that exist and those to come, with
    Azure, subclasses and the module client (`openai.chat...`). May be called again: each call wants its
    own `disable_cache`, and the cache given last answers.

    Args:
        cache: the cache to use; None: the one enabled before, else a new `Cache()` (memory over disk).
        client: serve only this client, and those made from it by `with_options()`.
        fast: a call with the arguments of an earlier hit skips the SDK's building of requests and its
            parsing; it gets an equal object, made anew, some ten times sooner. False: each call takes
            the SDK's whole way.

    Returns:
        The cache in use, for `stats()` and the like.

    Raises:
        ConfigurationError: when the packages of the extra `openai` are missing or too old, or an
            argument is of the wrong kind.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise ConfigurationError(
            f"enable_cache(cache={type(cache).__name__}) is not allowed; allowed: a Cache or None"
        )
    _check_client(client)
    return _patch.enable(cache, client, fast=bool(fast))


def disable_cache(*, client: OpenAI | AsyncOpenAI | None = None) -> None:
    """Take back one `enable_cache`; the last one restores the client classes as they were.

    Does nothing when nothing is enabled. The cache itself stays open: close it where it was made.
    """
    _check_client(client)
    _patch.disable(client)


def _check_client(client: Any) -> None:
    if client is not None and not (hasattr(client, "_client") and hasattr(client, _METHOD)):
        given = type(client).__name__
        raise ConfigurationError(
            f"client={given} is not allowed; allowed: an OpenAI or AsyncOpenAI client, or None"
        )


def open_door(_: Cache) -> Callable[[], None]:
    """Serve every client while a replay block is open."""
    return _patch.hold()


register_door("openai", open_door)
