"""One call of an OpenAI client, as the core sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from askonce.doors import NativeCall, Opened, opened


class _Call(NativeCall):
    """What both kinds of call are made of.

    Args:
        native: the SDK's request.
        body: its body; None for one that nobody may read.
        principal: who asks, where the headers do not say.
        send: the client's `_send_request` as it was before us.
        kwargs: what the SDK passes along with the request.
    """

    __slots__ = ("_kwargs", "_send")

    def __init__(
        self,
        native: Any,
        body: bytes | None,
        principal: bytes,
        send: Callable[..., Any],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(native, body, principal, live=bool(kwargs.get("stream")))
        self._send = send
        self._kwargs = kwargs

    def send(self) -> Any:
        """Send the caller's own request."""
        return self._send(self.marked(), **self._kwargs)

    def send_copy(self) -> Any:
        """Send a copy and read the whole answer."""
        return self._send(self.copy(), **{**self._kwargs, "stream": False})

    def send_changed(self, body: bytes) -> Any:
        """Send another body in the caller's way."""
        return self._send(self.changed(body), **self._kwargs)


class SyncCall(_Call):
    """A call of an OpenAI client: an `askonce.doors.Exchange`."""

    __slots__ = ()

    def open(self) -> Opened:
        """Call the provider."""
        return opened(self.send(), live_async=False)

    def again(self) -> Opened:
        """Call the provider for a refresh."""
        return opened(self.send_copy(), live_async=False)

    def instead(self, body: bytes) -> Opened:
        """Call the provider with another body."""
        return opened(self.send_changed(body), live_async=False)


class AsyncCall(_Call):
    """A call of an AsyncOpenAI client: an `askonce.doors.AsyncExchange`."""

    __slots__ = ()

    async def open(self) -> Opened:
        """Call the provider."""
        return opened(await self.send(), live_async=True)

    async def again(self) -> Opened:
        """Call the provider for a refresh."""
        return opened(await self.send_copy(), live_async=True)

    async def instead(self, body: bytes) -> Opened:
        """Call the provider with another body."""
        return opened(await self.send_changed(body), live_async=True)
