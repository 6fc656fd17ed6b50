"""What an answer says, as a text: for judges, which compare two answers to similar questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import orjson

from askonce._entry import Entry
from askonce._sse import events
from askonce._surface import Json, objects


def said(entry: Entry) -> str | None:
    """The text of an answer, tool calls included; None where it cannot be read, or says nothing."""
    try:
        if entry.is_stream:
            chunks = [
                cast("Json", chunk)
                for _, data in events(entry.body)
                if not data.startswith(b"[DONE]") and isinstance(chunk := orjson.loads(data), dict)
            ]
            text = _streamed(chunks)
        else:
            answer = orjson.loads(entry.body)
            text = _whole(cast("Json", answer)) if isinstance(answer, dict) else ""
    except (ValueError, TypeError):
        return None
    return text.strip() or None


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A text, or those of a list of parts."""
    if isinstance(value, str):
        return value
    return "".join(_text(part.get("text")) for part in objects(value))


def _whole(answer: Json) -> str:
    """A whole answer: chat, plain completion, Responses, Anthropic, Gemini, Ollama, in this order."""
    found: list[str] = []
    for choice in objects(answer.get("choices")):
        found += [_message(_object(choice.get("message"))), _text(choice.get("text"))]
    for item in objects(answer.get("output")):
        found += [_text(item.get("content")), _call(item.get("name"), item.get("arguments"))]
    for block in objects(answer.get("content")):
        found += [_text(block.get("text")), _call(block.get("name"), block.get("input"))]
    for candidate in objects(answer.get("candidates")):
        for part in objects(_object(candidate.get("content")).get("parts")):
            call = _object(part.get("functionCall"))
            found += [_text(part.get("text")), _call(call.get("name"), call.get("args"))]
    found.append(_message(_object(answer.get("message"))))
    return "\n".join(filter(None, found))


def _message(message: Json) -> str:
    found = [_text(message.get("content"))]
    for call in objects(message.get("tool_calls")):
        function = _object(call.get("function"))
        found.append(_call(function.get("name"), function.get("arguments")))
    return "\n".join(filter(None, found))


def _call(name: Any, arguments: Any) -> str:
    if not isinstance(name, str):
        return ""
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except ValueError:
            return f"{name}({arguments})"
    return f"{name}({orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS).decode()})"


def _streamed(chunks: Iterable[Json]) -> str:
    """A stream's text, put together from what its chunks add."""
    texts: dict[str, str] = {}
    calls: dict[str, list[str]] = {}
    for chunk in chunks:
        kind = chunk.get("type")
        if kind in ("response.completed", "response.incomplete"):
            return _whole(_object(chunk.get("response")))
        for choice in objects(chunk.get("choices")):
            index = str(choice.get("index"))
            delta = _object(choice.get("delta"))
            texts[index] = texts.get(index, "") + _text(delta.get("content")) + _text(choice.get("text"))
            for call in objects(delta.get("tool_calls")):
                function = _object(call.get("function"))
                pair = calls.setdefault(f"{index}.{call.get('index')}", ["", ""])
                pair[0] += _text(function.get("name"))
                pair[1] += _text(function.get("arguments"))
        delta = _object(chunk.get("delta"))
        index = str(chunk.get("index"))
        if kind == "content_block_start":
            block = _object(chunk.get("content_block"))
            if block.get("type") == "tool_use":
                calls[index] = [_text(block.get("name")), ""]
        elif kind == "content_block_delta":
            texts[index] = texts.get(index, "") + _text(delta.get("text"))
            if index in calls:
                calls[index][1] += _text(delta.get("partial_json"))
        else:
            texts["whole"] = texts.get("whole", "") + ("" if chunk.get("choices") else _whole(chunk))
    return "\n".join(filter(None, [*texts.values(), *(_call(*pair) for pair in calls.values())]))
