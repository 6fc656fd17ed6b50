"""Values in SQLite files: many processes and threads, a bound in bytes, damage heals by itself.

Three ideas, each in its file: `_connections` gives each thread a connection and keeps forks safe,
`_sqlite` replaces a damaged file by a new one, `_rows` knows the schema and makes room. This file joins
them behind the store protocol.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from askonce._clock import Clock, wall
from askonce._errors import StoreError, not_allowed
from askonce.stores import _rows
from askonce.stores._damage import Damaged
from askonce.stores._lease_files import LeaseFiles
from askonce.stores._sqlite import Database
from askonce.stores._tally_files import TallyFiles
from askonce.stores.protocol import Health, Item, Stored

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

_Found: TypeAlias = "tuple[str, bytes, float | None, int, int, int]"
_COLUMNS = "key, value, expires_at, checksum, used, id"
_GET = f"SELECT {_COLUMNS} FROM entries WHERE key = ?"  # noqa: S608 - constants

_ITEMS_AT_ONCE = 500
"""Keys in one statement (SQLite allows 999 variables, or more) and rows in one transaction."""
_BYTES_AT_ONCE = 4 << 20
"""Value bytes in one transaction of `set_many`, about: others wait for it."""
_SCAN_AT_ONCE = 256
_NOTES = 64
"""Reads noted in memory until the next write."""
_HOUSEWORK_EVERY = 64
"""Writes of this process between two looks for expired rows."""
_EXPIRIES = (float, type(None))
_NEARLY_FULL = 0.9
_LARGEST = 900 << 20
"""Bytes of one value, at most: SQLite ends at 10**9."""


class DiskStore(LeaseFiles, TallyFiles):
    """A folder of SQLite files, shared by any number of threads and processes of one machine.

    Nothing is opened before the first use. The folder is created with mode 0700, its files with 0600.
    A damaged file is set aside and a new one begun, without an error. A folder that cannot be used
    (read-only, full, not a folder) raises `StoreError` at each call. Keys must be encodable as UTF-8.

    Args:
        path: the folder.
        max_bytes: bound on the keys and values kept, in bytes. The file may be larger by a quarter and
            a megabyte; beside it is a write-ahead log of a few megabytes. One value may have up to
            900 MiB.
        clock: the time that expiries are compared with, seconds since the epoch.
        timeout: seconds a call may wait for other writers before it raises `StoreError`.

    Raises:
        ConfigurationError: `max_bytes` or `timeout` is not above 0.
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
        # Absolute from the start: a later chdir must not move the cache.
        self._folder = Path(path).expanduser().absolute()
        LeaseFiles.__init__(self, self._folder / "leases")
        TallyFiles.__init__(self, self._folder)
        self._max_bytes = max_bytes
        self._clock = clock
        self._database = Database(
            self._folder,
            schema=_rows.SCHEMA,
            application_id=_rows.APPLICATION_ID,
            version=_rows.VERSION,
            timeout=timeout,
        )
        self._reads: set[int] = set()  # ids of rows read and not yet marked; losing some does no harm
        self._writes = 0

    def __repr__(self) -> str:
        return f"DiskStore({str(self._folder)!r}, max_bytes={self._max_bytes})"

    @property
    def name(self) -> str:
        """Always "disk"."""
        return "disk"

    @property
    def blocking(self) -> bool:
        """Always True."""
        return True

    def get(self, key: str) -> Stored | None:
        """The live value under `key`, or None. Writes nothing."""
        found = self._database.run(_find_one, key)
        return None if found is None else self._judge(key, found, self._clock())

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The live values among `keys`, one query per 500."""
        answer: dict[str, Stored] = {}
        for some in _batches(keys):
            rows = self._database.run(_find, _COLUMNS, some)
            now = self._clock()
            for row in rows:
                stored = self._judge(row[0], row, now)
                if stored is not None:
                    answer[row[0]] = stored
        return answer

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Keep `value` until `expires_at`. In the past, or too large to fit: removes the key."""
        rows = [_rows.make_row(key, value, expires_at)]
        self._database.write(self._put, rows)

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several, in transactions of up to 500 items and some 4 MiB."""
        rows: list[_rows.Row] = []
        size = 0
        for key, value, expires_at in items:
            rows.append(_rows.make_row(key, value, expires_at))
            size += rows[-1].size
            if size >= _BYTES_AT_ONCE or len(rows) >= _ITEMS_AT_ONCE:
                self._database.write(self._put, rows)
                rows, size = [], 0
        if rows:
            self._database.write(self._put, rows)

    def delete(self, *keys: str) -> int:
        """Remove keys; the number of live entries among them."""
        return sum(self._database.write(self._delete, some) for some in _batches(keys))

    def scan(self, prefix: str) -> Iterator[str]:
        """The live keys that start with `prefix`, in order, read 256 at a time."""
        # SQLite compares text by its UTF-8 bytes, which is Python's order of strings too: keys with a
        # common prefix are neighbours. No LIKE, no GLOB: they give `%`, `_`, `*` and `[` a meaning.
        last: str | None = None
        while True:
            rows = self._database.run(_next_keys, prefix, last)
            now = self._clock()
            before = last
            for key, expires_at in rows:
                if not key.startswith(prefix):
                    return
                if last is not None and key <= last:
                    continue  # an index out of order: damage; without this, a scan without an end
                last = key
                if expires_at is None or now < expires_at:
                    yield key
            if len(rows) < _SCAN_AT_ONCE or last == before:
                return

    def ping(self) -> Health:
        """Write to the file, and report its figures."""
        started = time.perf_counter()
        try:
            totals, (pages, free, page_size), version = self._database.write(_check)
        except Exception as error:  # noqa: BLE001 - ping reports, it does not raise
            return Health(
                ok=False,
                kind="sqlite",
                latency=time.perf_counter() - started,
                detail={"path": str(self._folder)},
                warnings=(f"{error}. Make the folder writable, or choose another with disk:///path",),
            )
        latency = time.perf_counter() - started
        warnings: list[str] = []
        if totals.bytes > self._max_bytes * _NEARLY_FULL:
            warnings.append(
                f"{totals.bytes} of {self._max_bytes} bytes used: new entries push older ones out. "
                "Raise max_bytes if hits are lost"
            )
        try:
            free_disk = shutil.disk_usage(self._folder).free
        except OSError:
            free_disk = None
        if free_disk is not None and free_disk < self._max_bytes - totals.bytes:
            warnings.append(
                f"{free_disk} bytes free on the disk, less than max_bytes allows the cache to grow. "
                "Free some, or lower max_bytes"
            )
        return Health(
            ok=True,
            kind=f"sqlite {version}",
            latency=latency,
            detail={
                "path": str(self._folder),
                "file": self._database.file_name,
                "entries": totals.entries,
                "bytes": totals.bytes,
                "max_bytes": self._max_bytes,
                "file_bytes": pages * page_size,
                "file_bytes_unused": free * page_size,
                "free_disk_bytes": free_disk,
                "sqlite": version,
            },
            warnings=tuple(warnings),
        )

    def close(self) -> None:
        """Close the connections of all threads. The next call opens what it needs."""
        self._database.close()

    def _judge(self, key: str, found: _Found, now: float) -> Stored | None:
        _, value, expires_at, checksum, used, id_ = found
        if type(value) is not bytes or checksum != _rows.checksum(key, expires_at, value):
            self._discard(key, checksum)
            return None
        if expires_at is not None and now >= expires_at:
            return None
        if not used and len(self._reads) < _NOTES:
            self._reads.add(id_)
        return Stored(value, expires_at, "disk")

    def _discard(self, key: str, checksum: int) -> None:
        """Remove a spoiled row, unless somebody has replaced it by now."""
        with contextlib.suppress(StoreError):  # it is a miss either way
            self._database.write(_remove_spoiled, key, checksum)

    def _put(self, connection: sqlite3.Connection, rows: list[_rows.Row]) -> None:
        now = self._clock()
        self._writes += 1
        if self._writes % _HOUSEWORK_EVERY == 0 and _rows.remove_expired(connection, now):
            _rows.give_back(connection)
        if self._reads:
            reads, self._reads = self._reads, set()
            _rows.mark_read(connection, reads)
        for row in rows:
            if row.size > min(self._max_bytes, _LARGEST) or (
                row.expires_at is not None and now >= row.expires_at
            ):
                _rows.remove(connection, row.key)
            else:
                _rows.make_room(connection, incoming=row.size, max_bytes=self._max_bytes, now=now)
                _rows.put(connection, row)

    def _delete(self, connection: sqlite3.Connection, keys: Sequence[str]) -> int:
        there = f"FROM entries WHERE key IN ({_marks(keys)})"
        alive = "(expires_at IS NULL OR expires_at > ?)"
        live: int = connection.execute(
            f"SELECT count(*) {there} AND {alive}",
            (*keys, self._clock()),
        ).fetchone()[0]
        if connection.execute(f"DELETE {there}", keys).rowcount:
            _rows.give_back(connection)
        return live


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _ITEMS_AT_ONCE):
        yield unique[start : start + _ITEMS_AT_ONCE]


def _marks(keys: Sequence[str]) -> str:
    return ",".join("?" * len(keys))


def _find_one(connection: sqlite3.Connection, key: str) -> _Found | None:
    found: _Found | None = connection.execute(_GET, (key,)).fetchone()
    return found


def _find(connection: sqlite3.Connection, columns: str, keys: Sequence[str]) -> list[Any]:
    query = f"SELECT {columns} FROM entries WHERE key IN ({_marks(keys)})"  # noqa: S608 - our own names
    return connection.execute(query, keys).fetchall()


def _next_keys(
    connection: sqlite3.Connection, prefix: str, last: str | None
) -> list[tuple[str, float | None]]:
    comparison, bound = (">=", prefix) if last is None else (">", last)
    query = f"SELECT key, expires_at FROM entries WHERE key {comparison} ? ORDER BY key LIMIT ?"  # noqa: S608
    rows: list[tuple[str, float | None]] = connection.execute(query, (bound, _SCAN_AT_ONCE)).fetchall()
    if not all(type(key) is str and type(expires_at) in _EXPIRIES for key, expires_at in rows):
        raise Damaged("a row of the wrong types")
    return rows


def _remove_spoiled(connection: sqlite3.Connection, key: str, checksum: object) -> None:
    connection.execute("DELETE FROM entries WHERE key = ? AND checksum IS ?", (key, checksum))


def _check(connection: sqlite3.Connection) -> tuple[_rows.Totals, tuple[int, int, int], str]:
    connection.execute("UPDATE totals SET hand = hand")  # reading alone works on a full disk, too
    version: str = connection.execute("SELECT sqlite_version()").fetchone()[0]
    return _rows.read_totals(connection), _rows.page_figures(connection), version
