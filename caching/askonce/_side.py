"""Small notes beside the answers, in the same stores: for what a cache's users share besides answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from askonce._backing import Backing
from askonce._bridge import step
from askonce._clock import Clock


class SideStore:
    """Notes of one kind, by name. Guarded as calls are: a failing store costs a note, never an error.

    Args:
        backing: the stores.
        clock: seconds since the epoch.
        prefix: of the keys; no answer's key begins with it.
    """

    def __init__(self, backing: Backing, clock: Clock, prefix: str) -> None:
        self._backing = backing
        self._clock = clock
        self._prefix = prefix

    def get_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """The notes that are there."""
        found = step(self._backing.sync_guard.tiers().get_many(self._keys(names)))
        return self._named({key: stored.value for key, stored in found.items()})

    def set_many(self, notes: Mapping[str, bytes], ttl: float) -> None:
        """Keep notes for `ttl` seconds."""
        step(self._backing.sync_guard.tiers().set_many(self._items(notes, ttl)))

    async def aget_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """`get_many`, for event loops."""
        found = await self._backing.async_guard.tiers().get_many(self._keys(names))
        return self._named({key: stored.value for key, stored in found.items()})

    async def aset_many(self, notes: Mapping[str, bytes], ttl: float) -> None:
        """`set_many`, for event loops."""
        await self._backing.async_guard.tiers().set_many(self._items(notes, ttl))

    def _keys(self, names: Sequence[str]) -> list[str]:
        return [self._prefix + name for name in names]

    def _named(self, found: Mapping[str, bytes]) -> dict[str, bytes]:
        return {key.removeprefix(self._prefix): value for key, value in found.items()}

    def _items(self, notes: Mapping[str, bytes], ttl: float) -> Iterable[tuple[str, bytes, float | None]]:
        expires_at = self._clock() + ttl
        return [(self._prefix + name, value, expires_at) for name, value in notes.items()]
