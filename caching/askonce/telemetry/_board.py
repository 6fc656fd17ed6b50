"""The instruments of one meter provider, shared by all caches that report to it.

A meter gives the same instrument for the same name, and keeps the callbacks of the first one only: a second
cache's gauges would never be read if each cache made its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from askonce._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

Measured: TypeAlias = "tuple[float, dict[str, str]]"

GAUGES: Final = {
    "askonce.entries": ("{entry}", "Entries in a store, where it counts them."),
    "askonce.size": ("By", "Bytes of the entries in a store, where it counts them."),
    "askonce.store.up": ("1", "1 when a store answered when it was last looked at, else 0."),
    "askonce.store.latency": ("s", "Seconds a store took to answer when it was last looked at."),
    "askonce.store.breaker": (
        "1",
        "0: the store is used; 1: tried with one call; 2: left alone.",
    ),
}
# From a lookup in memory to a long answer of a provider.
_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
    60, 120,
)  # fmt: skip


class Source(Protocol):
    """A cache whose gauges can be read."""

    label: str

    def measure(self, gauge: str) -> Iterable[Measured]:
        """What a gauge shows now."""
        ...


class Board:
    """Counters, histograms and gauges.

    Args:
        provider: where they are made.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self.sources: tuple[Source, ...] = ()
        meter = provider.get_meter("askonce", __version__)
        self.requests = meter.create_counter(
            "askonce.requests", "{request}", "Calls that came through a door, by what became of them."
        )
        self.tokens_saved = meter.create_counter(
            "askonce.tokens.saved", "{token}", "Tokens of answers that cost no provider call."
        )
        self.dollars_saved = meter.create_counter(
            "askonce.dollars.saved", "{USD}", "Price of those tokens, of models whose price is known."
        )
        self.seconds = meter.create_histogram(
            "askonce.request.duration",
            "s",
            "Time inside the cache until the caller had its answer; of a miss, the provider's time included.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.seconds_saved = meter.create_histogram(
            "askonce.provider.saved",
            "s",
            "What the provider took for an answer that was now given without it.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.stored = meter.create_counter("askonce.answers.stored", "{answer}", "Answers written.")
        self.bytes_stored = meter.create_counter("askonce.answers.stored.size", "By", "Bytes written.")
        self.dropped = meter.create_counter(
            "askonce.answers.dropped", "{answer}", "Answers that reached their caller and were not stored."
        )
        self.corrupt = meter.create_counter(
            "askonce.entries.corrupt", "{entry}", "Stored values that were no entries and were deleted."
        )
        self.store_errors = meter.create_counter(
            "askonce.store.errors", "{error}", "Store operations that failed; the calls went on without them."
        )
        self.compared = meter.create_counter(
            "askonce.semantic.compared",
            "{answer}",
            "Answers of the semantic layer that were compared with the provider's own.",
        )
        for name, (unit, text) in GAUGES.items():
            meter.create_observable_gauge(name, [self._reader(name)], unit, text)

    def _reader(self, gauge: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation  # noqa: PLC0415 - an extra

        def read(_options: CallbackOptions) -> Iterable[Observation]:
            found: list[Observation] = []
            for source in self.sources:
                try:
                    found += [Observation(value, labels) for value, labels in source.measure(gauge)]
                except Exception:  # noqa: BLE001, S112 - one cache's trouble must not hide another's figures
                    continue
            return found

        return read


_boards: WeakKeyDictionary[MeterProvider, Board] = WeakKeyDictionary()


def board_of(provider: MeterProvider) -> Board:
    """The board of a meter provider, made when it is first asked for."""
    board = _boards.get(provider)
    if board is None:
        # Of two threads that come here at once, both get the first one's.
        board = _boards.setdefault(provider, Board(provider))
    return board
