"""The stores of one cache: guarded for calls, bare for operators, and what is known of their health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from typing import Final

from askonce._bridge import async_port, sync_port
from askonce._events import Events, inform, warn
from askonce._stats import Counters
from askonce.stores._bounded import Watch
from askonce.stores._breaker import Breaker, State
from askonce.stores._coherence import Coherence
from askonce.stores.guard import Guard
from askonce.stores.protocol import Health, Store, is_remote
from askonce.stores.tiered import Epochs, Tiers

_LEASES: Final = 2.0
"""Budgets after which a probe that was not heard of again is given up."""
_LEAST_LEASE: Final = 1.0


class Backing:
    """One per cache.

    Args:
        stores: front tier first.
        timeout: seconds that one call may lose to remote stores, all of them together.
        counters: where failures are counted.
        events: who is told of them.

    Attributes:
        sync_guard: the tiers for the calls of threads.
        async_guard: the tiers for the calls of tasks.
        sync_tiers: the tiers for operators, who want to see what fails.
        async_tiers: the same, for event loops.
    """

    def __init__(self, stores: list[Store], *, timeout: float, counters: Counters, events: Events) -> None:
        self.stores = stores
        self._counters = counters
        self._events = events
        names = _distinct(store.name for store in stores)
        watches = [
            self._watch(name, timeout) if is_remote(store) else None
            for name, store in zip(names, stores, strict=True)
        ]
        self._watches = [watch for watch in watches if watch is not None]
        epochs = Epochs()
        self._coherence = Coherence(stores, epochs)
        sync_ports = [sync_port(one) for one in stores]
        async_ports = [async_port(one) for one in stores]
        self.sync_tiers = Tiers(sync_ports, epochs)
        self.async_tiers = Tiers(async_ports, epochs)
        self.sync_guard = Guard(
            sync_ports, names, watches, epochs, self._trouble, timeout=timeout, awaits=False
        )
        self.async_guard = Guard(
            async_ports, names, watches, epochs, self._trouble, timeout=timeout, awaits=True
        )

    def breakers(self) -> dict[str, str]:
        """The state of each remote store's breaker."""
        return {watch.name: watch.breaker.state for watch in self._watches}

    def ping(self) -> list[Health]:
        """The health of every tier, front first."""
        return [store.ping() for store in self.stores]

    async def aping(self) -> list[Health]:
        """`ping`, for event loops."""
        return [await port.ping() for port in self.async_tiers.ports]

    def close(self) -> None:
        """Close every store, also when one fails to."""
        with ExitStack() as closing:
            for store in self.stores:
                closing.callback(store.close)

    async def aclose(self) -> None:
        """`close`, for event loops."""
        async with AsyncExitStack() as closing:
            for port in self.async_tiers.ports:
                closing.push_async_callback(port.close)

    def _watch(self, name: str, timeout: float) -> Watch:
        def changed(state: State) -> None:
            self._changed(name, state)

        breaker = Breaker(changed, lease=_LEAST_LEASE + _LEASES * timeout)
        return Watch(
            name=name,
            timeout=timeout,
            breaker=breaker,
            trouble=self._trouble,
            skipped=self._counters.store_skip,
        )

    def _trouble(self, store: str, operation: str, error: Exception) -> None:
        name = type(error).__name__
        self._counters.store_error(store)
        if self._events.wanted:
            from askonce.events import StoreFailed  # noqa: PLC0415 - loaded when somebody listens

            self._events.emit(StoreFailed(store=store, operation=operation, error=name))
        warn("stores", "the %s store failed (%s: %s); calls go on without it", store, operation, name)

    def _changed(self, store: str, state: State) -> None:
        if self._events.wanted:
            from askonce.events import BreakerChanged  # noqa: PLC0415

            self._events.emit(BreakerChanged(store=store, state=state))
        if state == "open":
            warn("stores", "the %s store is left alone for a while: it fails again and again", store)
        elif state == "closed":
            inform("stores", "the %s store works again", store)


def _distinct(names: Iterable[str]) -> list[str]:
    """Names by which figures can be told apart: "redis", "redis 2"."""
    seen: Counter[str] = Counter()
    found: list[str] = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found
