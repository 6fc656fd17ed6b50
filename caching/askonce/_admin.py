"""For operators: remove, list, explain. Written once over tiers; the Cache has the sync and async names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final

from askonce import _codec
from askonce._clock import Clock
from askonce._control import current_control
from askonce._decision import Settings, decide
from askonce._entry import Entry
from askonce._errors import ConfigurationError
from askonce._explain import Explanation, nearest
from askonce._layer import Layer
from askonce._request import Request
from askonce._seal import Seal
from askonce._surfaces import read_body
from askonce._units import Duration, seconds
from askonce.stores.protocol import Item
from askonce.stores.tiered import Tiers

_BATCH: Final = 200


class Admin:
    """The operators' side of one cache."""

    def __init__(self, *, settings: Settings, clock: Clock, seal: Seal | None) -> None:
        self._settings = settings
        self._clock = clock
        self._seal = seal
        self._prefix = f"{settings.namespace}:"

    async def keys(self, tiers: Tiers) -> list[str]:
        """All keys of the namespace."""
        return await tiers.scan(self._prefix)

    def matcher(
        self, model: str | None, tag: str | None, older_than: Duration | None, url: str | None
    ) -> Callable[[Entry], bool]:
        if model is None and tag is None and older_than is None and url is None:
            raise ConfigurationError(
                "invalidate() needs a condition: model=, tag=, older_than= or url= (clear() removes all)"
            )
        before = None if older_than is None else self._clock() - seconds("older_than", older_than)

        def matches(entry: Entry) -> bool:
            meta = entry.meta
            return (
                (model is None or fnmatchcase(meta.model, model))
                and (tag is None or tag in meta.tags)
                and (before is None or meta.created_at < before)
                and (url is None or fnmatchcase(meta.url, url))
            )

        return matches

    async def invalidate(self, tiers: Tiers, matches: Callable[[Entry], bool]) -> int:
        removed = 0
        keys = iter(await tiers.scan(self._prefix))
        while batch := list(islice(keys, _BATCH)):
            doomed = [key for key, entry in await self.load(tiers, batch) if matches(entry)]
            if doomed:
                await tiers.delete(*doomed)
                removed += len(doomed)  # each once, in whichever tiers it was
        return removed

    async def clear(self, tiers: Tiers, layer: Layer | None) -> int:
        removed = await self._remove(tiers, self._prefix)
        for prefix in () if layer is None else layer.prefixes(self._settings.namespace):
            await self._remove(tiers, prefix)  # the layer's own: those are no entries
        return removed

    @staticmethod
    async def _remove(tiers: Tiers, prefix: str) -> int:
        removed = 0
        keys = iter(await tiers.scan(prefix))
        while batch := list(islice(keys, _BATCH)):
            await tiers.delete(*batch)
            removed += len(batch)
        return removed

    async def load(self, tiers: Tiers, keys: list[str]) -> Iterable[tuple[str, Entry]]:
        found: list[tuple[str, Entry]] = []
        for key, stored in (await tiers.get_many(keys, copy_up=False)).items():
            try:
                found.append((key, _codec.decode(key, stored.value, self._seal)))
            except _codec.Undecodable:
                continue
        return found

    async def explain(self, tiers: Tiers, request: Request) -> Explanation:
        body = read_body(request)
        decision = decide(self._settings, request, body, current_control())
        if decision.bypass:
            return Explanation(verdict="bypass", reason=decision.bypass)
        stored = await tiers.get(decision.key)
        if stored is not None:
            for _, entry in await self.load(tiers, [decision.key]):
                expires = entry.meta.expires_at
                fresh = expires is None or expires > self._clock()
                return Explanation(verdict="hit" if fresh else "expired", key=decision.key)
        return await nearest(tiers, decision, request, body, settings=self._settings, seal=self._seal)

    async def read(self, tiers: Tiers, keys: Sequence[str]) -> list[Item]:
        """The values as they are stored, in the order of the keys; what is not there is left out."""
        found = await tiers.get_many(keys, copy_up=False)
        return [(key, found[key].value, found[key].expires_at) for key in keys if key in found]

    async def write(self, tiers: Tiers, items: Sequence[Item], *, overwrite: bool) -> int:
        """Store values as they are; how many were written."""
        if not overwrite:
            present = await tiers.get_many([key for key, _, _ in items], copy_up=False)
            items = [item for item in items if item[0] not in present]
        if items:
            await tiers.set_many(items)
        return len(items)
