"""Entries as a file: portable between stores, checked line by line, and resumed where it broke off.

A file without its last line is an export that broke off: whole lines are good, and the same export goes
on after them. See `askonce._export_file` for the lines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

from askonce import _codec
from askonce._export_file import (
    LONGEST,
    TransferError,
    check_head,
    head_line,
    item_in,
    item_line,
    line_of,
    lines_of,
    object_in,
)
from askonce.stores.protocol import Item

if TYPE_CHECKING:
    from askonce._operations import Operations

_FIRST_BATCH: Final = 16
_BATCH: Final = 200
_BATCH_BYTES: Final = 8 << 20

Progress: TypeAlias = Callable[[int, int], None]
"""Told how far it is, and how far it goes: entries of an export, bytes of an import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        entries: in the file.
        resumed: of them, those that an earlier run had written.
        bytes: length of the file.
    """

    entries: int
    resumed: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import found.

    Attributes:
        entries: in the file.
        written: stored now.
        present: left as they were, because something is stored under their key.
        expired: past their life, and left out.
        complete: the file has its last line. Without it entries are missing from its end; those that
            it has are stored.
    """

    entries: int
    written: int
    present: int
    expired: int
    complete: bool


def export_entries(
    cache: Operations, file: Path | BinaryIO, *, anew: bool = False, progress: Progress | None = None
) -> Exported:
    """Write every entry of the cache's namespace into a file.

    In the order of their keys, so that an export that broke off goes on where it was: entries that came
    in the meantime, and stand before that place, are not in it. Memory holds the keys and one batch.

    Args:
        cache: what to export.
        file: a path, resumed when it has an unfinished export of the same namespace; or a binary
            file, written from where it stands.
        anew: begin the file anew, whatever it has.
        progress: called after each batch.

    Raises:
        TransferError: the file is a finished export already, or something else.
        Exception: whatever the store or the file system raises.
    """
    if not isinstance(file, Path):
        return _export(cache, file, _Written(cache.namespace), progress)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "r+b") as opened:
        written = _Written(cache.namespace)
        if not anew:
            written.resume(opened, str(file))
        opened.seek(written.bytes)
        opened.truncate()
        return _export(cache, opened, written, progress)


