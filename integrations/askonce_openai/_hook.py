"""What runs in place of `_send_request`: the request goes to the cache, the SDK parses what comes back.

`_send_request` is the last step of the SDK before its HTTP client, below its retries and above its
parsing. So chat, responses, embeddings, `.parse`, `.stream`, raw and streaming responses, Azure and
subclasses all behave as without a cache: they see a response, and read it with their own code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from askonce import AskOnceError, Cache, OfflineMiss
from askonce.doors import MARK, Family, Reply, asked, family_of
from askonce_openai._exchanges import AsyncCall, SyncCall
from askonce_openai._principal import principal_of

CacheOf = Callable[[Any], "Cache | None"]


def sync_hook(cache_of: CacheOf) -> Callable[..., Any]:
    """The wrapper for `OpenAI._send_request`; `cache_of(client)` says which cache, None for none."""

    def send_request(wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = cache_of(client)
        native = args[0] if args else kwargs.get("request")
        if cache is None or native is None or MARK in native.extensions:
            return wrapped(*args, **kwargs)
        rest = kwargs if args else {name: value for name, value in kwargs.items() if name != "request"}
        body = _content(native)
        if body is None and _is_form(native) and cache.considers(native.method, native.url.path):
            body = native.read()
        family = family_of(native)
        call = SyncCall(family, native, asked(native, body, principal_of(client, kwargs)), wrapped, rest)
        try:
            reply = cache.ask(call)
        except AskOnceError as error:
            raise _dressed(error) from None
        if _is_bypass(reply):
            native.extensions[MARK] = True  # a bypass, too, counts once
            reply.native = wrapped(*args, **kwargs)
        return _response(family, reply, native, live=call.live, live_async=False)

    return send_request


def async_hook(cache_of: CacheOf) -> Callable[..., Any]:
    """The wrapper for `AsyncOpenAI._send_request`."""

    async def send_request(wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = cache_of(client)
        native = args[0] if args else kwargs.get("request")
        if cache is None or native is None or MARK in native.extensions:
            return await wrapped(*args, **kwargs)
        if not _on_asyncio():
            if cache.never_asks(asked(native, None)):
                raise _dressed(OfflineMiss("mode is offline, and only asyncio is answered from the cache"))
            return await wrapped(*args, **kwargs)
        rest = kwargs if args else {name: value for name, value in kwargs.items() if name != "request"}
        body = _content(native)
        if body is None and _is_form(native) and cache.considers(native.method, native.url.path):
            body = await native.aread()
        family = family_of(native)
        call = AsyncCall(family, native, asked(native, body, principal_of(client, kwargs)), wrapped, rest)
        try:
            reply = await cache.aask(call)
        except AskOnceError as error:
            raise _dressed(error) from None
        if _is_bypass(reply):
            native.extensions[MARK] = True
            reply.native = await wrapped(*args, **kwargs)
        return _response(family, reply, native, live=call.live, live_async=True)

    return send_request


def _is_bypass(reply: Reply) -> bool:
    return reply.entry is None and reply.reader is None and reply.native is None


def _response(family: Family, reply: Reply, native: Any, *, live: bool, live_async: bool) -> Any:
    """The response that the SDK gets for a reply; see Reply for which is which."""
    if reply.entry is not None:
        return family.replay(reply.entry, reply.outcome, native, live=live)
    if reply.reader is None:
        return family.annotate(reply.native, reply.outcome)
    if reply.native is None:
        return family.tail(reply, native, live_async=live_async)
    return family.lead(reply, native, live_async=live_async)


def _content(native: Any) -> bytes | None:
    """The body when it is there already; None for one that would have to be read."""
    try:
        content: bytes = native.content
    except Exception:  # noqa: BLE001 - RequestNotRead, of either family
        return None
    return content


def _is_form(native: Any) -> bool:
    """A multipart form can be read ahead: it is sent from memory then. Other unread bodies stay untouched."""
    content_type: str = native.headers.get("content-type", "")
    return content_type.startswith("multipart/form-data")


def _on_asyncio() -> bool:
    """False on trio, whose tasks cannot wait for ours; such calls go on as without a cache."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _dressed(error: AskOnceError) -> AskOnceError:
    from askonce_openai._errors import dressed  # noqa: PLC0415 - the SDK is loaded by now

    return dressed(error)
