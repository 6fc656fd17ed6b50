"""Enabling and disabling: which clients are served by which cache."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from askonce import Cache, ConfigurationError
from askonce.doors import missing_extra

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_METHOD = "_send_request"


class _Patch:
    """The state of the door in this process.

    Enabling counts: every `enable_cache` wants its `disable_cache`, and the methods are patched exactly
    once, by the first. The last to be enabled is the one that answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._everywhere: list[Cache] = []
        # By the client's HTTP client: it is what `with_options()` and `copy()` hand on.
        self._single: WeakKeyDictionary[Any, list[Cache]] = WeakKeyDictionary()
        self._installed: list[tuple[type, Any, Any]] = []

    def cache_of(self, client: Any) -> Cache | None:
        """The cache that serves a client, at this moment."""
        if self._single:
            own = self._single.get(client._client)  # noqa: SLF001 - the only handle that copies share
            if own:
                return own[-1]
        everywhere = self._everywhere
        return everywhere[-1] if everywhere else None

    def enable(self, cache: Cache | None, client: Any) -> Cache:
        with self._lock:
            self._install()
            if client is None:
                found = cache or (self._everywhere[-1] if self._everywhere else Cache())
                self._everywhere = [*self._everywhere, found]
            else:
                known = self._single.get(client._client, [])  # noqa: SLF001
                found = cache or (known[-1] if known else Cache())
                self._single[client._client] = [*known, found]  # noqa: SLF001
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
            if not self._everywhere and not self._single:
                self._uninstall()

    def _install(self) -> None:
        """See that each method leads through us. A second layer would be harmless: it passes through."""
        try:
            import openai  # noqa: PLC0415 - the door to a package loads it when it is opened
            import wrapt  # noqa: PLC0415
            from openai._base_client import AsyncAPIClient, SyncAPIClient  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra("openai", "openai", "enable_cache()") from error
        from askonce_openai._hook import async_hook, sync_hook  # noqa: PLC0415

        for leaf, base, hook in (
            (openai.OpenAI, SyncAPIClient, sync_hook),
            (openai.AsyncOpenAI, AsyncAPIClient, async_hook),
        ):
            owner: type = leaf if _METHOD in vars(leaf) else base
            present = vars(owner).get(_METHOD)
            if present is None:
                raise ConfigurationError(
                    f"openai {openai.__version__} has no {_METHOD}; allowed: openai 2.31 or later"
                )
            if not self._leads_through_us(present):
                ours = wrapt.FunctionWrapper(present, hook(self.cache_of))
                setattr(owner, _METHOD, ours)
                self._installed.append((owner, present, ours))

    def _leads_through_us(self, method: Any) -> bool:
        """Whether one of our wrappers is in a chain of wrappers that says what it wraps."""
        ours = {id(wrapper) for _, _, wrapper in self._installed}
        while method is not None:
            if id(method) in ours:
                return True
            method = getattr(method, "__wrapped__", None)
        return False

    def _uninstall(self) -> None:
        """Put back what was there, the latest first, wherever nobody has wrapped on top of us.

        Where somebody has, ours stays beneath and passes everything through.
        """
        left: list[tuple[type, Any, Any]] = []
        for owner, original, ours in reversed(self._installed):
            present = vars(owner).get(_METHOD)
            if present is ours:
                setattr(owner, _METHOD, original)
            elif present is not original:
                left.append((owner, original, ours))
        self._installed = left[::-1]


_patch = _Patch()


def enable_cache(cache: Cache | None = None, *, client: OpenAI | AsyncOpenAI | None = None) -> Cache:
    """Answer the repeated calls of OpenAI clients from a cache.

    Serves every OpenAI and AsyncOpenAI client of this process, those that exist and those to come, with
    Azure, subclasses and the module client (`openai.chat...`). May be called again: each call wants its
    own `disable_cache`, and the cache given last answers.

    Args:
        cache: the cache to use; None: the one enabled before, else a new `Cache()` (memory over disk).
        client: serve only this client, and those made from it by `with_options()`.

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
    return _patch.enable(cache, client)


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
