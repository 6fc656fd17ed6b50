"""Which requests any deployment of a model may answer, and what is asked in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal, cast

from askonce.doors import asked, content_of

_ENDPOINTS: Final[tuple[tuple[str, Literal["anthropic", "openai"]], ...]] = (
    ("/v1/messages", "anthropic"),
    ("/chat/completions", "openai"),
    ("/responses", "openai"),
)
_HELD: Final = ("previous_response_id", "conversation", "container")
"""Fields that name what one deployment holds."""
_HELD_INSIDE: Final = (
    b'"file_id"', b'"vector_store_ids"', b'"item_reference"',
    b'"audio"', b'"code_execution_',  # the answer is held there, and the next request refers to it
)  # fmt: skip
_SEALED: Final = b"encrypted_content"


@dataclass(frozen=True, slots=True)
class Question:
    """A request that any deployment may answer.

    Attributes:
        native: the program's own request.
        endpoint: the end of its path.
        provider: whose protocol it speaks.
        body: what is sent.
        prompt: the same as JSON.
        scope: a digest of who asks.
    """

    native: Any
    endpoint: str
    provider: Literal["anthropic", "openai"]
    body: bytes
    prompt: Mapping[str, Any]
    scope: str


def question_of(native: Any) -> Question | None:
    """The question in a request; None for one that only the place the program named may answer.

    Those are: other endpoints; bodies that are no plain JSON; what refers to files, containers or earlier
    responses; and responses that the provider is to store, which is its default, since only it can be
    asked about them later.
    """
    if native.method != "POST" or "content-encoding" in native.headers:
        return None
    found = next((one for one in _ENDPOINTS if native.url.path.endswith(one[0])), None)
    body = content_of(native) if found is not None else None
    if found is None or not body or any(word in body for word in _HELD_INSIDE):
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    prompt = cast("dict[str, Any]", value)
    if any(prompt.get(name) is not None for name in _HELD) or _stays(found[0], prompt, body):
        return None
    who = blake2b(asked(native, None).credentials(), digest_size=16).hexdigest()
    return Question(native, found[0], found[1], body, prompt, who)


def _stays(endpoint: str, prompt: Mapping[str, Any], body: bytes) -> bool:
    if endpoint == "/responses":
        # Reasoning that comes back sealed can be opened only where it was sealed.
        return prompt.get("store") is not False or _SEALED in body or "prompt" in prompt
    return prompt.get("store") is True
