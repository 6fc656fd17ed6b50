"""The path of one call for a list of inputs: what is stored is read, the rest is asked, all is put together.

    read all items in one batch
    -> nothing missing: a hit
    -> each missing item has a flight: those that nobody flies are ours, the others we follow
         ours go upstream in one request, no larger than the caller's, and are stored in one batch
         only then the others are waited for: nobody who has something in the air waits for anybody
         what their leaders could not get is asked by us, alone
    -> put together in the caller's order

The caller gets the provider's own response whenever all of its list went upstream. An answer that cannot be
taken apart is handed on as it is, and nothing of it is stored; whoever gave it is asked with the caller's own
list for a while, or each smaller request would be one in vain. Expired items are asked again (there is no
stale-while-revalidate here); they answer when the provider fails, inside stale-if-error.

Items wait for each other within a process; `coalesce="fleet"` is for calls with a single input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import orjson

from askonce import _codec, _items
from askonce._call import Call
from askonce._clock import Clock
from askonce._decision import Settings
from askonce._entry import Entry
from askonce._errors import OfflineMiss
from askonce._events import fault
from askonce._exchange import Opened, Reply, discard, is_failure
from askonce._flights import Flight, Flights, State, leading
from askonce._hot import Hot
from askonce._ledger import Ledger
from askonce._outcome import Outcome, Status
from askonce._recorder import Recorder
from askonce._rows import AT_A_TIME, Row, RowKeeper, Work
from askonce._seal import Seal
from askonce._streaming import Streaming

_OK: Final = 200
_UNFIT_SECONDS: Final = 600.0
_MOST_UNFIT: Final = 1024


class Batch:
    """Answers lists item by item. One per cache; holds no state of single calls."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        flights: Flights,
        ledger: Ledger,
        seal: Seal | None,
        hot: Hot,
        streaming: Streaming,
        coalesce: bool,
    ) -> None:
        self._clock = clock
        self._flights = flights
        self._ledger = ledger
        self._hot = hot
        self._keeper = RowKeeper(settings=settings, clock=clock, flights=flights, ledger=ledger, seal=seal)
        self._streaming = streaming
        self._coalesce = coalesce
        # Who does not answer by item, and until when that is believed (`time.monotonic`).
        self._unfit: dict[tuple[str, str], float] = {}

    async def run(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            OfflineMiss: in offline mode, when an item is not stored.
            Exception: whatever the provider call raised, unchanged.
        """
        work = Work(call)
        decision = call.decision
        landings = self._flights.landings
        if decision.read:
            await self._look(work, work.keys)
        missing = work.missing(work.keys)
        if not missing:
            return self._served(work, "hit", "fresh")
        if decision.offline:
            raise self._offline_miss(call, len(missing))
        own, others = self._join(call, missing)
        reply = await self._lead(work, own, landings)
        if reply is None:
            await self._follow(work, others)
            # What somebody else failed to get is asked by us, and nobody waits for that.
            reply = await self._ask(work, dict.fromkeys(work.missing(work.keys)))
        if reply is not None:
            return reply
        if work.asked:
            return Reply(outcome=self._missed(work), entry=work.together())
        if work.followed:
            return self._served(work, "coalesced", "shared a call")
        stale = any(not work.rows[key].found.fresh for key in work.keys)
        return self._served(work, "stale", "stale-if-error") if stale else self._served(work, "hit", "fresh")

    async def recall(self, call: Call, fits: Callable[[Entry], bool]) -> Reply | None:
        """The whole list, when all of it is stored and fresh, and the door can hand it out."""
        work = Work(call)
        await self._look(work, work.keys)
        if work.missing(work.keys):
            return None
        entry = work.together()
        return self._served(work, "hit", "fresh", entry) if fits(entry) else None

    # -- read -----------------------------------------------------------------------------------

    async def _look(self, work: Work, keys: Iterable[str]) -> None:
        """Take what is stored and may be given."""
        call = work.call
        stored = await call.tiers.get_many(work.missing(keys))
        corrupt: list[str] = []
        for number, (key, one) in enumerate(stored.items(), 1):
            if number % AT_A_TIME == 0:
                await call.face.breathe()
            try:
                entry = self._hot.decode(key, one.value)
            except _codec.Undecodable as error:
                self._ledger.corrupt(key, str(error))
                corrupt.append(key)
                continue
            found = call.found(entry, one.tier, self._clock())
            row = None if found is None else Row.of(found)
            if row is None:
                continue
            if row.found.fresh:
                work.rows[key] = row
            elif row.found.within(call.decision.stale_if_error):
                work.expired[key] = row
        if corrupt:
            await call.tiers.delete(*corrupt)

    # -- ask ------------------------------------------------------------------------------------

    def _join(self, call: Call, keys: list[str]) -> tuple[dict[str, Flight | None], dict[str, Flight]]:
        """Whose are the missing items: ours (with a flight, where others may follow), or somebody else's."""
        own: dict[str, Flight | None] = {}
        others: dict[str, Flight] = {}
        joins = self._coalesce and call.decision.coalesce
        owner = call.face.owner()
        for key in keys:
            flight, leads = self._flights.join(key, owner, None) if joins else (None, True)
            if flight is None or leads:
                own[key] = flight
            else:
                others[key] = flight
        return own, others

    async def _lead(self, work: Work, own: dict[str, Flight | None], landings: int) -> Reply | None:
        """Get what is ours: from somebody who landed it meanwhile, else from the provider."""
        try:
            if self._flights.landings != landings and work.call.decision.read:
                await self._look(work, own)
                for key, flight in own.items():
                    if flight is not None and key in work.rows:
                        self._flights.land(flight, work.rows[key].found.entry)
            return await self._ask(work, {key: own[key] for key in work.missing(own)})
        finally:
            # Cancelled, or interrupted: that is no failure of the provider's; somebody else leads.
            for flight in own.values():
                if flight is not None:
                    self._flights.fail(flight, counts=False)

    async def _ask(self, work: Work, flights: dict[str, Flight | None]) -> Reply | None:
        """Have items answered by the provider; a Reply when that ends the call."""
        if not flights:
            return None
        call = work.call
        keys = list(flights)
        whole = work.is_whole(keys) or self._is_unfit(call)
        led = [flight for flight in flights.values() if flight is not None]
        asked = time.perf_counter()
        try:
            opened, body, raw = await self._open(work, keys, led, whole=whole)
        except Exception as error:
            self._fail(led)
            if work.serve_expired(keys):
                return None
            self._ledger.told(call, "error", type(error).__name__)
            raise
        if opened.status != _OK:
            self._fail(led)
            if is_failure(opened.status) and work.serve_expired(keys):
                await discard(opened)
                return None
            why = f"status {opened.status}"
            outcome = self._ledger.told(call, "error", why, not_stored=why)
            return Reply(outcome=outcome, native=opened.native)
        answer = None if body is None else _items.take_apart(body)
        if answer is None or len(answer.rows) != len(keys) or answer.around.get("error"):
            for flight in led:
                self._flights.release(flight)
            self._note_unfit(call, fits=answer is not None and len(answer.rows) == len(work.keys))
            return await self._as_it_is(work, opened, raw, whole=whole)
        try:
            await self._keeper.keep(work, flights, opened, answer, asked)
        except Exception as error:  # noqa: BLE001 - a fault of our own costs the entries, never the answer
            fault("answers were not stored", error)
            if not whole:
                return await self._as_it_is(work, opened, raw, whole=False)
        if not whole:
            return None
        return Reply(outcome=self._missed(work), native=_unread(opened, raw))

    async def _open(
        self, work: Work, keys: list[str], led: list[Flight], *, whole: bool
    ) -> tuple[Opened, bytes | None, bytes | None]:
        """The provider's answer, its decoded body when that is complete, and its raw one if we read it."""
        call = work.call
        before = leading.get()
        leading.set((*before, *led))
        try:
            if whole:
                opened = await call.face.open(call.exchange)
            else:
                items = work.items()
                name = call.decision.surface.items
                smaller = {**call.body.fields, name: [items[key] for key in keys]}
                opened = await call.face.instead(call.exchange, orjson.dumps(smaller))
            if opened.status != _OK or opened.body is not None:
                return opened, opened.body, None
            raw = await call.face.gather(opened)
        finally:
            leading.set(before)
        # The rules of completeness are the recorder's: framing and encoding.
        recorder = Recorder(
            opened.header(b"content-type"), opened.header(b"content-encoding"), opened.framed, sys.maxsize
        )
        recorder.feed(raw)
        recorder.eof()
        return opened, recorder.body, raw

    def _note_unfit(self, call: Call, *, fits: bool) -> None:
        """One answer to a whole list that can be taken apart is enough to try again."""
        if fits:
            self._unfit.pop(_place(call), None)
            return
        if len(self._unfit) >= _MOST_UNFIT:
            self._unfit.clear()
        self._unfit[_place(call)] = time.monotonic() + _UNFIT_SECONDS

    def _is_unfit(self, call: Call) -> bool:
        until = self._unfit.get(_place(call))
        return until is not None and time.monotonic() < until

    def _fail(self, led: list[Flight]) -> None:
        for flight in led:
            self._flights.fail(flight, counts=True)

    async def _as_it_is(self, work: Work, opened: Opened, raw: bytes | None, *, whole: bool) -> Reply:
        """What nobody can take apart goes to the caller as the provider gave it; nothing is stored."""
        call = work.call
        if not whole:  # it answers something else than was asked
            opened, raw = await call.face.open(call.exchange), None
        outcome = self._ledger.told(call, "miss" if opened.status == _OK else "error", "not answered by item")
        self._ledger.dropped(call, "not answered by item", outcome)
        return Reply(outcome=outcome, native=_unread(opened, raw))

    async def _follow(self, work: Work, others: dict[str, Flight]) -> None:
        """Wait for items that others have asked; those who fail leave theirs missing."""
        call = work.call
        patience = call.exchange.patience
        until = None if patience is None else time.monotonic() + patience
        for key, flight in others.items():
            left = None if until is None else max(0.001, until - time.monotonic())
            state = await call.face.wait(flight, left)
            entry = flight.entry
            if state is State.LIVE:
                with suppress(TimeoutError):
                    entry = await self._streaming.whole(call, flight)
            if entry is None:
                continue
            found = call.found(entry, "", self._clock())
            row = None if found is None else Row.of(found)
            if row is not None:
                work.rows[key] = row
                work.followed += 1

    # -- tell -----------------------------------------------------------------------------------

    def _served(self, work: Work, status: Status, reason: str, entry: Entry | None = None) -> Reply:
        """All of it, without a provider call."""
        entry = entry or work.together()
        found = [work.rows[key].found for key in work.keys]
        lives = [one.ttl for one in found if one.ttl is not None]
        outcome = self._ledger.told(
            work.call,
            status,
            reason,
            age=max(one.age for one in found),
            ttl=min(lives, default=None),
            tier="+".join(dict.fromkeys(one.tier for one in found if one.tier)),
            usage=dict(entry.meta.usage),
            saved=entry.meta.latency,
        )
        return Reply(outcome=outcome, entry=entry)

    def _missed(self, work: Work) -> Outcome:
        """What was asked, and what that cost. The items that were there cost nothing."""
        total, asked = len(set(work.keys)), len(work.asked)
        if not work.call.decision.read:
            reason = "refresh"
        else:
            reason = "not stored" if asked == total else f"{asked} of {total} items not stored"
        outcome = self._ledger.told(work.call, "miss", reason)
        outcome.usage = _items.nonzero(work.spent)
        if work.not_stored:
            self._ledger.dropped(work.call, work.not_stored, outcome)
        else:
            outcome.stored = True
        return outcome

    def _offline_miss(self, call: Call, missing: int) -> OfflineMiss:
        self._ledger.told(call, "error", "offline miss")
        total = len(set(call.decision.items))
        return OfflineMiss(
            f"{missing} of {total} items are not in the cache, and mode is offline: "
            f"{call.decision.surface.name} request for model {call.decision.model!r}. Record them first with "
            "mode='on', or check the namespace.",
            key=call.decision.key,
        )


def _place(call: Call) -> tuple[str, str]:
    target = call.request.target
    return target.origin + target.path, call.decision.model


def _unread(opened: Opened, raw: bytes | None) -> Any:
    """The provider's own response, as if nobody had read it."""
    if raw is not None and opened.put_back is not None:
        opened.put_back(raw)
    return opened.native
