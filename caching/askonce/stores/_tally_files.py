"""Sums that the processes of one machine add up in a file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

import orjson

from askonce._errors import StoreError
from askonce.stores._lease_files import lock_file

_PATIENCE: Final = 1.0
_PAUSE: Final = 0.005
_PARTS: Final = "\x1f"


class TallyFiles:
    """The tally part of a store that lies in a folder: `askonce.stores.Tallying`.

    One JSON file, replaced as a whole by whoever holds the lock beside it. A name of several parts
    (separated by a unit separator, as those of days are) has a file of its own, so that the one that is
    written again and again stays small. A file that cannot be read is begun anew: these are figures for
    people, and no answer depends on them.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._tally_file = folder / "tallies.json"
        self._tally_folder = folder / "tallies"

    def tally(self, name: str, counts: Mapping[str, float]) -> None:
        """See `Tallying.tally`."""
        path = self._tally_path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            end = time.monotonic() + _PATIENCE
            while not lock_file(handle):
                if time.monotonic() > end:
                    raise StoreError("the tallies are locked by another process")
                time.sleep(_PAUSE)
            sums = _read(path)
            mine = sums.setdefault(name, {})
            for what, number in counts.items():
                mine[what] = mine.get(what, 0) + number
            fresh = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(orjson.dumps(sums))
            fresh.replace(path)
        finally:
            os.close(handle)

    def tallies(self, name: str) -> dict[str, float]:
        """See `Tallying.tallies`."""
        return _read(self._tally_path(name)).get(name, {})

    def _tally_path(self, name: str) -> Path:
        if _PARTS not in name:
            return self._tally_file
        # Names are people's; a file's is not.
        return self._tally_folder / f"{sha256(name.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        found: object = orjson.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(name): {
            str(what): number for what, number in cast("dict[Any, Any]", counts).items() if _is_number(number)
        }
        for name, counts in cast("dict[Any, Any]", found).items()
        if isinstance(counts, dict)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
