"""A prompt as the blocks that a provider's prompt cache compares: tools, system, then the turns.

Fields that say where a provider may cut (`cache_control`, `prompt_cache_key`) are no part of what is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias, cast

import orjson

Json: TypeAlias = Mapping[str, Any]

_MARKS: Final = frozenset({"cache_control"})
_PLAIN: Final = frozenset({"type", "text"})
_SYSTEM: Final = ("system", "developer")
_SIZE: Final = 16
_LARGEST_KEY: Final = 64


class Blocks(NamedTuple):
    """A prompt in blocks, and how many of the first ones (tools, system) many conversations share."""

    said: list[bytes]
    shared: int


def blocks_of(body: Json) -> Blocks:
    """The blocks of a request's JSON, in the order in which prompt caches compare them.

    Reads OpenAI's chat and responses and Anthropic's messages. Other shapes have no blocks.

    Raises:
        TypeError: for what JSON has no form for.
    """
    head = [_said("tool", tool) for tool in _listed(body.get("tools"))]
    head += [_said("system", part) for part in _parts(body.get("system"))]
    if body.get("instructions") is not None:
        head.append(_said("system", body["instructions"]))
    turns = list(_parts(body["messages"] if "messages" in body else body.get("input")))
    first = next((at for at, turn in enumerate(turns) if _role(turn) not in _SYSTEM), len(turns))
    head += [block for turn in turns[:first] for block in _turn(turn)]
    return Blocks([*head, *(block for turn in turns[first:] for block in _turn(turn))], len(head))


def _role(turn: Any) -> Any:
    return cast("Json", turn).get("role") if isinstance(turn, Mapping) else "user"


def _turn(turn: Any) -> Iterator[bytes]:
    if not isinstance(turn, Mapping):
        yield _said("user", turn)
        return
    message = cast("Json", turn)
    around = {name: value for name, value in message.items() if name != "content"}
    parts = list(_parts(message.get("content")))
    if not parts:
        yield _said("turn", around)
    for number, part in enumerate(parts):
        yield _said("turn", [around if number == 0 else message.get("role"), part])


def chain(blocks: Iterable[bytes], start: bytes, key: bytes) -> list[str]:
    """A digest for each prefix: the first for the first block, the last for all of them.

    Args:
        blocks: in order.
        start: what prefixes must have in common besides: model, tenant.
        key: makes the digests those of one cache; nobody without it can try prompts.
    """
    key = key if len(key) <= _LARGEST_KEY else blake2b(key, digest_size=_LARGEST_KEY).digest()
    state = blake2b(start, key=key, digest_size=_SIZE).digest()
    found: list[str] = []
    for block in blocks:
        state = blake2b(state + block, key=key, digest_size=_SIZE).digest()
        found.append(state.hex())
    return found


def _parts(value: Any) -> Iterable[Any]:
    """A text is one part, a list is its items."""
    if value is None or value == "":
        return ()
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else (value,)


def _listed(value: Any) -> Iterable[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()


def _said(kind: str, value: Any) -> bytes:
    return orjson.dumps([kind, _unmarked(value)], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _unmarked(value: Any) -> Any:
    if isinstance(value, Mapping):
        given = cast("Json", value)
        left = {name: _unmarked(one) for name, one in given.items() if name not in _MARKS}
        if left.keys() == _PLAIN and left["type"] == "text" and isinstance(left["text"], str):
            return left["text"]  # providers read a text and a block with only that text alike
        return left
    if isinstance(value, list | tuple):
        return [_unmarked(one) for one in cast("Sequence[Any]", value)]
    return value
