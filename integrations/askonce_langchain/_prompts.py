"""What LangChain hands a cache, made canonical: the prompt, and what stands for the model.

Both come as texts. A prompt is a list of messages with their bookkeeping; what stands for the model holds
time-outs and credentials' names beside what changes the answer, and reprs of whatever was passed along. What
is left here is what decides the answer; where a repr hides that, there is no key.
"""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

Json: TypeAlias = dict[str, Any]

# Of a message: who it is and how it came about, not what it says.
_BOOKKEEPING: Final = frozenset({"id", "usage_metadata", "response_metadata"})
_OF_CHUNKS: Final = frozenset({"tool_call_chunks", "chunk_position"})
# Parsed from the content, which is kept; often an object that LangChain cannot write down.
_PARSED: Final = "parsed"
# Of a model: how it is called, not what it answers.
_HOW: Final = frozenset({
    "request_timeout", "timeout", "default_request_timeout", "max_retries", "callbacks", "callback_manager",
    "verbose", "tags", "metadata", "cache", "rate_limiter", "name", "custom_get_token_ids",
    "disable_streaming", "stream_chunk_timeout", "http_client", "http_async_client", "client",
    "async_client", "root_client", "root_async_client", "http_socket_options", "profile", "ls_provider",
    "tiktoken_model_name", "openai_proxy", "anthropic_proxy", "max_concurrency",
})  # fmt: skip
_SEPARATOR: Final = "---["
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+|<class '|<function |<bound method |<object ")


class UnkeyableError(Exception):
    """Something that decides the answer cannot be seen. The text says what to do."""


_HIDDEN: Final = (
    "its parameters hold {what}, of which only the repr can be seen: two of them could look the same. Pass "
    "JSON instead (a tool or schema as a dict), or cache beneath LangChain: askonce_openai.enable_cache() or "
    "askonce_httpx.wrap_client(model) see the whole request"
)


def canonical_prompt(prompt: str) -> Any:
    """The messages of a prompt without their bookkeeping; any other text as it is.

    Raises:
        UnkeyableError: for a message that holds something LangChain could not write down.
    """
    if not prompt.startswith("["):
        return prompt
    try:
        messages = json.loads(prompt)
    except ValueError:
        return prompt
    if not isinstance(messages, list) or not all(map(_is_message, cast("list[Any]", messages))):
        _must_be_written(messages, "a message with an object")
        return prompt
    return [_message(one) for one in cast("list[Json]", messages)]


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and cast("Json", value).get("type") == "constructor"
        and "lc" in value
        and isinstance(cast("Json", value).get("id"), list)
        and isinstance(cast("Json", value).get("kwargs"), dict)
    )


def _message(written: Json) -> Json:
    kwargs = {name: value for name, value in written["kwargs"].items() if name not in _BOOKKEEPING}
    kind = str(written["id"][-1])
    if kind.endswith("Chunk"):  # gathered from a stream: the same message
        kind = kind.removesuffix("Chunk")
        kwargs = {name: value for name, value in kwargs.items() if name not in _OF_CHUNKS}
        kwargs.pop("type", None)
    extra = kwargs.get("additional_kwargs")
    if isinstance(extra, dict):
        kwargs["additional_kwargs"] = {
            name: value for name, value in cast("Json", extra).items() if name != _PARSED
        }
    kwargs = {name: value for name, value in kwargs.items() if value not in (None, [], {})}
    kwargs.pop("type", None)
    _must_be_written(kwargs, "a message with an object")
    own = kwargs.pop("role", None)  # a ChatMessage may call itself what it likes, also a HumanMessage
    return {"role": kind if own is None else f"{kind}:{own}", **kwargs}


def _must_be_written(value: Any, what: str) -> None:
    """Refuse what LangChain wrote down by its name only."""
    if isinstance(value, dict):
        if cast("Json", value).get("type") == "not_implemented" and "lc" in value:
            raise UnkeyableError(_HIDDEN.format(what=what))
        for inner in cast("Json", value).values():
            _must_be_written(inner, what)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _must_be_written(inner, what)


@lru_cache(maxsize=512)
def canonical_model(llm_string: str, seen: frozenset[str] = frozenset()) -> Json:
    """What stands for a model, by name: `llm` (its class and settings), and the parameters of the call.

    Args:
        llm_string: LangChain's text.
        seen: parameters that are classes whose schemas are known otherwise.

    Raises:
        UnkeyableError: when something that decides the answer cannot be seen.
    """
    if llm_string.startswith("{"):
        written, found, params = llm_string.partition(_SEPARATOR)
        try:
            model = json.loads(written)
        except ValueError:
            model = None
        if found and isinstance(model, dict):
            return {"llm": _settings(cast("Json", model)), **_params("[" + params, seen)}
    if llm_string.startswith("[("):
        return _params(llm_string, seen)
    if _ADDRESS.search(llm_string):
        raise UnkeyableError(_HIDDEN.format(what="an object"))
    return {"llm": llm_string}


def _settings(model: Json) -> Json:
    kwargs: Json = model.get("kwargs") or {}
    kept = {name: value for name, value in kwargs.items() if name not in _HOW and not _is_secret(value)}
    _must_be_written(kept, "an object")
    return {"class": model.get("id"), **kept}


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and cast("Json", value).get("type") == "secret"


def _params(text: str, seen: frozenset[str]) -> Json:
    """The call's parameters: Python's own text of a sorted list of pairs."""
    bare = text
    for name in seen:
        bare = re.sub(rf"\('{re.escape(name)}', <class '[^']*'>\)", f"('{name}', None)", bare)
    try:
        pairs = ast.literal_eval(bare)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pairs = None
    if not isinstance(pairs, list):
        raise UnkeyableError(_HIDDEN.format(what="a class or an object"))
    found: Json = dict(cast("list[tuple[str, Any]]", pairs))
    kept = {name: value for name, value in found.items() if name not in _HOW and value is not None}
    try:
        json.dumps(kept, allow_nan=False)
    except (TypeError, ValueError):
        return {"params": bare}  # literals that JSON has no form for: as they are
    return kept
