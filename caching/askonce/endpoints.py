"""Endpoints of your own: have askonce cache what it does not know by itself.

```python
from askonce import endpoints

endpoints.register("in-house", "/llm/generate", like="chat")  # answers as OpenAI's chat does
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from askonce._errors import ConfigurationError
from askonce._surface import (
    EMPTY,
    ERROR,
    EXPIRING,
    INCOMPLETE,
    REFUSED,
    TRUNCATED,
    Reading,
    Surface,
    ends,
)
from askonce._surfaces import known, register_surface, registered, unregister_surface

__all__ = [
    "EMPTY",
    "ERROR",
    "EXPIRING",
    "INCOMPLETE",
    "REFUSED",
    "TRUNCATED",
    "Reading",
    "names",
    "register",
    "unregister",
]

Read = Callable[[list[dict[str, Any]]], Reading]
"""Takes the objects of an answer: the one of a JSON answer, all of a stream."""

_NAME: Final = re.compile(r"[\w.-]{1,64}")


def register(
    name: str,
    path: str | re.Pattern[str],
    *,
    like: str | None = None,
    read: Read | None = None,
    shape: Sequence[str] = (),
    sampled: bool | None = None,
    media: Sequence[str] = (),
) -> None:
    """Have the questions to an endpoint answered from every cache of this process, at every door.

    Only POST is ever cached, only answers with status 200, and of streams only those whose protocol says
    that they are whole. Registered endpoints go before the built-in ones; a name that was registered before
    gets its new meaning.

    Args:
        name: what it is called in `Meta.surface`, reports and explanations.
        path: how its paths end ("/llm/generate"); or a pattern that is searched in the path, where a group
            `model` names the model when the body has no field of that name.
        like: the built-in endpoint whose answers look the same, see `names()`; its reading and shape hold.
        read: what an answer says about itself: its usage, and its flaws (`TRUNCATED`, `REFUSED`, `EMPTY`,
            `INCOMPLETE`, `ERROR`, `EXPIRING`; Policy says which may be stored all the same). Given the
            answer's JSON object, or all objects of a stream. A function that raises: the answer is not
            stored. None: every JSON object without an `error` will do.
        shape: the body has to have one of these fields, or the request passes through untouched.
        sampled: answers depend on `temperature` (1 unless given), which `Policy(max_temperature=)` looks at.
            None: as `like` says, else True.
        media: beginnings of content types that answers have besides JSON and streams, such as "audio/".

    Raises:
        ConfigurationError: for a bad value, or `like` and `read` together.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad("name", name, "1 to 64 letters, digits, dots, dashes and underscores")
    if isinstance(path, str):
        if not path.startswith("/") or len(path) < 2:  # noqa: PLR2004 - "/" alone would be every root
            raise _bad("path", path, 'how the paths end, from a slash on ("/llm/generate"), or a re.Pattern')
        path = ends(path)
    if like is not None and read is not None:
        raise ConfigurationError("endpoints.register: like= and read= exclude each other")
    if isinstance(shape, str) or isinstance(media, str):
        raise _bad("shape or media", shape if isinstance(shape, str) else media, "a list of texts")
    if like is None:
        surface = Surface(
            name=name,
            path=path,
            read_json=_one(read or _anything),
            read_events=_all(read or _anything),
            sampled=True,
        )
    else:
        model = known().get(like)
        if model is None:
            raise _bad("like", like, "one of " + ", ".join(sorted(known())))
        surface = replace(model, name=name, path=path)
    register_surface(
        replace(
            surface,
            shape=frozenset(shape) or surface.shape,
            sampled=surface.sampled if sampled is None else sampled,
            media=(*surface.media, *media),
        )
    )


def unregister(name: str) -> None:
    """Take back `register`. A name that is not registered is no error."""
    unregister_surface(name)


def names() -> tuple[str, ...]:
    """The names of all endpoints that are cached, built-in and registered."""
    return tuple(sorted({*known(), *(surface.name for surface in registered())}))


def _anything(objects: list[dict[str, Any]]) -> Reading:
    return Reading(flaws=set() if any(objects) else {EMPTY})


def _one(read: Read) -> Callable[[dict[str, Any]], Reading]:
    return lambda answer: read([answer])


def _all(read: Read) -> Callable[[Iterable[dict[str, Any]]], Reading]:
    return lambda chunks: read(list(chunks))


def _bad(option: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"endpoints.register: {option}={value!r} is not allowed; allowed: {allowed}")
