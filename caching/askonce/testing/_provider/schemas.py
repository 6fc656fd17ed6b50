"""A value that fits a JSON schema, for structured output and tool arguments.

Covers what strict structured output allows: objects, arrays, enums, const, anyOf, $ref, recursion,
numeric bounds. Patterns and formats are not looked at.
"""

from __future__ import annotations

from typing import Any, cast

from askonce.testing._provider.answers import Json

# Where a recursive schema is ended: by its null or its first branch that needs no further level.
_DEPTH = 4


def fit(schema: Json, *, number: int) -> Any:
    """A value for `schema`; `number` shows in its strings and integers, so that answers differ."""
    return _Fitter(schema, number).fit(schema, "value", 0)


class _Fitter:
    def __init__(self, root: Json, number: int) -> None:
        self._root = root
        self._number = number

    def fit(self, schema: Json, name: str, depth: int) -> Any:
        schema = self._resolved(schema)
        options = [schema["const"]] if "const" in schema else schema.get("enum")
        if options:
            return options[self._number % len(options)]
        branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if branches:
            return self.fit(self._branch(branches, depth), name, depth)
        make = {
            "object": self._object,
            "array": self._array,
            "integer": self._integer,
            "number": self._decimal,
            "boolean": self._boolean,
            "null": self._null,
        }.get(self._kind(schema, depth), self._string)
        return make(schema, name, depth)

    def _object(self, schema: Json, _name: str, depth: int) -> Json:
        properties = cast(Json, schema.get("properties") or {})
        required = schema.get("required", []) if depth >= _DEPTH else properties
        return {key: self.fit(properties[key], key, depth + 1) for key in properties if key in required}

    def _array(self, schema: Json, name: str, depth: int) -> list[Any]:
        count = schema.get("minItems") or (0 if depth >= _DEPTH else 2)
        return [self.fit(schema.get("items") or {}, name, depth + 1) for _ in range(count)]

    def _integer(self, schema: Json, _name: str, _depth: int) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")) - 1)
        return int(min(max(self._number, low), high))

    def _decimal(self, schema: Json, name: str, depth: int) -> float:
        bounded = not {"maximum", "exclusiveMaximum"}.isdisjoint(schema)
        return self._integer(schema, name, depth) + (0.0 if bounded else 0.5)

    def _boolean(self, _schema: Json, _name: str, _depth: int) -> bool:
        return self._number % 2 == 0

    def _null(self, _schema: Json, _name: str, _depth: int) -> None:
        return None

    def _string(self, _schema: Json, name: str, _depth: int) -> str:
        return f"{name} {self._number}"

    def _resolved(self, schema: Json) -> Json:
        seen = 0
        while isinstance(reference := schema.get("$ref"), str) and seen < _DEPTH:
            seen += 1
            schema = self._root
            for step in reference.removeprefix("#").strip("/").split("/"):
                schema = schema.get(step, {}) if step else schema
        return schema

    def _branch(self, branches: list[Json], depth: int) -> Json:
        if depth >= _DEPTH:
            for branch in branches:
                if branch.get("type") == "null":
                    return branch
        return branches[0]

    def _kind(self, schema: Json, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = cast(list[str], kind)
            return "null" if depth >= _DEPTH and "null" in kinds else kinds[0]
        if kind is None and "properties" in schema:
            return "object"
        return str(kind)
