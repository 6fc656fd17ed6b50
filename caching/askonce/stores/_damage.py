"""What an exception from SQLite or the file system means for the file it came from."""

from __future__ import annotations

from enum import Enum


class Damaged(Exception):
    """The file is not the database that it should be."""


class Trouble(Enum):
    """Kinds of trouble, by what helps against them."""

    BUSY = "busy"  # wait: somebody else is writing
    DAMAGED = "damaged"  # begin a new file
    GONE = "gone"  # the file or its folder was removed: look again
    UNUSABLE = "unusable"  # read-only, full, a failing disk: nothing we can do


# https://sqlite.org/rescode.html, primary codes: busy, locked
_BUSY = (5, 6)
# Corrupt, not the right format, not a database. And constraint: in a sound file none of ours can fail.
_DAMAGED = (11, 19, 24, 26)
# Cannot open; and, extended, a file that has moved.
_GONE = 14
_MOVED = 1032
# Reading past the end of a file that was cut.
_SHORT_READ = 522
# Found by SQLite's parser or by the Python module, neither of which has a code of its own for it.
_FOREIGN = ("no such table", "no such column", "no column named", "Could not decode")


def diagnose(error: Exception) -> Trouble | None:
    """The kind of trouble; None for an error that is neither SQLite's nor the file system's."""
    import sqlite3  # noqa: PLC0415 - a cache that never touches its disk does not pay for it

    if isinstance(error, sqlite3.Error):
        return _of_sqlite(getattr(error, "sqlite_errorcode", 0), str(error))
    if isinstance(error, Damaged):
        return Trouble.DAMAGED
    if isinstance(error, OSError):
        return Trouble.GONE if isinstance(error, FileNotFoundError) else Trouble.UNUSABLE
    return None


def _of_sqlite(code: int, text: str) -> Trouble:
    primary = code & 0xFF
    if primary in _BUSY:
        return Trouble.BUSY
    if primary in _DAMAGED or code == _SHORT_READ or any(words in text for words in _FOREIGN):
        return Trouble.DAMAGED
    if primary == _GONE or code == _MOVED:
        return Trouble.GONE
    return Trouble.UNUSABLE
