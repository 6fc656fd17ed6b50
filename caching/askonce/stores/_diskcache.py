"""The two parts of the `diskcache` package that we replace: what a row means, who opens connections.

Mixins, to be put before diskcache's own classes, which exist only once the package is imported.
"""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from askonce._errors import StoreError
from askonce.stores._connections import Connections, inherited

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_RAW, _BINARY = 1, 2
"""diskcache's modes for a value in the row and for one in a file. Text is 3, pickle 4."""
_FILE = re.compile(r"[0-9a-f]{2}[/\\][0-9a-f]{2}[/\\][0-9a-f]{28}\.val")

lost = threading.local()
"""`lost.file`: whether this thread's last look found a row whose file was gone."""


class Refused(OSError):
    """A row that is not one of ours. diskcache takes an OSError while fetching for "not there"."""


class BytesOnly:
    """The methods of `diskcache.Disk` that convert between rows and objects."""

    if TYPE_CHECKING:
        _directory: str
        min_file_size: int

        def filename(self, key: object, value: object) -> tuple[str, str]: ...
        def _write(self, full_path: str, iterator: Iterator[bytes], mode: str) -> int: ...

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise Refused("a key that is not a string")
        return key, True

    def get(self, key: object, raw: object) -> str | None:
        return key if raw and isinstance(key, str) else None

    def store(
        self, value: object, read: object, key: object = None
    ) -> tuple[int, int, str | None, bytes | None]:
        if read or not isinstance(value, bytes):
            raise Refused("a value that is not bytes")
        if len(value) < self.min_file_size:
            return 0, _RAW, None, value
        filename, full_path = self.filename(key, value)
        self._write(full_path, iter((value,)), "xb")
        return len(value), _BINARY, filename, None

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        if not read:
            if mode == _RAW and isinstance(value, bytes):
                return value
            if mode == _BINARY and isinstance(filename, str) and _FILE.fullmatch(filename):
                try:
                    return Path(self._directory, filename).read_bytes()
                except FileNotFoundError:
                    lost.file = True
                    raise
        raise Refused("not bytes")

    def remove(self, file_path: object) -> None:
        # A planted row could name any file of the user's for removal.
        if isinstance(file_path, str) and _FILE.fullmatch(file_path):
            path = Path(self._directory, file_path)
            with contextlib.suppress(OSError):
                path.unlink()
            with contextlib.suppress(OSError):  # not empty, or gone
                path.parent.rmdir()
                path.parent.parent.rmdir()


class OwnConnections:
    """The part of `diskcache.Cache` that opens connections.

    diskcache's own cannot be closed from another thread, and it closes inherited ones after a fork.
    """

    connections: Connections

    if TYPE_CHECKING:
        _directory: str
        _timeout: float

    @property
    def _con(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415 - with diskcache, not before

        slot = self.connections.slot()
        if slot.connection is None:
            path = Path(self._directory, "cache.db")
            if inherited(path):
                raise StoreError(f"{path} was open when this process was forked. Open it after forking")
            slot.path = path
            slot.connection = sqlite3.connect(
                path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            slot.connection.execute("PRAGMA synchronous=NORMAL").close()
        return slot.connection

    def close(self) -> None:
        self.connections.slot().drop()
