"""What a cache's gauges show: the health of its stores, looked at once in a while, and its breakers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from askonce.stores.protocol import Health
from askonce.telemetry._board import Measured

if TYPE_CHECKING:
    from askonce._cache import Cache

_BREAKERS: Final = {"closed": 0.0, "half-open": 1.0, "open": 2.0}
_FIGURES: Final = {"askonce.entries": "entries", "askonce.size": "bytes"}


class Gauges:
    """Reads a cache when an exporter collects, never in a call.

    Args:
        cache: the cache.
        label: its name among others.
        every: seconds for which what the stores said is good enough.
    """

    def __init__(self, cache: Cache, label: str, every: float) -> None:
        self.label = label
        self._cache = cache
        self._every = every
        self._looked: float | None = None
        self._health: list[tuple[str, bool, float, dict[str, float]]] = []

    def measure(self, gauge: str) -> Iterable[Measured]:
        """What a gauge shows now."""
        if gauge == "askonce.store.breaker":
            for store, state in self._cache.stats().breakers.items():
                yield _BREAKERS[state], self._labels(store)
            return
        for store, ok, latency, figures in self._looked_at():
            if gauge == "askonce.store.up":
                yield float(ok), self._labels(store)
            elif gauge == "askonce.store.latency":
                if ok:
                    yield latency, self._labels(store)
            elif ok and _FIGURES[gauge] in figures:
                yield figures[_FIGURES[gauge]], self._labels(store)

    def _labels(self, store: str) -> dict[str, str]:
        return {"askonce.cache": self.label, "askonce.store": store}

    def _looked_at(self) -> list[tuple[str, bool, float, dict[str, float]]]:
        now = time.monotonic()
        if self._looked is None or now - self._looked >= self._every:
            self._health = [
                (store, found.ok, found.latency, _figures(found))
                for store, found in zip(self._cache.tiers, self._cache.ping(), strict=True)
            ]
            self._looked = now
        return self._health


def _figures(health: Health) -> dict[str, float]:
    return {name: float(value) for name, value in health.detail.items() if isinstance(value, int | float)}
