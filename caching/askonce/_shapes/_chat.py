"""Chat completions: the streamed answer as a plain one, and the other way round.

A stream becomes what OpenAI's own accumulator makes of it. A plain answer becomes a stream with the same
content, cut into words; the pieces are ours, and so is their number. Whatever is not known here to survive
the way is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

from askonce._sse import events
from askonce._surface import Json, as_object, objects

_HEAD: Final = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
_CHUNK: Final = frozenset({*_HEAD, "choices", "usage", "obfuscation"})
_CHUNK_CHOICE: Final = frozenset({"index", "delta", "logprobs", "finish_reason"})
_TEXTS: Final = ("content", "refusal", "reasoning_content")
_DELTA: Final = frozenset({"role", "tool_calls", *_TEXTS})
_ANSWER: Final = frozenset({*_HEAD, "choices", "usage"})
_CHOICE: Final = frozenset({"index", "message", "logprobs", "finish_reason"})
_CALL: Final = frozenset({"index", "id", "type", "function"})
_FUNCTION: Final = frozenset({"name", "arguments"})
_WORD: Final = re.compile(r"\S+\s*|\s+")


class LossyError(Exception):
    """Something would be lost on the way."""


def must(condition: object) -> None:
    """Refuse unless."""
    if not condition:
        raise LossyError


def only(value: Json, known: frozenset[str]) -> None:
    """Refuse an object that says more than is known here. Nothing said is nothing lost."""
    must(all(name in known or inner in (None, [], {}) for name, inner in value.items()))


def dumped(value: Any) -> bytes:
    """JSON by the standard library: orjson makes floats of integers beyond 64 bits."""
    return json.dumps(value, separators=(",", ":")).encode()


def words(text: str) -> list[str]:
    """A text in pieces, none of them empty."""
    return _WORD.findall(text)


# -- stream to plain -----------------------------------------------------------------------------------


def plain_from_stream(body: bytes) -> bytes:
    """The plain answer. Only of a stream that tells its usage, as a plain answer always does.

    Raises:
        LossyError: when it would not be the same.
    """
    head: Json = {}
    usage: Any = None
    choices: dict[int, Json] = {}
    for _, data in events(body):
        if data.startswith(b"[DONE]"):
            break
        chunk = as_object(json.loads(data))
        only(chunk, _CHUNK)
        for name in _HEAD:
            if name in chunk:
                must(head.setdefault(name, chunk[name]) == chunk[name])
        usage = chunk.get("usage") or usage
        for choice in objects(chunk.get("choices")):
            _add(choices, choice)
    must(usage and choices and head.get("object") == "chat.completion.chunk")
    must(sorted(choices) == list(range(len(choices))))
    head["object"] = "chat.completion"
    made = [_finished(choices[index]) for index in range(len(choices))]
    return dumped({**_first(head), "choices": made, "usage": usage, **_last(head)})


def _first(head: Json) -> Json:
    return {name: head[name] for name in _HEAD[:4] if name in head}


def _last(head: Json) -> Json:
    return {name: head[name] for name in _HEAD[4:] if name in head}


def _add(choices: dict[int, Json], choice: Json) -> None:
    only(choice, _CHUNK_CHOICE)
    index = choice.get("index")
    must(type(index) is int)
    silent: Json = {"role": "assistant", "content": None, "refusal": None}
    known = choices.setdefault(cast("int", index), {"index": index, "message": silent, "logprobs": None})
    message = known["message"]
    delta = as_object(choice.get("delta"))
    only(delta, _DELTA)
    message["role"] = delta.get("role") or message["role"]
    for name in _TEXTS:
        said = delta.get(name)
        if said is not None:
            must(isinstance(said, str))
            message[name] = (message.get(name) or "") + said
    for call in objects(delta.get("tool_calls")):
        _add_call(message.setdefault("tool_calls", []), call)
    logprobs = as_object(choice.get("logprobs"))
    only(logprobs, frozenset({"content", "refusal"}))
    if logprobs:
        told: Json = known["logprobs"] or {"content": None, "refusal": None}
        known["logprobs"] = told
        for name in ("content", "refusal"):
            if logprobs.get(name) is not None:
                told[name] = [*(told[name] or []), *objects(logprobs[name])]
    known["finish_reason"] = choice.get("finish_reason") or known.get("finish_reason")


def _add_call(calls: list[Json], call: Json) -> None:
    only(call, _CALL)
    index = call.get("index")
    must(type(index) is int and 0 <= index <= len(calls))
    if index == len(calls):
        calls.append({"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
    known = calls[cast("int", index)]
    must(call.get("id") in (None, known["id"]) and call.get("type") in (None, "function"))
    function = as_object(call.get("function"))
    only(function, _FUNCTION)
    for name in _FUNCTION:
        known["function"][name] += function.get(name) or ""


def _finished(choice: Json) -> Json:
    reason = choice.pop("finish_reason", None)
    must(reason)
    message = choice["message"]
    must(all(call["id"] and call["function"]["name"] for call in message.get("tool_calls", [])))
    if not message["content"] and (message.get("tool_calls") or message["refusal"]):
        message["content"] = None
    return {**choice, "finish_reason": reason}


# -- plain to stream -----------------------------------------------------------------------------------


def stream_from_plain(body: bytes, *, with_usage: bool) -> bytes:
    """A stream with the same content.

    Args:
        body: the plain answer.
        with_usage: the caller asked for `stream_options={"include_usage": true}`.

    Raises:
        LossyError: when it would not be the same.
    """
    answer = as_object(json.loads(body))
    only(answer, _ANSWER)
    head = {**_first(answer), "object": "chat.completion.chunk", **_last(answer)}
    extra: Json = {"usage": None} if with_usage else {}
    made: list[Json] = []
    choices = objects(answer.get("choices"))
    must(choices)
    for choice in choices:
        only(choice, _CHOICE)
        must(type(choice.get("index")) is int and choice.get("finish_reason"))
        for delta, logprobs in _deltas(choice):
            part = {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": None}
            made.append({**head, "choices": [part], **extra})
    for choice in choices:
        reason = choice["finish_reason"]
        one: Json = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": reason}
        made.append({**head, "choices": [one], **extra})
    if with_usage:
        must(answer.get("usage"))
        made.append({**head, "choices": [], "usage": answer["usage"]})
    return b"".join(b"data: %b\n\n" % dumped(one) for one in made) + b"data: [DONE]\n\n"


def _deltas(choice: Json) -> list[tuple[Json, Any]]:
    message = as_object(choice.get("message"))
    only(message, _DELTA)
    role = message.get("role") or "assistant"
    made: list[tuple[Json, Any]] = []
    logprobs = choice.get("logprobs")
    for name in _TEXTS:
        said = message.get(name)
        if said is None:
            continue
        must(isinstance(said, str))
        if logprobs:  # they belong to tokens, and where those end is not told
            made.append(({name: said}, logprobs))
            logprobs = None
        else:
            made += [({name: piece}, None) for piece in words(said)]
    must(not logprobs)
    for index, call in enumerate(objects(message.get("tool_calls"))):
        only(call, _CALL - {"index"})
        must(call.get("type") == "function" and call.get("id"))
        function = as_object(call.get("function"))
        only(function, _FUNCTION)
        start = {"index": index, "id": call["id"], "type": "function",
                 "function": {"name": function.get("name"), "arguments": ""}}  # fmt: skip
        rest = {"index": index, "function": {"arguments": function.get("arguments") or ""}}
        made += [({"tool_calls": [start]}, None), ({"tool_calls": [rest]}, None)]
    empty = None if message.get("content") is None else ""
    return [({"role": role, "content": empty, "refusal": None}, None), *made]


# -- fewer choices -------------------------------------------------------------------------------------


def fewer_choices(body: bytes, count: int) -> bytes:
    """The first choices of a plain answer. Its usage stays that of all of them.

    Raises:
        LossyError: when it has not that many.
    """
    answer = as_object(json.loads(body))
    choices = {choice.get("index"): choice for choice in objects(answer.get("choices"))}
    must(all(index in choices for index in range(count)))
    return dumped({**answer, "choices": [choices[index] for index in range(count)]})
