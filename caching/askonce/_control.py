"""What a caller says about the calls inside a block, or about one call by its Cache-Control header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from askonce._errors import ConfigurationError, not_allowed
from askonce._policy import UNSET, Unset
from askonce._units import Duration, life, seconds

Mode: TypeAlias = Literal["on", "refresh", "read_only", "offline", "off"]
_DIGITS: Final = 10
_FOR_EVER: Final = 2.0**31
MODES: Final[tuple[str, ...]] = get_args(Mode)


def check_mode(option: str, value: object) -> None:
    """Raise ConfigurationError unless `value` is one of the five modes."""
    if value not in MODES:
        raise not_allowed(option, value, MODES)


def check_namespace(value: object) -> None:
    """Raise ConfigurationError unless `value` can stand before the colon of a key."""
    if not isinstance(value, str) or not value or ":" in value or not value.isprintable():
        raise not_allowed("namespace", value, 'a text of printable characters without ":", at least one')


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Per-call settings; UNSET where nothing was said. Inner blocks win over outer ones."""

    ttl: float | Unset | None = UNSET
    max_age: float | None = None
    refresh: bool | None = None
    store: bool | None = None
    mode: str | None = None
    namespace: str | None = None
    scope: str | None = None
    tags: tuple[str, ...] = ()
    sample: int | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    semantic: float | None = None

    def over(self, outer: Control) -> Control:
        """This control where it says something, `outer` elsewhere; tags add up."""
        merged = {
            item.name: inner
            if inner is not None and not isinstance(inner, Unset)
            else getattr(outer, item.name)
            for item in fields(self)
            for inner in (getattr(self, item.name),)
        }
        if self.ttl is None:  # None is a value here: never expires
            merged["ttl"] = None
        if self.semantic is not None and outer.semantic is not None:  # tightened, never loosened
            merged["semantic"] = max(self.semantic, outer.semantic)
        merged["tags"] = tuple(dict.fromkeys((*outer.tags, *self.tags)))
        return Control(**merged)

    def of_the_question(self) -> Control:
        """What it says about the question and its answer's labels; nothing of reading, storing and lives."""
        return Control(namespace=self.namespace, scope=self.scope, tags=self.tags, sample=self.sample)


NOTHING_SAID: Final = Control()
NOT_AT_ALL: Final = float("inf")
"""Of `Control.semantic`: no similarity is enough."""


class _Block(NamedTuple):
    """An open `using(...)` block: what holds inside, whose it is, and the block around it."""

    control: Control
    owner: object
    outer: _Block | None


_current: ContextVar[_Block | None] = ContextVar("askonce_control", default=None)


def current_control() -> Control:
    """What the enclosing `using(...)` blocks say."""
    block = _current.get()
    return NOTHING_SAID if block is None else block.control


