"""What operators do with a cache: figures, health, and taking entries out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final

from askonce._backing import Backing
from askonce._bridge import step
from askonce._clock import Clock
from askonce._days import today
from askonce._decision import Settings
from askonce._entry import Entry
from askonce._errors import not_allowed
from askonce._events import Events, Listener
from askonce._flow import Flow
from askonce._request import Request
from askonce._seal import Seal
from askonce._stats import Counters, Stats
from askonce._totals import Totals
from askonce._units import Duration
from askonce.stores.protocol import Health, Item

if TYPE_CHECKING:
    from askonce._admin import Admin
    from askonce._explain import Explanation
    from askonce._layer import Layer
    from askonce.report import Price, Report
    from askonce.semantic import Index, SemanticFigures
    from askonce.semantic._moving import Mover

_BATCH: Final = 200
_MOST_DAYS: Final = 366


class Operations:
    """The operators' part of a Cache."""

    _settings: Settings
    _clock: Clock
    _seal: Seal | None
    _counters: Counters
    _events: Events
    _backing: Backing
    _totals: Totals
    _flow: Flow
    _layer: Layer | None

    @property
    def namespace(self) -> str:
        """The namespace it was made with."""
        return self._settings.namespace

    @property
    def tiers(self) -> tuple[str, ...]:
        """The names of its stores, front first: those in `stats()`, and in the order of `ping()`."""
        return self._backing.names

    @property
    def clock(self) -> Clock:
        """Seconds since the epoch, as it was made with."""
        return self._clock

    def stats(self) -> Stats:
        """What happened in this process since the cache was made."""
        return self._counters.snapshot(self._backing.breakers())

    def semantic_figures(self) -> list[SemanticFigures]:
        """What the semantic layer did in this process, and how often it was wrong.

        All together first, then by partition and model, the busiest first. Empty without a layer.
        """
        return [] if self._layer is None else self._layer.figures()

    def totals(self) -> Stats:
        """What happened in all processes that use this namespace of the store, since it was first used.

        Kept by `redis://` and `disk://`, and added to at most once a minute and on closing: other
        processes' latest calls may be missing. With other stores these are the figures of `stats()`.

        Raises:
            Exception: whatever the store raises.
        """
        return self._totals.read()

    async def atotals(self) -> Stats:
        """`totals`, for event loops."""
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        return await asyncio.to_thread(self._totals.read)

    def report(self, *, days: int = 30, prices: Mapping[str, Price] | None = None) -> Report:
        """What the cache saved in the latest days, today included: calls, tokens, time, and money.

        Of all processes that use this namespace of the store, as for `totals`. Days are UTC.

        Args:
            days: how many, 1 to 366.
            prices: your own, by model name (`*` globs): they win over the list of the package
                `genai-prices` (extra `prices`). Of a model without a price only tokens are counted.

        Raises:
            ConfigurationError: for a number of days or a price that cannot be.
            Exception: whatever the store raises.
        """
        if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= _MOST_DAYS:
            raise not_allowed("days", days, f"a whole number from 1 to {_MOST_DAYS}")
        from askonce.report._figures import report  # noqa: PLC0415 - most programs never make one
        from askonce.report._prices import Prices  # noqa: PLC0415

        last = today(self._clock())
        known = Prices(prices)
        return report(
            self._totals.read_days(last - days + 1, last),
            namespace=self.namespace,
            first=last - days + 1,
            last=last,
            prices=known,
            stats=self._totals.read(),
            health=self.ping(),
        )

    async def areport(self, *, days: int = 30, prices: Mapping[str, Price] | None = None) -> Report:
        """`report`, for event loops."""
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        return await asyncio.to_thread(lambda: self.report(days=days, prices=prices))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(event)` called for every event (see `askonce.events`); returns the way out.

        Called in the thread of the call, so it should be quick; what it raises is logged and dropped.
        """
        return self._events.subscribe(listener)

    def ping(self) -> list[Health]:
        """The health of every tier, front first."""
        return self._backing.ping()

    async def aping(self) -> list[Health]:
        """`ping`, for event loops."""
        return await self._backing.aping()

    def delete(self, key: str) -> bool:
        """Remove one entry from every tier; whether it was there."""
        self._flow.forget()
        return step(self._backing.sync_tiers.delete(key)) > 0

    async def adelete(self, key: str) -> bool:
        """`delete`, for event loops."""
        self._flow.forget()
        return await self._backing.async_tiers.delete(key) > 0

    def invalidate(
        self,
        *,
        model: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        url: str | None = None,
    ) -> int:
        """Remove the entries of this namespace that match every condition given; how many they were.

        Args:
            model: model name; `*` globs.
            tag: a label given by `using(tags=...)`.
            older_than: created longer ago than this.
            url: where it was asked, without query; `*` globs.

        Raises:
            ConfigurationError: without any condition (that is `clear()`).
        """
        self._flow.forget()
        matches = self._admin.matcher(model, tag, older_than, url)
        return step(self._admin.invalidate(self._backing.sync_tiers, matches))

    async def ainvalidate(
        self,
        *,
        model: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        url: str | None = None,
    ) -> int:
        """`invalidate`, for event loops."""
        self._flow.forget()
        matches = self._admin.matcher(model, tag, older_than, url)
        return await self._admin.invalidate(self._backing.async_tiers, matches)

    def clear(self) -> int:
        """Remove every entry of this namespace from every tier; how many they were."""
        self._flow.forget()
        return step(self._admin.clear(self._backing.sync_tiers, self._layer))

    async def aclear(self) -> int:
        """`clear`, for event loops."""
        self._flow.forget()
        return await self._admin.clear(self._backing.async_tiers, self._layer)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """The (key, entry) pairs of this namespace, a batch at a time; what cannot be read is left out."""
        keys = iter(step(self._admin.keys(self._backing.sync_tiers)))
        while batch := list(islice(keys, _BATCH)):
            yield from step(self._admin.load(self._backing.sync_tiers, batch))

    async def aentries(self) -> AsyncIterator[tuple[str, Entry]]:
        """`entries`, for event loops."""
        keys = iter(await self._admin.keys(self._backing.async_tiers))
        while batch := list(islice(keys, _BATCH)):
            for pair in await self._admin.load(self._backing.async_tiers, batch):
                yield pair

    def entry(self, key: str) -> Entry | None:
        """The entry under a key, `namespace:digest`, fresh or stale; None when there is none to be read.

        Looking is no use of the cache: nothing is counted, and no copy goes to the front tier.
        """
        found = step(self._admin.load(self._backing.sync_tiers, [key]))
        return next((entry for _, entry in found), None)

    async def aentry(self, key: str) -> Entry | None:
        """`entry`, for event loops."""
        found = await self._admin.load(self._backing.async_tiers, [key])
        return next((entry for _, entry in found), None)

    def keys(self) -> list[str]:
        """The keys of this namespace in all tiers, each once."""
        return step(self._admin.keys(self._backing.sync_tiers))

    def read_items(self, keys: Sequence[str]) -> list[Item]:
        """(key, value, absolute expiry) as the stores have them: envelopes, sealed when there is a secret.

        For tools that move entries; see `askonce.tools`.
        """
        return step(self._admin.read(self._backing.sync_tiers, keys))

    def write_items(self, items: Sequence[Item], *, overwrite: bool = False) -> int:
        """Store what `read_items` gave; how many were written. The expiry stays what it is.

        Args:
            items: at most a few hundred at a time.
            overwrite: also where something is stored under the key.

        Raises:
            Exception: whatever a store raises. Nothing waits in a queue: what this returns from is stored.
        """
        self._flow.forget()
        return step(self._admin.write(self._backing.direct(), items, overwrite=overwrite))

    def mover(self, index: Index | None = None) -> Mover:
        """For tools that move entries: what the semantic layer keeps beside them, see `askonce.tools`.

        Args:
            index: where the rows are; None: where the cache's own layer has them, without a layer the store.
        """
        from askonce.semantic._moving import Mover  # noqa: PLC0415 - as above, and most have no layer

        return Mover(self.namespace, self._backing, self._seal, self._layer, index)

    def explain(self, request: Request) -> Explanation:
        """Why a request is or is not answered from the cache: its nearest entry and what differs."""
        return step(self._admin.explain(self._backing.sync_tiers, request))

    async def aexplain(self, request: Request) -> Explanation:
        """`explain`, for event loops."""
        return await self._admin.explain(self._backing.async_tiers, request)

    @cached_property
    def _admin(self) -> Admin:
        from askonce._admin import Admin  # noqa: PLC0415 - most programs never operate on a cache

        return Admin(settings=self._settings, clock=self._clock, seal=self._seal)
