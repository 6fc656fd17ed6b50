"""What a client puts into its requests, and whether the SDK's own code does it.

The same arguments mean the same request only as long as nothing else that goes into it has changed: the
client's settings, those of its HTTP client, and the SDK's methods in between, which tracers like to wrap.
All of that is compared on each call. Whatever is not plainly what the SDK itself makes of it is not
understood, and such a client's calls take the usual way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from operator import attrgetter, itemgetter
from types import FunctionType
from typing import Any, Final, cast

import openai
from openai._base_client import AsyncAPIClient, SyncAPIClient

# Between `create` and `_send_request`, and from there back to the caller.
_BETWEEN: Final = (
    "post", "request", "_build_request", "_build_headers", "_prepare_url", "_prepare_options",
    "_prepare_request", "_process_response", "_process_response_data", "_make_sse_decoder",
)  # fmt: skip
# Who asks is decided anew for each request where one of these is set.
_ASKED_EACH_TIME: Final = (
    "_api_key_provider", "_azure_ad_token_provider", "workload_identity", "_workload_identity_auth",
    "_provider", "_provider_runtime",
)  # fmt: skip
_BASES: Final = {
    openai.OpenAI: SyncAPIClient,
    openai.AzureOpenAI: SyncAPIClient,
    openai.AsyncOpenAI: AsyncAPIClient,
    openai.AsyncAzureOpenAI: AsyncAPIClient,
}
_log: Final = logging.getLogger("openai._base_client")


def is_plain(function: object, package: str) -> bool:
    """Whether a function, and whatever it wraps, stands in a package's own source."""
    while True:
        if not isinstance(function, FunctionType):
            return False
        if function.__module__.partition(".")[0] != package:
            return False
        if package not in function.__code__.co_filename.replace("\\", "/").split("/"):
            return False
        inner: object = getattr(function, "__wrapped__", None)
        if inner is None:
            return True
        function = inner


def _methods() -> dict[type, tuple[Any, tuple[Any, ...]]]:
    """For each class of clients whose methods are the SDK's: how to get at them, and which they are."""
    found: dict[type, tuple[Any, tuple[Any, ...]]] = {}
    for kind, base in _BASES.items():
        names = [name for name in _BETWEEN if hasattr(base, name)]
        read = attrgetter(*names)
        present = read(kind)
        if all(is_plain(one, "openai") for one in present):
            found[kind] = (read, present)
    return found


_KNOWN: Final = _methods()


class ClientState:
    """A client as it was when its requests were learnt.

    Args:
        client: an OpenAI client of any kind.

    Raises:
        NotUnderstoodError: when its requests depend on more than what can be compared.
    """

    __slots__ = ("_copies", "_count", "_http", "_methods", "_mutable", "_present", "_read", "_seen")

    def __init__(self, client: Any) -> None:
        kind = cast("type[Any]", type(client))
        known = _KNOWN.get(kind)
        if known is None:
            raise NotUnderstoodError(kind.__name__)
        self._methods, self._present = known
        state: dict[str, Any] = client.__dict__
        if any(state.get(name) is not None for name in _ASKED_EACH_TIME):
            raise NotUnderstoodError("who asks is decided each time")
        names: list[str] = []
        for name in state:
            own = getattr(kind, name, None)
            if isinstance(own, cached_property):
                continue  # its resources, made when first used
            if isinstance(own, FunctionType):
                raise NotUnderstoodError(name)  # a method of this one client was replaced
            names.append(name)
        self._count = len(state)
        self._read = itemgetter(*names)
        self._seen: tuple[Any, ...] = self._read(state)
        self._mutable: tuple[Any, ...] = tuple(filter(_is_mutable, self._seen))
        self._copies: tuple[Any, ...] = tuple(map(_copied, self._mutable))
        http = client._client  # noqa: SLF001 - the HTTP client is part of every request
        package = _package_of(http)
        builds = cast("type[Any]", type(http)).build_request
        if not is_plain(builds, package):
            raise NotUnderstoodError("build_request")
        self._http = _HTTPState(http)

    def holds(self, client: Any, *, cookies: bool) -> bool:
        """Whether nothing that goes into a request has changed, its cookies included if they matter.

        Providers set cookies with whatever they answer: most caches had better not look at them.
        """
        state: dict[str, Any] = client.__dict__
        return (
            len(state) == self._count
            and self._read(state) == self._seen
            and self._mutable == self._copies
            and self._methods(type(client)) == self._present
            and self._http.holds(client._client, cookies=cookies)  # noqa: SLF001
            and not _log.isEnabledFor(logging.DEBUG)  # whoever reads the SDK's log wants to see each call
        )


def is_own(resource: Any, client: Any) -> bool:
    """Whether a resource is the SDK's, and sends through its client's own method."""
    kind = cast("type[Any]", type(resource))
    post: Any = resource._post  # noqa: SLF001
    return (
        kind.__module__.startswith("openai.resources.")
        and getattr(post, "__self__", None) is client
        and getattr(post, "__func__", None) is cast("type[Any]", type(client)).post
    )


class NotUnderstoodError(Exception):
    """A client's requests depend on more than what can be compared."""


def _is_mutable(value: object) -> bool:
    return isinstance(value, Mapping | list | set)


def _copied(value: Any) -> Any:
    return dict(cast("Mapping[Any, Any]", value)) if isinstance(value, Mapping) else value.copy()


def _package_of(http: Any) -> str:
    for kind in type(http).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in {"httpx", "httpx2"}:
            return package
    raise NotUnderstoodError(type(http).__name__)


class _HTTPState:
    """What an HTTP client adds to each request: parameters, headers, cookies; and who it says it is."""

    __slots__ = ("_cookies", "_headers", "_params")

    def __init__(self, http: Any) -> None:
        self._params = http._params  # noqa: SLF001 - an object that does not change
        self._headers: list[Any] = list(http._headers._list)  # noqa: SLF001
        self._cookies = _cookies(http)

    def holds(self, http: Any, *, cookies: bool) -> bool:
        """Whether it adds the same still."""
        return (
            http._auth is None  # noqa: SLF001
            and "build_request" not in vars(http)  # a method of this one client, replaced
            and http._params is self._params  # noqa: SLF001
            and http._headers._list == self._headers  # noqa: SLF001
            and (not cookies or _cookies(http) == self._cookies)
        )


def _cookies(http: Any) -> tuple[tuple[str, str | None, str], ...]:
    jar = http._cookies.jar  # noqa: SLF001
    return tuple((one.name, one.value, one.domain) for one in jar) if jar._cookies else ()  # noqa: SLF001
