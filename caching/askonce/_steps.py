"""A call in two steps, for frameworks that look up first and hand over the answer later.

Some frameworks call a cache twice, and make the provider call themselves in between: "do you know this?",
then, maybe, "this was the answer". What belongs to one call is held in a Step. Between its two halves it
leads a flight, so that others with the same question wait for its answer; when the framework never comes
back (its call failed), whoever waits learns of it by `gone`, and leads next.

    begin -> bypass: a Step that is over
          -> read: fresh -> a Step with the answer
          -> flight: others lead -> wait, bounded -> a Step with their answer
                     ours -> a Step that is open: finish() stores and publishes, abandon() lets the others go
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from askonce._call import Call
from askonce._control import Control
from askonce._decider import Decider
from askonce._entry import Entry
from askonce._exchange import RawHeaders, Reply
from askonce._faces import Face
from askonce._flights import Flight, Flights, Owner, State, leading
from askonce._keeper import Keeper
from askonce._layer import Layer, Read
from askonce._ledger import Ledger
from askonce._offline import Offline
from askonce._outcome import Outcome
from askonce._request import Request

if TYPE_CHECKING:
    from askonce._fleet import Fleet

PATIENCE: Final = 30.0
"""Seconds for which somebody waits for another's answer at most."""


class Watched(Owner):
    """An owner of whom somebody knows more than that its thread or loop lives."""

    gone: Callable[[], bool] = staticmethod(lambda: False)

    def is_lost(self) -> bool:
        """Also when the framework's call is over, and never came back with an answer."""
        return super().is_lost() or self.gone()


@dataclass(slots=True, eq=False)
class Asking:
    """What stands in for an exchange: the provider call is made elsewhere."""

    request: Request
    live: bool = False
    patience: float | None = PATIENCE


@dataclass(slots=True, eq=False)
class Step:
    """One call between its two halves.

    Attributes:
        entry: the answer, when there is one.
        outcome: what happened; None while that is open.
        key: of the question; "" when the cache has no part in the call, or had the answer at hand.

    The rest is the cache's own.
    """

    entry: Entry | None = None
    outcome: Outcome | None = None
    call: Call | None = field(default=None, repr=False)
    flight: Flight | None = field(default=None, repr=False)
    reason: str = ""

    @property
    def key(self) -> str:
        """See the class."""
        return "" if self.call is None else self.call.decision.key

    @property
    def is_open(self) -> bool:
        """Whether an answer is still awaited."""
        return self.call is not None and self.outcome is None


