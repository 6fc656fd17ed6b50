"""Answers built again: a recipe for a framework's object, taken from one that the framework has built.

What a framework made of an answer once it would make of the same answer again, field by field. A plan does
the last step of that only: new instances, new lists and dicts, the same immutable leaves. Nothing mutable
is shared between two builds.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Final, TypeAlias, cast

Build: TypeAlias = Callable[[], Any]

_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes})
_SET: Final = "__pydantic_fields_set__"
_STATE: Final = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
_set = object.__setattr__


class UnplannedError(Exception):
    """The object holds something of which it is not known how to make another."""


def plan(value: object, package: str) -> Build:
    """A function that makes objects like this one; later changes of the value do not show in them.

    Args:
        value: pydantic models, lists, dicts and plain values, in one another.
        package: whose models: anybody else's may keep state elsewhere.

    Raises:
        UnplannedError: for an object with anything else in it.
    """
    if type(value) in _LEAVES or (_is_text(value) and _is_of(value, package)):
        return lambda: value
    if type(value) is list:
        return _plan_list(cast("list[Any]", value), package)
    if type(value) is dict:
        return _plan_dict(cast("dict[Any, Any]", value), package)
    if _is_model(value) and _is_of(value, package):
        return _plan_model(value, package)
    raise UnplannedError(type(value).__name__)


def _is_of(value: object, package: str) -> bool:
    return type(value).__module__.partition(".")[0] == package


def _is_text(value: object) -> bool:
    """Whether an object is a text with nothing beside it that could change."""
    return isinstance(value, str) and not hasattr(value, "__dict__")


def _is_model(value: object) -> bool:
    """Whether an object is a model of pydantic 2, which need not be loaded to see that."""
    return hasattr(type(value), "__pydantic_core_schema__")


def _plan_list(value: list[Any], package: str) -> Build:
    if _LEAVES.issuperset(map(type, value)):
        return value.copy().copy
    parts = [plan(one, package) for one in value]
    return lambda: [make() for make in parts]


def _plan_dict(value: dict[Any, Any], package: str) -> Build:
    plain, rest = _split(value, package)
    if not rest:
        return plain.copy

    def build() -> dict[Any, Any]:
        made = plain.copy()
        for name, make in rest:
            made[name] = make()
        return made

    return build


def _plan_model(value: Any, package: str) -> Build:
    kind = cast("Any", type(value))
    plain, rest = _split(value.__dict__, package)
    fields_set: frozenset[str] = frozenset(value.__pydantic_fields_set__)
    extra = plan(value.__pydantic_extra__, package)
    private = plan(value.__pydantic_private__, package)
    new = kind.__new__

    def build() -> Any:
        fields = plain.copy()
        for name, make in rest:
            fields[name] = make()
        made = new(kind)
        _set(made, "__dict__", fields)
        _set(made, "__pydantic_fields_set__", set(fields_set))
        _set(made, "__pydantic_extra__", extra())
        _set(made, "__pydantic_private__", private())
        return made

    return build


def _split(value: dict[Any, Any], package: str) -> tuple[dict[Any, Any], tuple[tuple[Any, Build], ...]]:
    """All names in their order, those of leaves with their values; and how to make the others."""
    for name in value:
        if type(name) not in _LEAVES:
            raise UnplannedError(type(name).__name__)
    rest = tuple((name, plan(one, package)) for name, one in value.items() if type(one) not in _LEAVES)
    return {name: one if type(one) in _LEAVES else None for name, one in value.items()}, rest


def same(one: object, other: object) -> bool:
    """Whether an object is a true copy of another: equal types, order, what was set, what is private.

    Leaves are the very same objects, and nothing else is: what one caller changes no other sees.
    """
    kind = type(one)
    if kind in _LEAVES or _is_text(one):
        return one is other
    if kind is not type(other) or one is other:
        return False
    if kind is list:
        return _all_same(cast("list[Any]", one), cast("list[Any]", other))
    if kind is dict:
        mine, theirs = cast("dict[Any, Any]", one), cast("dict[Any, Any]", other)
        return list(mine) == list(theirs) and _all_same(list(mine.values()), list(theirs.values()))
    if not _is_model(one):
        return False
    return getattr(one, _SET) == getattr(other, _SET) and all(
        same(getattr(one, name), getattr(other, name)) for name in _STATE
    )


def _all_same(mine: list[Any], theirs: list[Any]) -> bool:
    if len(mine) != len(theirs):
        return False
    if _LEAVES.issuperset(map(type, mine)):
        return all(map(is_, mine, theirs))
    return all(map(same, mine, theirs))
