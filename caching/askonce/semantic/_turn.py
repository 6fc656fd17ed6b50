"""The last user turn of a request, and everything else of it.

Only the text of the last user turn may be compared by meaning. All else of the question has to be exactly
the same: it is the *partition*, and its digest is the exact key of the request with a hole where the text
was. So whatever the key scheme holds apart (model, parameters, system prompt, tools, earlier turns, images,
attachments, response format, streaming, URL, namespace, scope) the partition holds apart as well.

Where the last turn is not certainly one user's text, there is none, and the request is answered by exact
means alone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from askonce import _key
from askonce._body import Body
from askonce._decision import Decision, Settings
from askonce._request import Request
from askonce._surface import Json, objects

_HOLE: Final = True
"""Stands where the text was. No protocol has a boolean there, so that no text can be mistaken for it."""


class Turn(NamedTuple):
    """A request taken apart.

    Attributes:
        text: of the last user turn.
        rest: the body's fields, with a hole where the text was.
        turns: user turns in the conversation, this one included.
    """

    text: str
    rest: Json
    turns: int


class Question(NamedTuple):
    """What the layer compares: a text, within a partition.

    Attributes:
        partition: digest of all that must be the same; 64 hex digits.
        text: what may differ.
        digest: of both together, kept with the answer, so that an index can be checked against it.
    """

    partition: str
    text: str
    digest: str

    def __repr__(self) -> str:
        return f"<Question in {self.partition[:8]}>"


def find_turn(path: str, fields: Json) -> Turn | None:
    """The last user turn of a body sent to this path; None where that is not certain."""
    for suffix, read in _SHAPES:
        if path.endswith(suffix):
            turn = read(fields)
            return turn if turn is not None and turn.text.strip() else None
    return None


def question_of(
    turn: Turn, request: Request, decision: Decision, settings: Settings, also: tuple[str, ...]
) -> Question:
    """A request's partition and text.

    Args:
        turn: the request's JSON body, taken apart.
        request: what is asked.
        decision: what was decided for it.
        settings: of the cache.
        also: what else the partition depends on: the embedder, the user's own partition.
    """
    key = _key.digest(
        request,
        Body("json", turn.rest, turn.rest),
        namespace=decision.key.rpartition(":")[0],
        scope=decision.scope,
        sample=decision.sample,
        vary=settings.policy.vary,
        ignore=settings.policy.ignore_fields,
        secret=settings.secret,
    )
    named = [text.encode("utf-8", "surrogatepass") for text in also]
    partition = _digest(settings.secret, b"askonce partition v1", key.encode(), *named)
    text = turn.text.encode("utf-8", "surrogatepass")
    return Question(
        partition, turn.text, _digest(settings.secret, b"askonce turn v1", partition.encode(), text)[:32]
    )


def _digest(secret: bytes | None, *parts: bytes) -> str:
    message = _key.frame(list(parts))
    if secret is not None:
        return hmac.digest(secret, message, "sha256").hex()
    return hashlib.sha256(message).hexdigest()


def _messages(fields: Json) -> Turn | None:
    return _conversation(fields, "messages", ("user",), "content", ("text",))


def _langchain(fields: Json) -> Turn | None:
    return _conversation(fields, "messages", ("HumanMessage",), "content", ("text",))


def _contents(fields: Json) -> Turn | None:
    return _conversation(fields, "contents", ("user", None), "parts", (None,))


def _input(fields: Json) -> Turn | None:
    given = fields.get("input")
    if isinstance(given, str):
        return Turn(given, {**fields, "input": _HOLE}, 1)
    return _conversation(fields, "input", ("user",), "content", ("input_text", "text"))


def _prompt(fields: Json) -> Turn | None:
    """A plain prompt: its last line is the turn, what stands before it are instructions and examples."""
    given = fields.get("prompt")
    if not isinstance(given, str):
        return None
    text = given.rstrip()
    before, line, last = text.rpartition("\n")
    frame = [before + line, _HOLE, given[len(text) :]]
    return Turn(last, {**fields, "prompt": frame}, 1)


def _conversation(
    fields: Json, name: str, roles: tuple[str | None, ...], inner: str, kinds: tuple[str | None, ...]
) -> Turn | None:
    """A list of messages, the last of which is the user's, as a text or as a list of parts."""
    messages: Any = fields.get(name)
    said = objects(messages)
    if not said or len(said) != len(messages):
        return None
    last = said[-1]
    if last.get("role") not in roles or last.get("type", "message") != "message":
        return None
    hollow = _hollow(last.get(inner), kinds)
    if hollow is None:
        return None
    text, rest = hollow
    turns = sum(message.get("role") in roles for message in said)
    return Turn(text, {**fields, name: [*said[:-1], {**last, inner: rest}]}, turns)


def _hollow(content: Any, kinds: tuple[str | None, ...]) -> tuple[str, Any] | None:
    """The text of a message's content and the content without it. Of several texts it is the last one."""
    if isinstance(content, str):
        return content, _HOLE
    parts = objects(content)
    if not parts or len(parts) != len(content):
        return None
    for place in range(len(parts) - 1, -1, -1):
        text = parts[place].get("text")
        if isinstance(text, str) and parts[place].get("type") in kinds:
            rest = cast("list[Any]", [*parts])
            rest[place] = {**parts[place], "text": _HOLE}
            return text, rest
    return None


# Longer suffixes stand before those that they end with.
_SHAPES: Final[tuple[tuple[str, Callable[[Json], Turn | None]], ...]] = (
    ("/chat/completions", _messages),
    ("/completions", _prompt),
    ("/responses", _input),
    ("/messages", _messages),
    ("/api/chat", _messages),
    ("/v2/chat", _messages),
    (":generateContent", _contents),
    (":streamGenerateContent", _contents),
    ("generations", _langchain),  # without a slash: no path of HTTP
)
