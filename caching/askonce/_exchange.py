"""What a door and the core hand each other for one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from askonce._entry import Entry
from askonce._outcome import Outcome
from askonce._reader import Reader
from askonce._request import Request

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True, kw_only=True, eq=False)
class Opened:
    """The provider's answer as the door got it.

    Attributes:
        status: HTTP status.
        headers: raw header pairs.
        native: the SDK's own response object; given back to the door unread.
        body: the whole decoded body when the response was read; None for a live one.
        source: a live response's raw body, not content-decoded: an iterator from a sync door, an async
            one from an async door.
        close: closes a live response; a coroutine function from an async door.
        put_back: makes a live response unread again, given the raw body that was read from `source`.
        framed: HTTP marks the body's end (Content-Length, chunked, HTTP/2 and later), so that an end
            of file is the end of the answer.
    """

    status: int
    headers: RawHeaders = field(repr=False)
    native: Any = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    source: Iterator[bytes] | AsyncIterator[bytes] | None = field(default=None, repr=False)
    close: Callable[[], Any] | None = field(default=None, repr=False)
    put_back: Callable[[bytes], None] | None = field(default=None, repr=False)
    framed: bool = False

    def header(self, name: bytes) -> str:
        """The values of a header (lower-case name), joined; "" if absent."""
        return b", ".join(value for key, value in self.headers if key.lower() == name).decode("latin-1")


class Exchange(Protocol):
    """One call of a sync door.

    Attributes:
        request: what is asked.
        live: the caller wants the body while it comes.
        patience: seconds the caller waits for a byte (its read time-out); None: for ever.
    """

    @property
    def request(self) -> Request: ...
    @property
    def live(self) -> bool: ...
    @property
    def patience(self) -> float | None: ...

    def open(self) -> Opened:
        """Call the provider. What it raises is the caller's, unchanged."""
        ...

    def again(self) -> Opened:
        """Call the provider for a background refresh: read whole, apart from the caller's objects."""
        ...

    def instead(self, body: bytes) -> Opened:
        """Call the provider with another JSON body, in all else as the caller would have."""
        ...


class AsyncExchange(Protocol):
    """One call of an async door. See Exchange."""

    @property
    def request(self) -> Request: ...
    @property
    def live(self) -> bool: ...
    @property
    def patience(self) -> float | None: ...

    def open(self) -> Awaitable[Opened]:
        """Call the provider."""
        ...

    def again(self) -> Awaitable[Opened]:
        """Call the provider for a background refresh."""
        ...

    def instead(self, body: bytes) -> Awaitable[Opened]:
        """Call the provider with another JSON body."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Reply:
    """What the door gives its caller.

    Exactly one of these holds:

    * `entry` is set: build a response from it.
    * `reader` and `native` are set: the caller's own live response; its body comes from `reader`.
    * `reader` alone: another caller's live response; `status` and `headers` are its head.
    * `native` alone: the provider's response, untouched.
    * nothing is set: a bypass; the door calls the provider as if askonce were not there.

    `pace`: events a second at which a stored stream is given; None: at once.
    """

    outcome: Outcome
    entry: Entry | None = None
    native: Any = field(default=None, repr=False)
    reader: Reader | None = None
    status: int = 200
    headers: RawHeaders | None = field(default=None, repr=False)
    patience: float | None = None
    pace: float | None = None

    @property
    def bypassed(self) -> bool:
        """True when the door has to call the provider as if askonce were not there."""
        return self.entry is None and self.reader is None and self.native is None


def is_failure(status: int) -> bool:
    """RFC 5861 section 4 counts 500, 502, 503 and 504; being throttled leaves a caller as empty-handed."""
    return status >= 500 or status == 429  # noqa: PLR2004


async def discard(opened: Opened) -> None:
    """Close a response that nobody will read."""
    if opened.close is not None:
        closing = opened.close()
        if closing is not None:
            await closing
