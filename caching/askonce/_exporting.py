"""Entries as a file: portable between stores, checked line by line, and resumed where it broke off.

A file without its last line is an export that broke off: whole lines are good, and the same export goes
on after them. See `askonce._export_file` for the lines, and `askonce._importing` for the way back.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from askonce._export_file import (
    CARRYING,
    PLAIN,
    Beside,
    TransferError,
    beside_in,
    beside_line,
    check_head,
    digest_of,
    head_line,
    item_in,
    item_line,
    line_of,
    lines_of,
    object_in,
)
from askonce._stride import Stride

if TYPE_CHECKING:
    from askonce._operations import Operations
    from askonce.semantic import Index
    from askonce.semantic._moving import Mover

_DIGEST_BYTES = 16

Progress: TypeAlias = Callable[[int, int], None]
"""Told how far it is, and how far it goes: entries and rows of an export, bytes of an import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        entries: in the file.
        resumed: of them, those that an earlier run had written.
        bytes: length of the file.
        rows: in the file besides: what the semantic layer keeps beside these entries, a row for each question
            and, in verified mode, what was learned of its answer.
    """

    entries: int
    resumed: int
    bytes: int
    rows: int = 0


def export_entries(
    cache: Operations,
    file: Path | BinaryIO,
    *,
    anew: bool = False,
    progress: Progress | None = None,
    index: Index | None = None,
) -> Exported:
    """Write every entry of the cache's namespace into a file, and after them the semantic layer's rows.

    In the order of their keys, so that an export that broke off goes on where it was: entries that came
    in the meantime, and stand before that place, are not in it. Memory holds the keys and one batch.

    The rows are those of the entries in the file, and no others. They are taken from where the cache's own
    layer has them, and without a layer from the store. A file without rows can be read by every askonce.

    Args:
        cache: what to export.
        file: a path, resumed when it has an unfinished export of the same namespace; or a binary
            file, written from where it stands.
        anew: begin the file anew, whatever it has.
        progress: called after each batch.
        index: where the rows are instead: a `RedisIndex` that no layer of this cache has.

    Raises:
        TransferError: the file is a finished export already, or something else.
        Exception: whatever the store, the index or the file system raises.
    """
    rows = cache.mover(index)
    if not isinstance(file, Path):
        return _Exporting(cache, file, _Written(cache.namespace), progress).run(rows)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "r+b") as opened:
        written = _Written(cache.namespace)
        if not anew:
            written.resume(opened, str(file))
        opened.seek(written.bytes)
        opened.truncate()
        return _Exporting(cache, opened, written, progress).run(rows)


class _Carried:
    """The entries in a file: their keys, in order, and their digests. Some 140 bytes each."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._digests = bytearray()

    def add(self, key: str, value: bytes) -> None:
        self._keys.append(key)
        self._digests += bytes.fromhex(digest_of(key, value))

    def find(self, beginning: str) -> tuple[str, str] | None:
        """Key and digest of the entry whose key begins so."""
        place = _place(self._keys, beginning)
        if place is None:
            return None
        start = place * _DIGEST_BYTES
        return self._keys[place], self._digests[start : start + _DIGEST_BYTES].hex()

    @property
    def last(self) -> str:
        return self._keys[-1] if self._keys else ""

    def __len__(self) -> int:
        return len(self._keys)


