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
from typing import TYPE_CHECKING, Final

from askonce import _codec
from askonce._call import Call, Found
from askonce._clock import Clock
from askonce._control import Control
from askonce._decider import Decider
from askonce._decision import Settings
from askonce._errors import AskOnceError, OfflineMiss
from askonce._events import warn
from askonce._exchange import AsyncExchange, Exchange, Opened, Reply
from askonce._faces import Face
from askonce._flights import Flight, Flights, State, leading
from askonce._hot import Hot
from askonce._keeper import Keeper
from askonce._ledger import Ledger
from askonce._outcome import Outcome
from askonce._seal import Seal
from askonce._streaming import Streaming
from askonce.stores.protocol import Leasing

if TYPE_CHECKING:
    from askonce._fleet import Fleet

_OK: Final = 200


class Flow:
    """The algorithm with what it works on. One per cache; holds no state of single calls."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        ledger: Ledger,
        seal: Seal | None,
        coalesce: bool,
        lessor: Leasing | None = None,
    ) -> None:
        self.settings = settings
        self.flights = Flights()
        self._clock = clock
        self._ledger = ledger
        self._seal = seal
        self._coalesce = coalesce
        self.decider = Decider(settings)
        self._hot = Hot(seal)
        self._fleet: Fleet | None = None
        if lessor is not None:
            from askonce._fleet import Fleet  # noqa: PLC0415 - most caches serve one process

            self._fleet = Fleet(lessor, self._read)
        self._keeper = Keeper(settings=settings, clock=clock, flights=self.flights, ledger=ledger, seal=seal)
        self._streaming = Streaming(flights=self.flights, keeper=self._keeper, ledger=ledger)

    async def run(self, face: Face, exchange: Exchange | AsyncExchange, said: Control) -> Reply:
        """Answer one call.

        Raises:
            ConfigurationError: for a bad Cache-Control of the caller's.
            OfflineMiss: in offline mode, when nothing is stored.
            Exception: whatever the provider call raised, unchanged.
        """
        started = time.perf_counter()
        request = exchange.request
        decision, body = self.decider.decide(request, said)
        call = Call(face, face.tiers(), exchange, request, decision, started, body)
        if decision.bypass:
            if decision.offline:
                raise self._offline_bypass(call)
            return Reply(outcome=self._ledger.told(call, "bypass", decision.bypass))
        landings = self.flights.landings
        found = await self._read(call) if decision.read else None
        if found is not None:
            if found.fresh:
                return self._ledger.hit(call, "hit", "fresh", found)
            if found.within(decision.stale_while_revalidate) and not decision.offline:
                if decision.write:
                    self._start_refresh(call, landings)
                return self._ledger.hit(call, "stale", "stale-while-revalidate", found)
        if decision.offline:
            raise await self._offline_miss(call)
        reason = "expired" if found is not None else "not stored" if decision.read else "refresh"
        return await self._fly(call, found, landings, reason)

    def forget(self) -> None:
        """Keep no decoded entries."""
        self._hot.forget()

    def close(self) -> None:
        """Give leases back."""
        if self._fleet is not None:
            self._fleet.close()

    # -- read -----------------------------------------------------------------------------------

    async def _read(self, call: Call) -> Found | None:
        """The stored answer that may be given, fresh or stale; None when there is none."""
        key = call.decision.key
        stored = await call.tiers.get(key)
        if stored is None:
            return None
        try:
            entry = self._hot.decode(key, stored.value)
        except _codec.Undecodable as error:
            self._ledger.corrupt(key, str(error))
            await call.tiers.delete(key)
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
                return self._ledger.followed(call, flight.entry)
            if state is State.LIVE:
                try:
                    reply = await self._streaming.follow(call, flight)
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
                    return self._ledger.hit(call, "hit", "fresh", found)
            if flight is not None and self._fleet is not None:
                found, waited = await self._fleet.turn(call, flight)
                if found is not None:
                    self.flights.land(flight, found.entry)
                    if waited:
                        return self._ledger.followed(call, found.entry)
                    return self._ledger.hit(call, "hit", "fresh", found)
            return await self._ask(call, flight, stale, reason)
        except Exception as error:
            if flight is not None:
                self.flights.fail(flight, counts=True)
            if isinstance(error, AskOnceError):
                raise
            if stale is not None and stale.within(call.decision.stale_if_error):
                return self._ledger.hit(call, "stale", "stale-if-error", stale)
            self._ledger.told(call, "error", type(error).__name__)
            raise
        finally:
            # Cancelled, or interrupted: that is no failure of the provider's; somebody else leads.
            if flight is not None and flight.state is State.PENDING:
                self.flights.fail(flight, counts=False)

    async def _ask(self, call: Call, flight: Flight | None, stale: Found | None, reason: str) -> Reply:
        """Call the provider, then judge, store and publish what it says."""
        asked = time.perf_counter()
        before = leading.get()
        if flight is not None:
            leading.set((*before, flight))
        try:
            opened = await call.face.open(call.exchange)
        finally:
            leading.set(before)  # no token: a forgotten coroutine is closed in whatever context
        if opened.status != _OK:
            if flight is not None:
                self.flights.fail(flight, counts=True)
            if (
                _is_failure(opened.status)
                and stale is not None
                and stale.within(call.decision.stale_if_error)
            ):
                await _discard(opened)
                return self._ledger.hit(call, "stale", "stale-if-error", stale)
            why = f"status {opened.status}"
            outcome = self._ledger.told(call, "error", why, not_stored=why)
            return Reply(outcome=outcome, native=opened.native)
        if opened.body is None:
            return self._streaming.lead(call, opened, flight, asked, reason)
        outcome = self._ledger.told(call, "miss", reason, stored=False)
        await self._keeper.keep(
            call, flight, outcome, headers=opened.headers, body=opened.body, asked=asked, framed=opened.framed
        )
        return Reply(outcome=outcome, native=opened.native)

    # -- refresh --------------------------------------------------------------------------------

    def _start_refresh(self, call: Call, landings: int) -> None:
        """Have a new answer fetched for a stale one, unless somebody does already."""
        flight, leads = self.flights.join(call.decision.key, call.face.owner(), None)
        if flight is None or not leads:
            return

        def over() -> None:
            self.flights.fail(flight, counts=False)  # nothing, if it landed

        if call.face.spawn(lambda: self._refresh(call.anew(), flight, landings), over):
            self._ledger.counters.refresh()
        else:
            over()

    async def _refresh(self, call: Call, flight: Flight, landings: int) -> None:
        """Fetch a new answer for a stale one that has been given. Its failure is nobody's."""
        flight.owner = call.face.owner()
        outcome = Outcome(status="miss", reason="revalidate", key=call.decision.key)
        try:
            if self.flights.landings != landings:
                found = await self._read(call)
                if found is not None and found.fresh:
                    self.flights.land(flight, found.entry)
                    return
            if self._fleet is not None and not await self._fleet.allows(call, flight):
                return
            asked = time.perf_counter()
            opened = await call.face.again(call.exchange)
            if opened.status == _OK and opened.body is not None:
                await self._keeper.keep(
                    call,
                    flight,
                    outcome,
                    headers=opened.headers,
                    body=opened.body,
                    asked=asked,
                    framed=opened.framed,
                )
        except Exception as error:  # noqa: BLE001 - the caller has its answer
            self._ledger.counters.dropped(f"refresh: {type(error).__name__}")

    def _offline_bypass(self, call: Call) -> OfflineMiss:
        """Offline never asks, also not for what is never cached."""
        why = call.decision.bypass
        self._ledger.told(call, "error", "offline miss", not_stored=why)
        return OfflineMiss(
            f"mode is offline, and this {call.request.method} request is never answered by the cache ({why})"
        )

    async def _offline_miss(self, call: Call) -> OfflineMiss:
        self._ledger.told(call, "error", "offline miss")
        key = call.decision.key
        differences: tuple[str, ...] = ()
        from askonce._explain import nearest  # noqa: PLC0415 - for people who wonder, not for calls

        try:
            _, differences = await nearest(
                call.tiers,
                call.decision,
                call.request,
                call.body,
                settings=self.settings,
                seal=self._seal,
            )
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
