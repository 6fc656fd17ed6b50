"""Requests as JSON: for `askonce why` and `askonce warm`, and as OpenAI's batch files have them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from askonce import Request
from askonce_cli._errors import CommandError, misuse

_FIELDS: Final = frozenset({"url", "method", "headers", "body", "custom_id"})
_DEFAULT: Final = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request as somebody wrote it down.

    Attributes:
        line: where, from 1.
        method: in capitals.
        url: absolute.
        headers: by name.
        body: a JSON value, or a text that is sent as it is.
    """

    line: int
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: Any = field(repr=False)

    def request(self) -> Request:
        """As it goes over the wire."""
        if isinstance(self.body, str):
            content = self.body.encode()
        else:
            content = json.dumps(self.body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        names = {name.lower() for name in self.headers}
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        if "content-type" not in names and not isinstance(self.body, str):
            headers.append((b"content-type", b"application/json"))
        return Request(self.method, self.url, tuple(headers), content)


def base_url(given: str | None) -> str:
    """The provider that paths without a host belong to."""
    return (given or os.environ.get("OPENAI_BASE_URL") or _DEFAULT).rstrip("/")


def read_request(text: str, base: str, line: int = 1) -> Wanted:
    """The request in a JSON object.

    Raises:
        CommandError: it is none; the text names the line and what is allowed, never what was asked.
    """
    place = f"line {line}: "
    try:
        said: object = json.loads(text)
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise misuse(f"{place}it is not JSON{where}") from error
    if not isinstance(said, dict):
        raise misuse(f'{place}it is not a JSON object such as {{"url": ..., "body": {{...}}}}')
    fields = cast("dict[str, Any]", said)
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        raise misuse(f"{place}unknown field {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}")
    url, method = fields.get("url"), fields.get("method", "POST")
    headers: Any = fields.get("headers") or {}
    if not isinstance(url, str) or not url:
        raise misuse(f'{place}"url" is missing; allowed: a URL, or a path such as "/v1/chat/completions"')
    if not isinstance(method, str) or not isinstance(headers, dict):
        raise misuse(f'{place}"method" has to be a text, "headers" an object of texts')
    named = cast("dict[str, Any]", headers)
    if not all(isinstance(value, str) and value.isascii() for value in named.values()):
        raise misuse(f'{place}"headers" has to be an object of ASCII texts')
    return Wanted(
        line=line, method=method.upper(), url=whole_url(url, base), headers=named, body=fields.get("body", "")
    )


def whole_url(url: str, base: str) -> str:
    """A URL as it is; a path on the provider, with or without the version that the base ends with."""
    if "://" in url:
        return url
    version = base.rpartition("/")[2]
    path = url if url.startswith("/") else f"/{url}"
    if path.startswith(f"/{version}/"):
        path = path[len(version) + 1 :]
    return base + path


def read_lines(file: IO[str], base: str) -> Iterator[Wanted | CommandError]:
    """The requests of a JSON-lines file, one at a time; empty lines are none, and bad ones say so."""
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield read_request(line, base, number)
            except CommandError as error:
                yield error


def text_of(file: str) -> str:
    """What a file or, for "-", the standard input says.

    Raises:
        CommandError: there is no such file, or it is no text.
    """
    try:
        if file == "-":
            import sys  # noqa: PLC0415 - looked up when it is read, for it may be replaced

            return sys.stdin.read()
        return Path(file).read_text("utf-8")
    except FileNotFoundError as error:
        raise misuse(f"there is no file {file}") from error
    except UnicodeDecodeError as error:
        raise misuse(f"{file} is no UTF-8 text") from error
