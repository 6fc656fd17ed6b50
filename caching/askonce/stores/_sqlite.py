"""A SQLite database that heals itself: damage means a new file, never an error for the caller.

A SQLite file must not be renamed, replaced or cut while somebody has it open, and other processes may.
So files are numbered, `entries-000001.sqlite3` and on; the highest number wins and no number is used
twice. Whoever meets damage opens the next number; everybody else notices the newer file, or that theirs
is gone, by two `stat` calls at most once a second. The last damaged file stays for a post-mortem, older
ones are removed: a process that still has one open keeps its (unlinked) file until it notices.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from askonce._errors import StoreError
from askonce._events import logger
from askonce._fork import renew_after_fork
from askonce.stores._connections import Connections, Slot, inherited
from askonce.stores._damage import Damaged, Trouble, diagnose

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NAME = re.compile(r"entries-(\d{6,})\.sqlite3")
_LOOK_EVERY = 1.0
"""Seconds between looks for a newer or vanished file."""
_REPLACEMENTS = 2
"""Damaged files that one call leaves behind: its own, and a newer one that turns out damaged as well."""


class _Gate:
    """Serialises creating a file and opening it, in this process.

    Closing *any* descriptor of a file drops all POSIX locks this process has on it, SQLite's included,
    so the descriptor that creates a file with mode 0600 must be closed before anybody opens it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_gate = _Gate()


class _Generation:
    """One numbered file. Compared by identity: a connection belongs to the object it was opened for."""

    __slots__ = ("inode", "number", "path")

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self.path = path
        self.inode: int | None = None


