"""How often a semantic answer was wrong: counted where the provider was asked all the same, and bounded."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, Final

from askonce._fork import renew_after_fork

_MOST: Final = 1000
_Z: Final = 1.959963984540054  # 95 %, two-sided


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A rate and its Wilson score interval at 95 % (Wilson 1927). Without a sample it is all of 0 to 1."""

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rate:.2%} ({self.low:.2%} to {self.high:.2%})"


def wilson(wrong: int, sample: int) -> Interval:
    """The interval for a share of a sample."""
    if not sample:
        return Interval(rate=0.0, low=0.0, high=1.0)
    share = wrong / sample
    square = _Z * _Z
    centre = (share + square / (2 * sample)) / (1 + square / sample)
    half = (
        _Z * math.sqrt(share * (1 - share) / sample + square / (4 * sample * sample)) / (1 + square / sample)
    )
    # At the ends it is exact; rounding must not say otherwise.
    low = 0.0 if not wrong else max(0.0, centre - half)
    return Interval(rate=share, low=low, high=1.0 if wrong == sample else min(1.0, centre + half))


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticFigures:
    """What a layer did with the questions of one partition and model, in this process.

    Attributes:
        partition: first digits of the partition's digest; "" for all of them together.
        model: the model asked.
        requests: exact misses that the layer was consulted for.
        served: those that it answered.
        sampled: would-be hits that asked the provider all the same, and were judged.
        wrong: those among them whose stored answer would have been wrong.
        explored: further provider calls that verified mode learned from.
    """

    partition: str = ""
    model: str = ""
    requests: int = 0
    served: int = 0
    sampled: int = 0
    wrong: int = 0
    explored: int = 0

    @property
    def wrong_of_hits(self) -> Interval:
        """Share of wrong answers among hits, estimated from the sample."""
        return wilson(self.wrong, self.sampled)

    @property
    def wrong_of_requests(self) -> Interval:
        """Share of wrong answers among all that the layer was consulted for: the above times the hit rate."""
        hits = self.wrong_of_hits
        share = self.served / self.requests if self.requests else 0.0
        return Interval(rate=hits.rate * share, low=hits.low * share, high=hits.high * share)

    def __str__(self) -> str:
        return (
            f"{self.served:,} of {self.requests:,} answered; wrong among hits {self.wrong_of_hits}, "
            f"among requests {self.wrong_of_requests}; {self.sampled:,} sampled"
        )


_COUNTED: Final = tuple(
    field.name for field in fields(SemanticFigures) if field.name not in {"partition", "model"}
)


class Figures:
    """Counts by partition and model; the least recently used ones beyond a thousand are counted together."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[str, str], dict[str, int]] = OrderedDict()
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.RLock()

    def add(self, partition: str, model: str, what: str) -> None:
        """Count one."""
        place = (partition[:8], model)
        with self._lock:
            row = self._rows.get(place)
            if row is None:
                row = self._rows[place] = dict.fromkeys(_COUNTED, 0)
                if len(self._rows) > _MOST:
                    self._fold()
            self._rows.move_to_end(place)
            row[what] += 1

    def snapshot(self) -> list[SemanticFigures]:
        """All rows, the busiest first; the first one is their sum."""
        with self._lock:
            rows = [
                SemanticFigures(partition=partition, model=model, **row)
                for (partition, model), row in self._rows.items()
            ]
        sums: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in _COUNTED}
        total = SemanticFigures(**sums)
        return [total, *sorted(rows, key=lambda row: row.requests, reverse=True)]

    def _fold(self) -> None:
        place, row = next((place, row) for place, row in self._rows.items() if place != _OTHERS)
        del self._rows[place]
        others = self._rows.setdefault(_OTHERS, dict.fromkeys(_COUNTED, 0))
        for name in _COUNTED:
            others[name] += row[name]


_OTHERS: Final = ("others", "")
