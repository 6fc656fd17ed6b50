"""Bodies of answers as people like to read them, and back to the very same bytes.

    {"json": {...}, "as": "compact"}   JSON that one of a few known ways of writing gives back exactly
    {"lines": ["data: {...}", ""]}     other text, event streams first of all, split at its line feeds
    {"base64": ["..."]}                everything else

What cannot be given back byte for byte in one form takes the next: nothing is ever rounded or reordered.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any, Final, NoReturn, cast

_LINE: Final = 100
_DEEPEST: Final = 64

# How JSON is written where providers write it: separators, indentation.
_LAYOUTS: Final[dict[str, dict[str, Any]]] = {
    "compact": {"separators": (",", ":")},
    "spaced": {"separators": (", ", ": ")},
    "indented": {"indent": 2},
}
_STYLES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    f"{name}{letters}{ending}": ({**layout, "ensure_ascii": bool(letters)}, end)
    for letters in ("", ", ascii")
    for ending, end in (("", ""), (", newline", "\n"))
    for name, layout in _LAYOUTS.items()
}


def readable(body: bytes) -> dict[str, Any]:
    """A body's readable form."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        packed = b64encode(body).decode()
        return {"base64": [packed[at : at + _LINE] for at in range(0, len(packed), _LINE)]}
    if text[:1] in {"{", "["}:
        form = _as_json(text)
        if form is not None:
            return form
    return {"lines": text.split("\n")}


def _as_json(text: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(text, parse_constant=_refuse)
        if not _is_shallow(value, _DEEPEST):
            return None
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no place in a file
        for name, (layout, end) in _STYLES.items():
            if json.dumps(value, **layout) + end == text:
                return {"json": value, "as": name}
    except (ValueError, RecursionError):
        pass
    return None


def _refuse(_: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are no JSON


def _is_shallow(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        inner: list[Any] = list(cast("dict[str, Any]", value).values())
    elif isinstance(value, list):
        inner = cast("list[Any]", value)
    else:
        return True
    return left > 0 and all(_is_shallow(one, left - 1) for one in inner)


def exact(form: Any) -> bytes:
    """The bytes of a readable form.

    Raises:
        ValueError: for anything that is none.
    """
    if isinstance(form, dict):
        said = cast("dict[str, Any]", form)
        style = said.get("as")
        if set(said) == {"json", "as"} and isinstance(style, str) and style in _STYLES:
            layout, end = _STYLES[style]
            return (json.dumps(said["json"], **layout) + end).encode()
        for name, joined in (("lines", "\n"), ("base64", "")):
            if set(said) == {name}:
                text = joined.join(_texts(said[name]))
                return text.encode() if name == "lines" else b64decode(text, validate=True)
    raise ValueError('a body is {"json", "as"}, {"lines"} or {"base64"}')


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in cast("list[Any]", value)):
        raise ValueError("lines are texts")
    return cast("list[str]", value)
