"""An adapter for people who have the `diskcache` package, without its pickle.

diskcache unpickles whatever its file says is a pickle: who can write to the folder runs code in every
reader (CVE-2025-69872, unfixed). It also returns a flipped bit as a value. So rows go through a `Disk`
of ours that writes and reads bytes only, opens and removes only files that diskcache itself could have
named, and takes everything else for absent; and each value carries its exact expiry and a checksum.

Everything that is not about diskcache is better in `askonce.stores.disk`, which needs no package.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from askonce._clock import Clock, wall
from askonce._errors import AskOnceError, StoreError, missing_extra, not_allowed
from askonce._fork import renew_after_fork
from askonce.stores._connections import Connections
from askonce.stores._diskcache import BytesOnly, OwnConnections, lost
from askonce.stores.protocol import Health, Item, Stored

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

_MARGIN = 60.0
"""Seconds that diskcache keeps a row beyond its expiry: `clock` decides about the expiry, not it."""
_HEAD = struct.Struct(">4sdI")  # magic, expiry (NaN: never), CRC-32 over key, expiry and value
_MAGIC = b"ask1"
_SCAN_AT_ONCE = 256
_ATTEMPTS = 3

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DiskCacheStore:
    """A folder of the `diskcache` package, bytes only.

    Nothing is opened before the first use. Rows of other programs in the same folder are neither read
    nor executed; room is made by diskcache's own rule, least recently stored first.

    Args:
        path: the folder; created with mode 0700.
        max_bytes: bound on diskcache's files, in bytes. Its empty database takes some 32 KiB of it, and
            it evicts ten rows per write, so a burst of large values may exceed the bound for a while.
        clock: the time that expiries are compared with, seconds since the epoch.
        timeout: seconds a call may wait for other writers before it raises `StoreError`. (Opening is
            diskcache's own code, which waits up to a minute if the file is locked all that time.)

    Raises:
        ConfigurationError: `max_bytes` or `timeout` is not above 0; at the first use: the package
            `diskcache` is not installed.
    """

    remote = False  # it waits for this machine only, and no longer than `timeout`

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1 << 30,
        clock: Clock = wall,
        timeout: float = 0.2,
    ) -> None:
        if type(max_bytes) is not int or max_bytes < 1:
            raise not_allowed("max_bytes", max_bytes, "a whole number from 1 up")
        if not timeout > 0:
            raise not_allowed("timeout", timeout, "seconds above 0")
        self._folder = Path(path).expanduser().absolute()
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._clock = clock
        self._connections = Connections()
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._opened: Any = None
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the child: begin with nothing open."""
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._opened = None

    def __repr__(self) -> str:
        return f"DiskCacheStore({str(self._folder)!r}, max_bytes={self._max_bytes})"

    @property
    def name(self) -> str:
        """Always "diskcache"."""
        return "diskcache"

    @property
    def blocking(self) -> bool:
        """Always True."""
        return True

    def get(self, key: str) -> Stored | None:
        """The live value under `key`, or None."""
        return self._run(self._get, key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The live values among `keys`, one after the other: diskcache has no batches."""
        found = {key: self.get(key) for key in dict.fromkeys(keys)}
        return {key: stored for key, stored in found.items() if stored is not None}

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Keep `value` until `expires_at`. In the past, or larger than `max_bytes`: removes the key."""
        self._run(self._set, key, value, expires_at)

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several, one after the other."""
        for key, value, expires_at in items:
            self.set(key, value, expires_at)

    def delete(self, *keys: str) -> int:
        """Remove keys; the number of live entries among them."""
        return sum(self._run(self._delete, key) for key in dict.fromkeys(keys))

    def scan(self, prefix: str) -> Iterator[str]:
        """The live keys that start with `prefix`, in order. Reads each value, to know its expiry."""
        keys = self._run(_iterate)
        while batch := self._run(_take, keys, prefix):
            for key in batch:
                if self.get(key) is not None:
                    yield key

    def ping(self) -> Health:
        """Take the write lock, and report figures."""
        started = time.perf_counter()
        try:
            entries, size = self._run(_figures)
        except Exception as error:  # noqa: BLE001 - ping reports, it does not raise
            return Health(
                ok=False,
                kind="diskcache",
                latency=time.perf_counter() - started,
                detail={"path": str(self._folder)},
                warnings=(str(error),),
            )
        return Health(
            ok=True,
            kind="diskcache",
            latency=time.perf_counter() - started,
            detail={
                "path": str(self._folder),
                "entries": entries,
                "file_bytes": size,
                "max_bytes": self._max_bytes,
            },
        )

    def close(self) -> None:
        """Close the connections of all threads. The next call opens what it needs."""
        with self._opening:
            self._opened = None
        self._connections.close(patience=1.0)

    def _run(self, work: Callable[[Any, *Ts], T], *args: *Ts) -> T:
        slot = self._connections.slot()
        try:
            with slot.lock:
                return work(self._cache(), *args)
        except AskOnceError:
            raise
        except Exception as error:
            if type(error).__name__ != "Timeout":  # diskcache's word for "somebody else is writing"
                self._opened = None
                with slot.lock:
                    slot.drop()
            raise StoreError(f"diskcache at {self._folder}: {error!r}") from error

    def _cache(self) -> Any:
        cache = self._opened
        if cache is not None:
            return cache
        with self._opening:
            if self._opened is None:
                try:
                    package = importlib.import_module("diskcache")
                except ImportError as error:
                    raise missing_extra("diskcache", "diskcache", "The diskcache store") from error
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Classes made here, since their bases exist only now.
                disk = type("BytesDisk", (BytesOnly, package.Disk), {})
                cache_type: Any = type(
                    "BytesCache", (OwnConnections, package.Cache), {"connections": self._connections}
                )
                self._opened = cache_type(
                    str(self._folder),
                    timeout=self._timeout,
                    disk=disk,
                    size_limit=self._max_bytes,
                    eviction_policy="least-recently-stored",  # the others write with every read
                    statistics=0,
                    tag_index=0,
                    sqlite_mmap_size=0,  # a file cut by somebody else would kill the process
                )
            return self._opened

    def _get(self, cache: Any, key: str) -> Stored | None:
        # A value in a file of its own can be replaced between reading the row and opening the file.
        for _ in range(_ATTEMPTS):
            lost.file = False
            blob = cache.get(key)
            if blob is not None:
                break
            if not lost.file:
                return None
        else:
            return None
        found = _unpack(key, blob)
        if found is None or (found[1] is not None and self._clock() >= found[1]):
            return None
        return Stored(*found, "diskcache")

    def _set(self, cache: Any, key: str, value: bytes, expires_at: float | None) -> None:
        life = None if expires_at is None else expires_at - self._clock()
        with self._turn():
            if len(value) + len(key.encode()) > self._max_bytes or (life is not None and life <= 0):
                cache.delete(key)
            else:
                keep = None if life is None else life + _MARGIN
                cache.set(key, _pack(key, value, expires_at), expire=keep)

    def _delete(self, cache: Any, key: str) -> bool:
        with self._turn():
            live = self._get(cache, key) is not None
            cache.delete(key)
            return live

    @contextlib.contextmanager
    def _turn(self) -> Generator[None, None, None]:
        # Threads of one process queue here: fair and quick, where SQLite would sleep and poll.
        if not self._writing.acquire(timeout=self._timeout):
            raise StoreError(f"diskcache at {self._folder}: busy writing for {self._timeout} s")
        try:
            yield
        finally:
            self._writing.release()


def _pack(key: str, value: bytes, expires_at: float | None) -> bytes:
    expiry = math.nan if expires_at is None else float(expires_at)
    check = zlib.crc32(value, zlib.crc32(key.encode() + struct.pack(">d", expiry)))
    return _HEAD.pack(_MAGIC, expiry, check) + value


def _unpack(key: str, blob: bytes) -> tuple[bytes, float | None] | None:
    if len(blob) < _HEAD.size:
        return None
    magic, expiry, check = _HEAD.unpack_from(blob)
    value = blob[_HEAD.size :]
    if magic != _MAGIC or check != zlib.crc32(value, zlib.crc32(key.encode() + blob[4:12])):
        return None
    return value, None if math.isnan(expiry) else expiry


def _iterate(cache: Any) -> Iterator[str | None]:
    keys: Iterator[str | None] = cache.iterkeys()
    return keys


def _take(_cache: Any, keys: Iterator[str | None], prefix: str) -> list[str]:
    """The next 256 keys with the prefix. Keys come sorted; None stands for one that is not ours."""
    batch: list[str] = []
    for key in keys:
        if key is not None and key.startswith(prefix):
            batch.append(key)
            if len(batch) == _SCAN_AT_ONCE:
                break
        elif key is not None and key > prefix:
            break
    return batch


def _figures(cache: Any) -> tuple[int, int]:
    with cache.transact():
        return len(cache), cache.volume()
