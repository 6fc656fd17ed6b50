"""Figures that outlive the process: what all processes that use one store have counted together."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import fields
from typing import Any, Final, cast

from askonce._days import Days, Place, flat_rows, raised_rows, tally_name
from askonce._deadline import deadline, set_deadline
from askonce._events import warn
from askonce._fork import renew_after_fork
from askonce._stats import Counters, Stats
from askonce.stores.protocol import Tallying

EVERY: Final = 60.0
"""Seconds between two additions to the store, at least, while calls are made."""
_LONGEST: Final = 1.0  # seconds that closing a cache may lose to a store that is away
_SEPARATOR: Final = "\x1f"
_PRESENT: Final = frozenset({"breakers"})  # states, not sums


class Totals:
    """Adds a cache's counts to the store from time to time: at most once a minute, and when it is closed.

    Nothing is added within a call: a daemon thread does it, or the one that closes.

    Args:
        store: where the sums are kept; None: nowhere, then `read` has this process's own.
        name: under which name: the namespace.
        counters: what is counted here.
        days: the same by day, model and tag.
    """

    def __init__(self, store: Tallying | None, name: str, counters: Counters, days: Days) -> None:
        self._store = store
        self._name = name
        self._counters = counters
        self.days = days
        self.due = time.perf_counter() + EVERY if store is not None else float("inf")
        self._added: dict[str, float] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)
        if store is not None:
            _open.add(self)

    def after_fork(self) -> None:
        """What was counted before the fork is the parent's to add."""
        self._lock = threading.Lock()
        self._added = flat(self._counters.snapshot())
        if self._store is not None:
            self.days.drain()

    def add_soon(self) -> None:
        """Add what has been counted, without keeping anybody waiting."""
        self.due = time.perf_counter() + EVERY
        try:
            threading.Thread(target=self.add, name="askonce-totals", daemon=True).start()
        except RuntimeError:  # the interpreter is going down; its end adds it
            return

    def add(self) -> None:
        """Add what has been counted since the last time. A store that fails gets it the next time."""
        if self._store is None:
            return
        with self._lock:
            now = flat(self._counters.snapshot())
            more = {what: number - self._added.get(what, 0) for what, number in now.items()}
            more = {what: number for what, number in more.items() if number}
            rows = self.days.drain()
            if not more and not rows:
                return
            before = deadline()
            set_deadline(time.monotonic() + _LONGEST)
            try:
                if more:
                    self._store.tally(self._name, more)
                    self._added = now
                for day, counts in flat_rows(rows).items():
                    self._store.tally(tally_name(self._name, day), counts)
                    rows = {place: row for place, row in rows.items() if place.day != day}
            except Exception as error:  # noqa: BLE001 - figures are not worth an error
                self.days.add(rows)
                warn("stores", "the figures could not be added to the store (%s)", type(error).__name__)
                return
            finally:
                set_deadline(before)

    def read(self) -> Stats:
        """The sums of all processes so far, this one's included.

        Raises:
            Exception: whatever the store raises.
        """
        self.add()
        mine = self._counters.snapshot()
        return mine if self._store is None else raised(self._store.tallies(self._name))

    def read_days(self, first: int, last: int) -> dict[Place, dict[str, float]]:
        """The rows of all processes for these days, this one's included.

        Raises:
            Exception: whatever the store raises.
        """
        self.add()
        if self._store is None:
            mine = self.days.copy()
            return {place: row for place, row in mine.items() if first <= place.day <= last}
        found: dict[Place, dict[str, float]] = {}
        for day in range(first, last + 1):
            found.update(raised_rows(day, self._store.tallies(tally_name(self._name, day))))
        return found


def flat(stats: Stats) -> dict[str, float]:
    """Stats as numbers by name; those of a dict have its name in front."""
    found: dict[str, float] = {}
    for field in fields(stats):
        value: Any = getattr(stats, field.name)
        if field.name in _PRESENT:
            continue
        if isinstance(value, dict):
            for name, number in cast("dict[str, float]", value).items():
                found[f"{field.name}{_SEPARATOR}{name}"] = number
        else:
            found[field.name] = value
    return found


def raised(counts: dict[str, float]) -> Stats:
    """The Stats in such numbers; names that nobody knows (another version's) are left out."""
    values: dict[str, Any] = {}
    known = {field.name: field for field in fields(Stats)}
    for what, number in counts.items():
        name, separator, inner = what.partition(_SEPARATOR)
        if name not in known or name in _PRESENT:
            continue
        if separator:
            values.setdefault(name, {})[inner] = round(number)
        else:
            values[name] = number if name == "seconds_saved" else round(number)
    return Stats(**values)


_open: weakref.WeakSet[Totals] = weakref.WeakSet()


@atexit.register
def _add_all() -> None:
    for totals in list(_open):
        totals.add()
