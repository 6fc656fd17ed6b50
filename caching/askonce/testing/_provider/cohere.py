"""Cohere: version 2 with typed events, version 1 with lines, embeddings and reranking."""

from __future__ import annotations

from askonce.testing._provider.answers import DONE, Answer, Ask, Json, event_answer, json_answer, typed_event
from askonce.testing._provider.drafting import (
    Draft,
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
from askonce.testing._provider.lines import line_answer
from askonce.testing._provider.vectors import embedding_of

_REASONS = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
}


def chat(ask: Ask) -> Answer:
    """POST v2/chat."""
    offered = [as_object(as_object(tool).get("function")) for tool in as_list(ask.body.get("tools"))]
    choice = "required" if ask.body.get("tool_choice") == "REQUIRED" else None
    chosen = chosen_functions(offered, choice, last_user_text(ask.body.get("messages")))
    said = draft(ask, wants=Wants(functions=chosen))
    text = said.refusal or said.text
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in said.tool_calls
    ]
    name = f"cohere-{ask.number}"
    reason = _reason(said)
    usage = _usage(ask, said)
    if not ask.streaming:
        message: Json = {"role": "assistant"}
        if text:
            message["content"] = [{"type": "text", "text": text}]
        if calls:
            message |= {"tool_plan": "I will use a tool.", "tool_calls": calls}
        return json_answer({"id": name, "finish_reason": reason, "message": message, "usage": usage})
    events = [_event("message-start", {"role": "assistant", "content": [], "tool_calls": []}, id=name)]
    if text:
        events.append(_event("content-start", {"content": {"type": "text", "text": ""}}, index=0))
        events += [_event("content-delta", {"content": {"text": piece}}, index=0) for piece in pieces(text)]
        events.append(typed_event("content-end", index=0))
    for index, call in enumerate(calls):
        events += [
            _event("tool-call-start", {"tool_calls": call}, index=index),
            typed_event("tool-call-end", index=index),
        ]
    events.append(typed_event("message-end", delta={"finish_reason": reason, "usage": usage}))
    return event_answer([*events, DONE])


def chat_v1(ask: Ask) -> Answer:
    """POST v1/chat."""
    said = draft(ask, wants=Wants())
    answer: Json = {
        "response_id": f"r-{ask.number}",
        "generation_id": f"g-{ask.number}",
        "text": said.refusal or said.text,
        "chat_history": [],
        "finish_reason": _reason(said),
        "meta": _usage(ask, said),
    }
    if not ask.streaming:
        return json_answer(answer)
    lines: list[Json] = [
        {"is_finished": False, "event_type": "stream-start", "generation_id": f"g-{ask.number}"},
        *(
            {"is_finished": False, "event_type": "text-generation", "text": piece}
            for piece in pieces(answer["text"])
        ),
        {
            "is_finished": True,
            "event_type": "stream-end",
            "finish_reason": _reason(said),
            "response": answer,
        },
    ]
    return line_answer(lines, "application/stream+json")


def embed(ask: Ask) -> Answer:
    """POST v1/embed and v2/embed."""
    said = [str(text) for text in as_list(ask.body.get("texts"))]
    vectors = [embedding_of(text, dimensions=256) for text in said]
    spent = sum(map(tokens, said))
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": spent}}
    kinds = as_list(ask.body.get("embedding_types"))
    embeddings = {str(kind): vectors for kind in kinds} if kinds else vectors
    kind = "embeddings_by_type" if kinds else "embeddings_floats"
    return json_answer({
        "id": f"e-{ask.number}", "texts": said, "embeddings": embeddings, "response_type": kind, "meta": meta,
    })  # fmt: skip


def rerank(ask: Ask) -> Answer:
    """POST rerank: the longer a document, the better it is."""
    documents = [next(iter(texts(one)), "") for one in as_list(ask.body.get("documents"))]
    order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))
    results = [{"index": index, "relevance_score": 1 / (2 + place)} for place, index in enumerate(order)]
    return json_answer({
        "id": f"rr-{ask.number}", "results": results, "meta": {"billed_units": {"search_units": 1}},
    })  # fmt: skip


def _event(kind: str, message: Json, **fields: object) -> bytes:
    return typed_event(kind, **fields, delta={"message": message})


def _reason(said: Draft) -> str:
    return _REASONS.get(said.finish_reason, said.finish_reason)


def _usage(ask: Ask, said: Draft) -> Json:
    asked = " ".join((*texts(ask.body.get("messages")), str(ask.body.get("message") or "")))
    counted = {"input_tokens": tokens(asked) + 7, "output_tokens": said.tokens}
    return {"billed_units": counted, "tokens": {**counted, "input_tokens": counted["input_tokens"] + 60}}
