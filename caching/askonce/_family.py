"""httpx and httpx2: two packages with one protocol and different classes.

A process normally holds both. A response must be made of the classes of *the request's* package, which
is found in `sys.modules`; neither package is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final

from askonce._buffer import StreamBroken
from askonce._cache_status import cache_status
from askonce._entry import Entry, Headers
from askonce._exchange import Opened, Reply
from askonce._outcome import Outcome
from askonce._reader import Reader
from askonce._request import Request

MARK: Final = "askonce"
"""Set in `request.extensions` by the outermost door, so that a call counts once and is stored once."""

_MOST_HEADS: Final = 1024
_HTTP_WITH_FRAMES: Final = (b"HTTP/2", b"HTTP/3")
_AT_ONCE: Final = timedelta(0)


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
        self._sync_body, self._async_body = _body_classes(package)
        self._heads: dict[Headers, Any] = {}
        self._presets_content = self._content_can_be_preset()

    def _content_can_be_preset(self) -> bool:
        """Whether a response can be given its content directly, with the same result for less.

        Reading bytes through the response's own decoding machinery takes 30 microseconds.
        Checked against the slow way rather than assumed, since attributes with an underscore may change.
        """
        try:
            request = self._package.Request("POST", "http://localhost/")
            slow = self._package.Response(
                200, headers=[("content-type", "a/b")], content=b"x", request=request
            )
            fast = self._preset(200, self._head((("content-type", "a/b"),)), b"x", request)
            slow.elapsed = _AT_ONCE
            slow._num_bytes_downloaded = 1  # noqa: SLF001 - a response with content says 0, a read one does not
            return (
                _visible(slow) == _visible(fast)
                and bool(fast.headers == slow.headers)
                and bool(fast.read() == fast.content == b"x")
            )
        except Exception:  # noqa: BLE001 - then the documented way
            return False

    def _head(self, headers: Headers) -> Any:
        """A fresh header object: copied from one that was read before, which costs a fifth of reading."""
        known = self._heads.get(headers)
        if known is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            known = self._heads[headers] = self._package.Headers(headers)
        return self._package.Headers(known)

    def _preset(self, status: int, head: Any, body: bytes, request: Any) -> Any:
        head["content-length"] = str(len(body))
        response = self._package.Response(
            status,
            headers=head,
            stream=self._package.ByteStream(body),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )
        response._content = body  # noqa: SLF001 - see _content_can_be_preset
        response._num_bytes_downloaded = len(body)  # noqa: SLF001
        response.is_closed = True
        response.is_stream_consumed = True
        response.elapsed = _AT_ONCE
        return response

    def replay(self, entry: Entry, outcome: Outcome, request: Any, *, live: bool) -> Any:
        """A response with a stored answer: read already, or still to be read when `live`."""
        head = self._head(entry.headers)
        head["cache-status"] = cache_status(outcome)
        if not live and self._presets_content:
            return self._preset(entry.status, head, entry.body, request)
        body = {"stream": self._package.ByteStream(entry.body)} if live else {"content": entry.body}
        response = self._package.Response(
            entry.status, headers=head, request=request, extensions={"http_version": b"HTTP/1.1"}, **body
        )
        response.elapsed = _AT_ONCE
        return response

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
    headers = tuple([(name.lower(), value) for name, value in request.headers.raw])
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


def _translated(package: Any, error: Exception, request: Any) -> Exception:
    """The error that this family's own client would raise."""
    if isinstance(error, TimeoutError):
        stalled: Exception = package.ReadTimeout("the shared stream stalled", request=request)
        return stalled
    cause = error.cause if isinstance(error, StreamBroken) else error
    kind = getattr(package, type(cause).__name__, None)
    if not (isinstance(kind, type) and issubclass(kind, package.TransportError)):
        kind = package.ReadError
    broken: Exception = kind(str(cause or "the shared stream ended early"), request=request)
    return broken


def _body_classes(package: Any) -> tuple[Any, Any]:
    """Response bodies for one family. One class per family: an object of both is refused by some SDKs."""
    sync_base: Any = package.SyncByteStream
    async_base: Any = package.AsyncByteStream

    class SyncBody(sync_base):  # type: ignore[misc]
        """A body read through a Reader."""

        def __init__(self, reader: Reader, inner: Any, patience: float | None, request: Any) -> None:
            self._reader = reader
            self._inner = inner
            self._patience = patience
            self._request = request

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        def __iter__(self) -> Iterator[bytes]:
            while True:
                try:
                    chunk = self._reader.read(self._patience)
                except (StreamBroken, TimeoutError) as error:
                    raise _translated(package, error, self._request) from error
                if chunk is None:
                    return
                yield chunk

        def close(self) -> None:
            self._reader.close()

    class AsyncBody(async_base):  # type: ignore[misc]
        """A body read through a Reader, for event loops."""

        def __init__(self, reader: Reader, inner: Any, patience: float | None, request: Any) -> None:
            self._reader = reader
            self._inner = inner
            self._patience = patience
            self._request = request

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                try:
                    chunk = await self._reader.aread(self._patience)
                except (StreamBroken, TimeoutError) as error:
                    raise _translated(package, error, self._request) from error
                if chunk is None:
                    return
                yield chunk

        async def aclose(self) -> None:
            await self._reader.aclose()

    return SyncBody, AsyncBody
