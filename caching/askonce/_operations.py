"""What operators do with a cache: figures, health, and taking entries out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final

from askonce._backing import Backing
from askonce._bridge import step
from askonce._clock import Clock
from askonce._decision import Settings
from askonce._entry import Entry
from askonce._events import Events, Listener
from askonce._flow import Flow
from askonce._request import Request
from askonce._seal import Seal
from askonce._stats import Counters, Stats
from askonce._totals import Totals
from askonce._units import Duration
from askonce.stores.protocol import Health

if TYPE_CHECKING:
    from askonce._admin import Admin
    from askonce._explain import Explanation

_BATCH: Final = 200


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

    def stats(self) -> Stats:
        """What happened in this process since the cache was made."""
        return self._counters.snapshot(self._backing.breakers())

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
        return step(self._admin.clear(self._backing.sync_tiers))

    async def aclear(self) -> int:
        """`clear`, for event loops."""
        self._flow.forget()
        return await self._admin.clear(self._backing.async_tiers)

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
