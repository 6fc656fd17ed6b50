"""One async-shaped core, two ways to run it.

The flow is written once as `async def`. A sync caller *steps* it: its ports never suspend, so the
coroutine runs to its end in one `send`. An async caller awaits it: ports of stores that may block
run them on worker threads. No event loop in sync code, no generated twins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from askonce._deadline import deadline, set_deadline
from askonce._fork import renew_after_fork
from askonce.stores.protocol import AsyncLeasing, Health, Item, Leasing, NativeAsync, Store, Stored, is_remote

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
_WORKERS = 8  # a disk does not get faster by more
_REMOTE_WORKERS = 32


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, here and now.

    Raises:
        RuntimeError: when it does suspend; that is a fault in this library.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        coroutine.close()
    raise RuntimeError("a sync call reached a real await")


class Port(Protocol):
    """A store in async shape. Writes say whether they were made, as far as anybody knows."""

    @property
    def name(self) -> str: ...
    async def get(self, key: str) -> Stored | None: ...
    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool: ...
    async def delete(self, *keys: str) -> int: ...
    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]: ...
    async def set_many(self, items: Iterable[Item]) -> bool: ...
    async def scan(self, prefix: str) -> list[str]: ...
    async def ping(self) -> Health: ...
    async def close(self) -> None: ...
    @property
    def leases(self) -> bool: ...
    async def acquire(self, key: str, token: str, life: float) -> bool | None: ...


def sync_port(store: Store) -> Port:
    """A port whose methods never suspend."""
    return _Inline(store)


def async_port(store: Store) -> Port:
    """A port for event loops: the store's own asyncio face, inline, or worker threads."""
    if isinstance(store, NativeAsync):
        return _Native(store.name, store)
    return _Threaded(store) if store.blocking else _Inline(store)


class _Inline:
    """Calls the store on the spot."""

    __slots__ = ("_store", "name")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = store.name

    async def get(self, key: str) -> Stored | None:
        return self._store.get(key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        self._store.set(key, value, expires_at)
        return True

    async def delete(self, *keys: str) -> int:
        return self._store.delete(*keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return self._store.get_many(keys)

    async def set_many(self, items: Iterable[Item]) -> bool:
        self._store.set_many(items)
        return True

    async def scan(self, prefix: str) -> list[str]:
        return list(self._store.scan(prefix))

    async def ping(self) -> Health:
        return self._store.ping()

    async def close(self) -> None:
        self._store.close()

    @property
    def leases(self) -> bool:
        return isinstance(self._store, Leasing)

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        return self._store.acquire(key, token, life) if isinstance(self._store, Leasing) else None


class _Threaded:
    """Calls a blocking store on a few worker threads of its own.

    Not on asyncio's default executor: a program that fills that one with its own blocking work would
    stall every lookup.
    """

    __slots__ = ("__weakref__", "_pool", "_store", "name")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool: ThreadPoolExecutor | None = None
        self.name = store.name
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's worker threads do not exist in a forked child."""
        self._pool = None

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        import asyncio  # noqa: PLC0415 - whoever awaits has it already; sync programs never need it

        pool = self._pool
        if pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

            workers = _REMOTE_WORKERS if is_remote(self._store) else _WORKERS
            pool = self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"askonce-{self.name}")
        run = asyncio.get_running_loop().run_in_executor
        when = deadline()
        if when is None:
            return await run(pool, call, *args)
        return await run(pool, _until, when, call, *args)

    async def get(self, key: str) -> Stored | None:
        return await self._run(self._store.get, key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        await self._run(self._store.set, key, value, expires_at)
        return True

    async def delete(self, *keys: str) -> int:
        return await self._run(self._store.delete, *keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return await self._run(self._store.get_many, keys)

    async def set_many(self, items: Iterable[Item]) -> bool:
        await self._run(self._store.set_many, items)
        return True

    async def scan(self, prefix: str) -> list[str]:
        return await self._run(lambda: list(self._store.scan(prefix)))

    async def ping(self) -> Health:
        return await self._run(self._store.ping)

    async def close(self) -> None:
        await self._run(self._store.close)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    @property
    def leases(self) -> bool:
        return isinstance(self._store, Leasing)

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        if not isinstance(self._store, Leasing):
            return None
        return await self._run(self._store.acquire, key, token, life)


def _until(when: float, call: Callable[..., T], *args: Any) -> T:
    """The call, in a worker thread, with the deadline of whoever waits for it."""
    if time.monotonic() >= when:
        raise TimeoutError("no worker was free in time")
    set_deadline(when)
    try:
        return call(*args)
    finally:
        set_deadline(None)


class _Native:
    """Hands over to the store's own asyncio face."""

    __slots__ = ("_store", "name")

    def __init__(self, name: str, store: NativeAsync) -> None:
        self._store = store
        self.name = name

    async def get(self, key: str) -> Stored | None:
        return await self._store.aget(key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        await self._store.aset(key, value, expires_at)
        return True

    async def delete(self, *keys: str) -> int:
        return await self._store.adelete(*keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return await self._store.aget_many(keys)

    async def set_many(self, items: Iterable[Item]) -> bool:
        await self._store.aset_many(items)
        return True

    async def scan(self, prefix: str) -> list[str]:
        return await self._store.ascan(prefix)

    async def ping(self) -> Health:
        return await self._store.aping()

    async def close(self) -> None:
        await self._store.aclose()

    @property
    def leases(self) -> bool:
        return isinstance(self._store, AsyncLeasing)

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        return await self._store.aacquire(key, token, life) if isinstance(self._store, AsyncLeasing) else None