class Steps:
    """Begins and finishes calls. One per cache; holds no state of single calls."""

    def __init__(
        self,
        *,
        decider: Decider,
        read: Read,
        offline: Offline,
        flights: Flights,
        keeper: Keeper,
        ledger: Ledger,
        coalesce: bool,
        fleet: Fleet | None,
        layer: Layer | None,
    ) -> None:
        self._decider = decider
        self._read = read
        self._offline = offline
        self._flights = flights
        self._keeper = keeper
        self._ledger = ledger
        self._coalesce = coalesce
        self._fleet = fleet
        self._layer = layer

    async def begin(
        self,
        face: Face,
        request: Request,
        said: Control,
        gone: Callable[[], bool] | None,
        *,
        looks: bool,
        patience: float | None,
    ) -> Step:
        """The first half.

        Args:
            face: the side it runs on.
            request: what is asked.
            said: the caller's settings.
            gone: whether the framework's call is over; asked by those who wait for it. None: nobody can
                tell, so nobody waits for it.
            looks: False: an answer is at hand, and will be stored whatever there was.
            patience: seconds to wait for another's answer; None, or more than `PATIENCE`: that.

        Raises:
            OfflineMiss: in offline mode, when nothing is stored.
        """
        decision, body = self._decider.decide(request, said)
        asking = Asking(request, patience=min(patience or PATIENCE, PATIENCE))
        call = Call(request, decision, time.perf_counter(), face, face.tiers(), asking, body)
        if decision.bypass:
            if decision.offline:
                raise await self._offline.miss(call)
            return Step(outcome=self._ledger.told(call, "bypass", decision.bypass) if looks else None)
        landings = self._flights.landings
        found = await self._read(call, "") if decision.read and looks else None
        if found is not None and found.fresh:
            return _ended(self._ledger.hit(call, "hit", "fresh", found), call)
        if decision.offline:
            if looks:
                return _ended(await self._offline.answer(call, self._read), call)
            raise await self._offline.miss(call)
        reason = "expired" if found is not None else "not stored" if decision.read else "refresh"
        flight: Flight | None = None
        if looks:
            reply: Reply | None = None
            if gone is not None:
                reply, flight = await self._turn(call, landings, gone)
            if reply is None:
                reply = await self._similar(call, flight)
            if reply is not None:
                return _ended(reply, call)
        if flight is not None:
            # Of calls that failed in this context nobody told us; their flights are over by now.
            leading.set((*(led for led in leading.get() if led.flies), flight))
        return Step(call=call, flight=flight, reason=reason)

    async def _turn(
        self, call: Call, landings: int, gone: Callable[[], bool]
    ) -> tuple[Reply | None, Flight | None]:
        """Another's answer, or the flight that this call leads now (None: it asks alone)."""
        decision, face = call.decision, call.face
        after: Flight | None = None
        owner = Watched(*face.owner())
        owner.gone = gone
        until = time.monotonic() + (call.exchange.patience or PATIENCE)
        while self._coalesce and decision.coalesce:
            flight, leads = self._flights.join(decision.key, owner, after)
            if flight is None:
                break
            if leads:
                return await self._first(call, flight, landings)
            state = await face.wait(flight, max(0.001, until - time.monotonic()))
            if state is State.LANDED and flight.entry is not None:
                similar = flight.similar
                if similar is None:
                    return self._ledger.followed(call, flight.entry), None
                if self._layer is not None and self._layer.accepts(call, similar):
                    return self._ledger.similar(call, similar, "shared a search"), None
            elif state is not State.FAILED:
                break  # released, or patience ran out
            after = flight
        return None, None

    async def _similar(self, call: Call, flight: Flight | None) -> Reply | None:
        """The answer to a similar question."""
        if self._layer is None or not call.decision.read:
            return None
        try:
            similar = await self._layer.consult(call, self._read)
        except BaseException:
            if flight is not None:
                self._flights.fail(flight, counts=False)
            raise
        if similar is None:
            return None
        if flight is not None:
            self._flights.land(flight, similar.found.entry, similar)
        return self._ledger.similar(call, similar, "similar")

    async def _first(self, call: Call, flight: Flight, landings: int) -> tuple[Reply | None, Flight | None]:
        try:
            if self._flights.landings != landings:
                found = await self._read(call, "")
                if found is not None and found.fresh:
                    self._flights.land(flight, found.entry)
                    return self._ledger.hit(call, "hit", "fresh", found), None
            if self._fleet is not None:
                found, waited = await self._fleet.turn(call, flight)
                if found is not None:
                    self._flights.land(flight, found.entry)
                    if waited:
                        return self._ledger.followed(call, found.entry), None
                    return self._ledger.hit(call, "hit", "fresh", found), None
        except BaseException:
            self._flights.fail(flight, counts=False)
            raise
        return None, flight

    async def finish(
        self, step: Step, face: Face, headers: RawHeaders, body: bytes, *, age: float | None, stores: bool
    ) -> None:
        """The second half: judge the answer, store it, let those who wait have it.

        Args:
            step: what `begin` gave; one that is over is left alone.
            face: the side it runs on.
            headers: of the answer.
            body: the answer.
            age: seconds since the provider gave it, where that was not just now.
            stores: False: somebody beneath has stored it, and has told what happened.
        """
        call, flight = step.call, step.flight
        if call is None or step.outcome is not None:
            return
        leading.set(tuple(led for led in leading.get() if led is not flight and led.flies))
        if stores:
            outcome = self._ledger.told(call, "miss", step.reason)
            if call.face is not face:
                call.face = face
            await self._keeper.keep(
                call, flight, outcome, headers=headers, body=body, asked=call.started, framed=True, age=age
            )
        else:
            outcome = Outcome(status="miss", reason="stored beneath", key=step.key)
            entry, why = self._keeper.judge(call, headers, body, call.started, framed=True, age=age)
            if flight is not None:
                if why:
                    self._flights.release(flight)
                else:
                    self._flights.land(flight, entry)
        step.outcome = outcome

    def abandon(self, step: Step) -> None:
        """No answer will come: those who wait lead next."""
        flight = step.flight
        if flight is not None:
            self._flights.fail(flight, counts=True)


def _ended(reply: Reply, call: Call) -> Step:
    return Step(entry=reply.entry, outcome=reply.outcome, call=call)
