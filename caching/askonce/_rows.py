"""A list of inputs on its way: which items have their answers, and how new answers become entries."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from askonce import _codec, _items
from askonce._body import Body
from askonce._call import Call, Found
from askonce._clock import Clock
from askonce._decision import Settings, approves
from askonce._entry import Entry, Meta, kept_headers
from askonce._exchange import Opened
from askonce._fingerprint import fingerprint
from askonce._flights import Flight, Flights
from askonce._ledger import Ledger
from askonce._request import Request
from askonce._seal import Seal

_OK: Final = 200
AT_A_TIME: Final = 128
"""Items between two moments that are everybody else's on an event loop."""


@dataclass(slots=True, eq=False)
class Row:
    """One item's answer: what it was found in, taken apart."""

    found: Found
    answer: _items.Answer

    @classmethod
    def of(cls, found: Found) -> Row | None:
        """The row of an entry; None for one that holds no single row."""
        answer = _items.take_apart(found.entry.body)
        return cls(found, answer) if answer is not None and len(answer.rows) == 1 else None

    @property
    def usage(self) -> dict[str, int]:
        """The item's figures."""
        return _items.figures(self.answer.around)


@dataclass(slots=True, eq=False)
class Work:
    """One list on its way.

    Attributes:
        call: whose list it is.
        rows: answers by key.
        expired: answers that may be given should the provider fail.
        asked: the keys that went upstream.
        followed: how many items others have asked meanwhile.
        spent: the figures of what went upstream.
        not_stored: why an answer that went upstream was not stored; "" when all were.
    """

    call: Call
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    expired: dict[str, Row] = field(default_factory=dict[str, Row])
    asked: set[str] = field(default_factory=set[str])
    followed: int = 0
    spent: dict[str, int] = field(default_factory=dict[str, int])
    not_stored: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of each input."""
        return self.call.decision.items

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys for which there is no answer yet, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self.rows]

    def items(self) -> dict[str, _items.Item]:
        """The inputs by their keys."""
        name = self.call.decision.surface.items
        return dict(zip(self.keys, self.call.body.fields[name], strict=True))

    def is_whole(self, keys: Sequence[str]) -> bool:
        """Whether these are all that the caller asks, and its own request the one to send."""
        return len(keys) == len(self.keys)

    def serve_expired(self, keys: Sequence[str]) -> bool:
        """Answer with what has expired, if that answers all of these."""
        if not all(key in self.expired for key in keys):
            return False
        self.rows.update({key: self.expired[key] for key in keys})
        return True

    def together(self) -> Entry:
        """The answer to the whole list, as an entry that nobody stores."""
        rows = [self.rows[key] for key in self.keys]
        around = rows[0].answer.around
        usage = _items.summed([row.usage for row in rows])
        metas = [row.found.entry.meta for row in rows]
        first = rows[0].found.entry
        return Entry(
            status=_OK,
            headers=first.headers,
            body=_items.put_together(around, [row.answer.rows[0] for row in rows], usage),
            meta=Meta(
                created_at=min(meta.created_at for meta in metas),
                expires_at=None,
                stale_until=None,
                model=first.meta.model,
                surface=first.meta.surface,
                url=first.meta.url,
                usage=_items.nonzero(usage),
                latency=max(meta.latency for meta in metas),
            ),
        )


class RowKeeper:
    """Turns the rows of an answer into entries, and stores them in one batch."""

    def __init__(
        self, *, settings: Settings, clock: Clock, flights: Flights, ledger: Ledger, seal: Seal | None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._flights = flights
        self._ledger = ledger
        self._seal = seal

    async def keep(
        self,
        work: Work,
        flights: dict[str, Flight | None],
        opened: Opened,
        answer: _items.Answer,
        asked: float,
    ) -> None:
        """Take the rows into the work, store them, and let the followers go.

        Args:
            work: whose they are.
            flights: the keys of the rows, in order, each with its flight where it has one.
            opened: the provider's answer.
            answer: the same, taken apart.
            asked: when it was asked for (`time.perf_counter`).
        """
        call = work.call
        latency = time.perf_counter() - asked
        total = _items.figures(answer.around)
        self._ledger.spent(call, total)
        work.spent = _items.summed([work.spent, total])
        work.asked.update(flights)
        entries: dict[str, Entry] = {}
        batch: list[tuple[str, bytes, float | None]] = []
        try:
            async for key, entry in self._entries(work, flights, opened, answer, latency):
                entries[key] = entry
                why = self._why_not(call, entry)
                if why:
                    work.not_stored = why
                else:
                    batch.append((key, _codec.encode(key, entry, self._seal), entry.meta.stale_until))
            await self._store(work, batch)
        finally:
            # Also when this caller is cancelled while storing: the answers are there.
            for key, flight in flights.items():
                if flight is not None and key in entries:
                    self._flights.land(flight, entries[key])

    async def _store(self, work: Work, batch: list[tuple[str, bytes, float | None]]) -> None:
        if not batch:
            return
        if not await work.call.tiers.set_many(batch):
            work.not_stored = "no store took it"
            return
        for key, value, _ in batch:
            self._flights.cacheable(key)
            self._ledger.stored(key, len(value))

    def _why_not(self, call: Call, entry: Entry) -> str:
        if not call.decision.write:
            return "not asked to"
        if len(entry.body) > call.decision.terms.max_entry_bytes:
            return "too large"
        cacheable = self._settings.policy.cacheable
        if cacheable is not None and not approves(cacheable, call.request, entry):
            return "policy"
        return ""

    async def _entries(
        self,
        work: Work,
        flights: dict[str, Flight | None],
        opened: Opened,
        answer: _items.Answer,
        latency: float,
    ) -> AsyncIterator[tuple[str, Entry]]:
        """Each row as the entry that the item asked alone would have become."""
        call, decision = work.call, work.call.decision
        items = work.items()
        weights = [_items.weight(items[key]) for key in flights]
        figures = _items.shares(_items.figures(answer.around), weights)
        headers = kept_headers(opened.headers)
        target = call.request.target
        prints = self._prints(call) if decision.write else None
        for number, (key, row, usage) in enumerate(zip(flights, answer.rows, figures, strict=True), 1):
            if number % AT_A_TIME == 0:
                await call.face.breathe()
            now = self._clock()
            expires, gone = decision.lives(now)
            entry = Entry(
                status=_OK,
                headers=headers,
                body=_items.put_together(answer.around, [row], usage),
                meta=Meta(
                    created_at=now,
                    expires_at=expires,
                    stale_until=gone,
                    model=decision.model,
                    surface=decision.surface.name,
                    url=target.origin + target.path,
                    usage=_items.nonzero(usage),
                    latency=latency,
                    tags=decision.tags,
                    fingerprint={} if prints is None else prints(items[key]),
                ),
            )
            around = {**answer.around, "usage": usage} if usage else answer.around
            work.rows[key] = Row(Found(entry, 0.0, None, ""), _items.Answer(around, [row]))
            yield key, entry

    def _prints(self, call: Call) -> Callable[[_items.Item], dict[str, str]]:
        """Fingerprints of single items: all parts but the input are the same."""
        name = call.decision.surface.items
        common = {key: value for key, value in call.body.fields.items() if key != name}
        request, decision, settings = call.request, call.decision, self._settings
        shared = fingerprint(request, Body("json", common, common), decision, settings)
        bare = Request(request.method, request.url)

        def of(item: _items.Item) -> dict[str, str]:
            body = {name: item}
            return {**shared, **fingerprint(bare, Body("json", body, body), decision, settings)}

        return of