class using:  # noqa: N801 - reads as a statement: with using(ttl="1h"):
    """Settings for the calls inside a `with` block; also an async context manager.

    They travel with context variables: into coroutines and tasks started inside, and into
    `asyncio.to_thread`. Thread pools do not carry context variables; hand them
    `contextvars.copy_context().run`. Blocks nest, the inner one wins.

    Args:
        ttl: life of answers stored inside; None: for ever; 0: store nothing.
        max_age: do not accept stored answers older than this (seconds or "15m").
        refresh: True asks the provider and stores the new answer.
        store: False stores nothing (reading goes on).
        mode: "on" | "refresh" | "read_only" | "offline" | "off".
        namespace: another namespace.
        scope: who may share the answers: a text of yours, such as a tenant's name.
        tags: labels on answers stored inside, for `invalidate(tag=...)`.
        sample: number of an independent answer, 0 (default) upwards.
        semantic: False: no answers to similar questions, and none from here for others; a number: only to
            questions at least so similar (0 to 1). It tightens what the cache's layer and outer blocks
            say, and never loosens it.

    Raises:
        ConfigurationError: at once, for a bad value.
    """

    def __init__(
        self,
        *,
        ttl: Duration | Unset | None = UNSET,
        max_age: Duration | None = None,
        refresh: bool | None = None,
        store: bool | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
        scope: str | None = None,
        tags: Iterable[str] = (),
        sample: int | None = None,
        semantic: bool | float | None = None,
    ) -> None:
        if mode is not None:
            check_mode("mode", mode)
        if namespace is not None:
            check_namespace(namespace)
        for option, flag in (("refresh", refresh), ("store", store)):
            if flag is not None and not isinstance(flag, bool):
                raise not_allowed(option, flag, "True, False")
        if scope is not None and not isinstance(scope, str):
            raise not_allowed("scope", scope, "a text naming who may share the answers")
        if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 0):
            raise not_allowed("sample", sample, "a whole number >= 0")
        if not isinstance(tags, Iterable):
            raise not_allowed("tags", tags, "texts, at least one character each")
        tags = (tags,) if isinstance(tags, str) else tuple(tags)
        if not all(isinstance(tag, str) and tag and _is_writable(tag) for tag in tags):
            raise not_allowed("tags", tags, "texts, at least one character each")
        self._control = Control(
            ttl=ttl if isinstance(ttl, Unset) else life("ttl", ttl),
            max_age=None if max_age is None else seconds("max_age", max_age),
            refresh=refresh,
            store=store,
            mode=mode,
            namespace=namespace,
            scope=scope,
            tags=tags,
            sample=sample,
            semantic=_similarity(semantic),
        )

    def __enter__(self) -> None:
        outer = _current.get()
        control = self._control if outer is None else self._control.over(outer.control)
        _current.set(_Block(control, self, outer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not a context variable's token: a generator may end in another context than it began in,
        # and one block object may be open in several threads. There is nothing of ours to close there.
        block = _current.get()
        if block is not None and block.owner is self:
            _current.set(block.outer)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _similarity(said: object) -> float | None:
    """The least similarity: None where nothing is said, infinity for none at all."""
    if said is None or said is True:
        return None
    if said is False:
        return NOT_AT_ALL
    if isinstance(said, (int, float)) and 0 <= said <= 1:
        return float(said)
    raise not_allowed("semantic", said, "False, or the least similarity, a number from 0 to 1")


def _is_writable(text: str) -> bool:
    """Not so with lone surrogates, which no UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# A comma inside a quoted string separates nothing (RFC 9110 section 5.6.4). Each character is matched in
# one way only: time stays linear for whatever a caller sends.
_DIRECTIVE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


def from_cache_control(header: str) -> Control:
    """Read the request directives of a Cache-Control header (RFC 9111 section 5.2.1, RFC 5861).

    `no-cache` asks the provider and stores; `no-store` stores nothing; `max-age=N` bounds the age;
    `only-if-cached` never asks; `stale-while-revalidate=N` and `stale-if-error=N` bound staleness.
    Directives that a cache does not know are ignored, as the RFC demands.

    Raises:
        ConfigurationError: for a directive we know with a value that is no number of seconds.
    """
    refresh: bool | None = None
    store: bool | None = None
    mode: str | None = None
    bounds: dict[str, float] = {}
    for directive in _DIRECTIVE.findall(header):
        name, _, argument = str(directive).partition("=")
        name = name.strip().lower()
        argument = argument.strip().strip('"')
        if name == "no-cache":
            refresh = True
        elif name == "no-store":
            store = False
        elif name == "only-if-cached":
            mode = "offline"
        elif name in {"max-age", "stale-while-revalidate", "stale-if-error"}:
            if not (argument.isascii() and argument.isdecimal()):
                raise ConfigurationError(
                    f"Cache-Control: {name}={argument!r} is not allowed; allowed: whole seconds >= 0"
                )
            # Of a directive given twice the first counts; 68 years are for ever (RFC 9111 section 1.2.2).
            bounds.setdefault(name, float(argument) if len(argument) <= _DIGITS else _FOR_EVER)
    return Control(
        refresh=refresh,
        store=store,
        mode=mode,
        max_age=bounds.get("max-age"),
        stale_while_revalidate=bounds.get("stale-while-revalidate"),
        stale_if_error=bounds.get("stale-if-error"),
    )
