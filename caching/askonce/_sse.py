"""Server-Sent Events, watched while they pass.

Two readers of one format (WHATWG HTML living standard, section 9.2), for two moments:

* `Scanner` sees a stream chunk by chunk, on its way to the caller. It answers one question, "is this
  answer over, and how?", and pays for little else: it splits lines in C, and remembers the head of the
  unfinished line and of the unfinished event, never their bodies.
* `events` parses a whole recorded body into (name, data) pairs, for whoever judges it afterwards.

What the standard fixes, and what would go wrong without it:

* A line ends with LF, CR or CRLF, and a CRLF may be torn by a chunk boundary.
* An event happens at the blank line, not at its `data:` line: `data: [DONE]` without the blank line may be
  a cut inside a longer line.
* A field counts at the start of a line only. `data: {"text": "data: [DONE]"}` is content.
* An event without any data line is not dispatched. A byte order mark may precede the first line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHER: Final = 0
_CLOSING: Final = 1
_FINAL: Final = 2
_FAILED: Final = 3
"""What one event means for the stream. Ordered: if name and data disagree, the greater one holds."""

_KINDS: Final = {
    b"response.completed": _FINAL,
    b"response.incomplete": _FINAL,
    b"message_stop": _FINAL,
    b"error": _FAILED,
    b"response.failed": _FAILED,
    # One answer may hold several of these (two images of one call), so only EOF tells which is the last.
    b"speech.audio.done": _CLOSING,
    b"transcript.text.done": _CLOSING,
    b"image_generation.completed": _CLOSING,
    b"image_edit.completed": _CLOSING,
    b"message-end": _CLOSING,  # Cohere; most send [DONE] after it
}

# The beginning of an event's data, as it stands behind `data:`. Group 1: an error (some providers send
# "error": null in sound chunks). Group 2: the type, for providers that send no `event:` line. Neither:
# [DONE], which SDKs take as a prefix too, though not behind a second space.
_START: Final = re.compile(
    rb" ?(?:\[DONE\]|[ \t\r\n]*\{[ \t\r\n]*"
    rb'"(?:(error)"[ \t\r\n]*:(?![ \t\r\n]*null\b)|type"[ \t\r\n]*:[ \t\r\n]*"([\w.-]+)"))'
)

# Nearly every chunk of nearly every stream: whole events, one LF-ended data line each, that mean nothing
# to us. One match in C instead of a loop; it may only refuse too much. Whoever asks looks for CR first:
# `[^\n]` alone runs at four times the speed of `[^\r\n]`.
_ANY_KIND: Final = rb"(?:" + rb"|".join(map(re.escape, _KINDS)) + rb")"
_PLAIN: Final = re.compile(
    rb"(?:(?:event: (?!" + _ANY_KIND + rb"\n)[^\n]*+\n)?+"
    rb'data: \{"(?!error"|type"[ \t]*+:[ \t]*+"' + _ANY_KIND + rb'")[^\n]*+\n\n)++'
).fullmatch

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 10
_CR: Final = 13

_HEAD: Final = 96  # bytes at the beginning of a line, and of an event's data, that are looked at


def _kind(name: bytes, head: bytes) -> int:
    """What an event with this name and this beginning of its data means."""
    kind = _KINDS.get(name, _OTHER) if name else _OTHER
    start = _START.match(head)
    if start is None:
        return kind
    group = start.lastindex
    if group is None:
        return max(kind, _FINAL)
    return max(kind, _FAILED if group == 1 else _KINDS.get(start[2], _OTHER))


def _value(line: bytes, colon: int) -> bytes:
    """A field's value: one space after the colon belongs to the syntax, and so does the line end."""
    return line[colon + 1 : _HEAD].removeprefix(b" ").rstrip(b"\r\n")


