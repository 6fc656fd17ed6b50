"""Embeddings and moderations: one result per input, in order, each derived from its own input."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import struct
from typing import Any, cast

import orjson

from askonce.testing._provider.answers import Answer, Ask, BadRequestError, Json, json_answer
from askonce.testing._provider.drafting import as_list, as_object, texts, tokens

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536

_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
# These apply to images as well; the others are reported for text only.
_IMAGE_CATEGORIES = {
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "violence",
    "violence/graphic",
}


def embedding_of(item: str | list[int], *, dimensions: int = _DEFAULT_DIMENSIONS) -> list[float]:
    """The unit vector that the provider answers for one input, in single precision."""
    return list(struct.unpack(f"<{dimensions}f", _packed(orjson.dumps(item), dimensions)))


@functools.lru_cache(maxsize=4096)
def _packed(item: bytes, dimensions: int) -> bytes:
    # An extendable digest gives any number of coordinates from one pass over the input.
    noise = hashlib.shake_256(item).digest(2 * dimensions)
    raw = struct.unpack(f"<{dimensions}h", noise)
    length = math.hypot(*raw) or 1.0
    return struct.pack(f"<{dimensions}f", *(value / length for value in raw))


def embeddings(ask: Ask) -> Answer:
    """POST embeddings."""
    items = _inputs(ask.body.get("input"))
    dimensions = ask.body.get("dimensions") or _DIMENSIONS.get(ask.model, _DEFAULT_DIMENSIONS)
    if not isinstance(dimensions, int) or dimensions < 1:
        raise BadRequestError("'dimensions' must be a positive integer.")
    as_base64 = ask.body.get("encoding_format") == "base64"
    data: list[Json] = []
    for index, item in enumerate([] if ask.fault.empty else items):
        packed = _packed(orjson.dumps(item), dimensions)
        vector: Any = (
            base64.b64encode(packed).decode() if as_base64 else list(struct.unpack(f"<{dimensions}f", packed))
        )
        data.append({"object": "embedding", "index": index, "embedding": vector})
    spent = sum(tokens(item) if isinstance(item, str) else len(item) for item in items)
    # Mistral's answers have an id; OpenAI's have none.
    named: Json = {"id": f"embd-{ask.number}"} if ask.model.startswith("mistral") else {}
    return json_answer(
        {
            **named,
            "object": "list",
            "data": data,
            "model": ask.model,
            "usage": {"prompt_tokens": spent, "total_tokens": spent},
        }
    )


def _inputs(value: object) -> list[str | list[int]]:
    """One entry per vector: a text, a list of texts, one token list or a list of token lists."""
    if isinstance(value, str):
        return [value]
    items = as_list(value)
    if not items:
        raise BadRequestError("'input' must be a text, tokens, or a list of either, and not empty.")
    if all(isinstance(item, int) for item in items):
        return [cast(list[int], items)]
    if all(isinstance(item, (str, list)) for item in items):
        return cast(list[str | list[int]], items)
    raise BadRequestError("'input' must be a text, tokens, or a list of either.")


def moderations(ask: Ask) -> Answer:
    """POST moderations. Nothing is ever flagged."""
    given = ask.body.get("input")
    # Content parts (text and images) are judged together; a list of texts one by one.
    together = isinstance(given, str) or any(as_object(one) for one in as_list(given))
    items: list[Any] = [given] if together else as_list(given)
    images = any(as_object(one).get("type") == "image_url" for one in as_list(given))
    results = [] if ask.fault.empty else [_judged(" ".join(texts(item)), images=images) for item in items]
    return json_answer({"id": f"modr-{ask.number}", "model": ask.model, "results": results})


def _judged(text: str, *, images: bool) -> Json:
    noise = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": {name: noise[place] / 25_600 for place, name in enumerate(_CATEGORIES)},
        "category_applied_input_types": {
            name: ["text", "image"] if images and name in _IMAGE_CATEGORIES else ["text"]
            for name in _CATEGORIES
        },
    }
