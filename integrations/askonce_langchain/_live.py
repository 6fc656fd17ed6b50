"""The model behind a lookup, where it can be seen: LangChain tells a cache of it in a text that may be old.

LangChain writes a model's settings down once and keeps the text, so that a setting changed later
(`model.temperature = 0.9`) is not in it. The model itself stands in the frames of the call.
"""

from __future__ import annotations

import copy
import json
from inspect import currentframe
from types import FrameType
from typing import Any, Final, NamedTuple, cast
from weakref import ref

from langchain_core.language_models import BaseLanguageModel
from langchain_core.load import dumpd
from pydantic import BaseModel

_DEEP: Final = 4
_SEPARATOR: Final = "---["
_TIME_OUTS: Final = ("request_timeout", "default_request_timeout", "timeout")

# By the model's id, since models cannot be hashed; an entry goes with its model.
_remembered: dict[int, _Known] = {}


class _Known(NamedTuple):
    """What is known of a model: as it was, LangChain's text, and the one that is right (None: that one)."""

    model: Any
    state: dict[str, Any]
    written: str
    now: str | None


class Caller(NamedTuple):
    """LangChain's own method that looks up.

    Attributes:
        frame: in which it runs.
        model: whose method it is.
        kwargs: what the caller's own call was given.
    """

    frame: FrameType
    model: Any
    kwargs: dict[str, Any]


def calling() -> Caller | None:
    """Who looks up, among the callers of the caller; None when somebody does so by hand."""
    own = currentframe()
    frame = None if own is None else own.f_back  # the cache's method
    for _ in range(_DEEP):
        frame = None if frame is None else frame.f_back
        if frame is None:
            return None
        present = frame.f_locals  # made anew each time it is looked at
        model: Any = present.get("self")
        if BaseLanguageModel in type(model).__mro__:  # isinstance runs pydantic's own, in Python
            kwargs: Any = present.get("kwargs")
            return Caller(frame, model, kwargs if isinstance(kwargs, dict) else {})
    return None


def current(llm_string: str, caller: Caller | None) -> str:
    """The text as it would be if it were written now."""
    written, found, params = llm_string.partition(_SEPARATOR)
    if caller is None or not found or not written.startswith("{"):
        return llm_string
    try:
        fresh = _fresh(caller.model, written)
    except Exception:  # noqa: BLE001 - a model that cannot be written down has the text it has
        return llm_string
    return llm_string if fresh is None else fresh + found + params


def schemas_in(caller: Caller | None) -> dict[str, Any]:
    """The JSON schemas of classes that a call was given, by parameter. The text has their names only."""
    if caller is None:
        return {}
    return {
        name: value.model_json_schema()
        for name, value in caller.kwargs.items()
        if isinstance(value, type) and issubclass(value, BaseModel)
    }


def patience(caller: Caller | None) -> float | None:
    """Seconds for which the model itself would wait for its provider; None where it does not say."""
    state: dict[str, Any] = {} if caller is None else caller.model.__dict__
    for name in _TIME_OUTS:
        given = state.get(name)
        if isinstance(given, (int, float)) and given > 0:
            return float(given)
    return None


def _fresh(model: Any, written: str) -> str | None:
    """The settings' text, when it is another one than LangChain has; None when that is right."""
    state: dict[str, Any] = model.__dict__
    me = id(model)
    known = _remembered.get(me)
    if known is not None and known.model() is model and known.written == written and known.state == state:
        return known.now
    if _text(copy.deepcopy(model._serialized)) != written:  # noqa: SLF001 - what LangChain keeps
        return None  # somebody looks up by hand, inside a model's method: the text is another model's
    text = _text(dumpd(model))
    now = None if text == written else text
    _remembered[me] = _Known(ref(model, lambda _: _remembered.pop(me, None)), _kept(state), written, now)
    return now


def _text(settings: Any) -> str:
    """As LangChain writes settings down."""
    _cleaned(settings)
    return json.dumps(settings, sort_keys=True)


def _kept(state: dict[str, Any]) -> dict[str, Any]:
    """A copy in which later changes do not show; what cannot be copied is compared by itself."""
    kept: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict | list | set | BaseModel):
            try:
                kept[name] = copy.deepcopy(value)  # pyright: ignore[reportUnknownArgumentType]
            except Exception:  # noqa: BLE001
                kept[name] = object()  # never equal: written down anew each time
        else:
            kept[name] = value
    return kept


def _cleaned(value: Any) -> None:
    """As LangChain does: without reprs and graphs."""
    if isinstance(value, dict):
        written = cast("dict[str, Any]", value)
        if written.get("type") == "not_implemented":
            written.pop("repr", None)
        written.pop("graph", None)
        for inner in written.values():
            _cleaned(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _cleaned(inner)
