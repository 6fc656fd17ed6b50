"""The path of one call: decide, read, fly, judge, store. Written once, stepped or awaited.

    decide -> bypass: the door calls the provider, untouched
           -> a list of inputs: item by item, see `askonce._batch`
           -> read (front tier first); what cannot be decoded is counted, deleted, and a miss
                fresh -> hit
                stale, inside stale-while-revalidate -> answer now, refresh in the background
           -> flight: the first caller leads, the others follow
                leader: reads once more if somebody landed meanwhile, consults the layer if there is one
                        (an answer to a similar question), asks, judges, stores, publishes
                provider failed: a stale entry inside stale-if-error answers, else the error is the
                caller's, and one of the followers leads next
                a follower of a stream reads along from its first byte

Nothing here raises because of a store, and nothing waits for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from askonce import _codec
from askonce._batch import Batch
from askonce._call import Call, Found
from askonce._clock import Clock
from askonce._control import Control
from askonce._decider import Decider
from askonce._decision import Settings
from askonce._entry import Entry
from askonce._errors import AskOnceError
from askonce._exchange import AsyncExchange, Exchange, Reply, discard, is_failure
from askonce._faces import Face
from askonce._flights import Flight, Flights, State, leading
from askonce._glance import Glance
from askonce._hot import Hot
from askonce._keeper import Keeper
from askonce._layer import Layer
from askonce._ledger import Ledger
from askonce._offline import Offline
from askonce._refresh import Refresher
from askonce._request import Request
from askonce._seal import Seal
from askonce._steps import Asking, Steps
from askonce._streaming import Streaming
from askonce._twins import twin_of
from askonce.stores.protocol import Leasing, Store

if TYPE_CHECKING:
    from askonce._fleet import Fleet

_OK: Final = 200
_NEXT: Final = (State.FAILED, State.LANDED)
"""A waiter tries to lead after these: there is no answer, or none that this caller accepts."""


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
        layer: Layer | None = None,
        front: Store | None = None,
    ) -> None:
        self.settings = settings
        self.flights = Flights()
        self._clock = clock
        self._ledger = ledger
        self._coalesce = coalesce
        self._has_twins = settings.policy.share_streams or settings.policy.share_choices
        self.decider = Decider(settings)
        self._hot = Hot(seal)
        self.glance = Glance(front, decider=self.decider, hot=self._hot, clock=clock, ledger=ledger)
        self._fleet: Fleet | None = None
        if lessor is not None:
            from askonce._fleet import Fleet  # noqa: PLC0415 - most caches serve one process

            self._fleet = Fleet(lessor, self._read)
        self._layer = layer
        self._keeper = Keeper(
            settings=settings, clock=clock, flights=self.flights, ledger=ledger, seal=seal, layer=layer
        )
        self._refresher = Refresher(
            read=self._read, flights=self.flights, keeper=self._keeper, ledger=ledger, fleet=self._fleet
        )
        self._offline = Offline(settings=settings, ledger=ledger, seal=seal, layer=layer)
        self._streaming = Streaming(flights=self.flights, keeper=self._keeper, ledger=ledger)
        self._batch = Batch(
            settings=settings,
            clock=clock,
            flights=self.flights,
            ledger=ledger,
            seal=seal,
            hot=self._hot,
            streaming=self._streaming,
            coalesce=coalesce,
        )

    @cached_property
    def steps(self) -> Steps:
        """The same in two steps, for those who make the provider call themselves."""
        return Steps(
            decider=self.decider,
            read=self._read,
            offline=self._offline,
            flights=self.flights,
            keeper=self._keeper,
            ledger=self._ledger,
            coalesce=self._coalesce,
            fleet=self._fleet,
            layer=self._layer,
        )

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
        call = Call(request, decision, started, face, face.tiers(), exchange, body)
        if decision.bypass:
            if decision.offline:
                raise await self._offline.miss(call)
            return Reply(outcome=self._ledger.told(call, "bypass", decision.bypass))
        if decision.items:
            return await self._batch.run(call)
        landings = self.flights.landings
        found = await self._read(call) if decision.read else None
        if found is not None:
            if found.fresh:
                return self._ledger.hit(call, "hit", "fresh", found)
            if found.within(decision.stale_while_revalidate) and not decision.offline:
                if decision.write:
                    self._refresher.start(call, landings)
                return self._ledger.hit(call, "stale", "stale-while-revalidate", found)
        if found is None and decision.read and self._has_twins:
            twin = await twin_of(call, self.settings, self._hot, self._clock)
            if twin is not None:
                return self._ledger.hit(call, "hit", twin[1], twin[0])
        if decision.offline:
            return await self._offline.answer(call, self._read)
        reason = "expired" if found is not None else "not stored" if decision.read else "refresh"
        return await self._fly(call, found, landings, reason)

    async def recall(
        self, face: Face, request: Request, said: Control, fits: Callable[[Entry], bool]
    ) -> Reply | None:
        """A fresh hit, or nothing at all, see `Cache.recall`."""
        started = time.perf_counter()
        decision, body = self.decider.decide(request, said)
        if decision.bypass or not decision.read:
            return None
        call = Call(request, decision, started, face, face.tiers(), Asking(request), body)
        if decision.items:
            reply = await self._batch.recall(call, fits)
        else:
            found = await self._read(call)
            fit = found is not None and found.fresh and fits(found.entry)
            reply = self._ledger.hit(call, "hit", "fresh", found) if found is not None and fit else None
        if reply is not None:
            self._ledger.counters.recalled()
        return reply

    def forget(self) -> None:
        """Keep no decoded entries."""
        self._hot.forget()

    def close(self) -> None:
        """Give leases back."""
        if self._fleet is not None:
            self._fleet.close()
        if self._layer is not None:
            self._layer.close()

    # -- read -----------------------------------------------------------------------------------

    async def _read(self, call: Call, key: str = "") -> Found | None:
        """The stored answer that may be given, fresh or stale; None when there is none."""
        key = key or call.decision.key
        stored = await call.tiers.get(key)
        if stored is None:
            return None
        try:
            entry = self._hot.decode(key, stored.value)
        except _codec.Undecodable as error:
            self._ledger.corrupt(key, str(error))
            await call.tiers.delete(key)
            return None
        return call.found(entry, stored.tier, self._clock())

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
                similar = flight.similar
                if similar is None:
                    return self._ledger.followed(call, flight.entry)
                if self._layer is not None and self._layer.accepts(call, similar):
                    return self._ledger.similar(call, similar, "shared a search")
            if state is State.LIVE:
                try:
                    reply = await self._streaming.follow(call, flight)
                except TimeoutError:
                    break
                if reply is not None:
                    return reply
            elif state not in _NEXT:
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
            reply = await self._consult(call, flight)
            if reply is not None:
                return reply
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

    async def _consult(self, call: Call, flight: Flight | None) -> Reply | None:
        """The answer to a similar question, for this caller and for those who wait with it."""
        if self._layer is None or not call.decision.read:
            return None
        similar = await self._layer.consult(call, self._read)
        if similar is None:
            return None
        if flight is not None:
            self.flights.land(flight, similar.found.entry, similar)
        return self._ledger.similar(call, similar, "similar")

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
            if is_failure(opened.status) and stale is not None and stale.within(call.decision.stale_if_error):
                await discard(opened)
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
