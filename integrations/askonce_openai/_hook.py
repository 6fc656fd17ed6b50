"""What runs in place of `_send_request`: the request goes to the cache, the SDK parses what comes back.

`_send_request` is the last step of the SDK before its HTTP client, below its retries and above its
parsing. So chat, responses, embeddings, `.parse`, `.stream`, raw and streaming responses, Azure and
subclasses all behave as without a cache: they see a response, and read it with their own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from askonce import AskOnceError, Cache
from askonce.doors import MARK, asked, content_of, is_form, on_asyncio
from askonce_openai._exchanges import AsyncCall, SyncCall
from askonce_openai._lesson import lesson
from askonce_openai._principal import principal_of

CacheOf = Callable[[Any], "Cache | None"]


def sync_hook(cache_of: CacheOf, sent: Callable[[], None]) -> Callable[..., Any]:
    """The wrapper for `OpenAI._send_request`.

    Args:
        cache_of: says which cache serves a client, None for none.
        sent: called for each request that a cache sees.
    """

    def send_request(wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = cache_of(client)
        native = args[0] if args else kwargs.get("request")
        if cache is None or native is None or MARK in native.extensions:
            return wrapped(*args, **kwargs)
        sent()
        rest = kwargs if args else {name: value for name, value in kwargs.items() if name != "request"}
        body = content_of(native)
        if body is None and is_form(native) and cache.considers(native.method, native.url.path):
            body = native.read()
        call = SyncCall(native, body, principal_of(client, kwargs), wrapped, rest)
        try:
            reply = cache.ask(call)
        except AskOnceError as error:
            raise _dressed(error) from None
        taken = lesson.get()
        if taken is not None:
            taken.note(call, reply)
        if reply.bypassed:
            reply.native = call.send()  # marked: a bypass, too, counts once
        return call.answered(reply, live_async=False)

    return send_request


def async_hook(cache_of: CacheOf, sent: Callable[[], None]) -> Callable[..., Any]:
    """The wrapper for `AsyncOpenAI._send_request`."""

    async def send_request(wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = cache_of(client)
        native = args[0] if args else kwargs.get("request")
        if cache is None or native is None or MARK in native.extensions:
            return await wrapped(*args, **kwargs)
        if not on_asyncio():
            if cache.never_asks(asked(native, None)):
                raise _dressed(cache.offline_miss("only asyncio is answered from the cache"))
            return await wrapped(*args, **kwargs)
        sent()
        rest = kwargs if args else {name: value for name, value in kwargs.items() if name != "request"}
        body = content_of(native)
        if body is None and is_form(native) and cache.considers(native.method, native.url.path):
            body = await native.aread()
        call = AsyncCall(native, body, principal_of(client, kwargs), wrapped, rest)
        try:
            reply = await cache.aask(call)
        except AskOnceError as error:
            raise _dressed(error) from None
        taken = lesson.get()
        if taken is not None:
            taken.note(call, reply)
        if reply.bypassed:
            reply.native = await call.send()
        return call.answered(reply, live_async=True)

    return send_request


def _dressed(error: AskOnceError) -> AskOnceError:
    from askonce_openai._errors import dressed  # noqa: PLC0415 - the SDK is loaded by now

    return dressed(error)
