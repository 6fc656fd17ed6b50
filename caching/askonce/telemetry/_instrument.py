"""`instrument`: a cache's events become metrics and span attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from askonce._days import today
from askonce._errors import ConfigurationError, missing_extra, not_allowed
from askonce._events import warn
from askonce._outcome import Outcome
from askonce.telemetry._gauges import Gauges
from askonce.telemetry._labels import Labels

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from askonce._cache import Cache
    from askonce.events import Event
    from askonce.report import Price
    from askonce.report._prices import Prices
    from askonce.telemetry._board import Board

_REASONS: Final = 50


def instrument(
    cache: Cache,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    name: str | None = None,
    prices: Mapping[str, Price] | None = None,
    max_models: int = 50,
    health_every: float = 15.0,
) -> Telemetry:
    """Report what a cache does to OpenTelemetry, until the handle is closed.

    Counters and histograms are fed by the cache's events; gauges look at the cache when an exporter
    collects. The span that is current where a call is made gets `askonce.status` and others; of several
    calls in one span, the last one's. A call never fails because of this. Whose tokens and seconds were
    spent is for the instrumentation of the SDK to say: `gen_ai.client.*` is left to it.

    Args:
        cache: the cache.
        meter_provider: where instruments are made; None: the global one.
        tracer_provider: when given, each call is a span of its own besides.
        name: the label `askonce.cache`, by which several caches are told apart; None: the namespace.
        prices: your own, as for `Cache.report`; without any, those of `genai-prices` if it is installed.
        max_models: models that are labels of their own; later ones are counted as "other".
        health_every: seconds for which what the stores said of themselves is not asked again.

    Raises:
        ConfigurationError: for a bad option, without OpenTelemetry, or when a cache of that name reports
            there already: all of it would be counted twice.
    """
    if isinstance(max_models, bool) or not isinstance(max_models, int) or max_models < 0:
        raise not_allowed("max_models", max_models, "a whole number, 0 or more")
    if isinstance(health_every, bool) or not 0 <= health_every < math.inf:
        raise not_allowed("health_every", health_every, "seconds, 0 or more")
    label = cache.namespace if name is None else name
    if not isinstance(label, str) or not label:
        raise not_allowed("name", label, "a name for this cache, or None")
    try:
        from opentelemetry import metrics  # noqa: PLC0415 - an extra
    except ImportError:
        raise missing_extra("opentelemetry-api", "otel", "instrument()") from None
    from askonce.report._prices import Prices  # noqa: PLC0415 - most programs need none
    from askonce.telemetry._board import board_of  # noqa: PLC0415

    known = Prices(prices)
    board = board_of(meter_provider or metrics.get_meter_provider())
    if any(source.label == label for source in board.sources):
        raise ConfigurationError(
            f"instrument: a cache named {label!r} reports to this meter provider already; allowed: another "
            "name=, or closing the other handle first"
        )
    tracer = None if tracer_provider is None else tracer_provider.get_tracer("askonce")
    return Telemetry(
        board=board,
        gauges=Gauges(cache, label, health_every),
        cache=cache,
        tracer=tracer,
        prices=known,
        models=Labels(max_models),
    )


class Telemetry:
    """The handle of an instrumented cache. Closed, it reports no more; what was counted stays counted."""

    def __init__(
        self,
        *,
        board: Board,
        gauges: Gauges,
        cache: Cache,
        tracer: Tracer | None,
        prices: Prices,
        models: Labels,
    ) -> None:
        self._board = board
        self._gauges = gauges
        self._tracer = tracer
        self._prices = prices
        self._models = models
        self._reasons = Labels(_REASONS)
        self._clock = cache.clock
        board.sources = (*board.sources, gauges)
        # One bound method, because leaving is by identity.
        self._leave: Callable[[], None] = cache.subscribe(self._hear)

    def close(self) -> None:
        """Stop reporting. Closing twice does nothing."""
        self._leave()
        self._board.sources = tuple(one for one in self._board.sources if one is not self._gauges)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self, event: Event) -> None:
        from askonce.events import CallDone  # noqa: PLC0415 - loaded when somebody listens
        from askonce.telemetry._spans import record, tell_current  # noqa: PLC0415

        if not isinstance(event, CallDone):
            _attempt(self._count_other, event)
            return
        outcome = event.outcome
        _attempt(tell_current, outcome)
        _attempt(self._count, outcome)
        if outcome.served:
            _attempt(self._count_saved, outcome)
        if self._tracer is not None:
            _attempt(record, self._tracer, outcome)

    def _labels(self, outcome: Outcome) -> dict[str, str]:
        # A model that nobody has answered for may be anything: it takes no place.
        answered = outcome.status != "error"
        return {
            "askonce.cache": self._gauges.label,
            "askonce.surface": outcome.surface,
            "gen_ai.request.model": (self._models.of if answered else self._models.known)(outcome.model),
        }

    def _count(self, outcome: Outcome) -> None:
        labels = {**self._labels(outcome), "askonce.status": outcome.status}
        self._board.requests.add(1, labels)
        self._board.seconds.record(
            outcome.seconds, {"askonce.cache": self._gauges.label, "askonce.status": outcome.status}
        )

    def _count_saved(self, outcome: Outcome) -> None:
        from askonce.report._tokens import tokens_of  # noqa: PLC0415

        labels = self._labels(outcome)
        self._board.seconds_saved.record(outcome.saved, labels)
        tokens = tokens_of(outcome.usage)
        for kind, number in (("input", tokens.input), ("output", tokens.output)):
            if number:
                self._board.tokens_saved.add(number, {**labels, "gen_ai.token.type": kind})
        # The price of a model that is no label of its own would be looked up for anything a caller names.
        if tokens.total and labels["gen_ai.request.model"] == outcome.model:
            price = self._prices.of("", outcome.model, today(self._clock()))
            if price is not None:
                self._board.dollars_saved.add(price.of(tokens), labels)

    def _count_other(self, event: Event) -> None:
        from askonce import events  # noqa: PLC0415

        here = {"askonce.cache": self._gauges.label}
        board = self._board
        match event:
            case events.AnswerStored(size=size):
                board.stored.add(1, here)
                board.bytes_stored.add(size, here)
            case events.AnswerDropped(reason=reason):
                board.dropped.add(1, {**here, "askonce.reason": self._reasons.of(reason)})
            case events.CorruptEntry(reason=reason):
                board.corrupt.add(1, {**here, "askonce.reason": self._reasons.of(reason)})
            case events.StoreFailed(store=store, operation=operation):
                board.store_errors.add(1, {**here, "askonce.store": store, "askonce.operation": operation})
            case events.AnswersCompared(right=right):
                board.compared.add(1, {**here, "askonce.right": str(right).lower()})
            case _:
                pass  # a breaker's state is a gauge, and a call is counted elsewhere


def _attempt(what: Callable[..., None], *given: Any) -> None:
    """Each part on its own: one that fails takes no other with it, and no call."""
    try:
        what(*given)
    except Exception as error:  # noqa: BLE001 - whatever an SDK raises
        warn("telemetry", "OpenTelemetry raised %s; calls go on without it", type(error).__name__)
