"""The store's operations: which requests each is made of, and how long a caller waits for them.

Written once, in async shape. `wait` is how the face at hand waits: a sync caller steps the operation.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from askonce._bridge import step
from askonce._deadline import time_left
from askonce.stores import _s3_health
from askonce.stores._crew import Crew, TimedOut, Wait, wait_here, wait_in_loop
from askonce.stores._s3_bucket import Bucket, NoBatchesError
from askonce.stores._s3_leases import Leases
from askonce.stores._s3_names import Names
from askonce.stores.protocol import Health, Item, Stored

A = TypeVar("A")
T = TypeVar("T")

NAME = "s3"
_REMOVED_AT_ONCE = 1000  # S3's bound
_HEADS_AT_ONCE = 256
_LOADING: Final = 30.0  # seconds for boto3, once per process, on a machine that has other things to do


class Operations:
    """Operations over requests.

    Args:
        bucket: the requests.
        names: of objects.
        leases: in the bucket.
        crew: whom the requests are given to.
        timeout: seconds for a request where no deadline is set.

    Attributes:
        page_size: names in one answer to a listing, at most.
    """

    def __init__(self, bucket: Bucket, names: Names, leases: Leases, crew: Crew, *, timeout: float) -> None:
        self._bucket = bucket
        self._names = names
        self._crew = crew
        self._timeout = timeout
        self._leases = leases
        self._batches = True
        self.page_size = 1000

    async def get(self, wait: Wait, key: str) -> Stored | None:
        """See the store."""
        (found,) = await self._all(wait, self._bucket.get, (self._names.of(key),))
        return None if found is None else Stored(*found, NAME)

    async def get_many(self, wait: Wait, keys: Sequence[str]) -> dict[str, Stored]:
        """See the store."""
        unique = list(dict.fromkeys(keys))
        found = await self._all(wait, self._bucket.get, [self._names.of(key) for key in unique])
        return {key: Stored(*each, NAME) for key, each in zip(unique, found, strict=True) if each is not None}

    async def set_many(self, wait: Wait, items: Iterable[Item]) -> None:
        """See the store."""
        # Two writes of one key at once could end in either order: only the last is made.
        latest = {self._names.of(key): (value, expires_at) for key, value, expires_at in items}
        await self._all(wait, self._write, list(latest.items()))

    def _write(self, entry: tuple[str, tuple[bytes, float | None]]) -> None:
        name, (value, expires_at) = entry
        if self._bucket.alive(expires_at):
            self._bucket.put(name, bytes(value), expires_at)
        else:
            self._bucket.remove(name)

    async def acquire(self, wait: Wait, key: str, token: str, life: float) -> bool:
        """See `Leasing`."""
        (taken,) = await self._all(wait, lambda key: self._leases.acquire(key, token, life), (key,))
        return taken

    async def renew(self, wait: Wait, key: str, token: str, life: float) -> bool:
        """See `Leasing`."""
        (ours,) = await self._all(wait, lambda key: self._leases.renew(key, token, life), (key,))
        return ours

    async def release(self, wait: Wait, key: str, token: str) -> None:
        """See `Leasing`."""
        await self._all(wait, lambda key: self._leases.release(key, token), (key,))

    async def delete(self, wait: Wait, keys: Sequence[str]) -> int:
        """See the store."""
        names = [self._names.of(key) for key in dict.fromkeys(keys)]
        live = sum(await self._all(wait, self._bucket.is_alive, names))
        # All of them, also what is expired or was not there: whoever says delete wants it gone.
        if self._batches and len(names) > 1:
            try:
                await self._all(wait, self._bucket.remove_many, list(_parts(names, _REMOVED_AT_ONCE)))
            except NoBatchesError:
                self._batches = False
            else:
                return live
        await self._all(wait, self._bucket.remove, names)
        return live

    def scan(self, prefix: str) -> Iterator[str]:
        """See the store."""
        token: str | None = ""
        while token is not None:
            keys, token = step(self._page(wait_here, prefix, token))
            for some in _parts(keys, _HEADS_AT_ONCE):
                yield from step(self._living(wait_here, some))

    async def ascan(self, prefix: str) -> list[str]:
        """See the store."""
        found: list[str] = []
        token: str | None = ""
        while token is not None:
            keys, token = await self._page(wait_in_loop, prefix, token)
            for some in _parts(keys, _HEADS_AT_ONCE):
                found += await self._living(wait_in_loop, some)
        return found

    async def _page(self, wait: Wait, prefix: str, token: str) -> tuple[list[str], str | None]:
        """The next keys with the prefix, dead ones as well, and the token of the page after them."""
        beginning = self._names.beginning(prefix)
        if beginning is None:
            return [], None

        def work(token: str) -> tuple[list[str], str | None]:
            return self._bucket.page(beginning, token or None, self.page_size)

        ((names, following),) = await self._all(wait, work, (token,))
        keys = [key for name in names if (key := self._names.key(name)) is not None]
        return [key for key in keys if key.startswith(prefix)], following

    async def _living(self, wait: Wait, keys: Sequence[str]) -> list[str]:
        """Those of the keys whose entries are live. A listing does not show metadata."""
        live = await self._all(wait, self._bucket.is_alive, [self._names.of(key) for key in keys])
        return [key for key, lives in zip(keys, live, strict=True) if lives]

    async def ping(self, wait: Wait) -> Health:
        """See the store."""

        def work(_: None) -> Health:
            return _s3_health.check(self._bucket, self._leases)

        started = time.perf_counter()
        try:
            (health,) = await self._all(wait, work, (None,))
        except Exception as error:  # noqa: BLE001 - ping reports, it does not raise
            return Health(
                ok=False,
                kind=_s3_health.kind(self._bucket),
                latency=time.perf_counter() - started,
                detail=_s3_health.place(self._bucket),
                warnings=(str(error),),
            )
        return health

    async def _all(self, wait: Wait, work: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """Have the work done for all items, several at a time, within the time there is.

        Raises:
            S3TimeoutError: it took longer.
            StoreError: it could not be done.
        """
        if not items:
            return []
        left = time_left()
        seconds = left
        if left is None:  # an operator's: whoever waits for the answer also waits for boto3 to be loaded
            seconds = self._timeout * math.ceil(len(items) / self._crew.lanes)
            seconds += 0.0 if self._bucket.ready else _LOADING
        if seconds:
            with contextlib.suppress(TimedOut):
                return await wait(self._crew.submit(work, items), seconds)
        raise self._bucket.explain.timeout(loading=not self._bucket.ready)


def _parts(all_of: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(all_of), size):
        yield all_of[start : start + size]
