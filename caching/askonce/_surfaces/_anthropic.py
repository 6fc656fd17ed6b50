"""Anthropic's Messages endpoint, its own and those of the clouds that carry it unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from askonce._entry import plain_usage
from askonce._surface import (
    EMPTY,
    INCOMPLETE,
    REFUSED,
    TRUNCATED,
    Json,
    Reading,
    Surface,
    as_object,
    ends,
    objects,
)

_STOPS: Final = {
    "end_turn": "",
    "stop_sequence": "",
    "tool_use": "",
    "max_tokens": TRUNCATED,
    "model_context_window_exceeded": TRUNCATED,
    "refusal": REFUSED,
}


def _stopped(reading: Reading, reason: Any) -> None:
    """A turn that was paused, or that ended for a reason nobody knows yet, is not over."""
    flaw = _STOPS.get(reason, INCOMPLETE) if isinstance(reason, str) else INCOMPLETE
    if flaw:
        reading.flaws.add(flaw)


def _says(block: Json) -> bool:
    kind = block.get("type")
    return bool(block.get("text")) if kind == "text" else kind not in ("thinking", "redacted_thinking")


def _message(answer: Json) -> Reading:
    reading = Reading(plain_usage(answer.get("usage")))
    _stopped(reading, answer.get("stop_reason"))
    if not any(map(_says, objects(answer.get("content")))):
        reading.flaws.add(EMPTY)
    return reading


def _message_events(chunks: Iterable[Json]) -> Reading:
    """Figures of the last event hold; those of the first are not always told again."""
    reading = Reading()
    says = False
    reason: Any = None
    for chunk in chunks:
        kind = chunk.get("type")
        if kind == "message_start":
            reading.usage = plain_usage(as_object(chunk.get("message")).get("usage"))
        elif kind == "content_block_start":
            says = says or _says(as_object(chunk.get("content_block")))
        elif kind == "content_block_delta":
            says = says or bool(as_object(chunk.get("delta")).get("text"))
        elif kind == "message_delta":
            reading.usage |= plain_usage(chunk.get("usage"))
            reason = as_object(chunk.get("delta")).get("stop_reason") or reason
    _stopped(reading, reason)
    if not says:
        reading.flaws.add(EMPTY)
    return reading


def _count(answer: Json) -> Reading:
    return Reading(flaws=set() if isinstance(answer.get("input_tokens"), int) else {EMPTY})


_SHAPE: Final = frozenset({"messages"})

ANTHROPIC: Final = (
    Surface(
        name="messages",
        # Vertex has the model in the path, and whether it streams.
        path=re.compile(r"/v1/messages$|/models/(?P<model>[^/:]+):(?:streamR|r)awPredict$"),
        read_json=_message,
        read_events=_message_events,
        shape=_SHAPE,
        sampled=True,
    ),
    Surface(name="count_tokens", path=ends("/v1/messages/count_tokens"), read_json=_count, shape=_SHAPE),
)
