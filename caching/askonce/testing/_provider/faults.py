"""How a call goes wrong: values, drawn one per call from a script."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from askonce._errors import not_allowed

if TYPE_CHECKING:
    import threading

ResponseStatus = Literal["completed", "incomplete", "failed", "cancelled", "queued", "in_progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One call's behaviour. `Fault()` behaves well, which lets a script skip a call.

    Positions (`*_after`) count *events* in a streamed answer and *bytes* in any other; one beyond
    the end means "after the last, before the end of the body". Faults combine: a delayed, gzipped
    stream that is cut after three events is one value.

    Attributes:
        to: only calls to this endpoint ("embeddings", "chat/completions") draw this fault; None: any.
        status: HTTP status; from 400 up the body is the provider's error object.
        retry_after: seconds, sent as `retry-after-ms` and, rounded up, as `retry-after`.
        headers: further response headers, name and value; a name set here replaces the usual one.
        delay: seconds before the status line, on top of the provider's own.
        chunk_delay: seconds between the events of a stream; None: the provider's.
        hang: no status line until `FakeProvider.release()`.
        hold: no status line until this event is set; with `hold_after`, the pause there ends with it.
        hold_after: pause at this position until `hold` is set or, without one, `release()`.
        disconnect: the connection closes without a status line.
        cut_after: the connection closes at this position, in violation of the framing. Not
            detectable by a client together with `close_delimited`, whose framing *is* the close.
        silent_end_after: the body ends at this position, well framed: a stream without its terminal
            event, a plain body cut short with a matching content-length.
        error_event_after: at this position a stream sends its protocol's error event and ends.
        error_body: status 200 and an error object, plain even where a stream was asked for.
        garbage: the right status and content type around bytes that mean nothing.
        oversize: the body is at least this many bytes long.
        gzip: content-encoding gzip, whatever the client accepts; streams are flushed per event.
        close_delimited: neither content-length nor chunks: the body ends with the connection.
        reply: the answer's text, for this call only.
        finish_reason: such as "length" or "content_filter", which also cut the text in half; for
            the Responses API both mean the status "incomplete".
        refusal: the model refuses.
        empty: a well-formed answer with nothing in it.
        response_status: the status of a Responses answer; other endpoints ignore it.
    """

    to: str | None = None
    status: int = 200
    retry_after: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    chunk_delay: float | None = None
    hang: bool = False
    hold: threading.Event | None = None
    hold_after: int | None = None
    disconnect: bool = False
    cut_after: int | None = None
    silent_end_after: int | None = None
    error_event_after: int | None = None
    error_body: bool = False
    garbage: bool = False
    oversize: int = 0
    gzip: bool = False
    close_delimited: bool = False
    reply: str | None = None
    finish_reason: str | None = None
    refusal: bool = False
    empty: bool = False
    response_status: ResponseStatus | None = None

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:  # noqa: PLR2004 - the range of final HTTP statuses
            raise not_allowed("status", self.status, "a final HTTP status, 200 to 599")
        for name in (
            "retry_after",
            "delay",
            "chunk_delay",
            "hold_after",
            "cut_after",
            "silent_end_after",
            "error_event_after",
            "oversize",
        ):
            value: float | None = getattr(self, name)
            if value is not None and value < 0:
                raise not_allowed(name, value, "0 or more")

    def applies_to(self, endpoint: str) -> bool:
        """Whether a call to `endpoint` draws this fault."""
        return self.to is None or self.to.strip("/") == endpoint


WELL_BEHAVED = Fault()


class Script:
    """Which fault the next call draws: one-shot steps first, then the standing one.

    Not synchronised; the desk calls it under its lock.
    """

    def __init__(self) -> None:
        self._steps: deque[Fault] = deque()
        self._standing = WELL_BEHAVED

    def extend(self, steps: tuple[Fault, ...]) -> None:
        """Queue one-shot steps."""
        self._steps.extend(steps)

    def stand(self, step: Fault) -> None:
        """Set what applies to every call that draws no one-shot step."""
        self._standing = step

    def clear(self) -> None:
        """Forget all steps."""
        self._steps.clear()
        self._standing = WELL_BEHAVED

    @property
    def pending(self) -> int:
        """One-shot steps that no call has drawn yet."""
        return len(self._steps)

    def draw(self, endpoint: str) -> Fault:
        """Take the first queued step for `endpoint`, else what stands."""
        for position, step in enumerate(self._steps):
            if step.applies_to(endpoint):
                del self._steps[position]
                return step
        return self._standing if self._standing.applies_to(endpoint) else WELL_BEHAVED
