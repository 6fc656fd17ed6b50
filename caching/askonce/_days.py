"""Figures by day, provider, model and tag: what a report is made of.

Stats say how a cache is doing; these say what it saved, on which day, of which model. Days are UTC.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from askonce._fork import renew_after_fork
from askonce._outcome import SERVED

_DAY: Final = 86400.0
_LONGEST: Final = 120
_MOST: Final = 4000
_SEPARATOR: Final = "\x1f"
_OTHER: Final = "(other)"


class Place(NamedTuple):
    """What a row of figures is about.

    Attributes:
        day: days since 1970-01-01, UTC.
        host: the provider's host, with its port where that is not 443 or 80.
        model: the model asked for; "" when none was named.
        tag: "" for all calls; a label for those that bore it, which are counted in both.
    """

    day: int
    host: str
    model: str
    tag: str


class Days:
    """Sums of one process, added to the store by `Totals` and then begun anew. Thread-safe.

    The figures of a row: "served", "misses", "bypasses", "errors" (calls), "unmetered" (served answers
    that say nothing of their usage), "seconds" (provider time saved), and the provider's usage figures
    with "saved." or "spent." in front. Models, hosts and tags are names from outside: after 4000 rows,
    further ones are counted as "(other)".
    """

    __slots__ = ("__weakref__", "_lock", "_rows")

    def __init__(self) -> None:
        # Re-entrant: the collector may close a forgotten stream, and have it counted, under this very lock.
        self._lock = threading.RLock()
        self._rows: dict[tuple[int, str, str, str], dict[str, float]] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.RLock()

    def called(
        self,
        now: float,
        origin: str,
        model: str,
        tags: tuple[str, ...],
        *,
        status: str,
        usage: Mapping[str, int],
        saved: float,
    ) -> None:
        """Count a call."""
        served = status in SERVED
        figure = "served" if served else _NAMES.get(status, "errors")
        with self._lock:
            for tag in ("", *tags) if tags else _ALL:
                row = self._row(now, origin, model, tag)
                row[figure] = row.get(figure, 0) + 1
                if served:
                    if not usage:
                        row["unmetered"] = row.get("unmetered", 0) + 1
                    row["seconds"] = row.get("seconds", 0) + saved
                    for name, number in usage.items():
                        name = _saved(name)  # noqa: PLW2901
                        row[name] = row.get(name, 0) + number

    def spent(
        self, now: float, origin: str, model: str, tags: tuple[str, ...], usage: Mapping[str, int]
    ) -> None:
        """Count what an answer of the provider cost."""
        with self._lock:
            for tag in ("", *tags):
                row = self._row(now, origin, model, tag)
                for name, number in usage.items():
                    row[f"spent.{name}"] = row.get(f"spent.{name}", 0) + number

    def _row(self, now: float, origin: str, model: str, tag: str) -> dict[str, float]:
        day, host = int(now // _DAY), _host(origin)
        # A plain tuple equals a Place, and is made in a fifth of the time: every call comes this way.
        row = self._rows.get((day, host, model, tag))
        if row is None:
            place = Place(day, host, _name(model), _name(tag))
            if len(self._rows) >= _MOST and place not in self._rows:
                place = Place(place.day, _OTHER, _OTHER, _OTHER if tag else "")
            row = self._rows.setdefault(place, {})
        return row

    def copy(self) -> dict[Place, dict[str, float]]:
        """The rows as they are."""
        with self._lock:
            return {Place(*place): dict(row) for place, row in self._rows.items()}

    def drain(self) -> dict[Place, dict[str, float]]:
        """The rows, which begin anew."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return {Place(*place): row for place, row in rows.items()}

    def add(self, rows: Mapping[Place, Mapping[str, float]]) -> None:
        """Put rows back that could not be stored."""
        with self._lock:
            for place, figures in rows.items():
                row = self._rows.setdefault(place, {})
                for name, number in figures.items():
                    row[name] = row.get(name, 0) + number


_NAMES: Final = {"miss": "misses", "bypass": "bypasses"}
_ALL: Final = ("",)


@lru_cache(maxsize=256)
def _saved(name: str) -> str:
    return f"saved.{name}"


@lru_cache(maxsize=256)
def _host(origin: str) -> str:
    """A host as people write it."""
    scheme, _, place = origin.partition("://")
    host, _, port = place.rpartition(":")
    return _name(host if (scheme, port) in {("https", "443"), ("http", "80")} else place)


def _name(text: str) -> str:
    """A name from outside, short and without what separates figures."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST])


def today(now: float) -> int:
    """The day of a time: days since 1970-01-01, UTC."""
    return int(now // _DAY)


def day_text(day: int) -> str:
    """A day as 2026-11-26."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * _DAY))


def tally_name(namespace: str, day: int) -> str:
    """Under which name a store keeps a day's figures."""
    return f"{namespace}{_SEPARATOR}{day_text(day)}"


def flat_rows(rows: Mapping[Place, Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """Rows as numbers by name, for each day."""
    found: dict[int, dict[str, float]] = {}
    for place, figures in rows.items():
        day = found.setdefault(place.day, {})
        for figure, number in figures.items():
            day[_SEPARATOR.join((place.host, place.model, place.tag, figure))] = number
    return found


def raised_rows(day: int, counts: Mapping[str, float]) -> Iterable[tuple[Place, dict[str, float]]]:
    """The rows in such numbers; names of another shape are left out."""
    rows: dict[Place, dict[str, float]] = {}
    for what, number in counts.items():
        parts = what.split(_SEPARATOR)
        if len(parts) == 4:  # noqa: PLR2004 - host, model, tag, figure
            rows.setdefault(Place(day, *parts[:3]), {})[parts[3]] = number
    return rows.items()
