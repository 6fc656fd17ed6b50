"""The path of one call: decide, read, fly, judge, store. Written once, stepped or awaited.

    decide -> bypass: the door calls the provider, untouched
           -> read (front tier first); what cannot be decoded is counted, deleted, and a miss
                fresh -> hit
                stale, inside stale-while-revalidate -> answer now, refresh in the background
           -> flight: the first caller leads, the others follow
                leader: reads once more if somebody landed meanwhile, asks, judges, stores, publishes
                provider failed: a stale entry inside stale-if-error answers, else the error is the
                caller's, and one of the followers leads next
                a follower of a stream reads along from its first byte

Nothing here raises because of a store, and nothing waits for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from askonce import _codec
from askonce._body import Body, parse
from askonce._clock import Clock
from askonce._control import Control
from askonce._decision import Decision, Settings, approves, decide
from askonce._entry import Entry, Headers, Meta, kept_headers
from askonce._errors import AskOnceError, OfflineMiss
from askonce._events import AnswerDropped, AnswerStored, CallDone, CorruptEntry, Events, warn
from askonce._exchange import AsyncExchange, Exchange, Opened, RawHeaders, Reply
from askonce._explain import nearest
from askonce._faces import Face
from askonce._fingerprint import fingerprint
from askonce._flights import Flight, Flights, State
from askonce._outcome import Outcome, Status, note
from askonce._recorder import Recorder
from askonce._request import Request
from askonce._seal import Seal
from askonce._shared import SharedStream, StreamBroken
from askonce._stats import Counters
from askonce._surface import read_answer
from askonce.stores.tiered import Tiers

_OK: Final = 200
_RECORDED: Final = (
    "text/event-stream",
    "application/x-ndjson",
    "application/stream+json",
    "application/jsonl",
)
_TAIL_HEADERS: Final = frozenset({b"content-type", b"content-encoding", b"date"})


class Found(NamedTuple):
    """A stored answer and how fresh it is: age, seconds it stays fresh (None: for ever), its tier."""

    entry: Entry
    age: float
    ttl: float | None
    tier: str

    @property
    def fresh(self) -> bool:
        return self.ttl is None or self.ttl > 0

    def within(self, window: float) -> bool:
        """Past its life, but by less than `window` seconds."""
        return self.ttl is not None and -window < self.ttl <= 0


@dataclass(slots=True)
class Call:
    """One call on its way: who asks, what was decided, since when."""

    face: Face
    exchange: Any
    request: Request
    body: Body
    decision: Decision
    started: float


class Flow:
    """The algorithm with what it works on. One per cache; holds no state of single calls."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        counters: Counters,
        events: Events,
        seal: Seal | None,
        coalesce: bool,
    ) -> None:
        self.settings = settings
        self.flights = Flights()
        self._clock = clock
        self._counters = counters
        self._events = events
        self._seal = seal
        self._coalesce = coalesce

    async def run(self, face: Face, exchange: Exchange | AsyncExchange, said: Control) -> Reply:
        """Answer one call.

        Raises:
            ConfigurationError: for a bad Cache-Control of the caller's.
            OfflineMiss: in offline mode, when nothing is stored.
            Exception: whatever the provider call raised, unchanged.
        """
        started = time.perf_counter()
        request = exchange.request
        body = parse(request.header(b"content-type"), request.body)
        decision = decide(self.settings, request, body, said)
        call = Call(face, exchange, request, body, decision, started)
        if decision.bypass:
            return Reply(outcome=self._told(call, "bypass", decision.bypass))
        landings = self.flights.landings
        found = await self._read(call) if decision.read else None
        if found is not None:
            if found.fresh:
                return self._hit(call, "hit", "fresh", found)
            if found.within(decision.stale_while_revalidate) and not decision.offline:
                if decision.write and face.spawn(lambda: self._refresh(call)):
                    self._counters.refresh()
                return self._hit(call, "stale", "stale-while-revalidate", found)
        if decision.offline:
            raise await self._offline_miss(call)
        reason = "expired" if found is not None else "not stored" if decision.read else "refresh"
        return await self._fly(call, found, landings, reason)

    async def nearest(
        self, tiers: Tiers, decision: Decision, request: Request, body: Body
    ) -> tuple[str, tuple[str, ...]]:
        """The stored entry nearest to a request, and the parts that differ."""
        return await nearest(
            tiers,
            decision.key.partition(":")[0],
            decision.surface.name,
            fingerprint(request, body, self.settings),
            lambda key, value: _codec.decode(key, value, self._seal),
        )

    # -- read -----------------------------------------------------------------------------------

    async def _read(self, call: Call) -> Found | None:
        """The stored answer that may be given, fresh or stale; None when there is none."""
        key = call.decision.key
        stored = await call.face.tiers.get(key)
        if stored is None:
            return None
        try:
            entry = _codec.decode(key, stored.value, self._seal)
        except _codec.Undecodable as error:
            self._counters.corrupt()
            self._events.emit(CorruptEntry(key=key, reason=str(error)))
            await call.face.tiers.delete(key)
            return None
        now = self._clock()
        # A clock that went back makes an entry newer than now; it is at most as old as it was.
        age = max(0.0, now - entry.meta.created_at)
        expires = entry.meta.expires_at
        if call.decision.max_age is not None and age > call.decision.max_age:
            return None
        return Found(entry, age, None if expires is None else expires - now, stored.tier)

    # -- fly ------------------------------------------------------------------------------------

    async def _fly(self, call: Call, stale: Found | None, landings: int, reason: str) -> Reply:
        face, decision = call.face, call.decision
        patience = call.exchange.patience
        after: Flight | None = None
        while self._coalesce and decision.coalesce:
            flight, leads = self.flights.join(decision.key, face.owner(), after)
            if flight is None:
                break
            if leads:
                return await self._lead(call, flight, stale, landings, reason)
            state = await face.wait(flight, patience)
            if state is State.LANDED and flight.entry is not None:
                return self._followed(call, flight.entry)
            if state is State.LIVE:
                try:
                    reply = await self._read_along(call, flight)
                except TimeoutError:
                    break
                if reply is not None:
                    return reply
            elif state is not State.FAILED:
                break  # released, or patience ran out
            after = flight
        return await self._lead(call, None, stale, landings, reason)

    async def _lead(
        self, call: Call, flight: Flight | None, stale: Found | None, landings: int, reason: str
    ) -> Reply:
        try:
            if flight is not None and call.decision.read and self.flights.landings != landings:
                found = await self._read(call)
                if found is not None and found.fresh:
                    self.flights.land(flight, found.entry)
                    return self._hit(call, "hit", "fresh", found)
            return await self._ask(call, flight, stale, reason)
        except Exception as error:
            if flight is not None:
                self.flights.fail(flight, counts=True)
            if isinstance(error, AskOnceError):
                raise
            if stale is not None and stale.within(call.decision.stale_if_error):
                return self._hit(call, "stale", "stale-if-error", stale)
            self._told(call, "error", type(error).__name__)
            raise
        finally:
            # Cancelled, or interrupted: that is no failure of the provider's; somebody else leads.
            if flight is not None and flight.state is State.PENDING:
                self.flights.fail(flight, counts=False)

    async def _ask(self, call: Call, flight: Flight | None, stale: Found | None, reason: str) -> Reply:
        """Call the provider, then judge, store and publish what it says."""
        asked = time.perf_counter()
        opened = await call.face.open(call.exchange)
        if opened.status != _OK:
            if flight is not None:
                self.flights.fail(flight, counts=True)
            if (
                _is_failure(opened.status)
                and stale is not None
                and stale.within(call.decision.stale_if_error)
            ):
                await _discard(opened)
                return self._hit(call, "stale", "stale-if-error", stale)
            why = f"status {opened.status}"
            outcome = self._told(call, "error", why, not_stored=why)
            return Reply(outcome=outcome, native=opened.native)
        if opened.body is None:
            return self._stream(call, opened, flight, asked, reason)
        outcome = self._told(call, "miss", reason, stored=False)
        entry, why = self._judge(call, opened.headers, opened.body, asked, framed=opened.framed)
        outcome.usage = entry.meta.usage
        await self._conclude(call, flight, entry, why, outcome)
        return Reply(outcome=outcome, native=opened.native)

    # -- streams --------------------------------------------------------------------------------

    def _stream(self, call: Call, opened: Opened, flight: Flight | None, asked: float, reason: str) -> Reply:
        """The leader's live response: recorded as it passes, shared while it runs."""
        outcome = self._told(call, "miss", reason, stored=None)
        recorder = Recorder(
            opened.header(b"content-type"),
            opened.header(b"content-encoding"),
            opened.framed,
            call.decision.terms.max_entry_bytes,
        )

        async def settle(recorder: Recorder) -> None:
            if recorder.state != "complete" or recorder.body is None:
                if flight is not None:
                    self.flights.fail(flight, counts=recorder.reason != "closed early")
                self._drop(call, recorder.reason, outcome)
                return
            entry, why = self._judge(call, opened.headers, recorder.body, asked, framed=True)
            outcome.usage = entry.meta.usage
            await self._conclude(call, flight, entry, why, outcome)

        assert opened.source is not None and opened.close is not None  # noqa: PT018, S101 - a live response has both
        shared = SharedStream(
            source=opened.source,
            close=opened.close,
            recorder=recorder,
            settle=settle,
            loop=call.face.owner().loop,
        )
        reader = shared.reader(leads=True)
        if flight is not None:
            flight.head = _tail_head(opened.headers)
            self.flights.go_live(flight, shared)
        return Reply(outcome=outcome, native=opened.native, reader=reader)

    async def _read_along(self, call: Call, flight: Flight) -> Reply | None:
        """Follow a running stream; None when it broke before its first byte reached this caller.

        Raises:
            TimeoutError: when the caller's patience ran out before the first byte.
        """
        shared = flight.stream
        reader = None if shared is None else shared.reader()
        if shared is None or reader is None:
            return None
        patience = call.exchange.patience
        served = False
        try:
            if call.exchange.live:
                # Not a byte has been given to the caller yet: should the stream break before the
                # first one, somebody else can still lead.
                first = await call.face.read(reader, patience)
                if first is None:
                    return None
                reader.unread(first)
                outcome = self._told(call, "coalesced", "read along")
                served = True
                return Reply(outcome=outcome, reader=reader, headers=flight.head, patience=patience)
            while await call.face.read(reader, patience) is not None:
                pass
        except StreamBroken:
            return None
        finally:
            if not served:
                await call.face.leave(reader)
        return None if flight.entry is None else self._followed(call, flight.entry)

    # -- judge and store ------------------------------------------------------------------------

    def _judge(
        self, call: Call, raw: RawHeaders, body: bytes, asked: float, *, framed: bool
    ) -> tuple[Entry, str]:
        """The entry an answer would become, and why it must not ("" when it may)."""
        decision = call.decision
        headers = kept_headers(raw)
        content_type = _value(headers, "content-type")
        reading = read_answer(decision.surface.name, content_type, body)
        now = self._clock()
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
                fingerprint=fingerprint(call.request, call.body, self.settings) if decision.write else {},
            ),
        )
        return entry, self._why_not(call, entry, reading.flaws, framed=framed)

    def _why_not(self, call: Call, entry: Entry, flaws: set[str], *, framed: bool) -> str:
        decision = call.decision
        if not decision.write:
            return "not asked to"
        content_type = entry.header("content-type")
        if content_type.startswith(_RECORDED):
            # A stream that was read whole (a background refresh): the same rules of completeness.
            recorder = Recorder(content_type, "", framed, decision.terms.max_entry_bytes)
            recorder.feed(entry.body)
            recorder.eof()
            if recorder.state != "complete":
                return recorder.reason
        elif not framed and not content_type.startswith("application/json"):
            return "unframed"
        flaw = decision.refuses(flaws)
        if flaw:
            return flaw
        if len(entry.body) > decision.terms.max_entry_bytes:
            return "too large"
        cacheable = self.settings.policy.cacheable
        if cacheable is not None and not approves(cacheable, call.request, entry):
            return "policy"
        return ""

    async def _conclude(
        self, call: Call, flight: Flight | None, entry: Entry, why: str, outcome: Outcome
    ) -> None:
        """Store or drop, then let the followers go."""
        self._counters.spent(entry.meta.usage)
        if why:
            if flight is not None:
                self.flights.release(flight)
            self._drop(call, why, outcome)
            return
        try:
            await self._store(call, entry)
            outcome.stored = True
        finally:
            # Also when this caller is cancelled while storing: the answer is there.
            if flight is not None:
                self.flights.land(flight, entry)

    async def _store(self, call: Call, entry: Entry) -> None:
        key = call.decision.key
        value = _codec.encode(key, entry, self._seal)
        await call.face.tiers.set(key, value, entry.meta.stale_until)
        self._counters.stored()
        if self._events.wanted:
            self._events.emit(AnswerStored(key=key, size=len(value)))

    def _drop(self, call: Call, why: str, outcome: Outcome) -> None:
        outcome.stored = False
        outcome.not_stored = why
        self._counters.dropped(why)
        if self._events.wanted:
            self._events.emit(AnswerDropped(key=call.decision.key, reason=why))

    async def _refresh(self, call: Call) -> None:
        """Fetch a new answer for a stale one that has been given. Its failure is nobody's."""
        flight, leads = self.flights.join(call.decision.key, call.face.owner(), None)
        if flight is None or not leads:
            return
        outcome = Outcome(status="miss", reason="revalidate", key=call.decision.key)
        done = False
        try:
            asked = time.perf_counter()
            opened = await call.face.again(call.exchange)
            if opened.status == _OK and opened.body is not None:
                entry, why = self._judge(call, opened.headers, opened.body, asked, framed=opened.framed)
                done = True
                await self._conclude(call, flight, entry, why, outcome)
        except Exception as error:  # noqa: BLE001 - the caller has its answer
            self._counters.dropped(f"refresh: {type(error).__name__}")
        finally:
            if not done:
                self.flights.fail(flight, counts=False)

    # -- tell -----------------------------------------------------------------------------------

    def _hit(self, call: Call, status: Status, reason: str, found: Found) -> Reply:
        meta = found.entry.meta
        outcome = self._told(
            call,
            status,
            reason,
            age=found.age,
            ttl=found.ttl,
            tier=found.tier,
            usage=meta.usage,
            saved=meta.latency,
        )
        return Reply(outcome=outcome, entry=found.entry)

    def _followed(self, call: Call, entry: Entry) -> Reply:
        meta = entry.meta
        now = self._clock()
        outcome = self._told(
            call, "coalesced", "shared a call",
            age=max(0.0, now - meta.created_at),
            ttl=None if meta.expires_at is None else meta.expires_at - now,
            usage=meta.usage,
            saved=meta.latency,
        )  # fmt: skip
        return Reply(outcome=outcome, entry=entry)

    def _told(
        self,
        call: Call,
        status: Status,
        reason: str,
        *,
        age: float | None = None,
        ttl: float | None = None,
        tier: str = "",
        usage: dict[str, int] | None = None,
        saved: float = 0.0,
        stored: bool | None = False,
        not_stored: str = "",
    ) -> Outcome:
        decision = call.decision
        outcome = Outcome(
            status=status,
            reason=reason,
            key=decision.key,
            age=age,
            ttl=ttl,
            tier=tier,
            model=decision.model,
            surface=decision.surface.name,
            usage={} if usage is None else usage,
            seconds=time.perf_counter() - call.started,
            saved=saved,
            stored=stored,
            not_stored=not_stored,
        )
        self._counters.outcome(outcome)
        note(outcome)
        if self._events.wanted:
            self._events.emit(CallDone(outcome=outcome))
        return outcome

    async def _offline_miss(self, call: Call) -> OfflineMiss:
        self._told(call, "error", "offline miss")
        key = call.decision.key
        differences: tuple[str, ...] = ()
        try:
            _, differences = await self.nearest(call.face.tiers, call.decision, call.request, call.body)
        except Exception as error:  # noqa: BLE001 - a store that cannot list still gives a clear miss
            warn("flow", "could not look for the nearest entry: %s", type(error).__name__)
        told = "; ".join(differences[:5]) if differences else "nothing near it is stored"
        return OfflineMiss(
            f"not in the cache, and mode is offline: {call.decision.surface.name} request for model "
            f"{call.decision.model!r} ({told}). Record it first with mode='on', or check the namespace.",
            key=key,
            differences=differences,
        )


def _is_failure(status: int) -> bool:
    """RFC 5861 section 4 counts 500, 502, 503 and 504; being throttled leaves a caller as empty-handed."""
    return status >= 500 or status == 429  # noqa: PLR2004


async def _discard(opened: Opened) -> None:
    if opened.close is not None:
        closing = opened.close()
        if closing is not None:
            await closing


def _value(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key == name), "")


def _tail_head(headers: RawHeaders) -> RawHeaders:
    """A follower's headers: what would be stored, and the encoding that its raw chunks still have."""
    return [
        (name, value)
        for name, value in headers
        if (low := name.lower()) in _TAIL_HEADERS or low.startswith(b"openai-") or low.endswith(b"request-id")
    ]
