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
    READ_ONLY = "read-only"  # the file system's doing, or damage to the header, which has a flag for it
    UNUSABLE = "unusable"  # full, no permission, a failing disk: nothing we can do


# https://sqlite.org/rescode.html, primary codes: busy, locked
_BUSY = (5, 6)
# Corrupt, not the right format, not a database. Too big, constraint, mismatch: in a sound file none of
# our statements can fail so. And plain "error": our statements do not change, so if one of them finds
# no table, or a format it does not know, it is the file that is wrong.
_DAMAGED = (1, 11, 18, 19, 20, 24, 26)
# Plain errors that are about a transaction, which the file has no part in: "cannot start a ...".
_NOT_THE_FILE = "cannot "
# Read-only; cannot open; and, extended, a file that has moved.
_READ_ONLY = 8
_GONE = 14
_MOVED = 1032
# Extended: reading past the end of a file that was cut.
_SHORT_READ = 522
# The Python module found it, and it has no codes.
_NO_TEXT = "Could not decode"


def diagnose(error: Exception) -> Trouble | None:
    """The kind of trouble; None for an error that is neither SQLite's nor the file system's."""
    import sqlite3  # noqa: PLC0415 - a cache that never touches its disk does not pay for it

    if isinstance(error, sqlite3.Error):
        return _of_sqlite(getattr(error, "sqlite_errorcode", 0), str(error))
    if isinstance(error, (Damaged, UnicodeDecodeError)):  # the latter: an error text with a broken name in it
        return Trouble.DAMAGED
    if isinstance(error, OSError):
        return Trouble.GONE if isinstance(error, FileNotFoundError) else Trouble.UNUSABLE
    return None


def _of_sqlite(code: int, text: str) -> Trouble:
    primary = code & 0xFF
    if primary in _BUSY:
        return Trouble.BUSY
    if code == _SHORT_READ or text.startswith(_NO_TEXT):
        return Trouble.DAMAGED
    if primary in _DAMAGED and not text.startswith(_NOT_THE_FILE):
        return Trouble.DAMAGED
    if primary == _GONE or code == _MOVED:
        return Trouble.GONE
    return Trouble.READ_ONLY if code == _READ_ONLY else Trouble.UNUSABLE
