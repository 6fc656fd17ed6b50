"""Chat completions and the older plain completions."""

from __future__ import annotations

from typing import Any

from askonce.testing._provider.answers import DONE, Answer, Ask, Json, event, event_answer, json_answer
from askonce.testing._provider.drafting import (
    Draft,
    Wants,
    as_list,
    as_object,
    chosen_functions,
    draft,
    fragments,
    last_user_text,
    pieces,
    text,
    texts,
    tokens,
)


def chat(ask: Ask) -> Answer:
    """POST chat/completions."""
    wants = _wants(ask.body)
    drafts = [draft(ask, wants=wants, index=index) for index in range(ask.count)]
    head = {
        "id": f"chatcmpl-{ask.number}",
        "object": "chat.completion",
        "created": ask.created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }
    usage = _usage(" ".join(texts(ask.body.get("messages"))), sum(one.tokens for one in drafts))
    if ask.streaming:
        return _chat_stream(ask, {**head, "object": "chat.completion.chunk"}, drafts, usage)
    choices = [
        {
            "index": index,
            "message": _message(one),
            "logprobs": None,
            "finish_reason": one.finish_reason,
        }
        for index, one in enumerate(drafts)
    ]
    return json_answer({**head, "choices": choices, "usage": usage})


def fim(ask: Ask) -> Answer:
    """POST fim/completions, Mistral's: asked like a completion, answered like a chat."""
    return chat(ask)


def completions(ask: Ask) -> Answer:
    """POST completions."""
    prompt = ask.body.get("prompt")
    # A list of texts or of token lists is one prompt each; a list of numbers is one prompt.
    prompts = as_list(prompt)
    several = any(isinstance(one, (str, list)) for one in prompts)
    count = ask.count * (len(prompts) if several else 1)
    said = [text(ask, index=index) for index in range(count)]
    finish = ask.fault.finish_reason or "stop"
    head = {
        "id": f"cmpl-{ask.number}",
        "object": "text_completion",
        "created": ask.created,
        "model": ask.model,
    }
    usage = _usage(" ".join(texts(prompt)), sum(map(tokens, said)))

    def choice(index: int, words: str, finish_reason: str | None) -> Json:
        return {"index": index, "text": words, "logprobs": None, "finish_reason": finish_reason}

    if not ask.streaming:
        return json_answer(
            {
                **head,
                "choices": [choice(index, words, finish) for index, words in enumerate(said)],
                "usage": usage,
            }
        )
    events = [
        event({**head, "choices": [choice(index, piece, None)]})
        for index, words in enumerate(said)
        for piece in pieces(words)
    ]
    events += [event({**head, "choices": [choice(index, "", finish)]}) for index in range(count)]
    if _include_usage(ask):
        events.append(event({**head, "choices": [], "usage": usage}))
    return event_answer([*events, DONE])


def _wants(body: Json) -> Wants:
    functions = [
        as_object(tool.get("function"))
        for tool in map(as_object, as_list(body.get("tools")))
        if "function" in tool
    ]
    form = as_object(body.get("response_format"))
    schema: Json | None = None
    if form.get("type") == "json_schema":
        schema = as_object(as_object(form.get("json_schema")).get("schema"))
    elif form.get("type") == "json_object":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return Wants(
        functions=chosen_functions(functions, body.get("tool_choice"), last_user_text(body.get("messages"))),
        schema=schema,
    )


def _message(one: Draft) -> Json:
    silent = bool(one.tool_calls) or one.refusal is not None
    message: Json = {
        "role": "assistant",
        "content": None if silent else one.text,
        "refusal": one.refusal,
        "annotations": [],
    }
    if one.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in one.tool_calls
        ]
    return message


def _chat_stream(ask: Ask, head: Json, drafts: list[Draft], usage: Json) -> Answer:
    with_usage = _include_usage(ask)
    # The real API puts a null into every chunk before the one that has the figures.
    extra: Json = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **extra})

    events: list[bytes] = []
    if "/deployments/" in ask.record.path:
        # Azure reports on the prompt first, in a chunk without choices.
        events.append(event({**head, "choices": [], "prompt_filter_results": []}))
    for index, one in enumerate(drafts):
        events += [chunk(index, delta) for delta in _deltas(one)]
    events += [chunk(index, {}, one.finish_reason) for index, one in enumerate(drafts)]
    if with_usage:
        events.append(event({**head, "choices": [], "usage": usage}))
    return event_answer([*events, DONE])


def _deltas(one: Draft) -> list[Json]:
    if one.refusal is not None:
        return [
            {"role": "assistant", "content": "", "refusal": None},
            *({"refusal": piece} for piece in pieces(one.refusal)),
        ]
    if not one.tool_calls:
        return [
            {"role": "assistant", "content": "", "refusal": None},
            *({"content": piece} for piece in pieces(one.text)),
        ]
    deltas: list[Json] = [{"role": "assistant", "content": None}]
    for position, call in enumerate(one.tool_calls):
        function: Json = {"name": call.name, "arguments": ""}
        deltas.append(
            {"tool_calls": [{"index": position, "id": call.id, "type": "function", "function": function}]}
        )
        deltas += [
            {"tool_calls": [{"index": position, "function": {"arguments": piece}}]}
            for piece in fragments(call.arguments)
        ]
    return deltas


def _include_usage(ask: Ask) -> bool:
    return bool(as_object(ask.body.get("stream_options")).get("include_usage"))


def _usage(prompt: str, output: int) -> dict[str, Any]:
    # A few tokens frame every prompt, even an empty one.
    asked = tokens(prompt) + 7
    return {
        "prompt_tokens": asked,
        "completion_tokens": output,
        "total_tokens": asked + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