class Database:
    """Runs work on this thread's connection to the newest file of a folder.

    Args:
        folder: absolute path; created with mode 0700 at the first use.
        schema: statements that make an empty file ours.
        application_id: SQLite's `PRAGMA application_id` of our files.
        version: SQLite's `PRAGMA user_version` of our files.
        timeout: seconds an operation may wait for locks, of other threads and processes together.
    """

    def __init__(
        self, folder: Path, *, schema: tuple[str, ...], application_id: int, version: int, timeout: float
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._marks = (application_id, version)
        self._timeout = timeout
        self._connections = Connections()
        self._writing = threading.Lock()
        self._current: _Generation | None = None
        self._look_at = 0.0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In the child: the lock may be held for ever, the files are to be looked at again."""
        self._writing = threading.Lock()
        self._current = None

    def close(self) -> None:
        """Close every thread's connection."""
        self._connections.close(patience=max(1.0, self._timeout))

    @property
    def file_name(self) -> str:
        """Name of the file in use; empty before the first use."""
        current = self._current
        return current.path.name if current else ""

    def run(self, work: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Call `work(connection, ...)`; after damage once more, with a new file's connection.

        Raises StoreError, with the cause attached, when SQLite or the file system cannot do it.
        """
        slot = self._connections.slot()
        attempts = 0
        with slot.lock:
            while True:
                try:
                    return work(self._connection(slot), *args)
                except Exception as error:  # noqa: BLE001 - judged there
                    attempts += 1
                    self._recover(slot, error, attempts)

    def write(self, work: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Like `run`, inside a write transaction. `work` must bear being run again after a rollback."""
        return self.run(self._transact, work, *args)

    def _transact(
        self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts
    ) -> T:
        # Threads of one process queue here: fair and quick, where SQLite would sleep and poll.
        left = self._timeout
        waited = not self._writing.acquire(blocking=False)
        if waited:
            started = time.monotonic()
            if not self._writing.acquire(timeout=self._timeout):
                raise StoreError(f"disk store at {self._folder}: busy writing for {self._timeout} s")
            left = self._timeout - (time.monotonic() - started)
        try:
            if waited:
                _wait_at_most(connection, left)
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection, *args)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(Exception):
                    connection.execute("ROLLBACK")
            raise
        finally:
            self._writing.release()
            if waited:
                with contextlib.suppress(Exception):
                    _wait_at_most(connection, self._timeout)
        return result

    def _connection(self, slot: Slot) -> sqlite3.Connection:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            self._look()
        current = self._current
        if slot.connection is not None and slot.source is current:
            return slot.connection
        slot.drop()
        if current is None:
            current = self._choose()
        slot.source = current
        slot.path = current.path
        slot.connection = connection = self._open(current)
        return connection

    def _look(self) -> None:
        """Forget the current file if it was removed or replaced, or if there is a newer one."""
        current = self._current
        if current is None or current.inode is None:
            return
        try:
            same = current.path.stat().st_ino == current.inode
        except OSError:
            same = False
        if not same or self._path(current.number + 1).exists():
            self._current = None

    def _choose(self) -> _Generation:
        with _gate.lock:
            if self._current is None:
                number = max(self._numbers(), default=1)
                while inherited(self._path(number)):
                    number += 1
                self._current = _Generation(number, self._path(number))
            return self._current

    def _open(self, generation: _Generation) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - a cache that never touches its disk does not pay for it

        with _gate.lock:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(generation.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                generation.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(connection)
            generation.inode = generation.path.stat().st_ino
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._read_marks(connection) != self._marks:
            self._build(connection)
        # NORMAL: a power cut may lose the last writes, never half of one (WAL). No memory map: a file
        # cut short by somebody else would then kill the process (SIGBUS).
        for pragma in ("synchronous=NORMAL", "cell_size_check=ON", "trusted_schema=OFF", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(f"PRAGMA journal_size_limit={4 << 20}").fetchall()

    @staticmethod
    def _read_marks(connection: sqlite3.Connection) -> tuple[int, int]:
        application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return application_id, version

    def _build(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            if self._read_marks(connection) != self._marks:  # else: another process was quicker
                raise Damaged("another program's database")
            return
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL").fetchall()  # before the first table
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
                break
            except Exception as error:  # does not wait for `timeout` by itself in every version
                if diagnose(error) is not Trouble.BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
        connection.execute("BEGIN IMMEDIATE")
        if self._read_marks(connection) != self._marks:
            for statement in self._schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={self._marks[0]}")
            connection.execute(f"PRAGMA user_version={self._marks[1]}")
        connection.execute("COMMIT")

    def _recover(self, slot: Slot, error: Exception, attempts: int) -> None:
        """Return if another attempt makes sense, else raise."""
        trouble = diagnose(error)
        if trouble is None:
            raise error
        if trouble is not Trouble.BUSY:
            slot.drop()
        if trouble is Trouble.READ_ONLY and slot.path is not None and _may_write(slot.path):
            trouble = Trouble.DAMAGED
        if trouble is Trouble.DAMAGED and attempts <= _REPLACEMENTS:
            self._replace(slot.source, error)
        elif trouble is Trouble.GONE and attempts == 1:
            self._current = None
        else:
            raise StoreError(f"disk store at {self._folder}: {error}") from error

    def _replace(self, damaged: object, why: Exception) -> None:
        with _gate.lock:
            current = self._current
            if current is None or current is not damaged:
                return  # another thread was quicker
            numbers = self._numbers()
            newest = max(numbers, default=0)
            if newest <= current.number:  # else another process was quicker
                newest = current.number + 1
                told = "%s is damaged (%s): set aside, starting %06d"
                logger("stores.disk").warning(told, current.path, why, newest)
            self._current = _Generation(newest, self._path(newest))
        for number in numbers:
            # Database first: SQLite sees that its file has moved and then leaves the others alone.
            for suffix in ("", "-wal", "-shm") if number < newest - 1 else ():
                path = self._path(number)
                with contextlib.suppress(OSError):
                    path.with_name(path.name + suffix).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"entries-{number:06d}.sqlite3"

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return [int(match[1]) for match in map(_NAME.fullmatch, names) if match]


def _wait_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout={max(0, int(seconds * 1000))}").close()


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
