"""Hugging Face: the tasks of its inference service, and the servers behind it asked directly.

Its chat is OpenAI's. The others are asked with `inputs`, at the model's own address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, cast

from askonce._surface import EMPTY, INCOMPLETE, TRUNCATED, Json, Reading, Surface, as_object, objects


def _usage(details: Json) -> dict[str, int]:
    read, written = details.get("prefill"), details.get("generated_tokens")
    found: dict[str, int] = {}
    if isinstance(read, list) and read:
        found["input_tokens"] = len(cast("list[Any]", read))
    if isinstance(written, int) and written:
        found["output_tokens"] = written
    return found


_TEXTS: Final = ("generated_text", "summary_text", "translation_text")
_SCORED: Final = ("label", "score")


def _generated(answer: Json) -> Reading:
    details = as_object(answer.get("details"))
    reading = Reading(_usage(details))
    if details.get("finish_reason") == "length":
        reading.flaws.add(TRUNCATED)
    if not any(answer.get(name) for name in _TEXTS):
        reading.flaws.add(EMPTY)
    return reading


def _listed(answer: list[Any]) -> Reading:
    """Vectors, scored labels, or one text for each input. Anything else is no answer known here."""
    items = objects(answer)
    if not answer or (len(items) < len(answer) and not _are_vectors(answer)):
        return Reading(flaws={EMPTY})
    reading = Reading()
    for item in items:
        if not all(name in item for name in _SCORED):
            one = _generated(item)
            reading.flaws |= one.flaws
            reading.usage |= one.usage
    return reading


def _are_vectors(value: list[Any]) -> bool:
    """Numbers, in lists to any depth."""
    first: Any = value
    while isinstance(first, list) and first:
        first = cast("list[Any]", first)[0]
    return isinstance(first, int | float)


def _generated_events(chunks: Iterable[Json]) -> Reading:
    """The last token comes with the whole text."""
    last: Json = {}
    for chunk in chunks:
        last = chunk
    return _generated(last) if last.get("generated_text") is not None else Reading(flaws={INCOMPLETE})


HUGGINGFACE: Final = (
    Surface(
        name="huggingface",
        path=re.compile(
            r"/models/(?P<model>[^/:]+(?:/[^/:]+)?)(?:/pipeline/[\w-]+)?$|^/$|/generate(?:_stream)?$|/embed$"
        ),
        read_json=_generated,
        read_events=_generated_events,
        read_list=_listed,
        shape=frozenset({"inputs"}),
        sampled=True,
        options=("parameters",),
        ends_with_event=False,
    ),
)
