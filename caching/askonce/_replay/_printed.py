"""JSON laid out for people and for diffs: one thing a line, but a vector on one line."""

from __future__ import annotations

import json
from typing import Any, cast


def printed(value: Any, indent: str = "") -> str:
    """A value's text. What stands in it keeps its order."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        fields = cast("dict[str, Any]", value)
        lines = [f"{deeper}{_one(name)}: {printed(inner, deeper)}" for name, inner in fields.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        items = cast("list[Any]", value)
        if all(isinstance(item, (int, float)) for item in items):
            return _one(items)
        return "[\n" + ",\n".join(f"{deeper}{printed(item, deeper)}" for item in items) + f"\n{indent}]"
    return _one(value)


def _one(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
