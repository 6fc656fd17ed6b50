"""An export read back into a store: each line is checked before anything of it is stored.

Entries come first, then what the semantic layer kept beside them. That is taken for an entry only which is
stored just as the file has it: not where another answer was there already, not where the entry is past its
life. So an import that broke off, in whichever part, is simply made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from askonce import _codec
from askonce._export_file import (
    CARRYING,
    LONGEST,
    Beside,
    TransferError,
    beside_in,
    check_head,
    digest_of,
    item_in,
    lines_of,
    object_in,
)
from askonce._exporting import Progress
from askonce._stride import MOST, MOST_BYTES, Stride
from askonce.stores.protocol import Item

if TYPE_CHECKING:
    from askonce._operations import Operations
    from askonce.semantic import Index
    from askonce.semantic._moving import Mover


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import found.

    Attributes:
        entries: in the file.
        written: stored now.
        present: left as they were, because something is stored under their key.
        expired: past their life, and left out.
        complete: the file has its last line. Without it entries or rows are missing from its end; those
            that it has are stored.
        rows: in the file, of the semantic layer: see `Exported.rows`.
        rows_written: of them, stored now. The others are there already, or belong to an entry that is not
            stored as the file has it.
    """

    entries: int
    written: int
    present: int
    expired: int
    complete: bool
    rows: int = 0
    rows_written: int = 0


def import_entries(
    cache: Operations,
    file: Path | BinaryIO,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    index: Index | None = None,
) -> Imported:
    """Store the entries of an export, each with the life that it has left, and the semantic layer's rows.

    What is stored already stays, so an import that broke off is simply made again. A namespace is part
    of every key: an export goes back into the namespace that it came from. Rows are found by a layer of the
    same embedder; they go to where the cache's own layer has its rows, and without a layer into the store.

    Args:
        cache: where to; its namespace must be the export's.
        file: the export: a path, or a binary file.
        overwrite: replace what is stored under the same keys.
        progress: called after each batch.
        index: where rows go instead: a `RedisIndex` that no layer of this cache has.

    Raises:
        TransferError: a line is damaged, or is no entry of its key; what stands before it is stored.
        Exception: whatever the store, the index or the file system raises.
    """
    rows = cache.mover(index)
    if not isinstance(file, Path):
        return _Importing(cache, rows, overwrite, progress).run(file, "the export", 0)
    with file.open("rb") as opened:
        size = file.stat().st_size
        return _Importing(cache, rows, overwrite, progress).run(opened, str(file), size)


def namespace_of(file: Path) -> str:
    """The namespace of an export.

    Raises:
        TransferError: it is no export.
    """
    with file.open("rb") as opened:
        return check_head(object_in(opened.readline(LONGEST)), str(file), None)[0]


class _Importing:
    """One import, and what has come of it so far."""

    def __init__(self, cache: Operations, rows: Mover, overwrite: bool, progress: Progress | None) -> None:
        self._cache = cache
        self._rows = rows
        self._overwrite = overwrite
        self._progress = progress
        self._stride = Stride()
        self._written = self._live = self._expired = self._rows_written = 0

    def run(self, file: BinaryIO, name: str, size: int) -> Imported:
        lines = lines_of(file)
        head = next(lines, b"")
        _, version = check_head(object_in(head), name, self._cache.namespace)
        reading = _Reading(name, self._cache.namespace, head, self._rows if version == CARRYING else None)
        try:
            self._take(reading, lines, size)
        finally:
            self._rows.finish()
        if reading.trouble:
            raise TransferError(reading.trouble)
        return Imported(
            entries=reading.entries,
            written=self._written,
            present=self._live - self._written,
            expired=self._expired,
            complete=reading.complete,
            rows=reading.rows,
            rows_written=self._rows_written,
        )

    def _take(self, reading: _Reading, lines: Iterator[bytes], size: int) -> None:
        for kind, found in groupby(reading.read(lines), type):
            while batch := list(_batch(found, self._stride.count if kind is Beside else MOST)):
                if kind is Beside:
                    self._store_rows(cast("list[Beside]", batch))
                else:
                    self._store(cast("list[Item]", batch))
                if self._progress is not None:
                    self._progress(reading.bytes, max(size, reading.bytes))

    def _store(self, batch: list[Item]) -> None:
        now = time.time()
        alive = [item for item in batch if item[2] is None or item[2] > now]
        self._expired += len(batch) - len(alive)
        self._live += len(alive)
        self._written += self._cache.write_items(alive, overwrite=self._overwrite) if alive else 0

    def _store_rows(self, batch: list[Beside]) -> None:
        """Store those whose entry is in the store just as it is in the file."""
        stored = {item[0]: item for item in self._cache.read_items(sorted({row.of for row in batch}))}
        self._stride.saw(sum(len(value) for _, value, _ in stored.values()))
        fit = [
            (row, entry)
            for row in batch
            if (entry := stored.get(row.of)) is not None and digest_of(row.of, entry[1]) == row.entry
        ]
        self._rows_written += self._rows.write(fit, overwrite=self._overwrite) if fit else 0


class _Reading:
    """Reads an export's lines. Trouble ends them, and is told when those before it are stored."""

    def __init__(self, name: str, namespace: str, head: bytes, rows: Mover | None) -> None:
        self._name = name
        self._prefix = f"{namespace}:"
        self._rows_of = rows
        self._digest = sha256(head)
        self.bytes = len(head)
        self.entries = self.rows = 0
        self.complete = False
        self.trouble = ""

    def read(self, lines: Iterator[bytes]) -> Iterator[Item | Beside]:
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
                found = self._found(said)
            except (ValueError, TransferError, _codec.Undecodable) as error:
                self.trouble = (
                    f"{self._name}, line {number} is damaged ({error}); nothing after it was stored"
                )
                return
            self._digest.update(line)
            self.bytes += len(line)
            if isinstance(found, Beside):
                self.rows += 1
            else:
                self.entries += 1
            yield found

    def _found(self, said: dict[str, Any]) -> Item | Beside:
        """See that a line is an entry of this namespace and of its key, or belongs to one."""
        if "beside" in said and self._rows_of is not None:
            row = beside_in(said)
            self._in_namespace(row.of)
            self._rows_of.check(row)
            return row
        item = item_in(said)
        if self.rows:
            raise ValueError("an entry stands behind the rows")
        self._in_namespace(item[0])
        _codec.check(item[0], item[1])
        return item

    def _in_namespace(self, key: str) -> None:
        if not key.startswith(self._prefix):
            raise ValueError("its key is of another namespace")

    def _end(self, said: dict[str, Any]) -> None:
        same = said.get("entries") == self.entries and said.get("rows", 0) == self.rows
        if not same or said.get("sha256") != self._digest.hexdigest():
            had = f"{self.entries} entries" + (f" and {self.rows} rows" if self.rows else "")
            raise ValueError(f"the file has {had}, and is not what was exported")
        self.complete = True


def _batch(found: Iterator[Item | Beside], most: int) -> Iterator[Item | Beside]:
    taken = 0
    for one in islice(found, most):
        yield one
        taken += len(one.value if isinstance(one, Beside) else one[1])
        if taken > MOST_BYTES:
            return
