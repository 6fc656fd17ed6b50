"""Google's Gemini: the model and the method in the path, and a stream that ends without saying so."""

from __future__ import annotations

from urllib.parse import parse_qs

from askonce.testing._provider.answers import Answer, Ask, Json, event, event_answer, json_answer
from askonce.testing._provider.drafting import (
    Draft,
    Wants,
    as_list,
    as_object,
    chosen_functions,
    draft,
    pieces,
    texts,
    tokens,
)
from askonce.testing._provider.vectors import embedding_of

_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
_MODES = {"ANY": "required", "NONE": "none"}


def generate(ask: Ask) -> Answer:
    """POST models/...:generateContent."""
    said = _written(ask)
    return json_answer({
        "candidates": [_candidate(_parts(said), _reason(said))] if not ask.fault.refusal else [],
        **({"promptFeedback": {"blockReason": "SAFETY"}} if ask.fault.refusal else {}),
        **_foot(ask, said),
    })  # fmt: skip


def stream_generate(ask: Ask) -> Answer:
    """POST models/...:streamGenerateContent, as events with `alt=sse` and as one JSON list without."""
    said = _written(ask)
    bits: list[list[Json]] = [[{"text": piece}] for piece in pieces(said.text)] or [_parts(said)]
    chunks: list[Json] = [{"candidates": [_candidate(bit, None)], **_foot(ask, said)} for bit in bits[:-1]]
    chunks.append({"candidates": [_candidate(bits[-1], _reason(said))], **_foot(ask, said)})
    if parse_qs(ask.record.query).get("alt") != ["sse"]:
        return json_answer(chunks)
    return event_answer([event(chunk) for chunk in chunks])


def embed(ask: Ask) -> Answer:
    """POST models/...:embedContent."""
    return json_answer({"embedding": _vector(ask.body)})


def batch_embed(ask: Ask) -> Answer:
    """POST models/...:batchEmbedContents."""
    return json_answer({"embeddings": [_vector(as_object(one)) for one in as_list(ask.body.get("requests"))]})


def count_tokens(ask: Ask) -> Answer:
    """POST models/...:countTokens."""
    return json_answer({"totalTokens": _read(ask)})


def _vector(request: Json) -> Json:
    said = " ".join(_texts(request.get("content")))
    size = request.get("outputDimensionality") or request.get("output_dimensionality") or 768
    return {"values": embedding_of(said, dimensions=int(size))}


def _texts(content: object) -> list[str]:
    return list(texts(as_object(content).get("parts")))


def _read(ask: Ask) -> int:
    said = [text for content in as_list(ask.body.get("contents")) for text in _texts(content)]
    return tokens(" ".join(said)) + 7


def _written(ask: Ask) -> Draft:
    offered = [
        {"name": one.get("name"), "parameters": one.get("parameters") or one.get("parametersJsonSchema")}
        for tool in map(as_object, as_list(ask.body.get("tools")))
        for one in map(as_object, as_list(tool.get("functionDeclarations")))
    ]
    config = as_object(as_object(ask.body.get("toolConfig")).get("functionCallingConfig"))
    last = as_object(next(iter(as_list(ask.body.get("contents"))[-1:]), None))
    schema = as_object(as_object(ask.body.get("generationConfig")).get("responseJsonSchema"))
    chosen = chosen_functions(offered, _MODES.get(str(config.get("mode"))), " ".join(_texts(last)))
    return draft(ask, wants=Wants(functions=chosen, schema=schema or None))


def _parts(said: Draft) -> list[Json]:
    if said.tool_calls:
        return [{"functionCall": {"name": call.name, "args": call.parsed()}} for call in said.tool_calls]
    return [{"text": said.text}]


def _reason(said: Draft) -> str:
    return _REASONS.get(said.finish_reason, said.finish_reason)


def _candidate(parts: list[Json], reason: str | None) -> Json:
    end: Json = {} if reason is None else {"finishReason": reason}
    return {"content": {"parts": parts, "role": "model"}, **end, "index": 0}


def _foot(ask: Ask, said: Draft) -> Json:
    read = _read(ask)
    return {
        "usageMetadata": {
            "promptTokenCount": read,
            "candidatesTokenCount": said.tokens,
            "totalTokenCount": read + said.tokens,
        },
        "modelVersion": ask.model,
        "responseId": f"gemini-{ask.number}",
    }
