"""Policy: the one frozen value that says what may be read and stored, and for how long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import translate
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from askonce._errors import ConfigurationError
from askonce._key import VARY_HEADERS
from askonce._units import Duration, Size, life, seconds, size

if TYPE_CHECKING:
    from askonce._entry import Entry
    from askonce._request import Request

IGNORED_FIELDS: Final = frozenset({
    "user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "service_tier",
})  # fmt: skip
"""Top-level body fields that do not change the answer."""

Cacheable: TypeAlias = Callable[["Request", "Entry | None"], bool]
"""Asked twice: with None before a lookup, and with the answer before it is stored."""


class Unset(Enum):
    """The type of UNSET, which marks an option as "not said here": None means "for ever" to a ttl."""

    UNSET = "not said here"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def _check_temperature(owner: str, value: object) -> None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        return
    raise ConfigurationError(
        f"{owner}: max_temperature={value!r} is not allowed; allowed: None or a number >= 0"
    )


def _check_rate(value: object) -> None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < inf):
        return
    raise ConfigurationError(
        f"Policy: replay_rate={value!r} is not allowed; allowed: None or a number above 0"
    )


def _check_flag(owner: str, option: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{owner}: {option}={value!r} is not allowed; allowed: True, False")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Exceptions to a Policy for some requests. The first rule that matches wins.

    Conditions (all that are given must hold; `*` and `?` are globs):

    Attributes:
        model: model name, such as "gpt-4o*".
        url: URL without query, such as "*/embeddings".
        namespace: the namespace the call goes to.

    The other options are those of Policy; what is not given stays as the Policy says. A rule with a
    `ttl` also opens hosted tools that read the world, and, when it names a `url`, endpoints that askonce
    does not know. `ttl=0`: no cache.

    Raises:
        ConfigurationError: for a rule without a condition, or a bad value.
    """

    model: str | None = None
    url: str | None = None
    namespace: str | None = None
    ttl: Duration | Unset | None = UNSET
    stale_while_revalidate: Duration | Unset = UNSET
    stale_if_error: Duration | Unset = UNSET
    max_temperature: float | Unset | None = UNSET
    store_truncated: bool | Unset = UNSET
    store_refusals: bool | Unset = UNSET

    said: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.model is None and self.url is None and self.namespace is None:
            raise ConfigurationError("a Rule needs at least one condition: model=, url= or namespace=")
        for name in ("model", "url", "namespace"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(
                    f"Rule: {name}={value!r} is not allowed; allowed: a text with * as glob"
                )
        said: dict[str, Any] = {}
        if not isinstance(self.ttl, Unset):
            said["ttl"] = life("Rule: ttl", self.ttl)
            said["opened"] = said["ttl"] != 0
            said["opened_endpoint"] = said["opened"] and self.url is not None
        for name in ("stale_while_revalidate", "stale_if_error"):
            value = getattr(self, name)
            if not isinstance(value, Unset):
                said[name] = seconds(f"Rule: {name}", value)
        if not isinstance(self.max_temperature, Unset):
            _check_temperature("Rule", self.max_temperature)
            said["max_temperature"] = self.max_temperature
        for name in ("store_truncated", "store_refusals"):
            value = getattr(self, name)
            if not isinstance(value, Unset):
                _check_flag("Rule", name, value)
                said[name] = value
        object.__setattr__(self, "said", said)

    def matches(self, *, model: str, url: str, namespace: str) -> bool:
        """Whether every condition given holds. A request without a model matches no model condition."""
        return (
            (self.model is None or (bool(model) and _glob(self.model).match(model) is not None))
            and (self.url is None or _glob(self.url).match(url) is not None)
            and (self.namespace is None or _glob(self.namespace).match(namespace) is not None)
        )


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A policy's figures in plain units, with a rule's exceptions applied. See Policy for meanings.

    `opened` is True when a rule gave a ttl of its own: hosted tools are open then. `opened_endpoint` is
    True when that rule names URLs: endpoints that askonce does not know are open then, too.
    """

    ttl: float | None
    stale_while_revalidate: float
    stale_if_error: float
    jitter: float
    max_entry_bytes: int
    max_temperature: float | None
    store_truncated: bool
    store_refusals: bool
    replay_rate: float | None = None
    opened: bool = False
    opened_endpoint: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may be read and stored, and for how long. A value: nothing in it changes.

    Attributes:
        ttl: life of an answer from its creation; None: for ever; 0: store nothing. Default one day.
            A hit never extends it.
        stale_while_revalidate: seconds after expiry in which the old answer is given at once while a
            new one is fetched in the background (RFC 5861 section 3). Default 0.
        stale_if_error: seconds after expiry in which the old answer is given when the provider cannot
            be reached, times out, or answers 429 or 5xx (RFC 5861 section 4). Default 0.
        jitter: share by which a life may be shortened at random, so that answers stored together do
            not expire together; 0 to 1, default 0.1. It never lengthens a life.
        rules: exceptions, the first match wins.
        max_entry_bytes: larger answers are passed on, not stored. Default 16 MiB.
        max_temperature: requests above it are not cached; None (default): all are.
        store_truncated: also keep answers cut off by a length limit. Default no.
        store_refusals: also keep refused and filtered answers. Default no.
        share_streams: a stored stream also answers the same question asked plainly (chat, where the
            stream tells its usage; Responses; Anthropic's messages), and a stored plain answer the same
            question streamed (chat and messages: the content is the same, the pieces are words). Looked
            for after an exact miss, by one more read. Default no.
        share_choices: a stored chat answer with more choices (`n` up to 8) also answers the same question
            with a smaller `n`: with its first choices, and the usage figures of all of them. Default no.
        replay_rate: events a second at which stored streams are given, for interfaces that show words as
            they come; None (default): at once.
        ignore_fields: top-level body fields that are not part of the question.
        vary_headers: names of further request headers that are.
        cacheable: a last word of yours, `(request, entry or None) -> bool`; an exception means no.

    Raises:
        ConfigurationError: for a bad value, naming the option and what is allowed.
    """

    ttl: Duration | None = "1d"
    stale_while_revalidate: Duration = 0
    stale_if_error: Duration = 0
    jitter: float = 0.1
    rules: tuple[Rule, ...] = ()
    max_entry_bytes: Size = "16MiB"
    max_temperature: float | None = None
    store_truncated: bool = False
    store_refusals: bool = False
    share_streams: bool = False
    share_choices: bool = False
    replay_rate: float | None = None
    ignore_fields: frozenset[str] = IGNORED_FIELDS
    vary_headers: frozenset[str] = frozenset()
    cacheable: Cacheable | None = None
    # Derived once, used per call.
    vary: frozenset[bytes] = field(init=False, repr=False, compare=False, default=VARY_HEADERS)
    terms: Terms = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        jitter = self.jitter
        if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            raise ConfigurationError(
                f"Policy: jitter={jitter!r} is not allowed; allowed: a number from 0 to 1"
            )
        _check_temperature("Policy", self.max_temperature)
        for name in ("store_truncated", "store_refusals", "share_streams", "share_choices"):
            _check_flag("Policy", name, getattr(self, name))
        _check_rate(self.replay_rate)
        if self.cacheable is not None and not callable(self.cacheable):
            raise ConfigurationError(
                f"Policy: cacheable={self.cacheable!r} is not allowed; allowed: a callable or None"
            )
        given: object = self.rules
        rules = tuple(cast("Iterable[object]", given)) if isinstance(given, Iterable) else (None,)
        if not all(isinstance(rule, Rule) for rule in rules):
            raise ConfigurationError(
                f"Policy: rules={self.rules!r} is not allowed; allowed: a sequence of Rule(...)"
            )
        put = object.__setattr__
        put(self, "rules", rules)
        put(self, "ignore_fields", _names("ignore_fields", self.ignore_fields))
        put(self, "vary_headers", _names("vary_headers", self.vary_headers))
        put(self, "vary", VARY_HEADERS | {name.lower().encode("ascii") for name in self.vary_headers})
        terms = Terms(
            ttl=life("Policy: ttl", self.ttl),
            stale_while_revalidate=seconds("Policy: stale_while_revalidate", self.stale_while_revalidate),
            stale_if_error=seconds("Policy: stale_if_error", self.stale_if_error),
            jitter=float(jitter),
            max_entry_bytes=size("Policy: max_entry_bytes", self.max_entry_bytes),
            max_temperature=self.max_temperature,
            store_truncated=self.store_truncated,
            store_refusals=self.store_refusals,
            replay_rate=self.replay_rate,
        )
        put(self, "terms", terms)

    @property
    def opens_endpoints(self) -> bool:
        """Whether any rule lets in endpoints that askonce does not know."""
        return any(rule.said.get("opened_endpoint", False) for rule in self.rules)

    def terms_for(self, *, model: str, url: str, namespace: str) -> Terms:
        """The figures for one request: those of the first rule that matches, else the policy's own."""
        for rule in self.rules:
            if rule.matches(model=model, url=url, namespace=namespace):
                return replace(self.terms, **rule.said)
        return self.terms


def _names(option: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"Policy: {option}={value!r} is not allowed; allowed: a set of names")
    names: list[object] = list(cast("Iterable[object]", value))
    texts = frozenset(name for name in names if isinstance(name, str))
    if not all(isinstance(name, str) and (name.isascii() or option == "ignore_fields") for name in names):
        raise ConfigurationError(f"Policy: {option}={value!r} is not allowed; allowed: a set of names")
    return texts
