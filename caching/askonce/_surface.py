"""What an endpoint is to askonce, and how a complete answer is read.

A Surface knows one kind of endpoint of one provider: which paths are its own, what a question looks like
there, and what an answer says about itself. Which surfaces there are is the business of
`askonce._surfaces`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

import orjson

from askonce._body import Body
from askonce._sse import events

# What can be wrong with a complete answer; Policy says which of them may be stored all the same.
ERROR: Final = "error body"
INCOMPLETE: Final = "not completed"
TRUNCATED: Final = "truncated"
REFUSED: Final = "refused"
EMPTY: Final = "empty"
EXPIRING: Final = "expiring link"

EVENTS: Final = "text/event-stream"
LINES: Final = frozenset({"application/x-ndjson", "application/stream+json", "application/jsonl"})

Json: TypeAlias = dict[str, Any]


@dataclass(eq=False)
class Reading:
    """What an answer says about itself: its usage, and its flaws."""

    usage: dict[str, int] = field(default_factory=dict[str, int])
    flaws: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, eq=False, kw_only=True)
class Surface:
    """One kind of endpoint.

    Attributes:
        name: "chat", "embeddings", ...
        path: found in the paths that are its own; a group `model` is the model's name.
        read_json: reads a JSON answer.
        read_events: reads the objects of a stream (events, lines, or a list sent bit by bit); None: nothing
            but completeness counts.
        read_list: reads a JSON answer that is a list; None: such an answer is none.
        shape: a body has to have one of these fields, or it is no question; empty: whatever it has.
        sampled: answers depend on `temperature`, 1 unless given.
        options: objects of the body in which the temperature may stand, besides the body itself.
        media: beginnings of content types that answers have besides JSON and streams.
        ends_with_event: a stream of events says itself when it is over; else it is over when the body is.
        streams: an answer is a stream unless the body says `"stream": false`.
        items: the field that may hold a list of inputs, each answered by itself; "" when there is none.
    """

    name: str
    path: re.Pattern[str]
    read_json: Callable[[Json], Reading]
    read_events: Callable[[Iterable[Json]], Reading] | None = None
    read_list: Callable[[list[Any]], Reading] | None = None
    shape: frozenset[str] = frozenset()
    sampled: bool = False
    options: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    ends_with_event: bool = True
    streams: bool = False
    items: str = ""

    def fits(self, body: Body) -> bool:
        """Whether a body is a question to such an endpoint."""
        if not self.shape or body.kind == "multipart":
            return not self.shape
        if body.kind == "raw":  # JSON that nobody could read without loss; a form has no field in quotes
            return any(b'"%b"' % name.encode() in body.value for name in self.shape)
        return any(body.fields.get(name) is not None for name in self.shape)

    def temperature(self, fields: Json) -> Any:
        """What the body says about the temperature; None: nothing."""
        for place in (fields, *(as_object(fields.get(name)) for name in self.options)):
            if place.get("temperature") is not None:
                return place["temperature"]
        return None

    def read(self, content_type: str, body: bytes) -> Reading:
        """What a complete answer says about itself. Never raises: what cannot be read is flawed."""
        if not body:
            return Reading(flaws={EMPTY})
        media = _media_of(content_type)
        try:
            if media == EVENTS:
                return self._read_stream(_objects_in(body))
            if media in LINES:
                return self._read_stream(_lines_in(body))
            if media.endswith("json") or (not media and not self.media):
                return self._read_value(orjson.loads(body))
            # A proxy's login page with status 200 is no answer.
            return Reading() if not media or media.startswith(self.media) else Reading(flaws={ERROR})
        except Exception:  # noqa: BLE001 - whatever an answer looks like, its caller gets it; it is not stored
            return Reading(flaws={ERROR})

    def _read_value(self, answer: Any) -> Reading:
        if isinstance(answer, list) and self.read_list is not None:
            return self.read_list(cast("list[Any]", answer))
        if not isinstance(answer, dict):
            return Reading(flaws={ERROR})
        fields = cast("Json", answer)
        reading = self.read_json(fields)
        if fields.get("error"):
            reading.flaws.add(ERROR)
        return reading

    def _read_stream(self, chunks: list[Json] | None) -> Reading:
        if chunks is None:
            return Reading(flaws={ERROR})
        return Reading() if self.read_events is None else self.read_events(chunks)


def ends(*suffixes: str) -> re.Pattern[str]:
    """The paths that end in one of these."""
    return re.compile(f"(?:{'|'.join(map(re.escape, suffixes))})$")


def objects(value: Any) -> list[Json]:
    """The objects of a list, and nothing when it is no list."""
    if not isinstance(value, list):
        return []
    return [item for item in cast("list[Json]", value) if isinstance(item, dict)]


def as_object(value: Any) -> Json:
    """An object, or an empty one when it is something else."""
    return cast("Json", value) if isinstance(value, dict) else {}


@lru_cache(maxsize=128)
def _media_of(content_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _objects_in(body: bytes) -> list[Json] | None:
    """The data objects of an event stream; None when it tells of an error."""
    chunks: list[Json] = []
    for name, data in events(body):
        if data.startswith(b"[DONE]"):
            break
        chunk = as_object(orjson.loads(data))
        if chunk.get("error") or name == b"error" or chunk.get("type") == "error":
            return None
        chunks.append(chunk)
    return chunks


def _lines_in(body: bytes) -> list[Json] | None:
    """The objects of a body with one on each line; None when it tells of an error."""
    chunks = [as_object(orjson.loads(line)) for line in io.BytesIO(body) if not line.isspace()]
    return None if any(chunk.get("error") for chunk in chunks) else chunks
