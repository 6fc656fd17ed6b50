"""The endpoints askonce knows: what they are called, and what their answers say about themselves.

Only these are cached; any other path passes through untouched, so that a POST to a token server or a
job queue is never mistaken for a question (a Rule with a `ttl` opens further ones). A path alone is not
enough where others may use it too: the body must have the shape of a question, and the answer that of
an answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from askonce._body import Body, parse
from askonce._items import alone
from askonce._request import Request
from askonce._surface import Surface
from askonce._surfaces._anthropic import ANTHROPIC
from askonce._surfaces._cohere import COHERE
from askonce._surfaces._gemini import GEMINI
from askonce._surfaces._huggingface import HUGGINGFACE
from askonce._surfaces._ollama import OLLAMA
from askonce._surfaces._openai import OPENAI, OTHER

__all__ = [
    "OTHER",
    "known",
    "read_body",
    "register_surface",
    "registered",
    "surface_of",
    "surfaces_of",
    "unregister_surface",
]

_KNOWN: Final = (*OLLAMA, *OPENAI, *ANTHROPIC, *GEMINI, *COHERE, *HUGGINGFACE)
_registered: tuple[Surface, ...] = ()


@lru_cache(maxsize=512)
def surfaces_of(path: str) -> tuple[Surface, ...]:
    """The surfaces that a path may belong to; none for an endpoint askonce does not know."""
    return tuple(one for one in (*reversed(_registered), *_KNOWN) if one.path.search(path))


def surface_of(path: str, body: Body) -> Surface | None:
    """The surface that a body asks; None for an endpoint askonce does not know, or no question to it."""
    return next((one for one in surfaces_of(path) if one.fits(body)), None)


def known() -> dict[str, Surface]:
    """The built-in surfaces by name; the first of those that share one."""
    return {surface.name: surface for surface in reversed(_KNOWN)}


def registered() -> tuple[Surface, ...]:
    """The others, the latest last. Another object whenever there are others."""
    return _registered


def register_surface(surface: Surface) -> None:
    """Have one more surface known, before all others; in the place of one with its name."""
    global _registered  # noqa: PLW0603 - of the process, like the classes that register here
    _registered = (*(one for one in _registered if one.name != surface.name), surface)
    surfaces_of.cache_clear()


def unregister_surface(name: str) -> None:
    """Forget a registered surface."""
    global _registered  # noqa: PLW0603
    _registered = tuple(one for one in _registered if one.name != name)
    surfaces_of.cache_clear()


def read_body(request: Request) -> Body:
    """A request's body, with what means the same at its endpoint made the same.

    Where an answer is a stream unless told otherwise, the body says so itself: else "nothing said" would
    look like "no stream", as it does everywhere else. A list of one input is the input.
    """
    body = parse(request.header(b"content-type"), request.body)
    surface = surface_of(request.target.path, body)
    if surface is None or body.kind != "json":
        return body
    if surface.streams and body.fields.get("stream") is None:
        fields = {**body.fields, "stream": True}
        return Body("json", fields, fields)
    return alone(body, surface.items) if surface.items else body
