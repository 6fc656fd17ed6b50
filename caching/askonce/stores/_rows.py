"""What is in the disk store's SQLite file: the schema, and how room is made in it.

One table of entries. A row's checksum covers key, expiry and value, so that a flipped bit anywhere in
the file is a miss, never another answer. Triggers keep the totals, so that all processes agree on them.

Who goes when the bound is reached: expired rows, then by SIEVE (Zhang et al., NSDI 2024): a hand walks
from the oldest row to the newest, evicts rows that were not read since it last came by, and spares the
others, taking their mark away. It needs one bit per row and no reordering, so a read has nothing to
write but that bit, and the bit can wait for the next write.

All functions expect to be called inside a write transaction.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from askonce.stores._damage import Damaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

APPLICATION_ID = 0x61736B31  # "ask1"
# A change of the schema must change the file names too: two versions of this library in one folder
# would otherwise take each other's files for damaged, again and again.
VERSION = 1
SCHEMA = (
    # The value comes last: what stands before it is read without touching its overflow pages.
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        expires_at REAL,
        size INTEGER NOT NULL,
        used INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        value BLOB NOT NULL
    )
    """,
    "CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE totals (bytes INTEGER NOT NULL, entries INTEGER NOT NULL, hand INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0, 0, 0)",
    """
    CREATE TRIGGER entries_added AFTER INSERT ON entries BEGIN
        UPDATE totals SET bytes = bytes + new.size, entries = entries + 1;
    END
    """,
    """
    CREATE TRIGGER entries_replaced AFTER UPDATE OF size ON entries WHEN new.size <> old.size BEGIN
        UPDATE totals SET bytes = bytes + new.size - old.size;
    END
    """,
    """
    CREATE TRIGGER entries_removed AFTER DELETE ON entries BEGIN
        UPDATE totals SET bytes = bytes - old.size, entries = entries - 1;
    END
    """,
)
_PUT = """
    INSERT INTO entries (key, expires_at, size, used, checksum, value) VALUES (?, ?, ?, 0, ?, ?)
    ON CONFLICT (key) DO UPDATE SET
        expires_at = excluded.expires_at, size = excluded.size, used = 1,
        checksum = excluded.checksum, value = excluded.value
"""
_DELETE_EXPIRED = """
    DELETE FROM entries WHERE id IN
        (SELECT id FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT 64)
"""
_OLDEST = "SELECT id, size, used FROM entries WHERE id > ? ORDER BY id LIMIT 64"

_SPARED = 512
"""Marked rows that one eviction spares at most, so that it ends soon even if all are marked."""
_SLACK = 1 << 20
"""Bytes that the file may be larger than 1.25 times the bound: pages that every database has."""
_PAGE = 4096
"""SQLite's default since 3.12."""
_VACUUM = 512
"""Pages that one transaction gives back at most: a few milliseconds."""


class Row(NamedTuple):
    """An entry as it is written."""

    key: str
    expires_at: float | None
    size: int
    checksum: int
    value: bytes


class Totals(NamedTuple):
    """What the triggers counted: bytes of keys and values, rows, the id at which SIEVE's hand stands."""

    bytes: int
    entries: int
    hand: int


def checksum(key: str, expires_at: float | None, value: bytes) -> int:
    """CRC-32 over everything a reader relies on."""
    return zlib.crc32(value, zlib.crc32(f"{expires_at!r} {key}".encode()))


def make_row(key: str, value: bytes, expires_at: float | None) -> Row:
    """The row for an entry."""
    if expires_at is not None:
        expires_at = float(expires_at)  # as it will come back
    return Row(key, expires_at, len(key.encode()) + len(value), checksum(key, expires_at, value), value)


def read_totals(connection: sqlite3.Connection) -> Totals:
    """The totals; `Damaged` if they are gone."""
    row: tuple[int, int, int] | None = connection.execute(
        "SELECT bytes, entries, hand FROM totals"
    ).fetchone()
    if row is None or not all(type(figure) is int for figure in row):
        raise Damaged("the totals are missing")
    return Totals(*row)


