"""Fail open: ports whose trouble never reaches the caller, and the tiers made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from askonce._bridge import Port
from askonce.stores._bounded import Bounded, Budget, Trouble, Watch
from askonce.stores._queued import Queued
from askonce.stores.protocol import Health, Item, Stored
from askonce.stores.tiered import Epochs, Tiers


class Guarded:
    """A local store for any number of calls: it answers "nothing there" when it fails.

    `CancelledError` and other signals that are no `Exception` pass through.
    """

    __slots__ = ("_port", "_trouble", "name")

    def __init__(self, port: Port, name: str, trouble: Trouble) -> None:
        self._port = port
        self._trouble = trouble
        self.name = name

    async def get(self, key: str) -> Stored | None:
        try:
            return await self._port.get(key)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the call goes on
            self._trouble(self.name, "get", error)
            return None

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        try:
            return await self._port.set(key, value, expires_at)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "set", error)
            return False

    async def delete(self, *keys: str) -> int:
        try:
            return await self._port.delete(*keys)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "delete", error)
            return 0

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        try:
            return await self._port.get_many(keys)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "get_many", error)
            return {}

    async def set_many(self, items: Iterable[Item]) -> bool:
        try:
            return await self._port.set_many(items)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "set_many", error)
            return False

    async def scan(self, prefix: str) -> list[str]:
        return await self._port.scan(prefix)  # administration, not a call: the operator wants to see trouble

    async def ping(self) -> Health:
        return await self._port.ping()

    async def close(self) -> None:
        await self._port.close()

    @property
    def leases(self) -> bool:
        return self._port.leases

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        try:
            return await self._port.acquire(key, token, life)
        except Exception as error:  # noqa: BLE001
            self._trouble(self.name, "acquire", error)
            return None


class Guard:
    """The tiers as the calls of one side see them.

    Args:
        ports: the stores of this side, front first.
        names: what they are called in figures, events and logs.
        watches: what is known about each store, None for local ones; both sides share them.
        epochs: see `Tiers`; both sides share them.
        trouble: told of every failure.
        timeout: seconds that one call may lose to remote stores.
        awaits: True for the side of tasks, False for threads.
    """

    __slots__ = ("_epochs", "_makers", "_shared", "_timeout")

    def __init__(
        self,
        ports: Sequence[Port],
        names: Sequence[str],
        watches: Sequence[Watch | None],
        epochs: Epochs,
        trouble: Trouble,
        *,
        timeout: float,
        awaits: bool,
    ) -> None:
        self._epochs = epochs
        self._timeout = timeout
        self._makers = [
            _local(Guarded(port, name, trouble)) if watch is None else _remote(port, watch, awaits)
            for port, name, watch in zip(ports, names, watches, strict=True)
        ]
        # Calls that can lose no time to a network need nothing of their own.
        self._shared = None if any(watches) else self._made()

    def tiers(self) -> Tiers:
        """The tiers for one call, or for one refresh: with a budget of their own."""
        return self._shared or self._made()

    def _made(self) -> Tiers:
        budget = Budget(self._timeout)
        return Tiers([make(budget) for make in self._makers], self._epochs)


def _local(guarded: Guarded) -> Callable[[Budget], Port]:
    return lambda _: guarded


def _remote(port: Port, watch: Watch, awaits: bool) -> Callable[[Budget], Port]:
    peek = watch.peek
    if peek is None:
        return lambda budget: Bounded(port, watch, awaits, budget)
    return lambda budget: Queued(port, watch, awaits, budget, peek)
