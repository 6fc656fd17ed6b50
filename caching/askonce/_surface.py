"""The endpoints askonce knows: what they are called, and what their answers say about themselves.

Only these are cached; any other path passes through untouched, so that a POST to a token server or a
job queue is never mistaken for a question (a Rule with a `ttl` opens further ones).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

import orjson

from askonce._entry import plain_usage
from askonce._sse import events

# What can be wrong with a complete answer; Policy says which of them may be stored all the same.
ERROR: Final = "error body"
INCOMPLETE: Final = "not completed"
TRUNCATED: Final = "truncated"
REFUSED: Final = "refused"
EMPTY: Final = "empty"
EXPIRING: Final = "expiring link"

Json: TypeAlias = dict[str, Any]


@dataclass(eq=False)
class Reading:
    """What an answer says about itself: its usage, and its flaws."""

    usage: dict[str, int] = field(default_factory=dict[str, int])
    flaws: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, eq=False)
class Surface:
    """One kind of endpoint.

    Attributes:
        name: "chat", "embeddings", ...
        suffix: how its path ends.
        read_json: reads a JSON answer.
        read_events: reads the data objects of an event stream; None: nothing but completeness counts.
        sampled: answers depend on `temperature`, 1 unless given.
        media: beginnings of content types that answers have besides JSON and event streams.
    """

    name: str
    suffix: str
    read_json: Callable[[Json], Reading]
    read_events: Callable[[Iterable[Json]], Reading] | None = None
    sampled: bool = False
    media: tuple[str, ...] = ()


def objects(value: Any) -> list[Json]:
    """The objects of a list, and nothing when it is no list."""
    if not isinstance(value, list):
        return []
    return [item for item in cast("list[Json]", value) if isinstance(item, dict)]


def _object(value: Any) -> Json:
    """An object, or an empty one when it is something else."""
    return cast("Json", value) if isinstance(value, dict) else {}


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
        message = _object(choice.get("message"))
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
            delta = _object(choice.get("delta"))
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
        filtered = _object(answer.get("incomplete_details")).get("reason") == "content_filter"
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
            return _response(_object(event.get("response")))
    return Reading(flaws={INCOMPLETE})


def _holds(name: str) -> Callable[[Json], Reading]:
    """A reader for answers whose substance is one field."""

    def read(answer: Json) -> Reading:
        reading = Reading(plain_usage(answer.get("usage")))
        if not answer.get(name):
            reading.flaws.add(EMPTY)
        return reading

    return read


def _images(answer: Json) -> Reading:
    """Images by link: the provider deletes them within the hour, so the answer would rot in the cache."""
    reading = _holds("data")(answer)
    if any(image.get("url") for image in objects(answer.get("data"))):
        reading.flaws.add(EXPIRING)
    return reading


def _last_usage(chunks: Iterable[Json]) -> Reading:
    reading = Reading()
    for chunk in chunks:
        if chunk.get("usage"):
            reading.usage = plain_usage(chunk["usage"])
    return reading


def _anything(answer: Json) -> Reading:
    return Reading(plain_usage(answer.get("usage")))


OTHER: Final = Surface("other", "", _anything, _last_usage, media=("",))
_TEXTS: Final = ("text/plain", "text/vtt", "text/srt", "application/x-subrip")

# Longer suffixes stand before the shorter ones that they end with.
_KNOWN: Final = (
    Surface("chat", "/chat/completions", _chat, _chat_events, sampled=True),
    Surface("completions", "/completions", _completion, _completion_events, sampled=True),
    Surface("responses", "/responses", _response, _response_events, sampled=True),
    Surface("embeddings", "/embeddings", _holds("data")),
    Surface("moderations", "/moderations", _holds("results")),
    Surface("images", "/images/generations", _images, _last_usage),
    Surface("images", "/images/edits", _images, _last_usage),
    Surface("images", "/images/variations", _images),
    Surface("speech", "/audio/speech", _anything, _last_usage, media=("audio/", "application/octet-stream")),
    Surface("transcription", "/audio/transcriptions", _holds("text"), _last_usage, media=_TEXTS),
    Surface("translation", "/audio/translations", _holds("text"), media=_TEXTS),
)
_BY_NAME: Final = {surface.name: surface for surface in _KNOWN} | {"other": OTHER}


@lru_cache(maxsize=512)
def surface_of(path: str) -> Surface | None:
    """The surface of a path, or None for an endpoint askonce does not know."""
    for surface in _KNOWN:
        if path.endswith(surface.suffix):
            return surface
    return None


def read_answer(surface_name: str, content_type: str, body: bytes) -> Reading:
    """What a complete answer says about itself. Never raises: what cannot be read is flawed."""
    surface = _BY_NAME.get(surface_name, OTHER)
    if not body:
        return Reading(flaws={EMPTY})
    media = _media_of(content_type)
    try:
        if media == "text/event-stream":
            return _read_stream(surface, body)
        if media.endswith("json") or (not media and not surface.media):
            return _read_object(surface, body)
        # A proxy's login page with status 200 is no answer.
        return Reading() if not media or media.startswith(surface.media) else Reading(flaws={ERROR})
    except Exception:  # noqa: BLE001 - whatever an answer looks like, its caller gets it; it is not stored
        return Reading(flaws={ERROR})


@lru_cache(maxsize=128)
def _media_of(content_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _read_object(surface: Surface, body: bytes) -> Reading:
    """A JSON answer."""
    answer = orjson.loads(body)
    if not isinstance(answer, dict):
        return Reading() if surface is OTHER else Reading(flaws={ERROR})
    answer = cast("Json", answer)
    reading = surface.read_json(answer)
    if answer.get("error"):
        reading.flaws.add(ERROR)
    return reading


def _read_stream(surface: Surface, body: bytes) -> Reading:
    chunks: list[Json] = []
    for name, data in events(body):
        if data.startswith(b"[DONE]"):
            break
        chunk = _object(orjson.loads(data))
        if chunk.get("error") or name == b"error" or chunk.get("type") == "error":
            return Reading(flaws={ERROR})
        chunks.append(chunk)
    return Reading() if surface.read_events is None else surface.read_events(chunks)
