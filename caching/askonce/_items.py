"""Lists of independent inputs: one key an item, and answers taken apart and put together by item.

An embeddings endpoint answers a list item by item, and an item's answer does not depend on its neighbours.
So every item has the key that it would have when asked alone, and a list shares entries with every other
list, with the single input, and with the list of one.

Vectors are never read: of an answer only the text around them is parsed, and each vector's own text goes
from the provider's answer into the entry and from there into later answers, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import orjson

from askonce._body import Body
from askonce._request import Request

Json: TypeAlias = dict[str, Any]
Item: TypeAlias = "str | list[int]"

# A vector behind its name: a list of numbers, or a text without escapes (base64). Looking behind for the
# backslash keeps out a quote that belongs to a text.
_VECTOR: Final = re.compile(rb'(?<!\\)"embedding"[ \t\r\n]*:[ \t\r\n]*(\[[^\[\]"{}]*\]|"[^"\\]*")')
# A number so long that reading and writing it could change it; in a text it does no harm, and is rare.
_DIGITS: Final = re.compile(rb"[0-9]{17}")
# Whoever signs a body has signed this one, and no smaller one.
_SIGNED: Final = (b"signature", b"content-md5", b"digest", b"content-digest", b"x-amz-content-sha256")
# Asked so, an input's vector depends on its neighbours (Jina).
_TOGETHER: Final = ("late_chunking", "contextual")
_CHARACTERS_PER_TOKEN: Final = 4


class Answer(NamedTuple):
    """An answer taken apart: what stands around the rows, and the rows, whose vectors stand as text."""

    around: Json
    rows: list[Json]


def alone(body: Body, name: str) -> Body:
    """A body whose list of one is the one: both ask the same."""
    value = body.fields.get(name)
    if body.kind != "json" or not isinstance(value, list):
        return body
    items = cast("list[Any]", value)
    if len(items) != 1 or not (isinstance(items[0], str) or _is_tokens(items[0])):
        return body
    fields = {**body.fields, name: items[0]}
    return Body("json", fields, fields)


def items_of(request: Request, body: Body, name: str) -> list[Item]:
    """The items of a list of two or more that may be asked one by one; else nothing."""
    value = body.fields.get(name)
    if body.kind != "json" or not isinstance(value, list):
        return []
    items = cast("list[Any]", value)
    if len(items) < 2 or _is_signed(request):  # noqa: PLR2004 - a list of one is asked as the one
        return []
    if any(body.fields.get(one) for one in _TOGETHER):
        return []
    kinds = set(map(type, items))
    if kinds == {str} or (kinds == {list} and all(map(_is_tokens, items))):
        return items
    return []


def keys_of(items: Sequence[Item], body: Body, name: str, digest: Callable[[Body], str]) -> tuple[str, ...]:
    """The key of each item, in order: that of the request which asks it alone."""
    known: dict[str | tuple[int, ...], str] = {}
    found: list[str] = []
    for item in items:
        mark = item if isinstance(item, str) else tuple(item)
        key = known.get(mark)
        if key is None:
            fields = {**body.fields, name: item}
            key = known[mark] = digest(Body("json", fields, fields))
        found.append(key)
    return tuple(found)


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, cast("list[Any]", value))) == {int}


def _is_signed(request: Request) -> bool:
    return request.header(b"authorization").startswith("AWS4-") or any(map(request.header, _SIGNED))


def weight(item: Item) -> int:
    """About how many tokens an item has: of token lists the number, of texts a guess."""
    return len(item) if isinstance(item, list) else -(-len(item) // _CHARACTERS_PER_TOKEN)


def take_apart(body: bytes) -> Answer | None:
    """An answer by row, in the order of their indexes; None for one that is not made of such rows."""
    texts: list[bytes] = []

    def put_by(found: re.Match[bytes]) -> bytes:
        texts.append(found[1])
        return b'"embedding":%d' % (len(texts) - 1)

    text = _VECTOR.sub(put_by, body)
    if _DIGITS.search(text):
        return None
    try:
        around: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    data = cast("Json", around).get("data") if isinstance(around, dict) else None
    if not isinstance(data, list) or len(cast("list[Any]", data)) != len(texts):
        return None
    rows: list[Json] = []
    for place, row in enumerate(cast("list[Any]", data)):
        # Each vector in a row of its own, in the order of the text; or "embedding" is a name elsewhere.
        if not isinstance(row, dict) or cast("Json", row).get("embedding") != place:
            return None
        rows.append({**cast("Json", row), "embedding": orjson.Fragment(texts[place])})
    indexes: list[Any] = [row.get("index", place) for place, row in enumerate(rows)]
    if set(map(type, indexes)) != {int} or sorted(indexes) != list(range(len(rows))):
        return None
    ordered = dict(zip(indexes, rows, strict=True))
    return Answer(cast("Json", around), [ordered[index] for index in range(len(rows))])


def put_together(around: Json, rows: Sequence[Json], usage: dict[str, int]) -> bytes:
    """The answer to a list, from rows of any answers.

    Args:
        around: the answer whose other fields hold.
        rows: one for each item, in the caller's order.
        usage: the figures of all items; left out where the provider gives none.
    """
    data = [{**row, "index": index} if "index" in row else row for index, row in enumerate(rows)]
    answer: Json = {**around, "data": data}
    if isinstance(around.get("usage"), dict):
        answer["usage"] = usage
    return orjson.dumps(answer)


def figures(around: Json) -> dict[str, int]:
    """An answer's plain usage figures, zeros included."""
    usage = around.get("usage")
    if not isinstance(usage, dict):
        return {}
    return {name: value for name, value in cast("Json", usage).items() if type(value) is int}


def shares(total: dict[str, int], weights: Sequence[int]) -> list[dict[str, int]]:
    """An answer's figures, shared out among its items by weight: whole numbers whose sums are exact.

    The provider tells the sum only. Where the weights sum up to it, they are taken for what they are.
    """
    split = {name: _split(number, weights) for name, number in total.items()}
    return [{name: parts[place] for name, parts in split.items()} for place in range(len(weights))]


def _split(number: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    if whole == number:
        return list(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [number * one // whole for one in weights]
    # What rounding left over goes to those who lost most by it.
    short = sorted(range(len(weights)), key=lambda place: -(number * weights[place] % whole))
    for place in short[: number - sum(parts)]:
        parts[place] += 1
    return parts


def summed(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Figures added up by name."""
    found: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            found[name] = found.get(name, 0) + number
    return found


def nonzero(figures: dict[str, int]) -> dict[str, int]:
    """Figures as `Meta` holds them."""
    return {name: number for name, number in figures.items() if number}
