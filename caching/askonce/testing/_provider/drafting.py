"""What the model says: the text, the refusal or the tool calls, shared by all text endpoints."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from askonce.testing._provider.answers import Ask, Json
from askonce.testing._provider.schemas import fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A stream has one event per word, up to this many events; longer texts get longer pieces.
_MAX_PIECES = 400
_WORD = re.compile(r"\S+\s*|\s+")
_PADDING = "pad "


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function the model wants called.

    Attributes:
        id: fresh for every answer.
        name: the function's.
        arguments: JSON text that fits the function's schema.
    """

    id: str
    name: str
    arguments: str

    def parsed(self) -> Json:
        """The arguments as an object, for the protocols that send them so."""
        return as_object(orjson.loads(self.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One alternative of an answer.

    Attributes:
        text: the content; empty beside tool calls and refusals.
        refusal: what the model says instead, or None.
        tool_calls: what it wants called.
        finish_reason: in the words of the chat protocol.
    """

    text: str = ""
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"

    @property
    def tokens(self) -> int:
        """Output tokens it would cost."""
        said = self.text + (self.refusal or "") + "".join(call.arguments for call in self.tool_calls)
        return tokens(said)


def draft(ask: Ask, *, wants: Wants, index: int = 0) -> Draft:
    """Decide what alternative number `index` says."""
    fault = ask.fault
    if fault.refusal:
        return Draft(
            refusal="I'm sorry, I can't help with that.", finish_reason=fault.finish_reason or "stop"
        )
    if fault.empty:
        return Draft(finish_reason=fault.finish_reason or "stop")
    if wants.functions and ask.reply is None:
        calls = tuple(
            ToolCall(
                id=f"call_{ask.number}_{index}_{position}",
                name=str(function.get("name")),
                arguments=_dumps(fit(function.get("parameters") or {}, number=ask.number)),
            )
            for position, function in enumerate(wants.functions)
        )
        return Draft(tool_calls=calls, finish_reason=fault.finish_reason or "tool_calls")
    return Draft(
        text=text(ask, schema=wants.schema, index=index), finish_reason=fault.finish_reason or "stop"
    )


def text(ask: Ask, *, schema: Json | None = None, index: int = 0) -> str:
    """What to say: the set reply, JSON that fits `schema`, or the built-in text."""
    if ask.fault.empty:
        return ""
    if ask.reply is not None:
        said = ask.reply
    elif schema is not None:
        said = _dumps(fit(schema, number=ask.number))
    else:
        # Not the prompt itself, so that an answer in a log gives nothing away. The characters
        # beyond ASCII are two, three and four bytes long in UTF-8.
        digest = hashlib.sha256(ask.record.body).hexdigest()[:8]
        said = f"Answer {ask.number}.{index} to {digest}: the naïve brown fox jumps over 犬 and 🦊 today."
    said += _PADDING * -(-max(0, ask.fault.oversize - len(said)) // len(_PADDING))
    if ask.fault.finish_reason in {"length", "content_filter"}:
        said = said[: len(said) // 2]
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a request asks for besides text.

    Attributes:
        functions: name and schema of each function to call; empty: none.
        schema: the JSON schema of the answer; None: free text.
    """

    functions: tuple[Json, ...] = ()
    schema: Json | None = None


def chosen_functions(functions: Sequence[Json], choice: object, prompt: str) -> tuple[Json, ...]:
    """Which of the offered functions get called.

    Those the prompt names; else the first, if the prompt says "tool" or the choice demands one. A
    real model decides by meaning; tests want to decide by what they write.
    """
    if not functions or choice == "none":
        return ()
    if isinstance(choice, dict):
        named = cast(Json, choice)
        wanted = named.get("name") or as_object(named.get("function")).get("name")
        return tuple(one for one in functions if one.get("name") == wanted)
    asked = prompt.lower().replace("_", " ")
    found = tuple(one for one in functions if str(one.get("name")).lower().replace("_", " ") in asked)
    if found:
        return found
    return (functions[0],) if choice == "required" or re.search(r"\btools?\b", asked) else ()


def pieces(said: str) -> list[str]:
    """Cut a text into what a stream's events carry, word by word."""
    words = _WORD.findall(said)
    size = -(-len(words) // _MAX_PIECES) or 1
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


def fragments(said: str, size: int = 12) -> list[str]:
    """Cut a text into pieces of `size` characters, without regard to words."""
    return [said[start : start + size] for start in range(0, len(said), size)]


def tokens(said: str) -> int:
    """A plausible number of tokens; 0 only for the empty text."""
    return -(-len(said) // 4)


def texts(value: object) -> Iterable[str]:
    """Every text inside messages, content parts or plain strings, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in cast(list[object], value):
            yield from texts(item)
    elif isinstance(value, dict):
        for key in ("content", "text", "output"):
            yield from texts(cast(Json, value).get(key))


def last_user_text(messages: object) -> str:
    """The text of the last message, if it is the user's; "" after a tool's result."""
    if isinstance(messages, str):
        return messages
    last = as_object(next(iter(as_list(messages)[-1:]), None))
    return " ".join(texts(last)) if last.get("role") == "user" else ""


def as_object(value: object) -> Json:
    """`value` when it is a JSON object, else an empty one."""
    return cast(Json, value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """`value` when it is a JSON array, else an empty one."""
    return cast(list[object], value) if isinstance(value, list) else []


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()
