"""Writes nobody waits for: promised at once, made by a thread, visible to readers in between.

For stores that are slow to write to, such as S3. Three ideas, each in its file: `_pending` holds what was
promised, `_writer` makes it so, and this file joins them with the store behind the store protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from askonce._bridge import async_port
from askonce._clock import Clock, wall
from askonce._deadline import time_left
from askonce._errors import StoreError
from askonce._fork import renew_after_fork
from askonce.stores._pending import Forgotten, Pending, Write
from askonce.stores._writer import Writer
from askonce.stores.protocol import Health, Item, Store, Stored, is_remote

_PATIENCE: Final = 10.0
"""Seconds that `delete` waits for a write of its key that is being made, where no call bounds it."""

Lost: TypeAlias = Callable[[str, str], None]
"""Told of every promised write that is given up: key and reason."""
Trouble: TypeAlias = Callable[[str, Exception], None]
"""Told of every failed write: operation, exception."""


def _ignore(*_: object) -> None:
    pass


class WriteBehind:
    """A store whose writes are made later, in order, by a thread of its own.

    Reading sees what is still to be written. The latest write for a key replaces one that waits. While the
    store is down, writes wait; when there are too many, the oldest are given up. A write that expires while
    it waits is not made. What waits at a fork is the parent's: a child begins with an empty queue.

    Args:
        inner: the store behind.
        clock: seconds since the epoch, for expiry.
        max_entries: how many writes may wait.
        max_bytes: bytes of their keys and values.
        flush_timeout: seconds that `close` waits for writes to be made; the rest is given up. The end of the
            process waits for 5 seconds, all queues together.
        lost: told of every write that is given up. Reasons: "full", "refused" (by the store), "failed" (again
            and again while others did not), "closed".
        trouble: told of every failure to write.
    """

    write = "behind"

    def __init__(
        self,
        inner: Store,
        *,
        clock: Clock = wall,
        max_entries: int = 10_000,
        max_bytes: int = 64 << 20,
        flush_timeout: float = 5.0,
        lost: Lost = _ignore,
        trouble: Trouble = _ignore,
    ) -> None:
        self.inner = inner
        self._async = async_port(inner)
        self._clock = clock
        self._flush_timeout = flush_timeout
        self._lost = lost
        self._trouble = trouble
        self._dropped = 0
        self._failed = 0
        self._pending = Pending(max_entries, max_bytes, clock)
        self._writer = Writer(inner, self._pending, clock, self._failing, self._dropping)
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the child: nothing to write, and no thread."""
        self._pending.begin_empty()
        self._writer.begin_idle()

    def __repr__(self) -> str:
        return f"WriteBehind({self.inner!r}, pending={len(self._pending)}, dropped={self._dropped})"

    @property
    def name(self) -> str:
        """The inner store's name."""
        return self.inner.name

    @property
    def blocking(self) -> bool:
        """As the inner store: reading may wait."""
        return self.inner.blocking

    @property
    def remote(self) -> bool:
        """As the inner store."""
        return is_remote(self.inner)

    # -- writing --------------------------------------------------------------------------------

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Promise it. Never waits, never fails."""
        if type(value) is not bytes:
            value = bytes(value)  # a bytearray may change until it is written
        for write in self._pending.put(Write(key, value, expires_at)):
            if write.live(self._clock()):
                self._dropping(write, "full")
        self._writer.wake()

    def set_many(self, items: Iterable[Item]) -> None:
        """Promise them."""
        for key, value, expires_at in items:
            self.set(key, value, expires_at)

    async def aset(self, key: str, value: bytes, expires_at: float | None) -> None:
        """See `set`."""
        self.set(key, value, expires_at)

    async def aset_many(self, items: Iterable[Item]) -> None:
        """See `set_many`."""
        self.set_many(items)

    def flush(self, timeout: float) -> bool:
        """Wait until what is promised is written, `timeout` seconds at most; whether it is."""
        return self._writer.flush(timeout)

    # -- reading --------------------------------------------------------------------------------

    def peek(self, key: str) -> tuple[bool, Stored | None]:
        """Whether a write or removal of the key is still to be made, and what will be there then."""
        write = self._pending.find(key)
        return (False, None) if write is None else (True, self._stored(write))

    def _stored(self, write: Write) -> Stored | None:
        if not write.live(self._clock()):
            return None
        return Stored(write.value, write.expires_at, self.name)

    def get(self, key: str) -> Stored | None:
        """What is promised, else what the store has."""
        known, stored = self.peek(key)
        return stored if known else self.inner.get(key)

    async def aget(self, key: str) -> Stored | None:
        """See `get`."""
        known, stored = self.peek(key)
        return stored if known else await self._async.get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """What is promised, else what the store has, in one batch."""
        found, missing = self._promised(keys)
        return {**found, **self.inner.get_many(missing)} if missing else found

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """See `get_many`."""
        found, missing = self._promised(keys)
        return {**found, **await self._async.get_many(missing)} if missing else found

    def _promised(self, keys: Sequence[str]) -> tuple[dict[str, Stored], list[str]]:
        found: dict[str, Stored] = {}
        missing: list[str] = []
        for key in keys:
            known, stored = self.peek(key)
            if not known:
                missing.append(key)
            elif stored is not None:
                found[key] = stored
        return found, missing

    def scan(self, prefix: str) -> Iterator[str]:
        """The keys that are promised, then those that the store has besides."""
        promised = self._pending.under(prefix)
        yield from (key for key, alive in promised.items() if alive)
        yield from (key for key in self.inner.scan(prefix) if key not in promised)

    async def ascan(self, prefix: str) -> list[str]:
        """See `scan`."""
        promised = self._pending.under(prefix)
        stored = await self._async.scan(prefix)
        return [key for key, alive in promised.items() if alive] + [
            key for key in stored if key not in promised
        ]

    # -- deleting -------------------------------------------------------------------------------

    def delete(self, *keys: str) -> int:
        """Take promises back and remove what the store has; how many of the keys there were.

        Raises:
            StoreError: when a write of a key is being made and does not end in time; the key is removed
                when it has.
        """
        forgotten = self._pending.forget(keys)
        try:
            _ended(
                not forgotten.flies or self._pending.wait(lambda: not self._pending.flies(keys), _patience())
            )
            rest = self.inner.delete(*others) if (others := _others(keys, forgotten)) else 0
            if forgotten.alive:  # what the store has of these was overwritten already: removed, not counted
                self.inner.delete(*forgotten.alive)
        except BaseException:
            self._writer.wake()  # it makes the removals that are left
            raise
        self._pending.settled(forgotten.removals)
        return sum(forgotten.alive.values()) + rest

    async def adelete(self, *keys: str) -> int:
        """See `delete`."""
        forgotten = self._pending.forget(keys)
        try:
            _ended(
                not forgotten.flies
                or await self._pending.await_(lambda: not self._pending.flies(keys), _patience())
            )
            rest = await self._async.delete(*others) if (others := _others(keys, forgotten)) else 0
            if forgotten.alive:
                await self._async.delete(*forgotten.alive)
        except BaseException:
            self._writer.wake()
            raise
        self._pending.settled(forgotten.removals)
        return sum(forgotten.alive.values()) + rest

    # -- health and end -------------------------------------------------------------------------

    def ping(self) -> Health:
        """The store's health, with the queue's figures."""
        return self._with_queue(self.inner.ping())

    async def aping(self) -> Health:
        """See `ping`."""
        return self._with_queue(await self._async.ping())

    def _with_queue(self, health: Health) -> Health:
        figures: dict[str, str | int | float | None] = {
            "pending": len(self._pending),
            "pending_bytes": self._pending.bytes,
            "dropped": self._dropped,
            "failed": self._failed,
        }
        warnings = health.warnings
        if self._writer.failures:
            warnings += ("writing fails; answers wait in memory until the store works again",)
        if self._dropped:
            warnings += (f"{self._dropped} answers were given up before they were written",)
        return replace(health, detail={**health.detail, **figures}, warnings=warnings)

    def close(self) -> None:
        """Write what is promised, `flush_timeout` seconds at most, and close the store."""
        try:
            self._writer.finish(self._flush_timeout)
        finally:
            self.inner.close()

    async def aclose(self) -> None:
        """See `close`."""
        try:
            await self._writer.afinish(self._flush_timeout)
        finally:
            await self._async.close()

    def _failing(self, operation: str, error: Exception) -> None:
        self._failed += 1
        self._trouble(operation, error)

    def _dropping(self, write: Write, reason: str) -> None:
        self._dropped += 1
        self._lost(write.key, reason)


def _patience() -> float:
    left = time_left()
    return _PATIENCE if left is None else left


def _others(keys: Iterable[str], forgotten: Forgotten) -> list[str]:
    return [key for key in dict.fromkeys(keys) if key not in forgotten.alive]


def _ended(over: bool) -> None:
    if not over:
        raise StoreError("a write of the key is still being made; the key will be removed when it has ended")
