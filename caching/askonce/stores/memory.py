"""The memory tier: bounded by bytes and by entries, scan-resistant, never waits.

Two ideas do the work, each in its file: `_s3fifo` knows what to give up when room is short, `_expiry`
knows what has run out. This file joins them behind the store protocol and owns the lock. Reading takes
no lock (`_s3fifo` says why that is right); writing takes one, for microseconds.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from askonce._clock import Clock, wall
from askonce._errors import not_allowed
from askonce._fork import renew_after_fork
from askonce._units import Duration, seconds
from askonce.stores._expiry import ExpiryWheel
from askonce.stores._s3fifo import ENTRY_OVERHEAD, MAX_USES, S3Fifo
from askonce.stores.protocol import Health, Item, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from askonce.stores._linked import Entry

_NAME = "memory"
_REAP_STEPS = 64  # expired entries one write clears away at most, so that no write pays for all of them


class MemoryStore:
    """Values in this process's memory.

    When room is short, expired entries go first (found within a second of their expiry), then those that
    S3-FIFO holds least worth keeping. A value that fits is there when `set` returns; one that can never
    fit is not kept. Every call is safe from any thread, from event loops, and in a forked child, which
    starts with a copy of what the parent had.

    Args:
        max_bytes: room for all entries, in bytes: characters of the key, bytes of the value, and 350 bytes
            for the bookkeeping of an entry, which makes the sum close to what the process really uses.
        max_entries: how many entries to keep at most.
        max_life: how long an entry stays at most, whatever its expiry (seconds or "5m"; None: no bound).
            For a front tier that shall look behind itself from time to time.
        clock: seconds since the epoch, for expiry.

    Raises:
        ConfigurationError: a limit is not a positive whole number, or a life no duration.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 256 << 20,
        max_entries: int = 1_000_000,
        max_life: Duration | None = None,
        clock: Clock = wall,
    ) -> None:
        for option, limit in (("max_bytes", max_bytes), ("max_entries", max_entries)):
            if type(limit) is not int or limit < 1:
                raise not_allowed(option, limit, "a whole number from 1 up")
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._max_life = None if max_life is None else seconds("max_life", max_life)
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = S3Fifo()
        self._wheel = ExpiryWheel(clock())
        self._evictions = 0
        self._expired = 0
        renew_after_fork(self)

    @property
    def name(self) -> str:
        """Always "memory"."""
        return _NAME

    @property
    def blocking(self) -> bool:
        """Always False: no call waits for a disk or a network."""
        return False

    def __len__(self) -> int:
        """Entries held, after clearing away expired ones."""
        self._reap_all()
        return len(self._queue.entries)

    def __bool__(self) -> bool:
        # Having a length must not make an empty store false: `store or other` would drop it.
        return True

    def __repr__(self) -> str:
        queue = self._queue
        return (
            f"MemoryStore(entries={len(queue.entries)}, bytes={queue.bytes}, "
            f"max_entries={self._max_entries}, max_bytes={self._max_bytes})"
        )

    def get(self, key: str) -> Stored | None:
        """The live value under `key`, or None. Takes no lock."""
        entry = self._queue.entries.get(key)
        if entry is None:
            return None
        expires_at = entry.expires_at
        if expires_at is not None and self._clock() >= expires_at:
            return None
        uses = entry.uses
        if uses < MAX_USES:
            entry.uses = uses + 1
        return Stored(entry.value, expires_at, _NAME)

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Keep `value` under `key` until `expires_at` (seconds since the epoch; None: no expiry).

        An expiry in the past, or a value larger than the whole room, removes the key.
        """
        if type(value) is not bytes:
            value = bytes(value)  # somebody's bytearray may change, a memoryview pins what it looks at
        charge = len(key) + len(value) + ENTRY_OVERHEAD
        now = self._clock()
        longest = self._max_life
        if longest is not None and (expires_at is None or expires_at > now + longest):
            expires_at = now + longest
        with self._lock:
            queue, wheel = self._queue, self._wheel
            if not wheel.tick <= now < wheel.tick + 1:
                wheel.advance(now)
            if wheel.pending:
                self._reap(now)
            old = queue.entries.get(key)
            if charge > self._max_bytes or (expires_at is not None and now >= expires_at):
                if old is not None:
                    queue.remove(old)
                return
            slot = wheel.slot(expires_at)
            if old is None:
                entry = queue.add(key, value, expires_at, slot, charge)
            else:
                entry = queue.replace(old, value, expires_at, slot)
            while (many := len(queue.entries) > self._max_entries) or queue.bytes > self._max_bytes:
                queue.evict(entry, many)
                self._evictions += 1

    def delete(self, *keys: str) -> int:
        """Remove keys; the number that were there and alive."""
        now = self._clock()
        found = 0
        for key in keys:
            with self._lock:
                entry = self._queue.entries.get(key)
                if entry is not None:
                    self._queue.remove(entry)
                    found += _is_live(entry, now)
        return found

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The live values among `keys`."""
        found: dict[str, Stored] = {}
        for key in keys:
            stored = self.get(key)
            if stored is not None:
                found[key] = stored
        return found

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several, one after the other: others get their turn in between."""
        for key, value, expires_at in items:
            self.set(key, value, expires_at)

    def scan(self, prefix: str) -> Iterator[str]:
        """The live keys that start with `prefix`, each once.

        Looks at the keys that were there at the first step, and checks each when its turn comes. Looking
        does not count as use.
        """
        with self._lock:
            keys = list(self._queue.entries)
        keys.reverse()
        while keys:
            key = keys.pop()
            if key.startswith(prefix):
                entry = self._queue.entries.get(key)
                if entry is not None and _is_live(entry, self._clock()):
                    yield key

    def ping(self) -> Health:
        """The store's figures, after clearing away expired entries. Always ok."""
        start = time.perf_counter()
        self._reap_all()
        with self._lock:
            detail: dict[str, str | int | float | None] = {
                "entries": len(self._queue.entries),
                "bytes": self._queue.bytes,
                "max_bytes": self._max_bytes,
                "max_entries": self._max_entries,
                "evictions": self._evictions,
                "expired": self._expired,
            }
        return Health(ok=True, kind=_NAME, latency=time.perf_counter() - start, detail=detail)

    def close(self) -> None:
        """Nothing to give back: the entries stay, and go with the object."""

    def after_fork(self) -> None:
        """Take a new lock, in a forked child."""
        # Held at the fork means that another thread was in the middle of a change, which nobody will
        # finish here. Starting empty is the one state that is surely whole.
        if self._lock.locked():
            self._queue = S3Fifo()
            self._wheel = ExpiryWheel(self._wheel.tick)
        self._lock = threading.Lock()

    def _reap(self, now: float) -> bool:
        """Clear away some expired entries; False when no more have come up."""
        for _ in range(_REAP_STEPS):
            entry = self._wheel.due()
            if entry is None:
                return False
            if _is_live(entry, now):
                self._wheel.put_back(entry)
            else:
                self._queue.remove(entry)
                self._expired += 1
        return True

    def _reap_all(self) -> None:
        now = self._clock()
        more = True
        while more:
            with self._lock:
                self._wheel.advance(now)
                more = self._reap(now)


def _is_live(entry: Entry, now: float) -> bool:
    return entry.expires_at is None or now < entry.expires_at
