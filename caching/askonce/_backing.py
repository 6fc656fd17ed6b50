"""The stores of one cache: guarded for calls, bare for operators, and what is known of their health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from typing import Final

from askonce._bridge import async_port, sync_port
from askonce._clock import Clock
from askonce._errors import ConfigurationError, StoreError
from askonce._events import Events, inform, warn
from askonce._stats import Counters
from askonce.stores._bounded import Peek, Watch
from askonce.stores._breaker import Breaker, State
from askonce.stores._coherence import Coherence
from askonce.stores.guard import Guard
from askonce.stores.protocol import Health, Leasing, NativeAsync, Store, Tallying, is_remote, unwrapped
from askonce.stores.tiered import Epochs, Tiers

_LEASES: Final = 2.0
"""Budgets after which a probe that was not heard of again is given up."""
_LEAST_LEASE: Final = 1.0


class Backing:
    """One per cache.

    Args:
        stores: front tier first. Those that say so (`write`) are written behind.
        clock: seconds since the epoch, for expiry.
        timeout: seconds that one call may lose to remote stores, all of them together.
        counters: where failures are counted.
        events: who is told of them.

    Attributes:
        names: of the tiers, by which figures can be told apart.
        sync_guard: the tiers for the calls of threads.
        async_guard: the tiers for the calls of tasks.
        sync_tiers: the tiers for operators, who want to see what fails.
        async_tiers: the same, for event loops.
    """

    def __init__(
        self, stores: list[Store], *, clock: Clock, timeout: float, counters: Counters, events: Events
    ) -> None:
        self._counters = counters
        self._events = events
        self._peeks: dict[str, Peek] = {}
        names = _distinct(store.name for store in stores)
        stores = [self._behind(name, store, clock) for name, store in zip(names, stores, strict=True)]
        self.stores = stores
        self.names = tuple(names)
        watches = [
            self._watch(name, timeout) if is_remote(store) else None
            for name, store in zip(names, stores, strict=True)
        ]
        self._watches = [watch for watch in watches if watch is not None]
        epochs = self._epochs = Epochs()
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

    @property
    def front(self) -> Store | None:
        """The first tier, when it never blocks and wants no await: whoever may wait for nothing asks it."""
        first = self.stores[0]
        waits = first.blocking or is_remote(first) or isinstance(first, NativeAsync)
        return None if waits else first

    def direct(self) -> Tiers:
        """The tiers without queues before them: whoever writes many values waits, and learns of failures."""
        from askonce.stores._behind import WriteBehind  # noqa: PLC0415 - most caches have no such store

        bare = [store.inner if isinstance(store, WriteBehind) else store for store in self.stores]
        return Tiers([sync_port(store) for store in bare], self._epochs)

    def lessor(self) -> Leasing:
        """The tier that says who leads among processes: the last one that can.

        Raises:
            ConfigurationError: when there is none.
        """
        for store in reversed(self.stores):
            if isinstance(store, Leasing):
                return store
        names = ", ".join(store.name for store in self.stores)
        raise ConfigurationError(
            f"coalesce='fleet' is not allowed over {names}; allowed: with a store that processes share and "
            "that is written through, such as redis:// or disk://"
        )

    def tallying(self) -> Tallying | None:
        """The tier that keeps the figures of all processes: the last one that can."""
        found = map(unwrapped, reversed(self.stores))
        return next((store for store in found if isinstance(store, Tallying)), None)

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
            closing.callback(self._coherence.leave)  # the last to be called
            for store in self.stores:
                closing.callback(store.close)

    async def aclose(self) -> None:
        """`close`, for event loops."""
        async with AsyncExitStack() as closing:
            closing.callback(self._coherence.leave)
            for port in self.async_tiers.ports:
                closing.push_async_callback(port.close)

    def _behind(self, name: str, store: Store, clock: Clock) -> Store:
        """The store, with a queue before it if it wants one."""
        if getattr(store, "write", "through") != "behind":
            return store
        from askonce.stores._behind import WriteBehind  # noqa: PLC0415 - most caches have no such store

        if isinstance(store, WriteBehind):
            self._peeks[name] = store.peek
            return store

        def lost(key: str, reason: str) -> None:
            self._lost(name, key, reason)

        def trouble(operation: str, error: Exception) -> None:
            self._trouble(name, operation, error)

        behind = WriteBehind(store, clock=clock, lost=lost, trouble=trouble)
        self._peeks[name] = behind.peek
        return behind

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
            peek=self._peeks.get(name),
        )

    def _trouble(self, store: str, operation: str, error: Exception) -> None:
        name = type(error).__name__
        self._counters.store_error(store)
        if self._events.wanted:
            from askonce.events import StoreFailed  # noqa: PLC0415 - loaded when somebody listens

            self._events.emit(StoreFailed(store=store, operation=operation, error=name))
        # Our own errors say what to do, and nothing that must not be logged; others may.
        said = str(error) if isinstance(error, StoreError) else name
        warn("stores", "the %s store failed (%s: %s); calls go on without it", store, operation, said)

    def _lost(self, store: str, key: str, reason: str) -> None:
        self._counters.dropped(f"write-behind {reason}")
        if self._events.wanted:
            from askonce.events import AnswerDropped  # noqa: PLC0415

            self._events.emit(AnswerDropped(key=key, reason=f"write-behind {reason}"))
        warn("stores", "answers for the %s store were given up before they were written: %s", store, reason)

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
