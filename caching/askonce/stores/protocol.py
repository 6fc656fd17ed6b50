"""What a store is: bytes under keys with an absolute expiry, and nothing else.

A store implements the sync face once and says with `blocking` whether its calls may wait for a disk
or a network. `askonce._bridge` gives it an async face from that: inline when it does not block, on
worker threads when it does. A store with a native asyncio client implements `NativeAsync` as well.

Contract, for every store (`askonce.testing.StoreContract` checks it):

* `expires_at` is seconds since the epoch or None for "never"; at `now >= expires_at` the entry is
  gone for readers, whether or not its bytes are still on the medium. Reading never extends a life.
* `set` replaces value *and* expiry of an existing key, atomically: a reader sees the old pair or the
  new pair.
* Methods may be called from any thread, at the same time, and in a child after `fork`.
* A failure is an exception (any `Exception`); the cache above fails open. A value that does not fit
  is not an error: it is not kept.
* After `close` the object may be used again; it reopens what it needs.

A store may say two more things about itself, as plain attributes:

* `remote` (default: `blocking`): True when it is reached through a network. Within a call, a remote store
  is used for `store_timeout` at most and stands behind a breaker. It has to do its part: each of its waits
  (for a connection, a name, a handshake, a reply) ends with an exception when
  `askonce.stores.time_left()` is over; None means that nobody set a bound, and its own time-outs count.
  Nothing else can end the wait of a thread. It raises `askonce.stores.Refused` where the server answered
  and said no (full, too large, read-only): that is a failure, but not one of a dead store.
* `write` (default: "through"): "behind" when writing takes too long for callers to wait. The Cache then
  puts a `askonce.stores._behind.WriteBehind` in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable


class Stored(NamedTuple):
    """A value as a store returns it.

    Attributes:
        value: the bytes that were set.
        expires_at: absolute expiry, seconds since the epoch; None: never.
        tier: name of the store that had it, such as "memory" or "disk".
    """

    value: bytes
    expires_at: float | None
    tier: str


Item: TypeAlias = tuple[str, bytes, float | None]
"""Key, value, absolute expiry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What `ping` found.

    Attributes:
        ok: the store answered and can be used.
        kind: what answered, such as "memory" or "sqlite 3.45".
        latency: seconds the check took.
        detail: figures worth showing (entries, bytes, path, ...), plain JSON types.
        warnings: what will hurt later, each with the remedy; empty when all is well.
    """

    ok: bool
    kind: str
    latency: float
    detail: dict[str, str | int | float | None] = field(default_factory=dict[str, str | int | float | None])
    warnings: tuple[str, ...] = ()


class Store(Protocol):
    """The sync face. See the module's text for the contract."""

    @property
    def name(self) -> str:
        """Short name for outcomes, stats and logs: "memory", "disk", ..."""
        ...

    @property
    def blocking(self) -> bool:
        """True when calls may wait (disk, network) and must not run on an event loop."""
        ...

    def get(self, key: str) -> Stored | None:
        """The live value under `key`, or None."""
        ...

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Keep `value` under `key` until `expires_at`; an expiry in the past removes the key."""
        ...

    def delete(self, *keys: str) -> int:
        """Remove keys; the number that were there."""
        ...

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The live values among `keys`, in one batch where the medium can."""
        ...

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several, in one batch where the medium can."""
        ...

    def scan(self, prefix: str) -> Iterator[str]:
        """The live keys that start with `prefix`, each once, without loading them all at once.

        Keys set or deleted while scanning may or may not show up.
        """
        ...

    def ping(self) -> Health:
        """Check that the store works. Raises nothing: trouble is `ok=False` and a warning."""
        ...

    def close(self) -> None:
        """Give back files and connections."""
        ...


def unwrapped(store: Store) -> Store:
    """The store within wrappers, such as a queue of writes: it is the one with further abilities."""
    while (inner := getattr(store, "inner", None)) is not None:
        store = inner
    return store


def is_remote(store: Store) -> bool:
    """Whether a store is reached through a network: its `remote`, or whether it blocks."""
    return bool(getattr(store, "remote", store.blocking))


@runtime_checkable
class NativeAsync(Protocol):
    """The async face, for stores that have a better one than worker threads."""

    async def aget(self, key: str) -> Stored | None: ...
    async def aset(self, key: str, value: bytes, expires_at: float | None) -> None: ...
    async def adelete(self, *keys: str) -> int: ...
    async def aget_many(self, keys: Sequence[str]) -> dict[str, Stored]: ...
    async def aset_many(self, items: Iterable[Item]) -> None: ...
    async def ascan(self, prefix: str) -> list[str]: ...
    async def aping(self) -> Health: ...
    async def aclose(self) -> None: ...


Hear: TypeAlias = Callable[[tuple[str, ...] | None], None]
"""Told of keys that somebody else changed; None: any of them may have."""


@runtime_checkable
class Announcing(Protocol):
    """For stores that several processes share, and that can say what others change."""

    def listen(self, hear: Hear) -> Callable[[], None]:
        """Have `hear` called, from any thread, for every key that others set or delete.

        It is told None when something may have been missed: the connection was lost for longer than the
        store states, or is there again. Does no I/O: listening begins with the store's first use.

        Returns:
            What ends it.
        """
        ...


@runtime_checkable
class Leasing(Protocol):
    """For stores in which one process among several can be made the leader of a call.

    A `NativeAsync` store has `aacquire` as well. The rest is done by a thread that keeps the leases.
    """

    def acquire(self, key: str, token: str, life: float) -> bool:
        """Take the lease of a key for `life` seconds; False when somebody has it."""
        ...

    def renew(self, key: str, token: str, life: float) -> bool:
        """Have it for `life` seconds from now; False when it is ours no more."""
        ...

    def release(self, key: str, token: str) -> None:
        """Give it back, if it is ours, and wake those who wait for it."""
        ...

    def on_release(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called, from any thread, when the lease of a key may be free; returns the way out.

        A hint: whoever waits looks again from time to time as well.
        """
        ...


@runtime_checkable
class Tallying(Protocol):
    """For stores that can add up figures of many processes."""

    def tally(self, name: str, counts: Mapping[str, float]) -> None:
        """Add numbers to those under a name; what is not there begins at 0."""
        ...

    def tallies(self, name: str) -> dict[str, float]:
        """The sums under a name."""
        ...


@runtime_checkable
class AsyncLeasing(Leasing, Protocol):
    """The async face of it, for `NativeAsync` stores."""

    async def aacquire(self, key: str, token: str, life: float) -> bool:
        """See `Leasing.acquire`."""
        ...
