"""One call's way from request to last byte, with the faults that only a socket can show."""

from __future__ import annotations

import itertools
import time
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING

from askonce.testing._provider.answers import Answer, error_answer

if TYPE_CHECKING:
    from askonce.testing._provider.desk import Desk
    from askonce.testing._provider.gate import Line
    from askonce.testing._provider.records import Call
    from askonce.testing._provider.wire import Handler


class Exchange:
    """One call's way from request to last byte."""

    def __init__(self, handler: Handler, desk: Desk, call: Call, line: Line) -> None:
        self._handler = handler
        self._desk = desk
        self._call = call
        self._fault = call.fault
        self._line = line
        # Only calls are held, as only they draw faults: not the list of models.
        self._held_after = call.ticket.after if call.counted else None
        self._buffer = bytearray()
        delay = call.fault.chunk_delay
        self._chunk_delay = desk.chunk_delay if delay is None else delay

    def run(self) -> None:
        """Wait as told, then write the answer. Raises what `Line` raises."""
        call, fault = self._call, self._fault
        started = time.monotonic()
        if call.ticket.held and call.counted:
            self._line.wait(call.ticket.latch)
        if fault.hang:
            self._line.wait(call.ticket.latch)
        if fault.hold is not None and fault.hold_after is None:
            self._line.wait_for_event(fault.hold)
        self._line.pause((self._desk.delay if call.counted else 0.0) + fault.delay)
        if fault.disconnect:
            self._handler.close_connection = True
            return
        answer, further = self._answer()
        self._head(answer, further, elapsed=time.monotonic() - started)
        if self._body(answer):
            self._desk.answered(call)
        else:
            self._handler.close_connection = True
        self._flush()

    def _answer(self) -> tuple[Answer, tuple[tuple[str, str], ...]]:
        try:
            return self._desk.answer(self._call), ()
        except Exception as error:  # noqa: BLE001 - a caller's reply function may raise anything
            # Named without its text, which may quote the prompt; and not to be retried.
            message = f"The fake provider failed to answer: {type(error).__name__}."
            return error_answer(500, message), (("x-should-retry", "false"),)

    def _head(self, answer: Answer, further: tuple[tuple[str, str], ...], *, elapsed: float) -> None:
        handler, fault, number = self._handler, self._fault, self._call.number
        if self._bare:
            handler.close_connection = True
        headers = {
            "date": handler.date_time_string(),
            "content-type": answer.content_type,
            "server": handler.version_string(),
            "x-request-id": f"req_{number}",
            "openai-organization": "org-fake",
            "openai-processing-ms": str(1 + int(elapsed * 1000)),
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": str(10_000 - number % 10_000),
            "x-ratelimit-remaining-tokens": str(2_000_000 - number % 10_000 * 100),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "0s",
            "set-cookie": f"__cf_bm=fake-{number}; path=/; HttpOnly; Secure; SameSite=None",
        }
        if self._bare:
            pass
        elif answer.streamed:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(sum(map(len, answer.pieces)))
        if handler.close_connection:
            headers["connection"] = "close"
        if fault.retry_after is not None:
            headers["retry-after-ms"] = str(round(fault.retry_after * 1000))
            headers["retry-after"] = str(ceil(fault.retry_after))
        for name, value in (*answer.headers, *further, *fault.headers):
            headers[name.lower()] = value
        try:
            reason = HTTPStatus(answer.status).phrase
        except ValueError:
            reason = "Unknown"
        lines = [
            f"HTTP/1.1 {answer.status} {reason}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._buffer += "\r\n".join((*lines, "", "")).encode("latin-1")

    @property
    def _bare(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        return self._fault.close_delimited or self._handler.request_version == "HTTP/1.0"

    def _body(self, answer: Answer) -> bool:
        """Buffer and flush the body up to its last bytes; False when it is to be cut here."""
        chunked = answer.streamed and not self._bare
        stops = self._stops()
        sent = 0
        for piece in answer.pieces if answer.streamed else self._split(answer, stops):
            while stops and stops[0] <= sent:
                if not self._stop_at(stops.pop(0)):
                    return False
            if sent and answer.streamed:
                self._flush()
                self._line.pause(self._chunk_delay)
            # An empty chunk would end the body.
            self._buffer += b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece
            sent += 1 if answer.streamed else len(piece)
        while stops:
            if not self._stop_at(stops.pop(0)):
                return False
        # Together with the last event: a client that leaves at the terminal event has its answer
        # and is no hang-up.
        self._buffer += b"0\r\n\r\n" if chunked else b""
        return True

    def _stops(self) -> list[int]:
        """The positions at which something happens, in order."""
        stops = (self._fault.cut_after, self._fault.hold_after, self._held_after)
        return sorted({stop for stop in stops if stop is not None})

    @staticmethod
    def _split(answer: Answer, stops: list[int]) -> list[bytes]:
        body = b"".join(answer.pieces)
        edges = [0, *(stop for stop in stops if 0 < stop < len(body)), len(body)]
        return [body[start:end] for start, end in itertools.pairwise(edges)]

    def _stop_at(self, position: int) -> bool:
        """Do what happens at a position; False when it is the end."""
        fault = self._fault
        if position in {fault.hold_after, self._held_after}:
            self._flush()
        if position == self._held_after or (position == fault.hold_after and fault.hold is None):
            self._line.wait(self._call.ticket.latch)
        if position == fault.hold_after and fault.hold is not None:
            self._line.wait_for_event(fault.hold)
        return position != fault.cut_after

    def _flush(self) -> None:
        if self._buffer:
            self._line.check()
            self._handler.wfile.write(bytes(self._buffer))
            self._buffer.clear()
