"""Which function a path means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from askonce.testing._provider import (
    anthropic,
    chat,
    cohere,
    gemini,
    huggingface,
    lines,
    media,
    responses,
    vectors,
)
from askonce.testing._provider.answers import (
    Answer,
    Ask,
    BadRequestError,
    distort,
    error_answer,
    error_object,
    json_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDPOINTS: dict[str, Callable[[Ask], Answer]] = {
    "chat/completions": chat.chat,
    "completions": chat.completions,
    "responses": responses.responses,
    "embeddings": vectors.embeddings,
    "moderations": vectors.moderations,
    "images/generations": media.images,
    "images/edits": media.images,
    "images/variations": media.images,
    "audio/speech": media.speech,
    "audio/transcriptions": media.transcriptions,
    "audio/translations": media.transcriptions,
    "fim/completions": chat.fim,
    "messages": anthropic.messages,
    "messages/count_tokens": anthropic.count_tokens,
    ":generateContent": gemini.generate,
    ":streamGenerateContent": gemini.stream_generate,
    ":embedContent": gemini.embed,
    ":batchEmbedContents": gemini.batch_embed,
    ":countTokens": gemini.count_tokens,
    "v1/chat": cohere.chat_v1,
    "v2/chat": cohere.chat,
    "v1/embed": cohere.embed,
    "v2/embed": cohere.embed,
    "rerank": cohere.rerank,
    "api/chat": lines.ollama_chat,
    "api/generate": lines.ollama_generate,
    "api/embed": lines.ollama_embed,
    "api/embeddings": lines.ollama_embeddings,
    "pipeline/feature-extraction": huggingface.features,
    "hf-inference": huggingface.generate,
}

_MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "omni-moderation-latest")


def endpoint_of(path: str) -> str:
    """The endpoint that a path ends in, under whatever prefix; empty when it is none."""
    segments = path.rstrip("/").split("/")
    for length in (2, 1):
        name = "/".join(segments[-length:])
        if name in _ENDPOINTS:
            return name
    method = ":" + segments[-1].rpartition(":")[2]
    if method in _ENDPOINTS:  # Google's methods stand behind the model
        return method
    if "models" in segments[-3:-1] and "hf-inference" in segments:
        return "hf-inference"
    if "models" in segments[-2:]:
        return "models"
    return ""


def is_endpoint(name: str) -> bool:
    """Whether `name` is an endpoint's own name, such as "completions"."""
    return name in _ENDPOINTS


def answer(ask: Ask) -> Answer:
    """The answer to a request, faults in its content included."""
    fault = ask.fault
    if fault.status >= 400:  # noqa: PLR2004 - errors start here
        return distort(error_answer(fault.status), fault)
    if fault.error_body:
        return distort(json_answer(error_object(500)), fault)
    try:
        return distort(_good_answer(ask), fault)
    except BadRequestError as error:
        return error_answer(400, str(error))


def _good_answer(ask: Ask) -> Answer:
    method, endpoint = ask.record.method, ask.record.endpoint
    if endpoint == "models" and method == "GET":
        return _models(ask)
    if endpoint not in _ENDPOINTS:
        return error_answer(404, f"Invalid URL ({method} to a path the fake provider does not know).")
    if method != "POST":
        return error_answer(405, f"Not allowed to {method} on this endpoint.")
    return _ENDPOINTS[endpoint](ask)


def _models(ask: Ask) -> Answer:
    tail = ask.record.path.rstrip("/").rpartition("/")[2]
    if tail != "models":
        return json_answer({"id": tail, "object": "model", "created": ask.created, "owned_by": "fake"})
    models = [{"id": name, "object": "model", "created": ask.created, "owned_by": "fake"} for name in _MODELS]
    return json_answer({"object": "list", "data": models})
