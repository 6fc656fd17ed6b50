"""Cohere's endpoints, versions 1 and 2, and the rerank endpoint that others have taken over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from askonce._surface import (
    EMPTY,
    ERROR,
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

_REASONS: Final = {
    "COMPLETE": "",
    "STOP_SEQUENCE": "",
    "TOOL_CALL": "",
    "MAX_TOKENS": TRUNCATED,
    "ERROR_LIMIT": TRUNCATED,
    "ERROR_TOXIC": REFUSED,
    "ERROR": ERROR,
    "TIMEOUT": ERROR,
}


def _usage(told: Any) -> dict[str, int]:
    """The tokens under their common names: all of them rather than those that are billed."""
    figures = as_object(told)
    counted = as_object(figures.get("tokens")) or as_object(figures.get("billed_units"))
    named = {name: counted.get(name) for name in ("input_tokens", "output_tokens")}
    found = {name: int(value) for name, value in named.items() if isinstance(value, int | float) and value}
    searches = as_object(figures.get("billed_units")).get("search_units")
    if isinstance(searches, int | float) and searches:
        found["search_units"] = int(searches)
    return found


def _read(usage: Any, reason: Any, *, says: bool) -> Reading:
    flaw = _REASONS.get(reason, INCOMPLETE) if isinstance(reason, str) else INCOMPLETE
    reading = Reading(_usage(usage), {flaw} if flaw else set())
    if not says:
        reading.flaws.add(EMPTY)
    return reading


def _message(answer: Json) -> Reading:
    message = as_object(answer.get("message"))
    texts = [part.get("text") for part in objects(message.get("content"))]
    says = bool(message.get("tool_calls")) or any(texts)
    return _read(answer.get("usage"), answer.get("finish_reason"), says=says)


def _message_events(chunks: Iterable[Json]) -> Reading:
    says = False
    end: Json = {}
    for chunk in chunks:
        kind = chunk.get("type")
        delta = as_object(chunk.get("delta"))
        if kind == "content-delta":
            says = says or bool(as_object(as_object(delta.get("message")).get("content")).get("text"))
        elif kind == "tool-call-start":
            says = True
        elif kind == "message-end":
            end = delta
    return _read(end.get("usage"), end.get("finish_reason"), says=says)


def _chat(answer: Json) -> Reading:
    says = any(answer.get(name) for name in ("text", "tool_calls", "search_queries"))
    return _read(answer.get("meta"), answer.get("finish_reason"), says=says)


def _chat_lines(chunks: Iterable[Json]) -> Reading:
    for chunk in chunks:
        if chunk.get("event_type") == "stream-end":
            return _chat({
                "finish_reason": chunk.get("finish_reason"), **as_object(chunk.get("response"))
            })  # fmt: skip
    return Reading(flaws={INCOMPLETE})


def _holds(name: str, answer: Json) -> Reading:
    usage = _usage(answer.get("meta") or answer.get("usage"))
    return Reading(usage, set() if answer.get(name) else {EMPTY})


_EMBEDS: Final = frozenset({"texts", "images", "inputs"})

COHERE: Final = (
    Surface(
        name="cohere_chat",
        path=ends("/v2/chat"),
        read_json=_message,
        read_events=_message_events,
        shape=frozenset({"messages"}),
        sampled=True,
    ),
    Surface(
        name="cohere_chat",
        path=ends("/v1/chat"),
        read_json=_chat,
        read_events=_chat_lines,
        shape=frozenset({"message"}),
        sampled=True,
    ),
    Surface(
        name="cohere_embed",
        path=ends("/v1/embed", "/v2/embed"),
        read_json=lambda answer: _holds("embeddings", answer),
        shape=_EMBEDS,
    ),
    Surface(
        name="rerank",
        path=ends("/rerank"),
        read_json=lambda answer: _holds("results", answer),
        shape=frozenset({"query"}),
    ),
)
