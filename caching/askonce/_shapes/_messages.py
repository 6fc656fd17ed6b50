"""Anthropic's messages: the streamed answer as a plain one, and the other way round."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from askonce._shapes._chat import dumped, must, only, words
from askonce._sse import events
from askonce._surface import Json, as_object, objects

_MESSAGE: Final = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
)
# Of each kind of block: the field that is streamed, and the delta that streams it.
_STREAMED: Final = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}
_BLOCKS: Final = {
    "text": frozenset({"type", "text", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}


def plain_from_stream(body: bytes) -> bytes:
    """The plain answer.

    Raises:
        LossyError: when it would not be the same.
    """
    message: Json = {}
    blocks: list[Json] = []
    inputs: dict[int, str] = {}
    for _, data in events(body):
        event = as_object(json.loads(data))
        kind = event.get("type")
        if kind == "message_start":
            must(not message)
            message = as_object(event.get("message"))
            must(message.get("content") == [])
        elif kind == "content_block_start":
            must(event.get("index") == len(blocks))
            block = dict(as_object(event.get("content_block")))
            must(block.get("type") in _BLOCKS)
            only(block, _BLOCKS[block["type"]])
            blocks.append(block)
        elif kind == "content_block_delta":
            index = event.get("index")
            must(index == len(blocks) - 1)
            _extend(blocks[-1], as_object(event.get("delta")), inputs, len(blocks) - 1)
        elif kind == "message_delta":
            delta = as_object(event.get("delta"))
            only(delta, frozenset({"stop_reason", "stop_sequence"}))
            told = {name: value for name, value in as_object(event.get("usage")).items() if value is not None}
            message = {**message, **delta, "usage": {**as_object(message.get("usage")), **told}}
        else:
            must(kind in ("ping", "content_block_stop", "message_stop"))
    must(message.get("stop_reason") and blocks)
    for index, said in inputs.items():
        blocks[index]["input"] = json.loads(said) if said else {}
    return dumped({**message, "content": blocks})


def _extend(block: Json, delta: Json, inputs: dict[int, str], index: int) -> None:
    kind = delta.get("type")
    if kind == "input_json_delta":
        must(block["type"] == "tool_use")
        inputs[index] = inputs.get(index, "") + cast("str", delta.get("partial_json"))
    elif kind == "signature_delta":
        must(block["type"] == "thinking")
        block["signature"] = delta.get("signature")
    elif kind == "citations_delta":
        must(block["type"] == "text")
        block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
    else:
        name, expected = _STREAMED.get(block["type"], ("", ""))
        must(expected and kind == expected)
        block[name] = cast("str", block.get(name)) + cast("str", delta.get(name))


def stream_from_plain(body: bytes) -> bytes:
    """A stream with the same content, cut into words.

    Raises:
        LossyError: when it would not be the same.
    """
    answer = as_object(json.loads(body))
    only(answer, _MESSAGE)
    must(answer.get("stop_reason") and answer.get("type") == "message")
    usage = as_object(answer.get("usage"))
    start: Json = {**answer, "content": [], "stop_reason": None, "stop_sequence": None,
             "usage": {**usage, "output_tokens": min(1, usage.get("output_tokens") or 0)}}  # fmt: skip
    made = [_event("message_start", message=start)]
    for index, block in enumerate(objects(answer.get("content"))):
        must(block.get("type") in _BLOCKS)
        only(block, _BLOCKS[block["type"]])
        begin, deltas = _block(block)
        made.append(_event("content_block_start", index=index, content_block=begin))
        made += [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        made.append(_event("content_block_stop", index=index))
    end = {"stop_reason": answer["stop_reason"], "stop_sequence": answer.get("stop_sequence")}
    made.append(_event("message_delta", delta=end, usage={"output_tokens": usage.get("output_tokens") or 0}))
    made.append(_event("message_stop"))
    return b"".join(made)


def _block(block: Json) -> tuple[Json, list[Json]]:
    kind = block["type"]
    if kind == "tool_use":
        said = dumped(block.get("input") or {}).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": said}]
    if kind == "redacted_thinking":
        return block, []
    name, delta = _STREAMED[kind]
    text = block.get(name)
    must(isinstance(text, str))
    deltas: list[Json] = [{"type": delta, name: piece} for piece in words(cast("str", text))]
    if kind == "thinking":
        deltas.append({"type": "signature_delta", "signature": block.get("signature")})
        return {**block, "thinking": "", "signature": ""}, deltas
    citations: list[Any] = block.get("citations") or []
    deltas += [{"type": "citations_delta", "citation": one} for one in citations]
    return {**block, "text": "", **({"citations": []} if citations else {})}, deltas


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumped({"type": kind, **fields}))
