"""Judge an answer, and keep it or not."""

from __future__ import annotations

import time
from typing import Final

from askonce import _codec
from askonce._call import Call
from askonce._clock import Clock
from askonce._decision import Settings, approves
from askonce._entry import Entry, Meta, kept_headers
from askonce._events import FAULT, fault
from askonce._exchange import RawHeaders
from askonce._fingerprint import TURN, fingerprint
from askonce._flights import Flight, Flights
from askonce._layer import Layer
from askonce._ledger import Ledger
from askonce._outcome import Outcome
from askonce._recorder import Recorder
from askonce._seal import Seal
from askonce._surface import EVENTS, LINES

_OK: Final = 200
_RECORDED: Final = (EVENTS, *LINES)


class Keeper:
    """Turns answers into entries, and says why one must not become one."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        flights: Flights,
        ledger: Ledger,
        seal: Seal | None,
        layer: Layer | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._flights = flights
        self._ledger = ledger
        self._seal = seal
        self._layer = layer

    async def keep(
        self,
        call: Call,
        flight: Flight | None,
        outcome: Outcome,
        *,
        headers: RawHeaders,
        body: bytes,
        asked: float,
        framed: bool,
        age: float | None = None,
    ) -> None:
        """Judge an answer, store or drop it, and let the followers go.

        A fault of our own costs the entry, never the answer: the caller has it, whatever happens here.
        """
        try:
            entry, why = self.judge(call, headers, body, asked, framed=framed, age=age)
            outcome.usage = dict(entry.meta.usage)
            await self._conclude(call, flight, entry, why, outcome)
        except Exception as error:  # noqa: BLE001
            fault("an answer was not stored", error)
            self._ledger.dropped(call, FAULT, outcome)
            if flight is not None and not flight.over:
                self._flights.release(flight)

    def judge(
        self,
        call: Call,
        raw: RawHeaders,
        body: bytes,
        asked: float,
        *,
        framed: bool,
        age: float | None = None,
    ) -> tuple[Entry, str]:
        """The entry an answer would become, and why it must not ("" when it may).

        `age`: seconds since the provider gave it, where that was not just now: its life began then.
        """
        decision = call.decision
        headers = kept_headers(raw)
        content_type = next((value for key, value in headers if key == "content-type"), "")
        reading = decision.surface.read(content_type, body)
        now = self._clock() - (age or 0.0)
        expires, gone = decision.lives(now)
        target = call.request.target
        entry = Entry(
            status=_OK,
            headers=headers,
            body=body,
            meta=Meta(
                created_at=now,
                expires_at=expires,
                stale_until=gone,
                model=decision.model,
                surface=decision.surface.name,
                url=target.origin + target.path,
                usage=reading.usage,
                latency=time.perf_counter() - asked,
                tags=decision.tags,
                fingerprint=self._fingerprint(call) if decision.write else {},
            ),
        )
        return entry, self._why_not(call, entry, content_type, reading.flaws, framed=framed)

    def _fingerprint(self, call: Call) -> dict[str, str]:
        found = fingerprint(call.request, call.body, call.decision, self._settings)
        mark = "" if self._layer is None else self._layer.mark(call)
        if mark:
            found[TURN] = mark
        return found

    def _why_not(self, call: Call, entry: Entry, content_type: str, flaws: set[str], *, framed: bool) -> str:
        decision = call.decision
        if not decision.write:
            return "not asked to"
        if content_type.lower().startswith(_RECORDED):
            # A stream that was read whole (a background refresh): the same rules of completeness.
            recorder = Recorder(
                content_type,
                "",
                framed,
                decision.terms.max_entry_bytes,
                sse_needs_final=decision.surface.ends_with_event,
            )
            recorder.feed(entry.body)
            recorder.eof()
            if recorder.state != "complete":
                return recorder.reason
        elif not framed and not content_type.lower().startswith("application/json"):
            return "unframed"
        flaw = decision.refuses(flaws)
        if flaw:
            return flaw
        if len(entry.body) > decision.terms.max_entry_bytes:
            return "too large"
        cacheable = self._settings.policy.cacheable
        if cacheable is not None and not approves(cacheable, call.request, entry):
            return "policy"
        return ""

    async def _conclude(
        self, call: Call, flight: Flight | None, entry: Entry, why: str, outcome: Outcome
    ) -> None:
        """Store or drop, then let the followers go."""
        self._ledger.spent(call, entry.meta.usage)
        value = None if why else self._encoded(call, entry)
        if value is None:
            if flight is not None:
                self._flights.release(flight)
            self._ledger.dropped(call, why or "not encodable", outcome)
            return
        try:
            kept = await call.tiers.set(call.decision.key, value, entry.meta.stale_until)
            self._flights.cacheable(call.decision.key)
            if kept:
                self._ledger.stored(call.decision.key, len(value))
                outcome.stored = True
            else:
                self._ledger.dropped(call, "no store took it", outcome)
        finally:
            # Also when this caller is cancelled while storing: the answer is there.
            if flight is not None:
                self._flights.land(flight, entry)
        if kept and self._layer is not None:
            await self._layer.remember(call, entry)

    def _encoded(self, call: Call, entry: Entry) -> bytes | None:
        """The envelope, or None for an entry with a text that no UTF-8 can hold."""
        try:
            return _codec.encode(call.decision.key, entry, self._seal)
        except (TypeError, ValueError):
            return None
