"""A remote store that is written behind, within one call: its breaker and the budget are for reading."""

from __future__ import annotations

from collections.abc import Iterable

from askonce._bridge import Port
from askonce.stores._bounded import Bounded, Budget, Peek, Watch
from askonce.stores.protocol import Item, Stored


class Queued(Bounded):
    """Writing is promising, which neither waits nor fails, and says nothing about the store.

    What is promised is read without asking the store.

    Args:
        port: the store.
        watch: what is known about it.
        awaits: True in tasks, False in threads.
        budget: the call's.
        peek: looks into the queue.
    """

    __slots__ = ("_peek",)

    def __init__(self, port: Port, watch: Watch, awaits: bool, budget: Budget, peek: Peek) -> None:
        super().__init__(port, watch, awaits, budget)
        self._peek = peek

    async def get(self, key: str) -> Stored | None:
        known, stored = self._peek(key)
        return stored if known else await super().get(key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        return await self.port.set(key, value, expires_at)

    async def set_many(self, items: Iterable[Item]) -> bool:
        return await self.port.set_many(items)
