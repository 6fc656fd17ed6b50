"""One call of an OpenAI client, as the core sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from askonce import Request
from askonce.doors import MARK, Family, Opened, opened, patience_of


class _Call:
    """What both kinds of call are made of.

    Args:
        family: of the client's HTTP package.
        native: the SDK's request.
        request: the same for the core.
        send: the client's `_send_request` as it was before us.
        kwargs: what the SDK passes along with the request.
    """

    __slots__ = ("_family", "_kwargs", "_native", "_send", "live", "request")

    def __init__(
        self, family: Family, native: Any, request: Request, send: Callable[..., Any], kwargs: dict[str, Any]
    ) -> None:
        self.request = request
        self.live: bool = bool(kwargs.get("stream"))
        self._family = family
        self._native = native
        self._send = send
        self._kwargs = kwargs

    @property
    def patience(self) -> float | None:
        """Seconds the caller waits for a byte; None: for ever."""
        return patience_of(self._native)

    def _own(self) -> Any:
        """Send the caller's own request."""
        self._native.extensions[MARK] = True
        return self._send(self._native, **self._kwargs)

    def _copy(self) -> Any:
        """Send a copy and read the whole answer, for a refresh behind the caller's back."""
        copy = self._family.again(self._native, self.request.body)
        return self._send(copy, **{**self._kwargs, "stream": False})


class SyncCall(_Call):
    """A call of an OpenAI client: an `askonce.doors.Exchange`."""

    __slots__ = ()

    def open(self) -> Opened:
        """Call the provider."""
        return opened(self._own(), live_async=False)

    def again(self) -> Opened:
        """Call the provider for a refresh."""
        return opened(self._copy(), live_async=False)


class AsyncCall(_Call):
    """A call of an AsyncOpenAI client: an `askonce.doors.AsyncExchange`."""

    __slots__ = ()

    async def open(self) -> Opened:
        """Call the provider."""
        return opened(await self._own(), live_async=True)

    async def again(self) -> Opened:
        """Call the provider for a refresh."""
        return opened(await self._copy(), live_async=True)
