"""Front tiers that drop what other processes change in the stores behind them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Protocol

from askonce.stores.protocol import Announcing, Store, unwrapped

_AT_ONCE = 1000


class Epochs(Protocol):
    """See `askonce.stores.tiered.Epochs`."""

    def bump(self, key: str) -> object: ...
    def bump_all(self) -> None: ...


class Coherence:
    """Listens to the tiers that several processes share, on behalf of those in front of them.

    It holds for as long as this object lives: a store that outlives a cache does not keep its front tiers.

    Args:
        stores: the tiers, front first.
        epochs: told before *and* after a front tier drops a key, so that a copy that is on its way up at
            that moment is not kept.
    """

    def __init__(self, stores: Sequence[Store], epochs: Epochs) -> None:
        self._stores = tuple(stores)
        self._epochs = epochs
        self._ears: list[_Ear] = []
        for depth, store in enumerate(stores):
            source = unwrapped(store)
            if depth and isinstance(source, Announcing):
                self._ears.append(_Ear(self, source, depth))

    def leave(self) -> None:
        """Empty the front tiers in memory: nobody listens for them any more, and they may be used again.

        Those on a disk stay: the next one who listens empties them before it relies on them.
        """
        last = max((ear.depth for ear in self._ears), default=0)
        for front in self._stores[:last]:
            if not front.blocking:
                self._empty(front)

    def changed(self, depth: int, keys: tuple[str, ...] | None) -> None:
        """Have the first `depth` tiers drop keys, or everything."""
        fronts = self._stores[:depth]
        if keys is None:
            self._epochs.bump_all()
            for front in fronts:
                self._empty(front)
            self._epochs.bump_all()
            return
        for key in keys:
            self._epochs.bump(key)
        for front in fronts:
            front.delete(*keys)
        for key in keys:
            self._epochs.bump(key)

    @staticmethod
    def _empty(front: Store) -> None:
        names = [*front.scan("")]
        for start in range(0, len(names), _AT_ONCE):
            front.delete(*names[start : start + _AT_ONCE])


class _Ear:
    """Hears for a Coherence while that is there, and then hears no more."""

    def __init__(self, owner: Coherence, store: Announcing, depth: int) -> None:
        self._owner = weakref.ref(owner)
        self.depth = depth
        self._remove = store.listen(self.hear)

    def hear(self, keys: tuple[str, ...] | None) -> None:
        owner = self._owner()
        if owner is None:
            self._remove()
        else:
            owner.changed(self.depth, keys)
