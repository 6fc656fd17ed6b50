"""Google's Gemini endpoints, of AI Studio and of Vertex: the model and the method stand in the path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
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
    objects,
)

_REFUSALS: Final = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip


def _flaw_of(reason: Any) -> str:
    if reason == "STOP":
        return ""
    if reason == "MAX_TOKENS":
        return TRUNCATED
    return REFUSED if reason in _REFUSALS else INCOMPLETE


def _says(candidate: Json) -> bool:
    """Anything but an empty text or a thought."""
    return any(
        part.get("text") != "" and not part.get("thought")
        for part in objects(as_object(candidate.get("content")).get("parts"))
    )


def _generated(chunks: Iterable[Json]) -> Reading:
    """One answer, or all the bits of a streamed one: each candidate has to say that it is over."""
    reading = Reading()
    said: dict[Any, bool] = {}
    ended: dict[Any, str] = {}
    for chunk in chunks:
        reading.usage |= plain_usage(chunk.get("usageMetadata"))
        if as_object(chunk.get("promptFeedback")).get("blockReason"):
            reading.flaws.add(REFUSED)
        for candidate in objects(chunk.get("candidates")):
            index = candidate.get("index") or 0
            said[index] = said.get(index, False) or _says(candidate)
            if candidate.get("finishReason"):
                ended[index] = _flaw_of(candidate["finishReason"])
    reading.flaws.update(filter(None, ended.values()))
    if said.keys() - ended.keys():
        reading.flaws.add(INCOMPLETE)
    if not (said and all(said.values())) and REFUSED not in reading.flaws:
        reading.flaws.add(EMPTY)
    return reading


def _holds(*names: str) -> Callable[[Json], Reading]:
    def read(answer: Json) -> Reading:
        return Reading(
            plain_usage(answer.get("usageMetadata")),
            set() if any(answer.get(name) for name in names) else {EMPTY},
        )

    return read


def _path(methods: str) -> re.Pattern[str]:
    return re.compile(rf"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?:{methods})$")


GEMINI: Final = (
    Surface(
        name="generate_content",
        path=_path("generateContent|streamGenerateContent"),
        read_json=lambda answer: _generated([answer]),
        read_events=_generated,
        read_list=lambda answer: _generated(objects(answer)),
        shape=frozenset({"contents"}),
        sampled=True,
        options=("generationConfig", "generation_config"),
        ends_with_event=False,
    ),
    Surface(
        name="embed_content",
        path=_path("embedContent|batchEmbedContents"),
        read_json=_holds("embedding", "embeddings"),
        shape=frozenset({"content", "requests"}),
    ),
    Surface(  # Vertex's older embeddings
        name="predict",
        path=re.compile(r"/publishers/google/models/(?P<model>[^/:]*embedding[^/:]*):predict$"),
        read_json=_holds("predictions"),
        shape=frozenset({"instances"}),
    ),
    Surface(
        name="count_tokens",
        path=_path("countTokens"),
        read_json=_holds("totalTokens"),
        shape=frozenset({"contents", "generateContentRequest"}),
    ),
)
