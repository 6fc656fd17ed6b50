"""The events that `Cache.subscribe` delivers."""

from __future__ import annotations

from askonce._events import AnswerDropped, AnswerStored, CallDone, CorruptEntry, Event, Listener, StoreFailed

__all__ = ["AnswerDropped", "AnswerStored", "CallDone", "CorruptEntry", "Event", "Listener", "StoreFailed"]
