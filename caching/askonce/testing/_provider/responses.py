"""The Responses API, plain and as its full sequence of events."""

from __future__ import annotations

import itertools
from typing import Any

from askonce.testing._provider.answers import Answer, Ask, Json, event_answer, json_answer, typed_event
from askonce.testing._provider.drafting import (
    Draft,
    ToolCall,
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

# Fields that an answer repeats from the request, with the value it shows when they were not sent.
_ECHOED: Json = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def responses(ask: Ask) -> Answer:
    """POST responses."""
    one = draft(ask, wants=_wants(ask.body))
    status = _status(ask, one)
    if not ask.streaming:
        return json_answer(_response(ask, one, status))
    events = _Events(ask, one, status)
    return event_answer(events.all(), error_event=events.error())


def _wants(body: Json) -> Wants:
    functions = [
        tool for tool in map(as_object, as_list(body.get("tools"))) if tool.get("type") == "function"
    ]
    form = as_object(as_object(body.get("text")).get("format"))
    schema: Json | None = None
    if form.get("type") == "json_schema":
        schema = as_object(form.get("schema"))
    elif form.get("type") == "json_object":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return Wants(
        functions=chosen_functions(functions, body.get("tool_choice"), last_user_text(body.get("input"))),
        schema=schema,
    )


def _status(ask: Ask, one: Draft) -> str:
    if ask.fault.response_status is not None:
        return ask.fault.response_status
    if one.finish_reason in {"length", "content_filter"}:
        return "incomplete"
    return "queued" if ask.body.get("background") is True else "completed"


def _items(ask: Ask, one: Draft, status: str) -> list[Json]:
    """The output: one message, or one item per function call."""
    if one.tool_calls:
        return [_call_item(call, status) for call in one.tool_calls]
    if one.refusal is None and not one.text:
        return []
    return [
        {
            "id": f"msg_{ask.number}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_part(one)],
        }
    ]


def _call_item(call: ToolCall, status: str) -> Json:
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _part(one: Draft) -> Json:
    if one.refusal is not None:
        return {"type": "refusal", "refusal": one.refusal}
    return {"type": "output_text", "text": one.text, "annotations": [], "logprobs": []}


def _response(ask: Ask, one: Draft, status: str) -> Json:
    settled = status in {"completed", "incomplete"}
    reason = "content_filter" if one.finish_reason == "content_filter" else "max_output_tokens"
    echoed = {
        key: default if ask.body.get(key) is None else ask.body[key] for key, default in _ECHOED.items()
    }
    return {
        "id": f"resp_{ask.number}",
        "object": "response",
        "created_at": ask.created,
        "completed_at": ask.created + 1 if status == "completed" else None,
        "status": status,
        "model": ask.model,
        "error": {"code": "server_error", "message": "The fake provider was told to fail."}
        if status == "failed"
        else None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "output": _items(ask, one, status) if settled else [],
        **echoed,
        "usage": _usage(ask, one) if settled else None,
    }


def _usage(ask: Ask, one: Draft) -> Json:
    asked = tokens(" ".join((*texts(ask.body.get("instructions")), *texts(ask.body.get("input"))))) + 7
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": one.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + one.tokens,
    }


class _Events:
    """The events of one answer, numbered in order."""

    def __init__(self, ask: Ask, one: Draft, status: str) -> None:
        self._ask = ask
        self._one = one
        self._status = status
        self._sequence = itertools.count()

    def all(self) -> list[bytes]:
        ask, one, status = self._ask, self._one, self._status
        events = [
            self._event(f"response.{name}", response=_response(ask, one, "in_progress"))
            for name in ("created", "in_progress")
        ]
        if status in {"completed", "incomplete"}:
            for position, item in enumerate(_items(ask, one, status)):
                events += self._item(position, item)
        if status not in {"queued", "in_progress"}:
            # A cancelled response has no event of its own in the protocol: the stream fails.
            name = "failed" if status == "cancelled" else status
            events.append(self._event(f"response.{name}", response=_response(ask, one, status)))
        return events

    def error(self) -> bytes:
        return self._event(
            "error", code="server_error", message="The fake provider was told to fail.", param=None
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        return typed_event(kind, **fields, sequence_number=next(self._sequence))

    def _item(self, position: int, item: Json) -> list[bytes]:
        where: Json = {"item_id": item["id"], "output_index": position}
        is_call = item["type"] == "function_call"
        started: Json = {
            **item,
            "status": "in_progress",
            **({"arguments": ""} if is_call else {"content": []}),
        }
        # One after the other: each event takes the next sequence number when it is made.
        added = self._event("response.output_item.added", output_index=position, item=started)
        inner = self._arguments(where, item) if is_call else self._content({**where, "content_index": 0})
        return [added, *inner, self._event("response.output_item.done", output_index=position, item=item)]

    def _arguments(self, where: Json, item: Json) -> list[bytes]:
        kind = "response.function_call_arguments"
        return [
            *(self._event(f"{kind}.delta", **where, delta=piece) for piece in fragments(item["arguments"])),
            self._event(f"{kind}.done", **where, name=item["name"], arguments=item["arguments"]),
        ]

    def _content(self, where: Json) -> list[bytes]:
        one = self._one
        part = _part(one)
        if one.refusal is None:
            kind, key, said, extra = "response.output_text", "text", one.text, {"logprobs": list[Any]()}
        else:
            kind, key, said, extra = "response.refusal", "refusal", one.refusal, {}
        return [
            self._event("response.content_part.added", **where, part={**part, key: ""}),
            *(self._event(f"{kind}.delta", **where, delta=piece, **extra) for piece in pieces(said)),
            self._event(f"{kind}.done", **where, **{key: said}, **extra),
            self._event("response.content_part.done", **where, part=part),
        ]
