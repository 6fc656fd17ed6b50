"""Tiers: fast stores in front of large ones, read through, written through, deleted everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Final

from askonce._bridge import Port, async_port, step, sync_port
from askonce._errors import ConfigurationError, StoreError
from askonce.stores._coherence import Coherence
from askonce.stores.protocol import Health, Item, Store, Stored, is_remote

_STRIPES: Final = 1024


class Epochs:
    """Counts writes, so that a reader can tell whether one came between its read and its backfill.

    Without it, a reader that fetched the old value from the back tier could put it into the front tier
    after somebody deleted or replaced it. Striped, so that unrelated keys rarely disturb each other.
    """

    __slots__ = ("_stripes",)

    def __init__(self) -> None:
        self._stripes = [object() for _ in range(_STRIPES)]

    def of(self, key: str) -> object:
        """The key's epoch, compared by identity."""
        return self._stripes[hash(key) % _STRIPES]

    def bump(self, key: str) -> object:
        """Say that the key is being written or deleted: one assignment, atomic on its own. The new epoch."""
        epoch = self._stripes[hash(key) % _STRIPES] = object()
        return epoch

    def bump_all(self) -> None:
        """Say that any key may have been."""
        self._stripes = [object() for _ in range(_STRIPES)]


class Tiers:
    """The algorithm, over ports: stepped for sync callers, awaited for async ones.

    An entry keeps its absolute expiry wherever it goes, so a backfill never lengthens a life.
    """

    __slots__ = ("_epochs", "_front", "ports")

    def __init__(self, ports: Sequence[Port], epochs: Epochs) -> None:
        self.ports = tuple(ports)
        self._front = ports[0]
        self._epochs = epochs

    async def get(self, key: str) -> Stored | None:
        """From the first tier that has it; the tiers before get a copy with the remaining life."""
        found = await self._front.get(key)
        if found is not None or len(self.ports) == 1:
            return found
        epoch = self._epochs.of(key)
        for depth, port in enumerate(self.ports[1:], 1):
            found = await port.get(key)
            if found is not None:
                if self._epochs.of(key) is not epoch:
                    return found  # somebody writes or deletes: nothing is copied up
                for above in self.ports[:depth]:
                    await above.set(key, found.value, found.expires_at)
                if self._epochs.of(key) is not epoch:
                    # A write or delete came in between: what was copied up may be the old value.
                    for above in self.ports[:depth]:
                        await above.delete(key)
                return found
        return None

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        """To every tier, the last one first: a front tier never knows more than the back.

        Whether any tier took it.
        """
        if len(self.ports) == 1:
            return await self._front.set(key, value, expires_at)
        kept = False
        epoch = self._epochs.bump(key)
        for port in reversed(self.ports[1:]):
            kept = await port.set(key, value, expires_at) or kept
            epoch = self._epochs.bump(key)
        kept = await self._front.set(key, value, expires_at) or kept
        if self._epochs.of(key) is not epoch:
            # Somebody else wrote or deleted meanwhile, here or in another process: whose value stands in
            # the last tier is not known, so none stands before it.
            for port in self.ports[:-1]:
                await port.delete(key)
        return kept

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        """Take a key's lease in the last tier that has such; None when there is none, or it failed."""
        for port in reversed(self.ports):
            if port.leases:
                return await port.acquire(key, token, life)
        return None

    async def delete(self, *keys: str) -> int:
        """From every tier; how many of the keys any tier had.

        Raises:
            StoreError: when a tier could not, after all have been tried: an operator who deletes an
                answer must learn that it is still there. (The ports that calls use never fail.)
        """
        found: set[str] = set()
        if len(keys) > 1 and len(self.ports) > 1:  # one tier's number does not say which keys it had
            for port in self.ports:
                found.update(await port.get_many(keys))
        most = len(found)
        failed: tuple[str, Exception] | None = None
        for port in reversed(self.ports):
            self._bump_all(keys)
            try:
                most = max(most, await port.delete(*keys))
            except Exception as error:  # noqa: BLE001 - told below, when the other tiers are done
                failed = failed or (port.name, error)
        self._bump_all(keys)
        if failed:
            name, cause = failed
            raise StoreError(f"the {name} store could not delete ({type(cause).__name__})") from cause
        return most

    def _bump_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._epochs.bump(key)

    async def get_many(self, keys: Sequence[str], *, copy_up: bool = True) -> dict[str, Stored]:
        """One batch per tier, each only for what the tiers before it did not have.

        Whoever only looks through the entries leaves `copy_up` out, and the front tier as it is.
        """
        found: dict[str, Stored] = {}
        missing = list(dict.fromkeys(keys))
        for depth, port in enumerate(self.ports):
            epochs = [self._epochs.of(key) for key in missing]
            batch = await port.get_many(missing)
            found.update(batch)
            if depth and batch and copy_up:
                await self._copy_up(depth, batch, dict(zip(missing, epochs, strict=True)))
            missing = [key for key in missing if key not in batch]
            if not missing:
                break
        return found

    async def _copy_up(self, depth: int, batch: dict[str, Stored], epochs: dict[str, object]) -> None:
        items = [
            (key, stored.value, stored.expires_at)
            for key, stored in batch.items()
            if self._epochs.of(key) is epochs[key]
        ]
        for above in self.ports[:depth]:
            await above.set_many(items)
        overtaken = [key for key in batch if self._epochs.of(key) is not epochs[key]]
        if overtaken:
            for above in self.ports[:depth]:
                await above.delete(*overtaken)

    async def set_many(self, items: Iterable[Item]) -> bool:
        """To every tier, one batch each. Whether any tier took it."""
        batch = list(items)
        kept = False
        keys = [key for key, _, _ in batch]
        epochs: list[object] = []
        for port in reversed(self.ports):
            self._bump_all(keys)
            epochs = [self._epochs.of(key) for key in keys]
            kept = await port.set_many(batch) or kept
        overtaken = [
            key for key, epoch in zip(keys, epochs, strict=True) if self._epochs.of(key) is not epoch
        ]
        if overtaken:
            for port in self.ports[:-1]:
                await port.delete(*overtaken)
        return kept

    async def scan(self, prefix: str) -> list[str]:
        """The keys of all tiers, each once."""
        keys: dict[str, None] = {}
        for port in self.ports:
            keys.update(dict.fromkeys(await port.scan(prefix)))
        return list(keys)


