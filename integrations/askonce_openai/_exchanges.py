"""One call of an OpenAI client, as the core sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from askonce import Request
from askonce.doors import MARK, Family, Opened, opened, patience_of

Send = Callable[..., Any]
AsyncSend = Callable[..., Awaitable[Any]]


class SyncCall:
    """A call of an OpenAI client: `send` is its `_send_request` as it was before us."""

    __slots__ = ("_family", "_kwargs", "_native", "_send", "live", "patience", "request")

    def __init__(
        self, family: Family, native: Any, request: Request, send: Send, kwargs: dict[str, Any]
    ) -> None:
        self.request = request
        self.live: bool = bool(kwargs.get("stream"))
        self.patience = patience_of(native)
        self._family = family
        self._native = native
        self._send = send
        self._kwargs = kwargs

    def open(self) -> Opened:
        """Send the caller's own request."""
        self._native.extensions[MARK] = True
        return opened(self._send(self._native, **self._kwargs), live_async=False)

    def again(self) -> Opened:
        """Send a copy and read the whole answer, for a refresh behind the caller's back."""
        copy = self._family.again(self._native, self.request.body)
        return opened(self._send(copy, **{**self._kwargs, "stream": False}), live_async=False)


class AsyncCall:
    """SyncCall, for AsyncOpenAI clients."""

    __slots__ = ("_family", "_kwargs", "_native", "_send", "live", "patience", "request")

    def __init__(
        self, family: Family, native: Any, request: Request, send: AsyncSend, kwargs: dict[str, Any]
    ) -> None:
        self.request = request
        self.live: bool = bool(kwargs.get("stream"))
        self.patience = patience_of(native)
        self._family = family
        self._native = native
        self._send = send
        self._kwargs = kwargs

    async def open(self) -> Opened:
        """Send the caller's own request."""
        self._native.extensions[MARK] = True
        return opened(await self._send(self._native, **self._kwargs), live_async=True)

    async def again(self) -> Opened:
        """Send a copy and read the whole answer."""
        copy = self._family.again(self._native, self.request.body)
        return opened(await self._send(copy, **{**self._kwargs, "stream": False}), live_async=True)
