"""What a call's span is told: what became of the call, and nothing of what was said in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from askonce._outcome import Outcome

_DIGITS: Final = 12
_NANO: Final = 1_000_000_000


def attributes_of(outcome: Outcome) -> dict[str, str | float | bool]:
    """The attributes of an outcome. Of the key, the first digits of its digest."""
    found: dict[str, str | float | bool] = {
        "askonce.status": outcome.status,
        "askonce.reason": outcome.reason,
        "askonce.served": outcome.served,
    }
    if outcome.key:
        found["askonce.key"] = outcome.key.rpartition(":")[2][:_DIGITS]
    if outcome.tier:
        found["askonce.tier"] = outcome.tier
    if outcome.surface:
        found["askonce.surface"] = outcome.surface
    numbers = {
        "askonce.age": outcome.age,
        "askonce.ttl": outcome.ttl,
        "askonce.similarity": outcome.similarity,
    }
    found |= {name: number for name, number in numbers.items() if number is not None}
    return found


def tell_current(outcome: Outcome) -> None:
    """Set them on the span that is current where the call was made, if somebody records it."""
    from opentelemetry import trace  # noqa: PLC0415 - an extra

    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(attributes_of(outcome))


def record(tracer: Tracer, outcome: Outcome) -> None:
    """Make a span of the call, which has just ended."""
    end = time.time_ns()
    attributes = attributes_of(outcome)
    if outcome.model:
        attributes["gen_ai.request.model"] = outcome.model
    span = tracer.start_span(
        "askonce", attributes=attributes, start_time=end - round(outcome.seconds * _NANO)
    )
    span.end(end)
