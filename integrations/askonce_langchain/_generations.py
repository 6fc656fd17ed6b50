"""Answers of LangChain's models as JSON, and back as fresh objects. No pickle, and no loader of classes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from pydantic import BaseModel

from askonce import Entry, Outcome
from askonce.doors import (
    EMPTY,
    ERROR,
    INCOMPLETE,
    REFUSED,
    TRUNCATED,
    Build,
    Reading,
    UnplannedError,
    plan,
    same,
)

Json: TypeAlias = dict[str, Any]

_MOST: Final = 512
_AT_ONCE: Final = 256
_LARGEST: Final = 64 << 10
HEADERS: Final = [(b"content-type", b"application/json")]
_KINDS: Final[dict[str, type[Any]]] = {
    "generation": Generation,
    "generation chunk": GenerationChunk,
    "chat": ChatGeneration,
    "chat chunk": ChatGenerationChunk,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_TRUNCATED: Final = frozenset(
    {"length", "max_tokens", "MAX_TOKENS", "model_context_window_exceeded", "model_length"}
)
_REFUSED: Final = frozenset({
    "content_filter", "refusal", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "ERROR_TOXIC",
})  # fmt: skip
_REASONS: Final = ("finish_reason", "stop_reason", "done_reason", "status")
_UNFINISHED: Final = frozenset({"pause_turn", "incomplete", "error", "ERROR", "MALFORMED_FUNCTION_CALL"})


def written(generations: Sequence[Generation]) -> bytes:
    """The generations as JSON.

    Raises:
        TypeError: for one that holds something JSON has no form for, or is of a class unknown here.
        ValueError: for a text that is no Unicode.
    """
    rows: list[Json] = []
    for one in generations:
        name = _NAMES.get(type(one))
        if name is None:
            raise TypeError(type(one).__name__)
        row: Json = {"kind": name, "info": one.generation_info}
        if isinstance(one, ChatGeneration):
            row["message"] = _message(one.message)
        else:
            row["text"] = one.text
        rows.append(row)
    return json.dumps({"generations": rows}, default=_plain, ensure_ascii=False).encode()


def _message(message: BaseMessage) -> Json:
    if type(message).__module__.partition(".")[0] != "langchain_core":
        raise TypeError(type(message).__name__)  # somebody's own: nobody here knows how to make one
    return message_to_dict(message)


def _plain(value: Any) -> Any:
    """A parsed structured output: LangChain's parser takes its fields as well as the object."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(type(value).__name__)


def read(body: bytes) -> list[Generation]:
    """Fresh generations.

    Raises:
        Exception: when the bytes are no such answer.
    """
    found: list[Generation] = []
    for row in json.loads(body)["generations"]:
        kind = _KINDS[row["kind"]]
        if issubclass(kind, ChatGeneration):
            (message,) = messages_from_dict([row["message"]])
            found.append(kind(message=message, generation_info=row["info"]))
        else:
            found.append(kind(text=row["text"], generation_info=row["info"]))
    return found


class _Ids:
    """Random UUIDs (version 4), a few hundred at a time: the system is slow to ask for each."""

    def __init__(self) -> None:
        self._left: list[str] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._left.clear)  # a child must not go on with its parent's

    def next(self) -> str:
        try:
            return self._left.pop()
        except IndexError:
            fresh = os.urandom(16 * _AT_ONCE)
            made = [str(UUID(bytes=fresh[at : at + 16], version=4)) for at in range(0, len(fresh), 16)]
            one = made.pop()
            self._left.extend(made)
            return one


_ids = _Ids()


class Reader:
    """Reads stored answers; what was read a moment ago is made anew from what it was read to.

    Bounded to 512 answers of at most 64 KiB. Without locks: the worst that threads can do to each other is to
    read once more.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Entry, list[Build]]] = {}

    def served(self, entry: Entry, outcome: Outcome | None) -> list[Generation]:
        """What a hit gives: fresh objects with ids of their own, which say that they are from the cache."""
        key = "" if outcome is None else outcome.key
        known = self._known.get(key)
        if known is not None and known[0] is entry:
            fresh: list[Generation] = [build() for build in known[1]]
        else:
            fresh = read(entry.body)
            self._learn(key, entry, fresh)
        for one in fresh:
            if isinstance(one, ChatGeneration):
                _tell(one.message, outcome)
        return fresh

    def _learn(self, key: str, entry: Entry, read: list[Generation]) -> None:
        if not key or len(entry.body) > _LARGEST:
            return
        try:
            builds = [plan(one, "langchain_core") for one in read]
        except UnplannedError:
            return
        if all(same(build(), one) for build, one in zip(builds, read, strict=True)):
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = (entry, builds)


def _tell(message: BaseMessage, outcome: Outcome | None) -> None:
    """Give a message an id of its own, and say in it where it comes from."""
    # LangGraph takes a message with a known id for the one it has, and replaces that.
    state = vars(message)
    state["id"] = f"lc_run--{_ids.next()}"
    if outcome is not None:
        age = None if outcome.age is None else round(outcome.age, 3)
        said = {"status": outcome.status, "key": outcome.key, "age": age}
        state["response_metadata"]["askonce"] = said


def reading(answer: Json) -> Reading:
    """What an answer says about itself."""
    found = Reading()
    rows = cast("list[Json]", answer.get("generations") or [])
    if not rows:
        found.flaws.add(EMPTY)
    for number, row in enumerate(rows):
        message: Json = _object(_object(row.get("message")).get("data"))
        info: Json = {**_object(row.get("info")), **_object(message.get("response_metadata"))}
        if number == 0:
            found.usage = _figures(_object(message.get("usage_metadata")))
        reason = next((info[name] for name in _REASONS if info.get(name)), "")
        _judge(found, str(reason), message)
        if not (row.get("text") or message.get("content") or message.get("tool_calls") or _calls(message)):
            found.flaws.add(EMPTY)
        if info.get("error"):
            found.flaws.add(ERROR)
    return found


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _judge(found: Reading, reason: str, message: Json) -> None:
    if reason in _TRUNCATED:
        found.flaws.add(TRUNCATED)
    elif reason in _REFUSED or _object(message.get("additional_kwargs")).get("refusal"):
        found.flaws.add(REFUSED)
    elif reason in _UNFINISHED:
        found.flaws.add(INCOMPLETE)


def _calls(message: Json) -> bool:
    extra = _object(message.get("additional_kwargs"))
    return bool(extra.get("tool_calls") or extra.get("function_call") or extra.get("audio"))


def _figures(usage: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in usage.items():
        if isinstance(value, int) and not isinstance(value, bool) and value:
            found[prefix + name] = value
        elif isinstance(value, dict):
            found |= _figures(cast("Json", value), f"{prefix}{name}.")
    return found
