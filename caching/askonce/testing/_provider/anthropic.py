"""Anthropic's Messages: thinking, tool use, and a stream of typed events with pings."""

from __future__ import annotations

from typing import Any

import orjson

from askonce.testing._provider.answers import Answer, Ask, Json, event_answer, json_answer, typed_event
from askonce.testing._provider.drafting import (
    Wants,
    as_list,
    as_object,
    chosen_functions,
    draft,
    fragments,
    last_user_text,
    pieces,
    texts,
    tokens,
)

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_CHOICES: dict[Any, str] = {"any": "required", "none": "none"}

# How a block begins in a stream.
_EMPTY: dict[str, Json] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}


def messages(ask: Ask) -> Answer:
    """POST messages."""
    blocks, reason = _written(ask)
    read = tokens(" ".join(texts([ask.body.get("system"), ask.body.get("messages")]))) + 7
    written = sum(tokens(str(block)) for block in blocks)
    usage = {
        "input_tokens": read,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": written,
        "service_tier": "standard",
    }
    message: Json = {
        "id": f"msg_{ask.number}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }
    if not ask.streaming:
        return json_answer(message)
    start: Json = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events = [typed_event("message_start", message=start)]
    for index, block in enumerate(blocks):
        events += _block_events(index, block)
        if index == 0:
            events.insert(2, typed_event("ping"))
    events += [
        typed_event(
            "message_delta",
            delta={"stop_reason": reason, "stop_sequence": None},
            usage={"output_tokens": written},
        ),
        typed_event("message_stop"),
    ]
    error = typed_event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    return event_answer(events, error_event=error)


def count_tokens(ask: Ask) -> Answer:
    """POST messages/count_tokens."""
    return json_answer({"input_tokens": tokens(" ".join(texts(ask.body.get("messages")))) + 7})


def _written(ask: Ask) -> tuple[list[Json], str]:
    choice = as_object(ask.body.get("tool_choice"))
    offered = [
        {"name": tool.get("name"), "parameters": tool.get("input_schema")}
        for tool in map(as_object, as_list(ask.body.get("tools")))
        if "input_schema" in tool
    ]
    kind = choice.get("type")
    chosen = choice if kind == "tool" else _CHOICES.get(kind)
    wants = Wants(functions=chosen_functions(offered, chosen, last_user_text(ask.body.get("messages"))))
    said = draft(ask, wants=wants)
    if said.refusal is not None:
        return [{"type": "text", "text": said.refusal}], "refusal"
    blocks: list[Json] = []
    if as_object(ask.body.get("thinking")).get("type") in ("enabled", "adaptive"):
        thought = f"Thought {ask.number} of foxes."
        blocks.append({"type": "thinking", "thinking": thought, "signature": f"sig{ask.number}"})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.parsed()}
        for call in said.tool_calls
    ]
    return blocks, _REASONS.get(said.finish_reason, said.finish_reason)


def _block_events(index: int, block: Json) -> list[bytes]:
    kind = block["type"]
    start = {**block, **_EMPTY.get(kind, {"input": {}})}
    deltas: list[Json]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    elif kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        whole = orjson.dumps(block["input"]).decode()
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *fragments(whole))]
    return [
        typed_event("content_block_start", index=index, content_block=start),
        *(typed_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        typed_event("content_block_stop", index=index),
    ]
