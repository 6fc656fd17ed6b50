"""One SQLite connection per thread, closable from any thread; none is carried across a fork.

Why not simply a `threading.local`: `close()` has to reach the connections of other threads, and a fork
has to find none open. SQLite keeps a table of its file locks in process memory. A child that inherits
it believes it holds locks that POSIX gave to its parent only, so even a *new* connection to the same
file runs unlocked there, and the database can be damaged. So every connection is closed just before a
fork and opened again on demand, on both sides.

A C program may fork without telling us beforehand (uWSGI does). Such a connection is never used and
never closed in the child, only kept, and `inherited` says which files the child must not open.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, cast

from askonce._fork import renew_after_fork

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_FORK_PATIENCE = 1.0
"""Seconds a fork waits, at most, for operations of other threads to end."""

_kept: list[tuple[Path, sqlite3.Connection]] = []


def inherited(path: Path) -> bool:
    """Whether this process has a connection to `path` that was opened before it was forked."""
    return any(path == other for other, _ in _kept)


class Slot:
    """The place of one thread's connection. Whoever uses or closes the connection holds `lock`.

    Attributes:
        lock: held during every operation on the connection.
        connection: the open connection, or None.
        path: the file that `connection` has open.
        source: what the owner wants to remember about it, compared by identity.
    """

    # The slot is made before the connection, so that the garbage collector finalises it first when
    # both end in one cycle: it closes what Python 3.13 would otherwise warn about.
    __slots__ = ("__weakref__", "_pid", "connection", "lock", "path", "source")

    def __init__(self) -> None:
        # Reentrant: a signal handler or a finaliser may come back here in the middle of an operation.
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.path: Path | None = None
        self.source: object = None
        self._pid = os.getpid()

    def drop(self) -> None:
        """Close the connection; in a forked child keep it instead, out of everybody's reach."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._pid != os.getpid() and self.path is not None:
            _kept.append((self.path, connection))
            return
        with contextlib.suppress(Exception):  # its file may be gone or damaged: closed all the same
            connection.close()

    def __del__(self) -> None:
        # The slot lives in a thread-local: this runs when its thread ends, or the store is forgotten.
        self.drop()


class Connections:
    """The slots of all threads, for one store."""

    def __init__(self) -> None:
        self._held: list[threading.Lock | threading.RLock] = []
        self._renew()
        renew_after_fork(self)
        _owners.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()

    def slot(self) -> Slot:
        """This thread's slot."""
        try:
            return cast("Slot", self._local.slot)
        except AttributeError:
            slot = Slot()
            with self._lock:
                self._slots.add(slot)
            self._local.slot = slot
            return slot

    def close(self, patience: float) -> None:
        """Close all connections, waiting up to `patience` seconds in all for those in use."""
        with self._lock:
            slots = list(self._slots)
        deadline = time.monotonic() + patience
        for slot in slots:
            if slot.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                try:
                    slot.drop()
                finally:
                    slot.lock.release()

    def before_fork(self) -> None:
        """Close every connection, and let nobody open one until the fork is over."""
        self._held = []
        deadline = time.monotonic() + _FORK_PATIENCE
        if self._lock.acquire(timeout=_FORK_PATIENCE):
            self._held.append(self._lock)
        for slot in list(self._slots):
            if slot.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._held.append(slot.lock)
                slot.drop()

    def after_fork_in_parent(self) -> None:
        """Let the parent's threads go on."""
        held, self._held = self._held, []
        for lock in held:
            lock.release()

    def after_fork(self) -> None:
        """In the child: start anew, with whatever could not be closed in time kept aside."""
        for slot in list(self._slots):
            slot.drop()
        self._held = []
        self._renew()


_owners: weakref.WeakSet[Connections] = weakref.WeakSet()


def _before_fork() -> None:
    for owner in list(_owners):
        owner.before_fork()


def _after_fork_in_parent() -> None:
    for owner in list(_owners):
        owner.after_fork_in_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
