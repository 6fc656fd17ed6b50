"""OpenAI's endpoints, and those of the many servers that speak its protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from askonce._entry import plain_usage
from askonce._surface import (
    EMPTY,
    EXPIRING,
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


def _finish(reading: Reading, reason: Any) -> None:
    if reason == "length":
        reading.flaws.add(TRUNCATED)
    elif reason == "content_filter":
        reading.flaws.add(REFUSED)


_SAYS = ("content", "tool_calls", "function_call", "audio", "refusal")


def _chat(answer: Json) -> Reading:
    reading = Reading(plain_usage(answer.get("usage")))
    choices = objects(answer.get("choices"))
    for choice in choices:
        _finish(reading, choice.get("finish_reason"))
        message = as_object(choice.get("message"))
        if message.get("refusal"):
            reading.flaws.add(REFUSED)
        elif not (message.get("content") or any(message.get(name) for name in _SAYS)):
            reading.flaws.add(EMPTY)
    if not choices:
        reading.flaws.add(EMPTY)
    return reading


def _chat_events(chunks: Iterable[Json]) -> Reading:
    reading = Reading()
    said: dict[str, bool] = {}
    finished: set[str] = set()
    for chunk in chunks:
        if chunk.get("usage"):
            reading.usage = plain_usage(chunk["usage"])
        for choice in objects(chunk.get("choices")):
            index = str(choice.get("index"))
            delta = as_object(choice.get("delta"))
            said[index] = said.get(index, False) or any(delta.get(name) for name in _SAYS)
            if delta.get("refusal"):
                reading.flaws.add(REFUSED)
            if choice.get("finish_reason"):
                finished.add(index)
                _finish(reading, choice["finish_reason"])
    _all_said(reading, said, finished)
    return reading


def _all_said(reading: Reading, said: dict[str, bool], finished: set[str]) -> None:
    if not said or not all(said.values()):
        reading.flaws.add(EMPTY)
    if said.keys() - finished:
        reading.flaws.add(INCOMPLETE)


def _completion(answer: Json) -> Reading:
    reading = Reading(plain_usage(answer.get("usage")))
    choices = objects(answer.get("choices"))
    for choice in choices:
        _finish(reading, choice.get("finish_reason"))
    if not choices or not all(choice.get("text") for choice in choices):
        reading.flaws.add(EMPTY)
    return reading


def _completion_events(chunks: Iterable[Json]) -> Reading:
    reading = Reading()
    said: dict[str, bool] = {}
    finished: set[str] = set()
    for chunk in chunks:
        if chunk.get("usage"):
            reading.usage = plain_usage(chunk["usage"])
        for choice in objects(chunk.get("choices")):
            index = str(choice.get("index"))
            said[index] = said.get(index, False) or bool(choice.get("text"))
            if choice.get("finish_reason"):
                finished.add(index)
                _finish(reading, choice["finish_reason"])
    _all_said(reading, said, finished)
    return reading


def _response(answer: Json) -> Reading:
    reading = Reading(plain_usage(answer.get("usage")))
    status = answer.get("status")
    if status == "incomplete":
        filtered = as_object(answer.get("incomplete_details")).get("reason") == "content_filter"
        reading.flaws.add(REFUSED if filtered else TRUNCATED)
    elif status != "completed":
        reading.flaws.add(INCOMPLETE)
    outputs = objects(answer.get("output"))
    parts = [part for output in outputs for part in objects(output.get("content"))]
    if any(part.get("type") == "refusal" for part in parts):
        reading.flaws.add(REFUSED)
    # A call of a tool says something without a message; a message without a text says nothing.
    says = any(output.get("type") not in ("message", "reasoning") for output in outputs)
    if not says and not any(part.get("text") or part.get("refusal") for part in parts):
        reading.flaws.add(EMPTY)
    return reading


def _response_events(chunks: Iterable[Json]) -> Reading:
    for event in chunks:
        if event.get("type") in ("response.completed", "response.incomplete"):
            return _response(as_object(event.get("response")))
    return Reading(flaws={INCOMPLETE})


def holds(name: str) -> Callable[[Json], Reading]:
    """A reader for answers whose substance is one field."""

    def read(answer: Json) -> Reading:
        reading = Reading(plain_usage(answer.get("usage")))
        if not answer.get(name):
            reading.flaws.add(EMPTY)
        return reading

    return read


def _images(answer: Json) -> Reading:
    """Images by link: the provider deletes them within the hour, so the answer would rot in the cache."""
    reading = holds("data")(answer)
    if any(image.get("url") for image in objects(answer.get("data"))):
        reading.flaws.add(EXPIRING)
    return reading


def _last_usage(chunks: Iterable[Json]) -> Reading:
    reading = Reading()
    for chunk in chunks:
        if chunk.get("usage"):
            reading.usage = plain_usage(chunk["usage"])
    return reading


def anything(answer: Json) -> Reading:
    """A reader for answers of which nothing is known but where usage would stand."""
    return Reading(plain_usage(answer.get("usage")))


def _path(suffix: str) -> re.Pattern[str]:
    """Paths that end so; in Azure's the model is the deployment."""
    return re.compile(rf"(?:/deployments/(?P<model>[^/]+))?{re.escape(suffix)}$")


_TEXTS: Final = ("text/plain", "text/vtt", "text/srt", "application/x-subrip")

# Longer paths stand before the shorter ones that they end with.
OPENAI: Final = (
    Surface(
        name="chat",
        path=_path("/chat/completions"),
        read_json=_chat,
        read_events=_chat_events,
        sampled=True,
    ),
    # Mistral's: asked like a completion, answered like a chat.
    Surface(
        name="fim",
        path=ends("/fim/completions"),
        read_json=_chat,
        read_events=_chat_events,
        shape=frozenset({"prompt"}),
        sampled=True,
    ),
    Surface(
        name="completions",
        path=_path("/completions"),
        read_json=_completion,
        read_events=_completion_events,
        shape=frozenset({"prompt"}),
        sampled=True,
    ),
    Surface(
        name="responses",
        path=_path("/responses"),
        read_json=_response,
        read_events=_response_events,
        shape=frozenset({"input", "prompt"}),
        sampled=True,
    ),
    Surface(
        name="embeddings",
        path=_path("/embeddings"),
        read_json=holds("data"),
        shape=frozenset({"input"}),
        items="input",
    ),
    Surface(
        name="moderations", path=_path("/moderations"), read_json=holds("results"), shape=frozenset({"input"})
    ),
    Surface(
        name="images",
        path=_path("/images/generations"),
        read_json=_images,
        read_events=_last_usage,
        shape=frozenset({"prompt"}),
    ),
    Surface(name="images", path=_path("/images/edits"), read_json=_images, read_events=_last_usage),
    Surface(name="images", path=_path("/images/variations"), read_json=_images),
    Surface(
        name="speech",
        path=_path("/audio/speech"),
        read_json=anything,
        read_events=_last_usage,
        shape=frozenset({"input"}),
        media=("audio/", "application/octet-stream"),
    ),
    Surface(
        name="transcription",
        path=_path("/audio/transcriptions"),
        read_json=holds("text"),
        read_events=_last_usage,
        media=_TEXTS,
    ),
    Surface(name="translation", path=_path("/audio/translations"), read_json=holds("text"), media=_TEXTS),
)
OTHER: Final = Surface(
    name="other",
    path=ends("/"),
    read_json=anything,
    read_events=_last_usage,
    read_list=lambda _: Reading(),
    media=("",),
)
"""Of endpoints that nobody knows, opened by a Rule. Found by no path."""
