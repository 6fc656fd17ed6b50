"""Hugging Face's tasks that are asked with `inputs`: text generation and feature extraction."""

from __future__ import annotations

from typing import Any

from askonce.testing._provider.answers import (
    Answer,
    Ask,
    BadRequestError,
    Json,
    event,
    event_answer,
    json_answer,
)
from askonce.testing._provider.drafting import as_list, as_object, pieces, text, tokens
from askonce.testing._provider.vectors import embedding_of


def generate(ask: Ask) -> Answer:
    """POST to a model's address: a text, streamed as tokens when asked to."""
    if "inputs" not in ask.body:
        raise BadRequestError("'inputs' is missing.")
    said = text(ask)
    details: Json = {
        "finish_reason": "length" if ask.fault.finish_reason == "length" else "eos_token",
        "generated_tokens": tokens(said),
        "seed": ask.number,
        "prefill": [],
        "tokens": [],
    }
    wanted = bool(as_object(ask.body.get("parameters")).get("details"))
    if not ask.streaming:
        return json_answer([{"generated_text": said, **({"details": details} if wanted else {})}])
    bits = pieces(said) or [""]
    chunks: list[Json] = [
        {"index": index, "token": _token(index, piece), "generated_text": None, "details": None}
        for index, piece in enumerate(bits)
    ]
    chunks[-1] |= {"generated_text": said, "details": details}
    return event_answer([event(chunk) for chunk in chunks])


def features(ask: Ask) -> Answer:
    """POST to a model's feature extraction."""
    given: Any = ask.body.get("inputs")
    if isinstance(given, str):
        return json_answer(embedding_of(given, dimensions=256))
    return json_answer([embedding_of(str(one), dimensions=256) for one in as_list(given)])


def _token(index: int, piece: str) -> Json:
    return {"id": index, "text": piece, "logprob": -0.5, "special": False}
