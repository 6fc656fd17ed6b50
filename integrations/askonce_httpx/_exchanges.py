"""One request that passes a transport, as the core sees it."""

from __future__ import annotations

from typing import Any

from askonce.doors import MARK, NativeCall, Opened, opened
from askonce_httpx._principal import principal_of


class _Call(NativeCall):
    """What both kinds of call are made of.

    Here nobody knows whether the caller wants the body as it comes: it is always handed on unread.

    Args:
        native: the request, of either package.
        body: its body.
        inner: the transport that would have sent it.
    """

    __slots__ = ("_inner",)

    def __init__(self, native: Any, body: bytes | None, inner: Any) -> None:
        super().__init__(native, body, principal_of(native, inner), live=True)
        self._inner = inner

    def _unmarked(self) -> None:
        # The mark is for doors beneath, now. The same request may be sent again, by its maker or a redirect.
        self.native.extensions.pop(MARK, None)


class SyncCall(_Call):
    """A request of a Client: an `askonce.doors.Exchange`."""

    __slots__ = ()

    def send(self) -> Any:
        """Send the caller's own request; its response, unread."""
        try:
            return self._inner.handle_request(self.marked())
        finally:
            self._unmarked()

    def open(self) -> Opened:
        """Call the provider."""
        return opened(self.send(), live_async=False)

    def again(self) -> Opened:
        """Call the provider for a refresh."""
        response = self._inner.handle_request(self.copy())
        try:
            response.read()
        finally:
            response.close()
        return opened(response, live_async=False)

    def instead(self, body: bytes) -> Opened:
        """Call the provider with another body."""
        return opened(self._inner.handle_request(self.changed(body)), live_async=False)


class AsyncCall(_Call):
    """A request of an AsyncClient: an `askonce.doors.AsyncExchange`."""

    __slots__ = ()

    async def send(self) -> Any:
        """Send the caller's own request; its response, unread."""
        try:
            return await self._inner.handle_async_request(self.marked())
        finally:
            self._unmarked()

    async def open(self) -> Opened:
        """Call the provider."""
        return opened(await self.send(), live_async=True)

    async def again(self) -> Opened:
        """Call the provider for a refresh."""
        response = await self._inner.handle_async_request(self.copy())
        try:
            await response.aread()
        finally:
            await response.aclose()
        return opened(response, live_async=True)

    async def instead(self, body: bytes) -> Opened:
        """Call the provider with another body."""
        return opened(await self._inner.handle_async_request(self.changed(body)), live_async=True)