class _Written:
    """What an export file has so far."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._head = 0  # the version that stands in the file; 0: no head yet
        # Which of the heads it gets is known when it is known whether there are rows.
        self._digests = {version: sha256(head_line(namespace, version)) for version in (PLAIN, CARRYING)}
        self.carried = _Carried()
        self.bytes = self.rows = 0
        self.last_row = ""

    def begin(self, file: BinaryIO, version: int) -> None:
        """Choose the head, and write it where another one stands, or none."""
        head = head_line(self._namespace, version)
        if self._head != version:
            if self._head:
                file.seek(0)
            file.write(head)
            if self._head:
                file.seek(self.bytes)
            else:
                self.bytes = len(head)
        self._digests = {version: self._digests[version]}

    def entry(self, key: str, value: bytes, line: bytes) -> None:
        self.carried.add(key, value)
        self._add(line)

    def row(self, key: str, line: bytes) -> None:
        self.rows += 1
        self.last_row = key
        self._add(line)

    def _add(self, line: bytes) -> None:
        for digest in self._digests.values():
            digest.update(line)
        self.bytes += len(line)

    @property
    def digest(self) -> str:
        (digest,) = self._digests.values()
        return digest.hexdigest()

    def resume(self, file: BinaryIO, name: str) -> None:
        """Take over the whole lines of an unfinished export."""
        for number, line in enumerate(lines_of(file), 1):
            if not line.endswith(b"\n") and (number > 1 or self._may_be_head(line)):
                break  # cut short: written anew
            said = object_in(line)
            if number == 1:
                _, self._head = check_head(said, name, self._namespace)
                if line != head_line(self._namespace, self._head):
                    raise TransferError(f"{name} was changed by something else; begin it anew")
                self.bytes = len(line)
                continue
            if said.get("end"):
                raise TransferError(
                    f"{name} is a finished export of {len(self.carried)} entries; choose another file, or "
                    "begin it anew"
                )
            try:
                if "beside" in said and self._head == CARRYING:
                    self.row(beside_in(said).key, line)
                elif self.rows:
                    break  # likewise: no entry stands behind rows
                else:
                    key, value, _ = item_in(said)
                    self.entry(key, value, line)
            except ValueError:
                break  # damaged, perhaps by what broke the export off: from here on anew

    def _may_be_head(self, line: bytes) -> bool:
        return any(head_line(self._namespace, version).startswith(line) for version in (PLAIN, CARRYING))


class _Exporting:
    """One export: where it goes, and how far it is."""

    def __init__(
        self, cache: Operations, file: BinaryIO, written: _Written, progress: Progress | None
    ) -> None:
        self._cache = cache
        self._file = file
        self._written = written
        self._progress = progress
        self._done = self._total = 0

    def run(self, rows: Mover) -> Exported:
        written = self._written
        resumed = len(written.carried)
        keys: list[str] = []
        if not written.rows:  # else all entries are there: what came since would stand behind rows
            known = self._cache.keys()
            keys = sorted(key for key in known if key > written.carried.last)
        prefix = f"{self._cache.namespace}:"

        def wanted(digits: str) -> bool:
            beginning = prefix + digits
            return written.carried.find(beginning) is not None or _place(keys, beginning) is not None

        row_keys = [key for key in rows.keys(wanted) if key > written.last_row]
        written.begin(self._file, CARRYING if row_keys or written.rows else PLAIN)
        self._done = resumed + written.rows
        self._total = self._done + len(keys) + len(row_keys)
        self._write_entries(keys)
        self._write_rows(rows, row_keys)
        said = {"end": True, "entries": len(written.carried)}
        if written.rows:
            said["rows"] = written.rows
        last = line_of({**said, "sha256": written.digest})
        self._file.write(last)
        self._file.flush()
        return Exported(
            entries=len(written.carried),
            resumed=resumed,
            bytes=written.bytes + len(last),
            rows=written.rows,
        )

    def _write_entries(self, keys: list[str]) -> None:
        start, stride = 0, Stride()
        while start < len(keys):
            count, taken = stride.count, 0
            for item in self._cache.read_items(keys[start : start + count]):
                taken += len(item[1])
                line = item_line(item)
                self._file.write(line)
                self._written.entry(item[0], item[1], line)
            start += count
            stride.saw(taken)
            self._tell(min(count, len(keys) - start + count))

    def _write_rows(self, rows: Mover, keys: list[str]) -> None:
        prefix = f"{self._cache.namespace}:"
        start, stride = 0, Stride()
        while start < len(keys):
            count, taken = stride.count, 0
            for key, value in rows.read(keys[start : start + count]):
                taken += len(value)
                entry = self._written.carried.find(prefix + rows.entry_digits(key))
                if entry is None:
                    continue  # gone between being listed and being read
                line = beside_line(Beside(key, *entry, value))
                self._file.write(line)
                self._written.row(key, line)
            start += count
            stride.saw(taken)
            self._tell(min(count, len(keys) - start + count))

    def _tell(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)


def _place(keys: list[str], beginning: str) -> int | None:
    """Where in a sorted list the key is that begins so."""
    place = bisect_left(keys, beginning)
    return place if place < len(keys) and keys[place].startswith(beginning) else None