class TieredStore:
    """Several stores as one, the fastest first.

    Args:
        tiers: two or more stores, front first.

    Raises:
        ConfigurationError: for fewer than two.
    """

    name = "tiered"

    def __init__(self, *tiers: Store) -> None:
        if len(tiers) < 2:  # noqa: PLR2004
            raise ConfigurationError(
                f"TieredStore got {len(tiers)} store(s); allowed: two or more, front tier first"
            )
        self.tiers: tuple[Store, ...] = tiers
        self._epochs = Epochs()
        self._coherence = Coherence(tiers, self._epochs)
        self._sync = Tiers([sync_port(store) for store in tiers], self._epochs)
        self._async = Tiers([async_port(store) for store in tiers], self._epochs)

    @property
    def blocking(self) -> bool:
        """True when any tier blocks."""
        return any(store.blocking for store in self.tiers)

    @property
    def remote(self) -> bool:
        """True when any tier is reached through a network."""
        return any(is_remote(store) for store in self.tiers)

    def get(self, key: str) -> Stored | None:
        """See `Store.get`."""
        return step(self._sync.get(key))

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """See `Store.set`."""
        step(self._sync.set(key, value, expires_at))

    def delete(self, *keys: str) -> int:
        """See `Store.delete`."""
        return step(self._sync.delete(*keys))

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """See `Store.get_many`."""
        return step(self._sync.get_many(keys))

    def set_many(self, items: Iterable[Item]) -> None:
        """See `Store.set_many`."""
        step(self._sync.set_many(items))

    def scan(self, prefix: str) -> Iterator[str]:
        """See `Store.scan`."""
        return iter(step(self._sync.scan(prefix)))

    def ping(self) -> Health:
        """The last tier's health stands for the whole; every tier's warnings are in it."""
        return _together([store.ping() for store in self.tiers])

    def close(self) -> None:
        """Close every tier."""
        with ExitStack() as closing:  # all of them, also when one fails to
            for store in self.tiers:
                closing.callback(store.close)

    async def aget(self, key: str) -> Stored | None:
        """See `Store.get`."""
        return await self._async.get(key)

    async def aset(self, key: str, value: bytes, expires_at: float | None) -> None:
        """See `Store.set`."""
        await self._async.set(key, value, expires_at)

    async def adelete(self, *keys: str) -> int:
        """See `Store.delete`."""
        return await self._async.delete(*keys)

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """See `Store.get_many`."""
        return await self._async.get_many(keys)

    async def aset_many(self, items: Iterable[Item]) -> None:
        """See `Store.set_many`."""
        await self._async.set_many(items)

    async def ascan(self, prefix: str) -> list[str]:
        """See `Store.scan`."""
        return await self._async.scan(prefix)

    async def aping(self) -> Health:
        """See `ping`."""
        return _together([await port.ping() for port in self._async.ports])

    async def aclose(self) -> None:
        """Close every tier."""
        async with AsyncExitStack() as closing:
            for port in self._async.ports:
                closing.push_async_callback(port.close)

    def __repr__(self) -> str:
        return f"<TieredStore {' over '.join(map(repr, self.tiers))}>"


def _together(found: list[Health]) -> Health:
    last = found[-1]
    return Health(
        ok=all(health.ok for health in found),
        kind=" over ".join(health.kind for health in found),
        latency=sum(health.latency for health in found),
        detail=last.detail,
        warnings=tuple(warning for health in found for warning in health.warnings),
    )
