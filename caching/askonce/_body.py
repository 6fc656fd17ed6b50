"""Request bodies: read once, then asked for their fields, their canonical parts and their fingerprint.

A body is one of three kinds:

* `json`: read by orjson *and* proven faithful, that is, nothing of the text was lost by reading it.
* `multipart`: split at its boundary, which is random and therefore left out.
* `raw`: everything else, and everything that cannot be proven (NaN, lone surrogates, integers beyond
  64 bits, more digits than a double holds, duplicate keys, nesting too deep, broken multipart). Its
  canonical form is its exact bytes, so at worst an equal ask misses; two different asks never meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson

from askonce import _multipart

SORTED = orjson.OPT_SORT_KEYS
_EXACT_INT = 1 << 53
_CONTAINERS = frozenset({dict, list})

# Objects under these names reach the model in their own order: property order in a schema steers the
# order in which a structured answer is generated. They are kept as they were sent. So is anything with
# "schema" in its name.
_ORDERED = frozenset({
    "tools", "functions", "response_format", "text", "format", "generationConfig", "generation_config",
    "toolConfig", "tool_config", "output_config", "output_format", "guided_json", "structured_outputs",
    "prediction", "parameters", "properties",
})  # fmt: skip
# Free-form objects that are rendered into the prompt: arguments and results of earlier tool calls.
_ORDERED_OBJECTS = frozenset({"input", "args", "arguments", "response", "output"})


@dataclass(slots=True, eq=False)
class Body:
    """A parsed body.

    Attributes:
        kind: how it was read.
        fields: the top-level fields of a JSON object, or the short text fields of a multipart form.
        value: the JSON value (kind `json`), the parts (kind `multipart`), or the bytes (kind `raw`).
    """

    kind: Literal["json", "multipart", "raw"]
    value: Any = field(repr=False)
    fields: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    _kept: tuple[frozenset[str], dict[str, Any]] | None = field(default=None, init=False, repr=False)

    def kept(self, ignore: frozenset[str]) -> dict[str, Any]:
        """The fields that are part of the question, see `kept_fields`; made once."""
        if self._kept is None or self._kept[0] is not ignore:
            self._kept = (ignore, kept_fields(self.fields, ignore))
        return self._kept[1]

    def canonical(self, ignore: frozenset[str]) -> list[bytes]:
        """Parts that are equal exactly when two bodies ask the same thing; hashed length-prefixed."""
        if self.kind == "json":
            if type(self.value) is dict:
                return [b"json", *canonical_value(self.kept(ignore))]
            return [b"json", orjson.dumps(self.value)]
        if self.kind == "multipart":
            return [b"multipart", *_multipart.canonical(self.value, ignore)]
        return [b"raw", self.value]


def parse(content_type: str, raw: bytes) -> Body:
    """Read a body. Never raises: what cannot be read safely is `raw`."""
    if content_type.startswith("multipart/form-data"):
        parts = _multipart.split(content_type, raw)
        if parts is None:
            return Body("raw", raw)
        return Body("multipart", parts, _multipart.text_fields(parts))
    try:
        value = orjson.loads(raw)
        # Equal bytes after a round trip prove that nothing was lost, at a tenth of the cost of
        # looking. SDKs send compact JSON, so nearly every body takes this way out.
        faithful = orjson.dumps(value) == raw or _is_faithful(raw)
    except (orjson.JSONDecodeError, TypeError, RecursionError):  # orjson's encode error is a TypeError
        return Body("raw", raw)
    if not faithful:
        return Body("raw", raw)
    return Body("json", value, cast("dict[str, Any]", value) if type(value) is dict else {})


def _is_faithful(raw: bytes) -> bool:
    """True when reading this JSON into Python values loses nothing that a provider could see."""
    import json  # noqa: PLC0415 - SDKs send compact JSON, which never comes here

    try:
        json.loads(
            raw.decode(),
            object_pairs_hook=_no_duplicates,
            parse_int=_fits_64_bits,
            parse_float=_fits_a_double,
        )
    except (ValueError, ArithmeticError, RecursionError):
        return False
    return True


def _no_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError


def _fits_64_bits(digits: str) -> None:
    if not -(1 << 63) <= int(digits) < 1 << 64:
        raise ValueError


def _fits_a_double(digits: str) -> None:
    from decimal import Decimal  # noqa: PLC0415

    if Decimal(digits) != Decimal(repr(float(digits))):
        raise ValueError


def kept_fields(fields: dict[str, Any], ignore: frozenset[str]) -> dict[str, Any]:
    """The fields that are part of the question, with values that mean the same made the same."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or name in ignore:
            continue
        if value is False:
            if name == "stream":
                continue
        elif isinstance(value, float):
            if value.is_integer() and abs(value) < _EXACT_INT:
                value = int(value)  # noqa: PLW2901 - 0.0 and 0 are the same temperature
        elif value == [] and name == "tools":
            continue
        kept[name] = value
    return kept


def canonical_value(value: Any, name: str = "") -> Iterator[bytes]:
    """A value's parts: what is there, and in which order where order matters.

    First its sorted dump; then, for the subtrees that keep their order, their paths and themselves.
    """
    ordered: list[tuple[tuple[str | int, ...], Any]] = []
    if type(value) in _CONTAINERS:
        _find_ordered(name, value, (), ordered)
    yield orjson.dumps(value, option=SORTED)
    ordered.sort(key=lambda found: found[0])
    for path, subtree in ordered:
        yield orjson.dumps(path)
        yield orjson.dumps(subtree)


def _find_ordered(
    name: str,
    value: dict[str, Any] | list[Any],
    path: tuple[str | int, ...],
    found: list[tuple[tuple[str | int, ...], Any]],
) -> None:
    if isinstance(value, dict):
        if name in _ORDERED or name in _ORDERED_OBJECTS or "schema" in name.lower():
            found.append((path, value))
            return
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                _find_ordered(key, item, (*path, key), found)
        return
    kinds = set(map(type, value))  # a list of 100,000 token ids is passed over at C speed
    if dict not in kinds and list not in kinds:
        return
    if name in _ORDERED or "schema" in name.lower():
        found.append((path, value))
        return
    for position, item in enumerate(value):
        if type(item) in _CONTAINERS:
            _find_ordered("", item, (*path, position), found)