class Scanner:
    """An incremental scanner that says how a stream ends. Sans-IO, O(bytes), in constant memory.

    Where chunks begin and end never changes what it says.

    Attributes:
        final: the event that ends the answer was dispatched; nothing after `end` belongs to it.
        failed: an error event was dispatched.
        closing: the *latest* event is one after which EOF may follow (audio, images).
        end: bytes up to and including the blank line of the final or failed event; -1 before it.
        total: bytes fed so far.
    """

    __slots__ = (
        "_after_cr",
        "_between",
        "_data",
        "_first",
        "_line",
        "_name",
        "_verdict",
        "closing",
        "end",
        "failed",
        "final",
        "total",
    )

    def __init__(self) -> None:
        self.final = False
        self.failed = False
        self.closing = False
        self.end = -1
        self.total = 0
        self._line = b""  # head of the line that has not ended yet
        self._name = b""
        self._data: bytes | None = None  # head of the event's data; None: no data line yet
        self._first = True  # the first line is not over: a byte order mark may lead it
        self._after_cr = False  # the last byte was CR: an LF that follows belongs to it
        self._between = False  # the last byte ended an event: the next one begins an event
        self._verdict = _OTHER  # set: decided, though maybe an LF has to be waited for

    @property
    def unfinished(self) -> bool:
        """Whether bytes came after the last blank line that would make, or belong to, another event."""
        return bool(self._line or self._name) or self._data is not None

    def feed(self, chunk: bytes) -> bool:
        """Take the next bytes; returns whether the stream is decided: `final` or `failed`.

        An event whose blank line ends in CR decides one byte later, since an LF would still belong to
        it; `settle` decides at once. Once decided, do not feed any more.
        """
        self.total += len(chunk)
        if self._between:
            plain = chunk if _CR not in chunk else chunk.replace(b"\r\n", b"\n")
            if _CR not in plain and _PLAIN(plain):
                self.closing = False
                return False
        if self._after_cr and chunk:
            self._after_cr = False
            torn = chunk[0] == _LF
            if self._verdict:
                self.end += torn
                return self.settle()
            if torn:
                chunk = chunk[1:]
        decided = self._read(self._split(chunk))
        # Only the head: joining long lines piece by piece would be quadratic, and hold a second copy.
        self._line = self._line[: _HEAD + len(_BOM)]
        return decided

    def _split(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`, with their ends; the beginning of the next one is put by."""
        if not chunk:
            return []
        lines = chunk.splitlines(True)
        if self._line:
            lines[0] = self._line + lines[0]
            self._line = b""
        last = chunk[-1]
        if last == _CR:
            self._after_cr = True
        elif last != _LF:
            self._line = lines.pop()
        if self._first and lines:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _read(self, lines: list[bytes]) -> bool:
        rest = iter(lines)
        for line in rest:
            if line.startswith(b"data:"):
                if self._data is None:
                    self._data = line[5:_HEAD]
                else:
                    self._extend(_value(line, 4))
            elif line[0] == _LF or line[0] == _CR:
                if self._data is not None:
                    kind = _kind(self._name, self._data)
                    self._data = None
                    self.closing = kind == _CLOSING
                    if kind >= _FINAL:
                        return self._decide(kind, line, sum(map(len, rest)) + len(self._line))
                self._name = b""
            else:
                self._rare(line)
        self._between = not (self._after_cr or self.unfinished)
        return False

    def _rare(self, line: bytes) -> None:
        """A line that is neither data nor blank: of these only the event's name matters."""
        if line.startswith(b"event:"):
            self._name = _value(line, 5)
            return
        field = line[:8].rstrip(b"\r\n")  # a field without a colon has an empty value
        if field == b"event":
            self._name = b""
        elif field == b"data":
            if self._data is None:
                self._data = b""
            else:
                self._extend(b"")

    def _extend(self, value: bytes) -> None:
        """One more data line of the same event; a head that is full already needs no more of it."""
        head = self._data or b""
        if len(head) < _HEAD:
            self._data = head.rstrip(b"\r\n") + b"\n" + value

    def _decide(self, kind: int, blank: bytes, behind: int) -> bool:
        self._verdict = kind
        self._between = False
        self.end = self.total - behind
        return (behind > 0 or blank != b"\r") and self.settle()

    def settle(self) -> bool:
        """No more bytes will come (EOF, or the caller left): returns whether the stream is decided."""
        self.final = self._verdict == _FINAL
        self.failed = self._verdict == _FAILED
        return self.final or self.failed


def events(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    r"""Parse a whole body.

    An event that the body leaves without its blank line is discarded, as the standard says.

    Yields:
        `(name, data)` of each dispatched event: the name is `b""` where no `event:` line gave one, and
        data lines are joined by `\n`. Bytes that are not UTF-8 pass as they are.
    """
    name = b""
    data: list[bytes] = []
    for line in body.removeprefix(_BOM).splitlines():
        if not line:
            if data:
                yield name, b"\n".join(data)
                data = []
            name = b""
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
