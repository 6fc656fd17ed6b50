"""httpx and httpx2: two packages with one protocol and different classes.

A process normally holds both. A response must be made of the classes of *the request's* package, which
is found in `sys.modules`; neither package is imported here.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from typing import Any, Final

from askonce._bodies import body_classes
from askonce._cache_status import cache_status
from askonce._entry import Entry, Headers
from askonce._exchange import Opened, Reply
from askonce._outcome import Outcome
from askonce._request import Request
from askonce._surface import EVENTS, LINES

MARK: Final = "askonce"
"""Set in `request.extensions` by the outermost door, so that a call counts once and is stored once."""

_MOST_HEADS: Final = 1024
_HTTP_WITH_FRAMES: Final = (b"HTTP/2", b"HTTP/3")
_ABOUT_THE_BODY: Final = ("content-length", "transfer-encoding", "idempotency-key", "expect")
_AT_ONCE: Final = timedelta(0)
# What every copy of a response gets anew; all else must be of kinds that nobody can change.
_OWN: Final = frozenset({"headers", "stream", "extensions", "history", "_request"})
_UNCHANGING: Final = (type(None), bool, int, str, bytes, timedelta)


def _visible(response: Any) -> dict[str, Any]:
    """A response's attributes, without those that are compared by other means or made anew each time."""
    state: dict[str, Any] = {**response.__dict__}
    for name in ("extensions", "headers", "stream", "_decoder"):
        state.pop(name, None)
    return state


class Family:
    """What is needed of one of the two packages.

    Args:
        package: the module `httpx` or `httpx2`, or one that is compatible with them.
    """

    def __init__(self, package: Any) -> None:
        self._package = package
        self._sync_body, self._async_body = body_classes(package)
        self._heads: dict[tuple[Headers, int], dict[str, Any]] = {}
        self._copies = self._copies_are_equal()

    def _copies_are_equal(self) -> bool:
        """Whether responses may be made as copies of one that was read, with the same result for less.

        Making one the documented way takes 40 microseconds, of which reading the bytes through the
        response's own decoding machinery takes 30. Checked rather than assumed, since attributes with an
        underscore may change.
        """
        try:
            request = self._package.Request("POST", "http://localhost/")
            entry_headers = (("content-type", "a/b"), ("x-request-id", "1"))
            slow = self._read_response(200, entry_headers, "askonce; hit", b"xyz", request)
            for _ in range(2):  # the state is made first, then taken again
                fast = self._copied_response(200, entry_headers, "askonce; hit", b"xyz", request)
                if not (
                    all(
                        name in _OWN or isinstance(value, _UNCHANGING)
                        for name, value in fast.__dict__.items()
                    )
                    and _visible(slow) == _visible(fast)
                    and fast.headers.raw == slow.headers.raw
                    and fast.headers.encoding == slow.headers.encoding
                    and fast.extensions == slow.extensions
                    and b"".join(fast.stream) == fast.read() == fast.content == b"xyz"
                ):
                    return False
        except Exception:  # noqa: BLE001 - then the documented way
            return False
        return True

    def _read_response(self, status: int, headers: Headers, said: str, body: bytes, request: Any) -> Any:
        """A response that has been read, as the package makes it."""
        head = self._package.Headers(headers)
        head["content-length"] = str(len(body))
        head["cache-status"] = said
        response = self._package.Response(
            status,
            headers=head,
            stream=self._package.ByteStream(body),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )
        response.read()
        response.elapsed = _AT_ONCE
        return response

    def _copied_response(self, status: int, headers: Headers, said: str, body: bytes, request: Any) -> Any:
        """The same, from the state of an earlier one with such headers, so that only what differs is made."""
        size = len(body)
        state = self._heads.get((headers, size))
        if state is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            made = self._read_response(status, headers, "", b"", None)
            made.headers["content-length"] = str(size)
            state = self._heads[headers, size] = {**made.__dict__, "_num_bytes_downloaded": size}
            state.pop("_decoder", None)
        head = self._package.Headers(state["headers"])
        head["cache-status"] = said
        response = self._package.Response.__new__(self._package.Response)
        response.__dict__.update(
            state,
            status_code=status,
            headers=head,
            stream=self._package.ByteStream(body),
            extensions={"http_version": b"HTTP/1.1"},
            history=[],
            _request=request,
            _content=body,
        )
        return response

    def replay(
        self, entry: Entry, outcome: Outcome, request: Any, *, live: bool, pace: float | None = None
    ) -> Any:
        """A response with a stored answer: read already, or still to be read when `live`.

        Args:
            entry: the answer.
            outcome: what is told in Cache-Status.
            request: what asked for it.
            live: its reader wants the body as it comes.
            pace: events a second of a stream that is still to be read; None: all at once.
        """
        said = cache_status(outcome)
        if not live:
            make = self._copied_response if self._copies else self._read_response
            return make(entry.status, entry.headers, said, entry.body, request)
        head = self._package.Headers(entry.headers)
        head["cache-status"] = said
        response = self._package.Response(
            entry.status,
            headers=head,
            request=request,
            stream=self._body_of(entry, pace),
            extensions={"http_version": b"HTTP/1.1"},
        )
        response.elapsed = _AT_ONCE
        return response

    def _body_of(self, entry: Entry, pace: float | None) -> Any:
        kind = entry.header("content-type").partition(";")[0]
        if pace is None or not (kind == EVENTS or kind in LINES):
            return self._package.ByteStream(entry.body)
        from askonce._pace import paced_class, parts  # noqa: PLC0415 - few want to wait for what is there

        return paced_class(self._package)(parts(entry.body, lines=kind in LINES), 1 / pace)

    def tail(self, reply: Reply, request: Any, *, live_async: bool) -> Any:
        """A response whose body is read along with another caller's."""
        assert reply.reader is not None  # noqa: S101 - the caller has looked
        make = self._async_body if live_async else self._sync_body
        headers = [*(reply.headers or ()), (b"cache-status", cache_status(reply.outcome).encode())]
        response = self._package.Response(
            reply.status,
            headers=headers,
            stream=make(reply.reader, None, reply.patience, request),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )
        response.elapsed = _AT_ONCE
        return response

    def lead(self, reply: Reply, request: Any, *, live_async: bool) -> Any:
        """The caller's own live response, its body passing the recorder."""
        response = reply.native
        make = self._async_body if live_async else self._sync_body
        response.stream = make(reply.reader, response.stream, None, request)
        return self.annotate(response, reply.outcome)

    @staticmethod
    def annotate(response: Any, outcome: Outcome) -> Any:
        """Add our member to the response's Cache-Status, after those of caches nearer to the provider."""
        said = cache_status(outcome)
        before = response.headers.get("cache-status")
        response.headers["cache-status"] = f"{before}, {said}" if before else said
        return response

    def put_back(self, response: Any, raw: bytes) -> None:
        """Make a response unread again whose raw body was taken from its stream."""
        response.stream = self._package.ByteStream(raw)
        if not hasattr(response, "_elapsed"):
            response.elapsed = _AT_ONCE

    def instead(self, request: Any, body: bytes) -> Any:
        """A copy of a request with another body. What was said about the old one is left out."""
        made = self.again(request, b"")
        headers = self._package.Headers(made.headers)
        for name in _ABOUT_THE_BODY:
            headers.pop(name, None)
        return self._package.Request(
            request.method, request.url, headers=headers, content=body, extensions=made.extensions
        )

    def again(self, request: Any, body: bytes) -> Any:
        """A copy of a request, for a call that outlives its caller."""
        return self._package.Request(
            request.method,
            request.url,
            headers=request.headers,
            content=body,
            extensions={**request.extensions, MARK: True},
        )