def put(connection: sqlite3.Connection, row: Row) -> None:
    """Insert or replace."""
    connection.execute(_PUT, row)


def remove(connection: sqlite3.Connection, key: str) -> None:
    """Remove a row, if it is there."""
    connection.execute("DELETE FROM entries WHERE key = ?", (key,))


def mark_read(connection: sqlite3.Connection, ids: Collection[int]) -> None:
    """Write down that rows were read: the hand will spare them once."""
    marks = ",".join("?" * len(ids))
    connection.execute(f"UPDATE entries SET used = 1 WHERE used = 0 AND id IN ({marks})", tuple(ids))  # noqa: S608


def remove_expired(connection: sqlite3.Connection, now: float) -> int:
    """Remove up to 64 expired rows, longest expired first; how many they were."""
    return connection.execute(_DELETE_EXPIRED, (now,)).rowcount


def make_room(connection: sqlite3.Connection, *, incoming: int, max_bytes: int, now: float) -> None:
    """Evict until `incoming` more bytes fit, both under `max_bytes` and in the file's allowance."""
    totals = read_totals(connection)
    over = _over(connection, totals, incoming, max_bytes)
    while over > 0 and remove_expired(connection, now):
        totals = read_totals(connection)
        over = _over(connection, totals, incoming, max_bytes)
    if over > 0:  # a little more than needed: the next writes then find room
        _sieve(connection, over + max_bytes // 128, totals.hand)


def _over(connection: sqlite3.Connection, totals: Totals, incoming: int, max_bytes: int) -> int:
    """By how many bytes the bound would be exceeded; not above 0: it fits.

    Rows take more of the file than their bytes: the key stands in an index too, and rows of just over
    half a page leave the rest of it empty. So the pages in use have a bound of their own, which also
    holds when damage made the totals wrong.
    """
    over = totals.bytes + incoming - max_bytes
    allowance = max_bytes + max_bytes // 4 + _SLACK
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    if pages * _PAGE > allowance:
        _, free, size = page_figures(connection)
        over = max(over, (pages - free) * size - allowance)
    return over


def _sieve(connection: sqlite3.Connection, wanted: int, hand: int) -> None:
    freed = spared = 0
    wrapped = 0
    while freed < wanted:
        rows: list[tuple[int, int, int]] = connection.execute(_OLDEST, (hand,)).fetchall()
        if not rows:
            hand, wrapped = 0, wrapped + 1
            if wrapped > 2:  # noqa: PLR2004 - a round to take marks away, a round to evict: nothing is left
                break
        doomed: list[tuple[int]] = []
        marked: list[tuple[int]] = []
        for id_, size, used in rows:
            if type(size) is not int:
                raise Damaged("a row without a size")
            hand = id_
            if used and spared < _SPARED:
                spared += 1
                marked.append((id_,))
                continue
            doomed.append((id_,))
            freed += size
            if freed >= wanted:
                break
        connection.executemany("UPDATE entries SET used = 0 WHERE id = ?", marked)
        connection.executemany("DELETE FROM entries WHERE id = ?", doomed)
    connection.execute("UPDATE totals SET hand = ?", (hand,))


def page_figures(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Pages of the file, how many of them are free, bytes of a page."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    size: int = connection.execute("PRAGMA page_size").fetchone()[0]
    return pages, free, size


def give_back(connection: sqlite3.Connection) -> None:
    """Shrink the file a step if more than a quarter of it is free."""
    pages, free, _ = page_figures(connection)
    if free > _VACUUM and free * 4 > pages:
        # Each step gives one page back, and Python's module takes one step where no columns come.
        for _ in range(_VACUUM):
            connection.execute("PRAGMA incremental_vacuum").close()
