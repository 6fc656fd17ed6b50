"""Streams on their way: recorded for the store, and shared with everybody who asks the same meanwhile."""

from __future__ import annotations

from typing import Final

from askonce._buffer import StreamBroken
from askonce._call import Call
from askonce._entry import Entry
from askonce._exchange import Opened, RawHeaders, Reply
from askonce._flights import Flight, Flights
from askonce._keeper import Keeper
from askonce._ledger import Ledger
from askonce._reader import Reader
from askonce._recorder import Recorder
from askonce._shared import SharedStream

_LAG: Final = 32 << 10  # bytes a reader may lag behind a stream that is not recorded, at least
_TAIL_HEADERS: Final = frozenset({b"content-type", b"content-encoding", b"date"})


class Streaming:
    """Leads and follows live streams. One per cache."""

    def __init__(self, *, flights: Flights, keeper: Keeper, ledger: Ledger) -> None:
        self._flights = flights
        self._keeper = keeper
        self._ledger = ledger

    def lead(self, call: Call, opened: Opened, flight: Flight | None, asked: float, reason: str) -> Reply:
        """The leader's live response: recorded as it passes, shared while it runs."""
        outcome = self._ledger.told(call, "miss", reason, stored=None)
        recorder = Recorder(
            opened.header(b"content-type"),
            opened.header(b"content-encoding"),
            opened.framed,
            call.decision.terms.max_entry_bytes,
            sse_needs_final=call.decision.surface.ends_with_event,
        )

        async def settle(recorder: Recorder) -> None:
            if recorder.state != "complete" or recorder.body is None:
                if flight is not None:
                    self._flights.fail(flight, counts=recorder.reason != "closed early")
                self._ledger.dropped(call, recorder.reason, outcome)
                return
            await self._keeper.keep(
                call, flight, outcome, headers=opened.headers, body=recorder.body, asked=asked, framed=True
            )

        assert opened.source is not None and opened.close is not None  # noqa: PT018, S101 - a live response has both
        shared = SharedStream(
            source=opened.source,
            close=opened.close,
            recorder=recorder,
            settle=settle,
            limit=max(call.decision.terms.max_entry_bytes, _LAG),
            loop=call.face.owner().loop,
        )
        reader = Reader.of(shared, leads=True)
        if flight is not None:
            flight.head = _tail_head(opened.headers)
            self._flights.go_live(flight, shared)
        return Reply(outcome=outcome, native=opened.native, reader=reader)

    async def follow(self, call: Call, flight: Flight) -> Reply | None:
        """Follow a running stream; None when it broke before its first byte reached this caller.

        Raises:
            TimeoutError: when the caller's patience ran out before the first byte.
        """
        if not call.exchange.live:
            entry = await self.whole(call, flight)
            return None if entry is None else self._ledger.followed(call, entry)
        shared = flight.stream
        reader = None if shared is None else Reader.of(shared)
        if reader is None:
            return None
        patience = call.exchange.patience
        served = False
        try:
            # Not a byte has been given to the caller yet: should the stream break before the
            # first one, somebody else can still lead.
            first = await call.face.read(reader, patience)
            if first is None:
                return None
            reader.unread(first)
            outcome = self._ledger.told(call, "coalesced", "read along")
            served = True
            return Reply(outcome=outcome, reader=reader, headers=flight.head, patience=patience)
        except StreamBroken:
            return None
        finally:
            if not served:
                await call.face.leave(reader)

    async def whole(self, call: Call, flight: Flight) -> Entry | None:
        """Read a running stream along to its end; the entry it became, None when it became none.

        Raises:
            TimeoutError: when the caller's patience ran out between two bytes.
        """
        shared = flight.stream
        reader = None if shared is None else Reader.of(shared)
        if reader is None:
            return flight.entry
        try:
            while await call.face.read(reader, call.exchange.patience) is not None:
                pass
        except StreamBroken:
            return None
        finally:
            await call.face.leave(reader)
        return flight.entry


def _tail_head(headers: RawHeaders) -> RawHeaders:
    """A follower's headers: what would be stored, and the encoding that its raw chunks still have."""
    return [
        (name, value)
        for name, value in headers
        if (low := name.lower()) in _TAIL_HEADERS or low.startswith(b"openai-") or low.endswith(b"request-id")
    ]