class _Written:
    """What an export file has so far."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.digest = sha256()
        self.bytes = self.entries = 0
        self.last = ""

    def add(self, line: bytes) -> None:
        self.digest.update(line)
        self.bytes += len(line)

    def resume(self, file: BinaryIO, name: str) -> None:
        """Take over the whole lines of an unfinished export."""
        for number, line in enumerate(lines_of(file), 1):
            if not line.endswith(b"\n") and (number > 1 or head_line(self._namespace).startswith(line)):
                break  # cut short: written anew
            said = object_in(line)
            if number == 1:
                check_head(said, name, self._namespace)
            elif said.get("end"):
                raise TransferError(
                    f"{name} is a finished export of {self.entries} entries; choose another file, or begin "
                    "it anew"
                )
            else:
                try:
                    self.last = item_in(said)[0]
                except ValueError:
                    break  # damaged, perhaps by what broke the export off: from here on anew
                self.entries += 1
            self.add(line)


def _export(cache: Operations, file: BinaryIO, written: _Written, progress: Progress | None) -> Exported:
    resumed = written.entries

    def write(line: bytes) -> None:
        file.write(line)
        written.add(line)

    if not written.bytes:
        write(head_line(cache.namespace))
    known = cache.keys()
    keys = sorted(key for key in known if key > written.last)
    total = resumed + len(keys)
    start, count = 0, _FIRST_BATCH
    while start < len(keys):
        taken = 0
        for item in cache.read_items(keys[start : start + count]):
            taken += len(item[1])
            write(item_line(item))
            written.entries += 1
        start += count
        # As many at once as fit, judged by those just read: answers may be a few bytes or megabytes.
        count = max(1, count // 2) if taken > _BATCH_BYTES else min(_BATCH, count * 2)
        if progress is not None:
            progress(min(resumed + start, total), total)
    write(line_of({"end": True, "entries": written.entries, "sha256": written.digest.hexdigest()}))
    file.flush()
    return Exported(entries=written.entries, resumed=resumed, bytes=written.bytes)


def import_entries(
    cache: Operations, file: Path | BinaryIO, *, overwrite: bool = False, progress: Progress | None = None
) -> Imported:
    """Store the entries of an export, each with the life that it has left.

    What is stored already stays, so an import that broke off is simply made again. A namespace is part
    of every key: an export goes back into the namespace that it came from.

    Args:
        cache: where to; its namespace must be the export's.
        file: the export: a path, or a binary file.
        overwrite: replace what is stored under the same keys.
        progress: called after each batch.

    Raises:
        TransferError: a line is damaged, or is no entry of its key; the entries before it are stored.
        Exception: whatever the store or the file system raises.
    """
    if not isinstance(file, Path):
        return _import(cache, file, "the export", 0, overwrite=overwrite, progress=progress)
    with file.open("rb") as opened:
        size = file.stat().st_size
        return _import(cache, opened, str(file), size, overwrite=overwrite, progress=progress)


def namespace_of(file: Path) -> str:
    """The namespace of an export.

    Raises:
        TransferError: it is no export.
    """
    with file.open("rb") as opened:
        return check_head(object_in(opened.readline(LONGEST)), str(file), None)


def _import(
    cache: Operations,
    file: BinaryIO,
    name: str,
    size: int,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> Imported:
    lines = lines_of(file)
    head = next(lines, b"")
    check_head(object_in(head), name, cache.namespace)
    reading = _Reading(name, cache.namespace, head)
    items = reading.items(lines)
    written = expired = live = 0
    while batch := list(_batch(items)):
        now = time.time()
        alive = [item for item in batch if item[2] is None or item[2] > now]
        expired += len(batch) - len(alive)
        live += len(alive)
        written += cache.write_items(alive, overwrite=overwrite) if alive else 0
        if progress is not None:
            progress(reading.bytes, max(size, reading.bytes))
    if reading.trouble:
        raise TransferError(reading.trouble)
    return Imported(
        entries=reading.entries,
        written=written,
        present=live - written,
        expired=expired,
        complete=reading.complete,
    )


class _Reading:
    """Reads an export's entries. Trouble ends them, and is told when those before it are stored."""

    def __init__(self, name: str, namespace: str, head: bytes) -> None:
        self._name = name
        self._prefix = f"{namespace}:"
        self._digest = sha256(head)
        self.bytes = len(head)
        self.entries = 0
        self.complete = False
        self.trouble = ""

    def items(self, lines: Iterator[bytes]) -> Iterator[Item]:
        for number, line in enumerate(lines, 2):
            if self.complete:
                self.trouble = f"{self._name}, line {number}: something follows the end of the export"
                return
            if not line.endswith(b"\n"):
                return  # the export broke off in it
            try:
                said = object_in(line)
                if said.get("end"):
                    self._end(said)
                    continue
                item = item_in(said)
                self._belongs(item)
            except (ValueError, TransferError, _codec.Undecodable) as error:
                self.trouble = (
                    f"{self._name}, line {number} is damaged ({error}); nothing after it was stored"
                )
                return
            self._digest.update(line)
            self.bytes += len(line)
            self.entries += 1
            yield item

    def _belongs(self, item: Item) -> None:
        """See that it is an entry of this namespace, and of its key."""
        if not item[0].startswith(self._prefix):
            raise ValueError("its key is of another namespace")
        _codec.check(item[0], item[1])

    def _end(self, said: dict[str, Any]) -> None:
        if said.get("entries") != self.entries or said.get("sha256") != self._digest.hexdigest():
            raise ValueError(f"the file has {self.entries} entries, and is not what was exported")
        self.complete = True


def _batch(items: Iterator[Item]) -> Iterator[Item]:
    taken = 0
    for item in islice(items, _BATCH):
        yield item
        taken += len(item[1])
        if taken > _BATCH_BYTES:
            return
