"""What every call leaves behind: an Outcome, counted, tracked, and told to listeners."""

from __future__ import annotations

import time

from askonce._call import Asked, Call, Found
from askonce._clock import Clock
from askonce._entry import Entry
from askonce._events import Events
from askonce._exchange import Reply
from askonce._layer import Similar
from askonce._outcome import Outcome, Status
from askonce._stats import Counters
from askonce._totals import Totals
from askonce._track import note


class Ledger:
    """Writes outcomes; one per cache."""

    def __init__(self, *, clock: Clock, counters: Counters, events: Events, totals: Totals) -> None:
        self.counters = counters
        self._totals = totals
        self._clock = clock
        self._events = events

    def corrupt(self, key: str, reason: str) -> None:
        """A stored value was no entry."""
        self.counters.corrupt()
        if self._events.wanted:
            from askonce.events import CorruptEntry  # noqa: PLC0415 - loaded when somebody listens

            self._events.emit(CorruptEntry(key=key, reason=reason))

    def spent(self, call: Call, usage: dict[str, int]) -> None:
        """The provider gave an answer, and says what it cost."""
        if usage:
            self.counters.spent(usage)
            self._totals.days.spent(
                self._clock(), call.request.target.origin, call.decision.model, call.decision.tags, usage
            )

    def stored(self, key: str, size: int) -> None:
        """An answer was written."""
        self.counters.stored()
        if self._events.wanted:
            from askonce.events import AnswerStored  # noqa: PLC0415

            self._events.emit(AnswerStored(key=key, size=size))

    def dropped(self, call: Call, why: str, outcome: Outcome) -> None:
        """An answer reached its caller and was not written."""
        outcome.stored = False
        outcome.not_stored = why
        self.counters.dropped(why)
        if self._events.wanted:
            from askonce.events import AnswerDropped  # noqa: PLC0415

            self._events.emit(AnswerDropped(key=call.decision.key, reason=why))

    def hit(self, call: Asked, status: Status, reason: str, found: Found) -> Reply:
        meta = found.entry.meta
        outcome = self.told(
            call,
            status,
            reason,
            age=found.age,
            ttl=found.ttl,
            tier=found.tier,
            usage=dict(meta.usage),
            saved=meta.latency,
        )
        return Reply(outcome=outcome, entry=found.entry, pace=call.decision.terms.replay_rate)

    def similar(self, call: Call, similar: Similar, reason: str) -> Reply:
        found = similar.found
        meta = found.entry.meta
        outcome = self.told(
            call, "semantic", reason,
            age=found.age,
            ttl=found.ttl,
            tier=found.tier,
            usage=dict(meta.usage),
            saved=meta.latency,
            similarity=similar.similarity,
            source=similar.key,
        )  # fmt: skip
        return Reply(outcome=outcome, entry=found.entry)

    def followed(self, call: Call, entry: Entry) -> Reply:
        meta = entry.meta
        now = self._clock()
        outcome = self.told(
            call, "coalesced", "shared a call",
            age=max(0.0, now - meta.created_at),
            ttl=None if meta.expires_at is None else meta.expires_at - now,
            usage=dict(meta.usage),
            saved=meta.latency,
        )  # fmt: skip
        return Reply(outcome=outcome, entry=entry)

    def told(
        self,
        call: Asked,
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
        similarity: float | None = None,
        source: str = "",
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
            similarity=similarity,
            source=source,
        )
        self.counters.outcome(outcome)
        self._totals.days.called(
            self._clock(),
            call.request.target.origin,
            decision.model,
            decision.tags,
            status=status,
            usage=outcome.usage,
            saved=saved,
        )
        note(outcome)
        if call.started > self._totals.due:
            self._totals.add_soon()
        if self._events.wanted:
            from askonce.events import CallDone  # noqa: PLC0415

            self._events.emit(CallDone(outcome=outcome))
        return outcome