def family_of(request: Any) -> Family:
    """The family of a request object: the package that its class, or one it is derived from, comes from.

    Raises:
        TypeError: for an object that is no request of either package.
    """
    for kind in type(request).__mro__:
        name = kind.__module__.partition(".")[0]
        family = _families.get(name)
        if family is not None:
            return family
        package = sys.modules.get(name)
        if hasattr(package, "SyncByteStream") and hasattr(package, "Response"):
            return _families.setdefault(name, Family(package))
    raise TypeError(f"{type(request).__name__} is no request of httpx or httpx2")


_families: dict[str, Family] = {}


def asked(request: Any, body: bytes | None, principal: bytes = b"") -> Request:
    """The neutral Request of an httpx request.

    Args:
        request: an httpx or httpx2 request.
        body: its body; None for one that nobody may read.
        principal: who asks, where the headers do not say.
    """
    headers = tuple(request.headers.raw)
    return Request(request.method, str(request.url), headers, body or b"", principal, body is None)


def patience_of(request: Any) -> float | None:
    """The read time-out that the request is sent with, in seconds; None: none."""
    timeout: Any = request.extensions.get("timeout")
    try:
        read = timeout["read"]
    except (TypeError, KeyError):
        return None
    return float(read) if isinstance(read, int | float) else None


def opened(response: Any, *, live_async: bool) -> Opened:
    """What the core needs of a provider's response, whether it was read already or not."""
    raw = response.headers.raw
    framed = _is_framed(response, raw)
    if response.is_stream_consumed:
        return Opened(
            status=response.status_code, headers=raw, native=response, body=response.content, framed=framed
        )
    iterator: Any = aiter(response.stream) if live_async else iter(response.stream)
    return Opened(
        status=response.status_code,
        headers=raw,
        native=response,
        source=iterator,
        close=partial(_aclose if live_async else _close, iterator, response.stream),
        put_back=partial(family_of(response).put_back, response),
        framed=framed,
    )


def _is_framed(response: Any, raw: list[tuple[bytes, bytes]]) -> bool:
    if response.extensions.get("http_version", b"").startswith(_HTTP_WITH_FRAMES):
        return True
    for name, value in raw:
        low = name.lower()
        if low == b"content-length" or (low == b"transfer-encoding" and b"chunked" in value.lower()):
            return True
    return False


def _close(iterator: Any, stream: Any) -> None:
    try:
        if hasattr(iterator, "close"):
            iterator.close()
    finally:
        stream.close()


async def _aclose(iterator: Any, stream: Any) -> None:
    try:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
    finally:
        await stream.aclose()
