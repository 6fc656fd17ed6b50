"""Fingerprints: a short digest per part of a request, so that two requests can be compared later.

Numbers, booleans and the model's name stand in clear ("=0.7"); everything that could be somebody's text
is four bytes of a digest, keyed with the cache's secret when it has one. Enough to see *which* part
differs, too little to tell what it said.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import orjson

from askonce._body import Body, canonical_value
from askonce._decision import Decision, Settings
from askonce._request import Request, Target
from askonce._surface import objects

_MOST_ITEMS: Final = 48
_CLEAR: Final = frozenset(
    {"model", "role", "type", "encoding_format", "reasoning_effort", "verbosity", "voice"}
)
_FIGURES: Final = (bool, int, float)
_WORD: Final = re.compile(r"[\w.:/@-]{1,64}")


SCOPE: Final = "scope"
TURN: Final = "(turn)"
"""What a semantic layer marks an entry with. No part of the request of its own."""


def fingerprint(request: Request, body: Body, decision: Decision, settings: Settings) -> dict[str, str]:
    """Part name -> digest or "=value". Names read like paths: `messages[3].content`, `tools[0]`.

    Follows the key: what two equal keys may differ in, fingerprints do not show.
    """
    secret = blake2b(settings.secret, digest_size=32).digest() if settings.secret else b""
    found: dict[str, str] = {"url": _place(request.target, secret)}
    if decision.scope:
        found[SCOPE] = _short(decision.scope.encode("utf-8", "surrogatepass"), secret)
    if decision.sample:
        found["sample"] = f"={decision.sample}"
    vary = settings.policy.vary
    for header, content in request.headers:
        if header in vary:
            found[f"header {header.decode('latin-1')}"] = _short(content, secret)
    if body.kind == "json" and body.fields:
        for name, value in body.kept(settings.policy.ignore_fields).items():
            _part(name, value, secret, found)
    elif body.kind == "multipart":
        for part in body.value:
            if part.is_file or part.name not in settings.policy.ignore_fields:
                found[part.name] = _short(part.head + part.content, secret)
    else:
        found["body"] = _short(request.body, secret)
    return found


@lru_cache(maxsize=512)
def _place(target: Target, secret: bytes) -> str:
    """The digest of where it was asked: a program asks at few places, and very often."""
    return _short(f"{target.origin}{target.path}?{target.query}".encode("utf-8", "surrogatepass"), secret)


def _part(name: str, value: Any, secret: bytes, found: dict[str, str]) -> None:
    if isinstance(value, _FIGURES) or (name in _CLEAR and _is_word(value)):
        found[name] = f"={value}"
    elif items := objects(value):
        for position, item in enumerate(items[:_MOST_ITEMS]):
            label = f"{name}[{position}]"
            if "role" in item:
                for key, inner in item.items():
                    clear = key == "role" and _is_word(inner)
                    found[f"{label}.{key}"] = f"={inner}" if clear else _json(inner, secret)
            else:
                found[label] = _json(item, secret)
        if len(items) > _MOST_ITEMS:
            found[f"{name}[{_MOST_ITEMS}:]"] = _json(items[_MOST_ITEMS:], secret)
    else:
        found[name] = _json(value, secret)


def _is_word(value: object) -> bool:
    """Short and without blanks: a name, not somebody's text."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _json(value: Any, secret: bytes) -> str:
    # Most parts are texts.
    content = orjson.dumps(value) if isinstance(value, str) else b"".join(canonical_value(value))
    return blake2b(content, digest_size=4, key=secret).hexdigest()


def _short(content: bytes, secret: bytes) -> str:
    return blake2b(content, digest_size=4, key=secret).hexdigest()


def differences(stored: dict[str, str], asked: dict[str, str]) -> list[str]:
    """What differs, in words.

    "temperature 0.0 -> 0.7", "messages[3].content changed", "tools[1] added", "tools in another order".
    """
    if stored.get(SCOPE) != asked.get(SCOPE):
        return ["scope changed"]  # what somebody else asked is nobody's business
    told: list[str] = []
    explained: set[str] = set()
    before_lists, now_lists = _lists(stored), _lists(asked)
    for name, items in now_lists.items():
        moved = _moved(name, before_lists.get(name, []), items)
        if moved:
            told.append(moved)
            explained.add(name)
    for name in dict.fromkeys((*asked, *stored)):
        before, now = stored.get(name), asked.get(name)
        if name == TURN or before == now or name.partition("[")[0] in explained:
            continue
        if before is None:
            told.append(f"{name} added")
        elif now is None:
            told.append(f"{name} removed")
        elif before.startswith("=") and now.startswith("="):
            told.append(f"{name} {before[1:]} -> {now[1:]}")
        else:
            told.append(f"{name} changed")
    return told


_Item: TypeAlias = tuple[tuple[str, str], ...]
_PLACE: Final = re.compile(r"([^\[\]]+)\[(\d+)\]\.?(.*)")


def _lists(parts: dict[str, str]) -> dict[str, list[_Item]]:
    """The items of each list. A list too long to be told item by item is left out."""
    found: dict[str, dict[int, list[tuple[str, str]]]] = {}
    for name, value in parts.items():
        place = _PLACE.fullmatch(name)
        if place:
            found.setdefault(place[1], {}).setdefault(int(place[2]), []).append((place[3], value))
    return {
        name: [tuple(sorted(items[position])) for position in sorted(items)]
        for name, items in found.items()
        if f"{name}[{_MOST_ITEMS}:]" not in parts
    }


def _moved(name: str, before: list[_Item], now: list[_Item]) -> str:
    """What became of a list as a whole, where that is shorter than naming each item; "" otherwise."""
    if not before or before == now:
        return ""
    if len(before) == len(now):
        return f"{name} in another order" if sorted(before) == sorted(now) else ""
    longer, shorter = (now, before) if len(now) > len(before) else (before, now)
    start = 0
    while start < len(shorter) and shorter[start] == longer[start]:
        start += 1
    end = start + len(longer) - len(shorter)
    if start == len(shorter) or longer[end:] != shorter[start:]:
        return ""  # at the end, where items are named one by one; or more than that
    place = f"{name}[{start}]" if end == start + 1 else f"{name}[{start}:{end}]"
    return f"{place} {'added' if longer is now else 'removed'}"
