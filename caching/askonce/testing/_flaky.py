"""A store that fails on demand, for tests of whatever stands above a store."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from askonce._deadline import time_left
from askonce._errors import StoreError, not_allowed
from askonce.stores.protocol import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from askonce.stores.protocol import Item, Store, Stored

Operation: TypeAlias = Literal["get", "set", "delete", "get_many", "set_many", "scan", "ping", "close"]
Damage: TypeAlias = "Literal['garbage', 'truncated', 'flipped', 'empty'] | Callable[[bytes], bytes]"

_OPERATIONS = frozenset[str](get_args(Operation))


def _flip(value: bytes) -> bytes:
    middle = len(value) // 2
    return value[:middle] + bytes((value[middle] ^ 0x10,)) + value[middle + 1 :] if value else b"\x10"


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda value: bytes((17 + 31 * place) % 251 for place in range(max(16, len(value)))),
    "truncated": lambda value: value[: len(value) // 2],
    "flipped": _flip,
    "empty": lambda _: b"",
}


class FlakyStore:
    """Wraps a store; fails, hangs, and spoils values when told to, and counts calls.

    Counting, hanging and failing happen before the inner store is asked, in this order: a failed `set`
    has stored nothing. `close` always reaches the inner store. Safe from any thread.

    Args:
        inner: the store that does the work.
        delay: seconds each operation takes longer; `recover()` wakes those that still wait. Within a
            call, it raises TimeoutError when the call's time for stores is over.
        blocking: what the store says of itself. True, so that event loops give it worker threads: a
            delay would otherwise stop the loop.
        remote: whether it says that it is reached through a network; None: as `blocking`.

    Example:
        store = FlakyStore(MemoryStore())
        store.fail_with(ConnectionError("down"), operations=["get"])
        ...
        store.recover()
        assert store.calls["get"] == 1
    """

    def __init__(
        self, inner: Store, *, delay: float = 0.0, blocking: bool = True, remote: bool | None = None
    ) -> None:
        self.inner = inner
        self._blocking = blocking
        self._remote = blocking if remote is None else remote
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._failures: dict[str, tuple[BaseException | type[BaseException], int | None]] = {}
        self._delays: dict[str, float] = {}
        self._damage: Callable[[bytes], bytes] | None = None
        self._awake = threading.Event()
        if delay:
            self.slow_down(delay)

    def __repr__(self) -> str:
        return f"FlakyStore({self.inner!r}, failing={sorted(self._failures)}, slow={sorted(self._delays)})"

    @property
    def name(self) -> str:
        """The inner store's name."""
        return self.inner.name

    @property
    def blocking(self) -> bool:
        """As given."""
        return self._blocking

    @property
    def remote(self) -> bool:
        """As given."""
        return self._remote

    @property
    def calls(self) -> Counter[str]:
        """Calls so far per operation, failed ones included; a copy."""
        with self._lock:
            return Counter(self._calls)

    def fail_with(
        self,
        error: BaseException | type[BaseException] = StoreError,
        *,
        operations: Iterable[Operation] | None = None,
        times: int | None = None,
    ) -> None:
        """Raise `error` from now on.

        Args:
            error: the exception, or its class.
            operations: which ones fail; None: all, `ping` by reporting instead of raising.
            times: how many calls of each operation; None: until `recover()`.
        """
        with self._lock:
            for operation in _chosen(operations):
                self._failures[operation] = (error, times)

    def slow_down(self, delay: float, *, operations: Iterable[Operation] | None = None) -> None:
        """Make operations (None: all) take `delay` seconds longer; a large one: they hang."""
        with self._lock:
            for operation in _chosen(operations):
                self._delays[operation] = delay

    def spoil(self, damage: Damage = "flipped") -> None:
        """Return damaged values from now on: "garbage", "truncated", "flipped", "empty", or a function's."""
        if isinstance(damage, str):
            if damage not in _DAMAGES:
                raise not_allowed("damage", damage, _DAMAGES)
            damage = _DAMAGES[damage]
        self._damage = damage

    def recover(self) -> None:
        """Work again, and wake up whatever is hanging. Counts stay."""
        with self._lock:
            self._failures.clear()
            self._delays.clear()
            self._damage = None
            awake, self._awake = self._awake, threading.Event()
        awake.set()

    def get(self, key: str) -> Stored | None:
        """The inner store's answer, spoilt if so told."""
        self._enter("get")
        stored = self.inner.get(key)
        return None if stored is None else self._spoilt(stored)

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Passed on."""
        self._enter("set")
        self.inner.set(key, value, expires_at)

    def delete(self, *keys: str) -> int:
        """Passed on."""
        self._enter("delete")
        return self.inner.delete(*keys)

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The inner store's answers, spoilt if so told."""
        self._enter("get_many")
        return {key: self._spoilt(stored) for key, stored in self.inner.get_many(keys).items()}

    def set_many(self, items: Iterable[Item]) -> None:
        """Passed on."""
        self._enter("set_many")
        self.inner.set_many(items)

    def scan(self, prefix: str) -> Iterator[str]:
        """Passed on; fails and hangs at the first key asked for."""
        self._enter("scan")
        yield from self.inner.scan(prefix)

    def ping(self) -> Health:
        """The inner store's health, or a bad one."""
        try:
            self._enter("ping")
        except Exception as error:  # noqa: BLE001 - ping reports, it does not raise
            return Health(ok=False, kind="flaky", latency=0.0, warnings=(f"told to fail: {error!r}",))
        return self.inner.ping()

    def close(self) -> None:
        """Wakes nobody and closes the inner store, then fails if so told."""
        self.inner.close()
        self._enter("close")

    def _enter(self, operation: Operation) -> None:
        with self._lock:
            self._calls[operation] += 1
            delay = self._delays.get(operation, 0.0)
            awake = self._awake
        if delay:
            # As a network store does: no wait is longer than what the guard leaves.
            left = time_left()
            if left is None or left >= delay:
                awake.wait(delay)
            elif not awake.wait(left):
                raise TimeoutError("the store hangs")
        with self._lock:
            error, times = self._failures.get(operation, (None, None))
            if times is not None and error is not None:
                if times > 1:
                    self._failures[operation] = (error, times - 1)
                else:
                    del self._failures[operation]
        if error is not None:
            raise error

    def _spoilt(self, stored: Stored) -> Stored:
        damage = self._damage
        return stored if damage is None else stored._replace(value=damage(stored.value))


def _chosen(operations: Iterable[Operation] | None) -> Iterable[str]:
    if operations is None:
        return _OPERATIONS
    chosen = set(cast("Iterable[str]", operations))
    if unknown := chosen - _OPERATIONS:
        raise not_allowed("operations", sorted(unknown), sorted(_OPERATIONS))
    return chosen
