"""The events that `Cache.subscribe` delivers. Loaded when somebody listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from askonce._events import Listener
from askonce._outcome import Outcome

__all__ = [
    "AnswerDropped",
    "AnswerStored",
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


Event: TypeAlias = CallDone | AnswerStored | AnswerDropped | StoreFailed | BreakerChanged | CorruptEntry
