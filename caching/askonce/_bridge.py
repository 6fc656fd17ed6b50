"""One async-shaped core, two ways to run it.

The flow is written once as `async def`. A sync caller *steps* it: its ports never suspend, so the
coroutine runs to its end in one `send`. An async caller awaits it: ports of stores that may block
run them on worker threads. No event loop in sync code, no generated twins.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from askonce._fork import renew_after_fork
from askonce.stores.protocol import Health, Item, NativeAsync, Store, Stored

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
_WORKERS = 8


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
    """A store in async shape."""

    @property
    def name(self) -> str: ...
    async def get(self, key: str) -> Stored | None: ...
    async def set(self, key: str, value: bytes, expires_at: float | None) -> None: ...
    async def delete(self, *keys: str) -> int: ...
    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]: ...
    async def set_many(self, items: Iterable[Item]) -> None: ...
    async def scan(self, prefix: str) -> list[str]: ...
    async def ping(self) -> Health: ...
    async def close(self) -> None: ...


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

    async def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        self._store.set(key, value, expires_at)

    async def delete(self, *keys: str) -> int:
        return self._store.delete(*keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return self._store.get_many(keys)

    async def set_many(self, items: Iterable[Item]) -> None:
        self._store.set_many(items)

    async def scan(self, prefix: str) -> list[str]:
        return list(self._store.scan(prefix))

    async def ping(self) -> Health:
        return self._store.ping()

    async def close(self) -> None:
        self._store.close()


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

            pool = self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"askonce-{self.name}")
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)

    async def get(self, key: str) -> Stored | None:
        return await self._run(self._store.get, key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        await self._run(self._store.set, key, value, expires_at)

    async def delete(self, *keys: str) -> int:
        return await self._run(self._store.delete, *keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return await self._run(self._store.get_many, keys)

    async def set_many(self, items: Iterable[Item]) -> None:
        await self._run(self._store.set_many, items)

    async def scan(self, prefix: str) -> list[str]:
        return await self._run(lambda: list(self._store.scan(prefix)))

    async def ping(self) -> Health:
        return await self._run(self._store.ping)

    async def close(self) -> None:
        await self._run(self._store.close)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


class _Native:
    """Hands over to the store's own asyncio face."""

    __slots__ = ("_store", "name")

    def __init__(self, name: str, store: NativeAsync) -> None:
        self._store = store
        self.name = name

    async def get(self, key: str) -> Stored | None:
        return await self._store.aget(key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        await self._store.aset(key, value, expires_at)

    async def delete(self, *keys: str) -> int:
        return await self._store.adelete(*keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return await self._store.aget_many(keys)

    async def set_many(self, items: Iterable[Item]) -> None:
        await self._store.aset_many(items)

    async def scan(self, prefix: str) -> list[str]:
        return await self._store.ascan(prefix)

    async def ping(self) -> Health:
        return await self._store.aping()

    async def close(self) -> None:
        await self._store.aclose()
