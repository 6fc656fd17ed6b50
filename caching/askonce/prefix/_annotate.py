"""Say to the provider where a prompt may be cut: Anthropic's marks, OpenAI's key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

import orjson

from askonce._errors import not_allowed
from askonce.prefix._blocks import blocks_of, chain

Provider: TypeAlias = Literal["anthropic", "openai"]
Life: TypeAlias = Literal["5m", "1h"]
Json: TypeAlias = dict[str, Any]

_MARK: Final = "cache_control"
_MOST: Final = 4
"""Marks that Anthropic takes in one request, the one for the whole request included."""
_LETTERS: Final = 4  # of one token, about
_LONGEST_DATA: Final = 4096  # letters that an image counts for, however large
_MARKABLE: Final = frozenset({"image", "document", "tool_use", "tool_result"})
_LEAST: Final = (  # Anthropic ignores marks on shorter prompts; names as of November 2026
    (("haiku-4-5", "opus-4-5", "opus-4-6", "opus-4-7"), 4096),
    (("haiku-3", "3-haiku", "3-5-haiku", "sonnet-4-6"), 2048),
)
_USUAL_LEAST: Final = 1024


class Place(NamedTuple):
    """Where a mark can stand: which block, and what holds it."""

    holder: Json
    name: str
    at: int | None
    tokens: int


def annotate(
    body: Mapping[str, Any],
    *,
    provider: Provider,
    ttl: Life = "5m",
    least: int | None = None,
    key: bytes = b"",
) -> dict[str, Any]:
    """A request that says where the provider may cut its prompt; its texts are as they were.

    Anthropic gets up to four marks, those there already included: after the last turn and the one of the
    user before it, once a conversation goes on; after system; after tools. The mark on the earlier turn
    stands where the request before ended, so that turns of more blocks than Anthropic looks back over (20)
    are found again. A first question gets none of its own: writing costs a quarter more, and nobody may
    come back to it. OpenAI gets a `prompt_cache_key` for what many conversations share, unless it has one.

    Args:
        body: the request's JSON; not changed. What no provider would take is returned as it is.
        provider: whose protocol it speaks.
        ttl: for how long Anthropic is to keep it; "1h" costs twice the input price to write.
        least: tokens, at four letters each, that a prompt has before a mark; None: what the model needs.
        key: for the digest in `prompt_cache_key`; nobody without it can try prompts.

    Raises:
        ConfigurationError: for another provider or ttl.
    """
    if provider not in ("anthropic", "openai"):
        raise not_allowed("provider", provider, ("anthropic", "openai"))
    if ttl not in ("5m", "1h"):
        raise not_allowed("ttl", ttl, ("5m", "1h"))
    try:
        json.dumps(body, allow_nan=False)  # what is no JSON would come back as null from the next line
        made: Json = orjson.loads(orjson.dumps(body))
    except (TypeError, ValueError, RecursionError):
        return dict(body)
    if provider == "openai":
        return _keyed(made, key)
    return _marked(made, ttl, _least(made) if least is None else least)


def _keyed(body: Json, key: bytes) -> Json:
    if body.get("prompt_cache_key") is None:
        blocks = blocks_of(body)
        if blocks.shared:
            start = f"prompt_cache_key:{body.get('model')}".encode("utf-8", "surrogatepass")
            body["prompt_cache_key"] = list(chain(blocks.said[: blocks.shared], start, key))[-1]
    return body


def _marked(body: Json, ttl: Life, least: int) -> Json:
    whole = body.get(_MARK) is not None  # then Anthropic itself marks the last block
    left = _MOST - whole - sum(1 for _ in _marks(body))
    for place in _places(body, whole=whole):
        if left > 0 and place.tokens >= least and _put(body, place, ttl):
            left -= 1
    return body


def _places(body: Json, *, whole: bool) -> list[Place]:
    """Where marks belong, the most telling first."""
    tokens = 0
    tools = system = None
    for at, tool in enumerate(_items(body.get("tools"))):
        tokens += len(orjson.dumps({name: one for name, one in tool.items() if name != _MARK}))
        if not tool.get("defer_loading"):
            tools = Place(body, "tools", at, tokens // _LETTERS)
    tokens, system = _last(body, "system", tokens)
    ends: list[tuple[Any, Place | None]] = []
    for message in _items(body.get("messages")):
        tokens, end = _last(message, "content", tokens)
        ends.append((message.get("role"), end))
    found = [system, tools]
    if any(role == "assistant" for role, _ in ends):
        last = next((at for at in range(len(ends) - 1, -1, -1) if ends[at][1] is not None), -1)
        before = next((at for at in range(last - 1, -1, -1) if ends[at][0] == "user" and ends[at][1]), -1)
        turns = [] if whole or last < 0 else [ends[last][1]]
        found = [*turns, system, ends[before][1] if before >= 0 else None, tools]
    return [place for place in found if place is not None]


def _last(holder: Json, name: str, tokens: int) -> tuple[int, Place | None]:
    """The letters up to the end of a text or list, and its last block that can carry a mark."""
    value = holder.get(name)
    if isinstance(value, str):
        tokens += len(value)
        return tokens, Place(holder, name, None, tokens // _LETTERS) if value.strip() else None
    place = None
    for at, block in enumerate(_items(value)):
        tokens += _letters(block)
        text = block.get("text")
        if block.get("type") in _MARKABLE or (
            block.get("type") == "text" and isinstance(text, str) and text.strip()
        ):
            place = Place(holder, name, at, tokens // _LETTERS)
    return tokens, place


def _put(body: Json, place: Place, ttl: Life) -> bool:
    """Mark a block; False where it has a mark, or where lives would stand in an order that is refused."""
    value = place.holder[place.name]
    block: Json = {"type": "text", "text": value} if place.at is None else value[place.at]
    if block.get(_MARK) is not None:
        return False
    before = block.pop(_MARK, None)
    block[_MARK] = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    if place.at is None:
        place.holder[place.name] = [block]
    lives = [isinstance(mark, dict) and cast("Json", mark).get("ttl") == "1h" for mark in _marks(body)]
    if isinstance(body.get(_MARK), dict):
        lives.append(body[_MARK].get("ttl") == "1h")
    if lives == sorted(lives, reverse=True):  # the longer ones first
        return True
    del block[_MARK]
    if before is not None:
        block[_MARK] = before
    place.holder[place.name] = value
    return False


def _marks(body: Json) -> Iterator[Any]:
    """The marks that are there, in the order of the prompt."""
    for name in ("tools", "system"):
        yield from (block[_MARK] for block in _items(body.get(name)) if block.get(_MARK) is not None)
    for message in _items(body.get("messages")):
        for block in _items(message.get("content")):
            source = block.get("source")
            inside = [*_items(block.get("content"))]
            if isinstance(source, dict):
                inside += _items(cast("Json", source).get("content"))
            yield from (one[_MARK] for one in (*inside, block) if one.get(_MARK) is not None)


def _letters(value: Any) -> int:
    """Letters in the texts of a block; of an image few, since its data is no text."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_letters, cast("list[Any]", value)))
    if not isinstance(value, dict):
        return 0
    found = 0
    for name, one in cast("Json", value).items():
        if name not in (_MARK, "type"):
            found += min(_letters(one), _LONGEST_DATA) if name == "data" else _letters(one)
    return found


def _items(value: Any) -> Sequence[Json]:
    """The objects of a list; none of one that has anything else in it: no provider takes that."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return cast("list[Json]", items) if all(isinstance(one, dict) for one in items) else ()


def _least(body: Json) -> int:
    model = str(body.get("model")).replace(".", "-")
    return next((least for names, least in _LEAST if any(name in model for name in names)), _USUAL_LEAST)
