"""Leases among the processes of one machine: locked files, which the system unlocks when a holder dies."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from askonce._fork import renew_after_fork

_LOOK: Final = 0.01  # seconds between the watcher's looks
_DEAD_TOO: Final = 10  # every so many looks


if sys.platform == "win32":
    import msvcrt

    def lock_file(handle: int) -> bool:
        """Lock an open file, without waiting; whether it is ours now."""
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock_file(handle: int) -> bool:
        """Lock an open file, without waiting; whether it is ours now."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class LeaseFiles:
    """The lease part of a store that lies in a folder: `askonce.stores.Leasing`.

    A lease is a file that is locked. It needs no renewing, and a holder that dies gives it back at once.
    Whoever waits is told by one thread, which looks every 10 ms while somebody waits.

    Args:
        folder: where the files are; made when the first lease is taken.
    """

    def __init__(self, folder: Path) -> None:
        self._lease_folder = folder
        self._begin_leases()
        renew_after_fork(self)

    def _begin_leases(self) -> None:
        self._leases_lock = threading.Lock()
        self._leases_held: dict[str, tuple[str, int]] = {}
        self._leases_awaited: dict[str, list[Callable[[], None]]] = {}
        self._leases_watched = False

    def after_fork(self) -> None:
        """The parent holds its leases: the child closes its handles on them, and locks stay the parent's."""
        for _, handle in self._leases_held.values():
            with suppress(OSError):
                os.close(handle)
        self._begin_leases()

    def acquire(self, key: str, token: str, life: float) -> bool:  # noqa: ARG002 - it lasts while we live
        """See `Leasing.acquire`."""
        with self._leases_lock:
            if key in self._leases_held:
                return False
            handle = self._opened(self._path(key))
            if handle is None:
                return False
            self._leases_held[key] = (token, handle)
            return True

    def _opened(self, path: Path) -> int | None:
        """A handle on the locked file; None when somebody else has it."""
        flags = os.O_RDWR | os.O_CREAT
        try:
            handle = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, flags, 0o600)
        # The one who gave it back may have removed the file between our opening and locking it. Then
        # others lock another file of this name.
        if lock_file(handle) and _is_there(path, handle):
            return handle
        os.close(handle)
        return None

    def renew(self, key: str, token: str, life: float) -> bool:  # noqa: ARG002
        """See `Leasing.renew`."""
        held = self._leases_held.get(key)
        return held is not None and held[0] == token

    def release(self, key: str, token: str) -> None:
        """See `Leasing.release`."""
        with self._leases_lock:
            held = self._leases_held.get(key)
            if held is None or held[0] != token:
                return
            del self._leases_held[key]
            path = self._path(key)
            if sys.platform == "win32":  # an open file cannot be removed there
                os.close(held[1])
                with suppress(OSError):
                    path.unlink()
            else:
                with suppress(OSError):
                    path.unlink()
                os.close(held[1])

    def on_release(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Leasing.on_release`."""
        with self._leases_lock:
            self._leases_awaited.setdefault(key, []).append(wake)
            if not self._leases_watched:
                self._leases_watched = True
                threading.Thread(target=self._watch_leases, name="askonce-lease-files", daemon=True).start()

        def remove() -> None:
            with self._leases_lock:
                wakers = self._leases_awaited.get(key, [])
                if wake in wakers:
                    wakers.remove(wake)
                if not wakers:
                    self._leases_awaited.pop(key, None)

        return remove

    def _watch_leases(self) -> None:
        looks = 0
        while True:
            time.sleep(_LOOK)
            looks += 1
            dead_too = looks % _DEAD_TOO == 0
            with self._leases_lock:
                if not self._leases_awaited:
                    self._leases_watched = False
                    return
                keys = [*self._leases_awaited]
            for key in keys:
                if not self._is_held(key, dead_too=dead_too):
                    with self._leases_lock:
                        wakers = self._leases_awaited.pop(key, [])
                    for wake in wakers:
                        wake()

    def _is_held(self, key: str, *, dead_too: bool) -> bool:
        """Whether a file is there; with `dead_too` also whether its holder lives, which takes locking it."""
        path = self._path(key)
        if key in self._leases_held or (not dead_too and path.exists()):
            return True
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            return not lock_file(handle)
        finally:
            os.close(handle)

    def _path(self, key: str) -> Path:
        """A name that says nothing of the key."""
        return self._lease_folder / sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
