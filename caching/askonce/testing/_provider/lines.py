"""Streams of one JSON object a line, and the providers whose answers are such: Ollama."""

from __future__ import annotations

import orjson

from askonce.testing._provider.answers import Answer, Ask, Json, error_object, json_answer
from askonce.testing._provider.drafting import (
    Wants,
    as_list,
    as_object,
    chosen_functions,
    draft,
    last_user_text,
    pieces,
    texts,
    tokens,
)
from askonce.testing._provider.vectors import embedding_of

_REASONS = {"tool_calls": "stop", "content_filter": "stop"}
_WHEN = "2026-01-01T00:00:00.{:06d}Z"


def line_answer(lines: list[Json], content_type: str = "application/x-ndjson") -> Answer:
    """A stream of lines, each written and flushed by itself."""
    return Answer(
        pieces=tuple(orjson.dumps(line) + b"\n" for line in lines),
        content_type=content_type,
        streamed=True,
        error_event=orjson.dumps(error_object(500)) + b"\n",
    )


def ollama_chat(ask: Ask) -> Answer:
    """POST api/chat."""
    functions = [as_object(as_object(tool).get("function")) for tool in as_list(ask.body.get("tools"))]
    chosen = chosen_functions(functions, None, last_user_text(ask.body.get("messages")))
    said = draft(ask, wants=Wants(functions=chosen))
    calls: list[Json] = [
        {"function": {"name": call.name, "arguments": call.parsed()}} for call in said.tool_calls
    ]
    asked = " ".join(texts(ask.body.get("messages")))
    text = said.refusal or said.text

    def message(content: str, calls: list[Json]) -> Json:
        more: Json = {"tool_calls": calls} if calls else {}
        return {"message": {"role": "assistant", "content": content, **more}}

    end = _end(ask, asked, said.tokens, said.finish_reason)
    if ask.body.get("stream") is False:
        return json_answer({**_head(ask), **message(text, calls), **end})
    bits = [message(piece, []) for piece in pieces(text)] or [message("", calls)]
    lines = [{**_head(ask), **bit, "done": False} for bit in bits]
    return line_answer([*lines, {**_head(ask), **message("", []), **end}])


def ollama_generate(ask: Ask) -> Answer:
    """POST api/generate. Without a prompt it only loads the model."""
    prompt = str(ask.body.get("prompt") or "")
    if not prompt:
        return json_answer({**_head(ask), "response": "", "done": True, "done_reason": "load"})
    said = draft(ask, wants=Wants())
    end = _end(ask, prompt, said.tokens, said.finish_reason)
    if ask.body.get("stream") is False:
        return json_answer({**_head(ask), "response": said.text, **end})
    lines: list[Json] = [{**_head(ask), "response": piece, "done": False} for piece in pieces(said.text)]
    return line_answer([*lines, {**_head(ask), "response": "", **end}])


def ollama_embed(ask: Ask) -> Answer:
    """POST api/embed."""
    given = ask.body.get("input")
    items = [given] if isinstance(given, str) else [str(item) for item in as_list(given)]
    return json_answer({
        "model": ask.model,
        "embeddings": [embedding_of(item, dimensions=256) for item in items],
        "prompt_eval_count": sum(map(tokens, items)),
    })  # fmt: skip


def ollama_embeddings(ask: Ask) -> Answer:
    """POST api/embeddings, the older one."""
    return json_answer({"embedding": embedding_of(str(ask.body.get("prompt")), dimensions=256)})


def _head(ask: Ask) -> Json:
    return {"model": ask.model, "created_at": _WHEN.format(ask.number % 1_000_000)}


def _end(ask: Ask, asked: str, written: int, reason: str) -> Json:
    return {
        "done": True,
        "done_reason": _REASONS.get(reason, reason),
        "total_duration": 5_000_000 + ask.number,
        "prompt_eval_count": tokens(asked) + 7,
        "eval_count": written,
    }
