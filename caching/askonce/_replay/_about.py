"""What a request asks, in a few words: for people who read recordings. Without anybody's credential."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

from askonce._body import Body
from askonce._request import CREDENTIAL_HEADERS, CREDENTIAL_QUERY, Request

_LONGEST: Final = 100
_SHORTEST_SECRET: Final = 8
# Where the latest turn stands, in one protocol or another.
_PLACES: Final = ("messages", "input", "contents", "prompt", "message", "inputs", "texts")
_INNER: Final = ("content", "parts", "text", "input_text")


def about(body: Body, secrets: Iterable[str]) -> str:
    """The beginning of the latest turn's text; "" when there is none."""
    fields = body.fields if body.kind == "json" else {}
    for name in _PLACES:
        if fields.get(name):
            return shortened(_text_of(fields[name]), secrets)
    return ""


def shortened(text: str, secrets: Iterable[str]) -> str:
    """One line, with secrets covered before it is cut."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join(text.split())
    line = line.encode("utf-8", "replace").decode()  # a lone surrogate has no place in a file
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _text_of(value: Any, depth: int = 4) -> str:
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        items = cast("list[Any]", value)
        said = [one for one in items if _is_the_users(one)]
        for item in reversed(said or items):
            if found := _text_of(item, depth - 1):
                return found
    if depth and isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        for name in _INNER:
            if fields.get(name) and (found := _text_of(fields[name], depth - 1)):
                return found
    return ""


def _is_the_users(turn: Any) -> bool:
    return isinstance(turn, dict) and cast("dict[str, Any]", turn).get("role") == "user"


def secrets_of(request: Request) -> set[str]:
    """The credentials of a request that are long enough to be told from words."""
    from urllib.parse import unquote_plus  # noqa: PLC0415 - only for those who record

    found: set[str] = set()
    for header, content in request.headers:
        if header in CREDENTIAL_HEADERS:
            text = content.decode("latin-1")
            found |= {text, *text.replace(";", " ").split()}
            found |= {part.partition("=")[2] for part in found if "=" in part}
    for pair in request.target.credentials.replace(":", "&").split("&"):
        name, _, value = pair.partition("=")
        secret = value if name.lower() in CREDENTIAL_QUERY else pair
        found |= {secret, unquote_plus(secret)}
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}
