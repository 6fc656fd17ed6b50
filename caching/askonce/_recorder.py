"""Which answers are whole: the rules by which a response, as it passes, becomes a recording or nothing.

A recorder stands beside the caller, not before it: it is fed the chunks that the caller gets, does no
I/O, delays nothing and never raises because of what a provider sent. It ends in one of two states, and a
state once reached is kept:

    recording --(the answer is whole)--> complete      `body` has the decoded bytes
              --(anything else)--------> dropped       `reason` says why; all buffers are freed

When is an answer whole? A connection that closes is no proof: proxies end a cut response as cleanly as a
whole one, and a reader who stops early closes it, too. So the *protocol* has to say it:

*Server-Sent Events* (`text/event-stream`) end with a final event: `data: [DONE]`, `response.completed`,
`response.incomplete`, `message_stop`. The recording is complete the moment that event's blank line has
been fed. Not at EOF: the SDKs stop reading at the final event, and some never close what they stopped
reading. What a provider sends after it is not part of the record.
    - An error event (`error`, `response.failed`, data that begins with `{"error"`) drops the recording.
    - EOF before the final event drops it: "cut".
    - Audio and image streams, and Cohere's, have no sure final event but a closing one (`speech.audio.done`,
      `transcript.text.done`, `image_generation.completed`, `image_edit.completed`, `message-end`): there may
      be several, so they complete only together with the EOF of a framed body that follows.
    - Providers without either (Gemini) are recorded with `sse_needs_final=False`: EOF of a framed body
      completes, unless it falls inside an event.

*NDJSON* (`application/x-ndjson`, `application/stream+json`, `application/jsonl`) ends with a line that
says `"done": true` or `"is_finished": true`, then EOF of a framed body. A line with an `error` drops it.

*Everything else* is whole at EOF of a framed body. Framed means that HTTP itself marks the end
(Content-Length, chunked, HTTP/2 and later), so that the HTTP library raises on a cut; that error comes
here as `abort`. A body that ends by closing the connection is dropped: "unframed".

All rules look at decoded bytes, and at protocol positions only (a line's start, an object's own key):
what a model *says* can neither complete nor fail a recording. How the bytes were split into chunks
changes nothing, save that compressed data damaged *behind* the final event drops a recording if the
damage comes in the same chunk. Whether a whole answer is worth keeping (truncated, refused, empty ...) is
not asked here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, cast

import orjson

from askonce._decoding import Identity, decoder
from askonce._sse import Scanner
from askonce._surface import EVENTS, LINES

State: TypeAlias = Literal["recording", "complete", "dropped"]

TOO_LARGE: Final = "too large"
CUT: Final = "cut"
ERROR: Final = "error event"
UNFRAMED: Final = "unframed"
ENCODING: Final = "content-encoding"


class Recorder:
    """Records one response body. Sans-IO; not for use by several threads at once.

    Args:
        content_type: the response's `Content-Type`; parameters and case do not matter.
        content_encoding: its `Content-Encoding`; empty for none. One that cannot be decoded here gives a
            recorder that is dropped from the start.
        framed: whether HTTP marks the body's end: Content-Length, chunked, or HTTP/2 and later.
        limit: the most decoded bytes a recording may have; one more drops it.
        sse_needs_final: False for providers whose event streams have no final event.

    Attributes:
        state: "recording", "complete" or "dropped". Like the two others, for reading only.
        reason: why the recording was dropped, else empty: "too large", "cut", "error event", "unframed",
            "content-encoding", or what `abort` was given.
        body: the decoded body once complete, else None.
        is_cut: the stream ended before its final event; also known of one that was too large to record.
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_framed",
        "_limit",
        "_ndjson",
        "_needs_final",
        "_scanner",
        "_size",
        "_watches",
        "body",
        "is_cut",
        "reason",
        "state",
    )

    def __init__(
        self,
        content_type: str,
        content_encoding: str,
        framed: bool,
        limit: int,
        *,
        sse_needs_final: bool = True,
    ) -> None:
        self.state: State = "recording"
        self.reason = ""
        self.body: bytes | None = None
        self.is_cut = False
        self._watches = False
        media_type = content_type.partition(";")[0].strip().lower()
        self._scanner = Scanner() if media_type == EVENTS else None
        self._ndjson = media_type in LINES
        self._needs_final = sse_needs_final
        self._framed = framed
        self._limit = limit
        self._size = 0
        self._chunks: list[bytes] = []
        found = decoder(content_encoding)
        self._decoder = None if isinstance(found, Identity) else found
        if found is None:
            self._drop(ENCODING)

    def __repr__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"<Recorder {self.state}{reason}, {self._size} bytes>"

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes as they came from the network, still encoded. Ignored once decided.

        The chunk is kept, not copied. One chunk is decoded in one go, so that until the limit is checked
        a small compressed chunk can be a large one: the caller's own client allows for the same.
        """
        if self.state != "recording" and not self._watches:
            return
        if self._decoder is not None:
            try:
                chunk = self._decoder.feed(chunk)
            except ValueError:
                self._drop(ENCODING)
                return
        if self._watches:
            self._watch(chunk)
        else:
            self._take(chunk)

    def eof(self) -> None:
        """The body has ended, as far as HTTP can tell. Decides the recording."""
        if self.state != "recording":
            self.is_cut = self._watches and not self._saw_the_end()
            return
        whole = True
        if self._decoder is not None:
            try:
                if not self._take(self._decoder.finish()):
                    return
            except ValueError:
                whole = False
        if self._scanner is not None:
            self._end_of_events(self._scanner, whole)
        elif not whole:
            self._drop(CUT)
        elif not self._framed:
            self._drop(UNFRAMED)
        elif self._ndjson:
            self._end_of_lines()
        else:
            self._complete()

    def abort(self, reason: str) -> None:
        """The body will not be read to its end: the caller left, or the connection broke.

        Args:
            reason: one or two words for the Outcome, such as "aborted".
        """
        if self.state != "recording":
            return
        # The final event may be in already, and only wait for the LF that could follow its CR.
        if self._scanner is not None and self._scanner.settle():
            self._decided(self._scanner, b"", self._size)
        else:
            self._drop(reason)

    def _take(self, chunk: bytes) -> bool:
        """Keep decoded bytes; returns whether the recording goes on."""
        size = self._size + len(chunk)
        scanner = self._scanner
        # Scanned before it is measured: what comes behind the final event does not count.
        if scanner is not None and scanner.feed(chunk):
            self._decided(scanner, chunk, size)
            return False
        if size > self._limit:
            decoder = self._decoder
            self._drop(TOO_LARGE)
            # Others may read along: whether they got all of it still has to be known.
            self._watches = scanner is not None and self._needs_final
            self._scanner, self._decoder = scanner, decoder
            return False
        self._size = size
        if chunk:
            self._chunks.append(chunk)
        return True

    def _watch(self, chunk: bytes) -> None:
        if self._scanner is None or self._scanner.feed(chunk):
            self._watches = False
            self._free()

    def _saw_the_end(self) -> bool:
        scanner = self._scanner
        return scanner is not None and (scanner.settle() or bool(scanner.closing))

    def _decided(self, scanner: Scanner, chunk: bytes, size: int) -> None:
        if scanner.end > self._limit:
            self._drop(TOO_LARGE)
        elif scanner.failed:
            self._drop(ERROR)
        else:
            self._size = scanner.end
            self._chunks.append(chunk[: len(chunk) - (size - scanner.end)])
            self._complete()

    def _end_of_events(self, scanner: Scanner, whole: bool) -> None:
        if scanner.settle():
            self._decided(scanner, b"", self._size)
        elif not whole or scanner.unfinished or (self._needs_final and not scanner.closing):
            self._drop(CUT)
        elif not self._framed:
            self._drop(UNFRAMED)
        else:
            self._complete()

    def _end_of_lines(self) -> None:
        body = b"".join(self._chunks)
        self._chunks = [body]
        last = b""
        for line in io.BytesIO(body):
            if line.isspace():
                continue
            if b'"error"' in line and _members(line).get("error") is not None:
                self._drop(ERROR)
                return
            last = line
        end = _members(last)
        if end.get("done") is True or end.get("is_finished") is True:
            self._complete()
        else:
            self._drop(CUT)

    def _complete(self) -> None:
        self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.state = "complete"
        self._free()

    def _drop(self, reason: str) -> None:
        self.reason = reason
        self.state = "dropped"
        self.is_cut = reason == CUT
        self._watches = False
        self._free()

    def _free(self) -> None:
        self._chunks = []
        self._scanner = None
        self._decoder = None


def _members(line: bytes) -> Mapping[str, object]:
    """A JSON object's members; empty for anything else."""
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return cast(Mapping[str, object], value) if isinstance(value, dict) else {}
