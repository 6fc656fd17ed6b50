"""Ollama's own endpoints. An answer is a stream of lines unless the question says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from askonce._surface import (
    EMPTY,
    INCOMPLETE,
    TRUNCATED,
    Json,
    Reading,
    Surface,
    as_object,
    ends,
)

_REASONS: Final = {"stop": "", "length": TRUNCATED}


def _says(chunk: Json) -> bool:
    message = as_object(chunk.get("message"))
    return bool(chunk.get("response") or message.get("content") or message.get("tool_calls"))


def _answered(chunks: Iterable[Json]) -> Reading:
    """One answer, or all the lines of a streamed one. "load" and "unload" are no answers."""
    says = False
    end: Json = {}
    for chunk in chunks:
        says = says or _says(chunk)
        if chunk.get("done") is True:
            end = chunk
    flaw = _REASONS.get(str(end.get("done_reason") or "stop"), INCOMPLETE) if end else INCOMPLETE
    reading = Reading(_usage(end), {flaw} if flaw else set())
    if not says:
        reading.flaws.add(EMPTY)
    return reading


def _usage(end: Json) -> dict[str, int]:
    """The tokens under their common names."""
    counted: dict[str, Any] = {
        "input_tokens": end.get("prompt_eval_count"),
        "output_tokens": end.get("eval_count"),
    }
    return {name: value for name, value in counted.items() if isinstance(value, int) and value}


def _embedded(answer: Json) -> Reading:
    said = answer.get("embeddings") or answer.get("embedding")
    return Reading(_usage(answer), set() if said else {EMPTY})


OLLAMA: Final = (
    Surface(
        name="ollama_chat",
        path=ends("/api/chat"),
        read_json=lambda answer: _answered([answer]),
        read_events=_answered,
        shape=frozenset({"messages"}),
        sampled=True,
        options=("options",),
        streams=True,
    ),
    Surface(
        name="ollama_generate",
        path=ends("/api/generate"),
        read_json=lambda answer: _answered([answer]),
        read_events=_answered,
        shape=frozenset({"prompt"}),
        sampled=True,
        options=("options",),
        streams=True,
    ),
    # Before OpenAI's, which ends alike.
    Surface(name="ollama_embed", path=ends("/api/embed"), read_json=_embedded, shape=frozenset({"input"})),
    Surface(
        name="ollama_embed", path=ends("/api/embeddings"), read_json=_embedded, shape=frozenset({"prompt"})
    ),
)
