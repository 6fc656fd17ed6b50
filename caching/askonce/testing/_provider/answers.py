"""An answer before it is written, and the faults that change its content. Pure functions."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import orjson

from askonce.testing._provider.multipart import form_fields

if TYPE_CHECKING:
    from askonce.testing._provider.faults import Fault
    from askonce.testing._provider.records import RecordedRequest

Json: TypeAlias = dict[str, Any]

# `created` counts up from here instead of reading the clock: two answers within a second differ.
_EPOCH = 1_700_000_000

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"

# What each status means in the provider's error object: type and code.
_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


class BadRequestError(ValueError):
    """The request makes no sense to its endpoint; the text is for the client."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What an endpoint needs to know to answer.

    Attributes:
        record: the request.
        number: makes this answer different from every other one of the provider.
        fault: how the content is to go wrong.
        reply: the text to answer with; None: the built-in one.
    """

    record: RecordedRequest
    number: int
    fault: Fault
    reply: str | None

    @cached_property
    def body(self) -> Json:
        """The JSON body, or the fields of a form. Raises BadRequestError when it is neither."""
        content_type = self.record.header("content-type") or ""
        if content_type.startswith("multipart/form-data"):
            return dict(form_fields(content_type, self.record.body))
        try:
            decoded = self.record.json()
        except ValueError:
            raise BadRequestError("We could not parse the JSON body of your request.") from None
        if not isinstance(decoded, dict):
            raise BadRequestError("The body of your request must be a JSON object.")
        return cast(Json, decoded)

    @property
    def created(self) -> int:
        """Seconds since the epoch, later for every answer."""
        return _EPOCH + self.number

    @property
    def model(self) -> str:
        """The model asked for: in the body, or in the path of Azure and Google."""
        segments = self.record.path.split("/")
        fallback = segments[-1].partition(":")[0] if ":" in segments[-1] else "fake-model"
        if "deployments" in segments[:-1]:
            fallback = segments[segments.index("deployments") + 1]
        return str(self.body.get("model") or fallback)

    @property
    def streaming(self) -> bool:
        """Whether the caller asked for a stream; a form says so with a word."""
        return self.body.get("stream") in (True, "true", "True")

    @property
    def count(self) -> int:
        """`n`: how many alternatives are wanted."""
        try:
            return max(1, int(self.body.get("n") or 1))
        except (TypeError, ValueError):
            raise BadRequestError("'n' must be an integer.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, content and how it is cut into pieces.

    Attributes:
        status: HTTP status.
        content_type: its header.
        pieces: a stream's events, each written and flushed as one chunk; otherwise one piece.
        streamed: chunked framing, and positions count pieces instead of bytes.
        error_event: what the protocol sends when a stream fails halfway.
        headers: further headers.
    """

    status: int = 200
    content_type: str = _JSON
    pieces: tuple[bytes, ...]
    streamed: bool = False
    error_event: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: object, *, status: int = 200) -> Answer:
    """A plain JSON answer."""
    return Answer(status=status, pieces=(orjson.dumps(value),))


def binary_answer(body: bytes, content_type: str) -> Answer:
    """A plain answer of any type."""
    return Answer(pieces=(body,), content_type=content_type)


def event(data: Json, *, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def typed_event(kind: str, **fields: Any) -> bytes:
    """One event of the newer protocols, which say its type on the event line and in the data."""
    return event({"type": kind, **fields}, name=kind)


DONE = b"data: [DONE]\n\n"


def event_answer(events: list[bytes], *, error_event: bytes | None = None) -> Answer:
    """A stream of events; without an `error_event`, it fails as the chat protocol does."""
    return Answer(
        pieces=tuple(events),
        content_type=_EVENTS,
        streamed=True,
        error_event=event(error_object(500)) if error_event is None else error_event,
    )


def error_object(status: int, message: str | None = None) -> Json:
    """The provider's error object for a status."""
    kind, code = _ERRORS.get(status, ("server_error", "server_error"))
    text = message or f"The fake provider was told to answer with status {status}."
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def error_answer(status: int, message: str | None = None) -> Answer:
    """A plain error."""
    return json_answer(error_object(status, message), status=status)


def distort(answer: Answer, fault: Fault) -> Answer:
    """`answer` with the faults of its content; those of the connection are the wire's."""
    pieces = answer.pieces
    headers = answer.headers
    if fault.garbage:
        pieces = _garbage(answer)
    if fault.oversize:
        pieces = _padded(answer, pieces, fault.oversize)
    if answer.streamed and fault.error_event_after is not None:
        pieces = (*pieces[: fault.error_event_after], answer.error_event)
    if fault.silent_end_after is not None:
        end = fault.silent_end_after
        pieces = pieces[:end] if answer.streamed else (b"".join(pieces)[:end],)
    if fault.gzip:
        pieces = _gzipped(pieces)
        headers = (*headers, ("content-encoding", "gzip"))
    status = fault.status if answer.status == 200 else answer.status  # noqa: PLR2004 - HTTP's OK
    return replace(answer, status=status, pieces=pieces, headers=headers)


def _garbage(answer: Answer) -> tuple[bytes, ...]:
    noise = b'{"id": "\xc3\x28", "choices": [}{' + bytes(range(0x80, 0x100))
    return (b"data: " + noise + b"\n\n",) * 3 if answer.streamed else (noise,)


def _padded(answer: Answer, pieces: tuple[bytes, ...], size: int) -> tuple[bytes, ...]:
    missing = size - sum(map(len, pieces))
    if missing <= 0:
        return pieces
    if answer.content_type == _EVENTS:
        # A comment: legal anywhere in an event stream and invisible to its reader.
        return (b": " + b"." * missing + b"\n\n", *pieces)
    if answer.content_type == _JSON and pieces[0].endswith(b"}"):
        return (pieces[0][:-1] + b',"padding":"' + b"." * missing + b'"}',)
    return (*pieces[:-1], pieces[-1] + b"." * missing)


def _gzipped(pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    end = packer.flush()
    return (*packed[:-1], packed[-1] + end) if packed else (end,)
