"""The events that `Cache.subscribe` delivers. Loaded when somebody listens.

A sink of your own is a Listener, any callable that takes an Event: `leave = cache.subscribe(sink)`. It runs
in the thread, task and context of the call, after its answer is known: so it should be quick, and finds the
caller's own context variables and spans. What it raises is logged and dropped, and no other sink misses
anything. No event holds a prompt or an answer. `askonce.telemetry` is such a sink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from askonce._events import Listener
from askonce._outcome import Outcome

__all__ = [
    "AnswerDropped",
    "AnswerStored",
    "AnswersCompared",
    "BreakerChanged",
    "CallDone",
    "CorruptEntry",
    "Event",
    "Listener",
    "StoreFailed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDone:
    """A call has its answer (a stream: its headers)."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStored:
    """An answer was written to the store.

    Attributes:
        key: its key.
        size: bytes of the envelope.
    """

    key: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDropped:
    """An answer reached its caller and was not stored.

    Attributes:
        key: the key it would have had.
        reason: why, such as "truncated" or "status 429".
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """A store could not do something; the call went on without it.

    Attributes:
        store: its name.
        operation: "get", "set", ...
        error: the exception's class name.
    """

    store: str
    operation: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged:
    """A remote store is left alone from now on, is tried with one call, or is used again.

    Attributes:
        store: its name.
        state: "open", "half-open" or "closed".
    """

    store: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptEntry:
    """A stored value was no entry of ours; it was deleted and counts as a miss.

    Attributes:
        key: where it was.
        reason: what was wrong, such as "checksum".
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersCompared:
    """The semantic layer had the provider asked although an answer was there, and the two were compared.

    Attributes:
        partition: first digits of the partition's digest.
        model: the model asked.
        similarity: of the two questions.
        right: the stored answer would have been right.
        would_serve: it would have been given, had this not been a sample; else the call was to learn from.
        source: key of the entry whose answer it is.
    """

    partition: str
    model: str
    similarity: float
    right: bool
    would_serve: bool
    source: str


Event: TypeAlias = (
    CallDone | AnswerStored | AnswerDropped | AnswersCompared | StoreFailed | BreakerChanged | CorruptEntry
)
