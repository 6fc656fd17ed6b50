"""Decide, purely: what Policy and the caller's control say about one request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias

from askonce import _events as events
from askonce import _key
from askonce._body import Body
from askonce._control import Control, from_cache_control
from askonce._entry import Entry
from askonce._errors import ConfigurationError
from askonce._items import items_of, keys_of
from askonce._policy import Cacheable, Policy, Terms, Unset
from askonce._request import Request
from askonce._surface import (
    EMPTY,
    ERROR,
    EXPIRING,
    INCOMPLETE,
    REFUSED,
    TRUNCATED,
    Surface,
)
from askonce._surfaces import OTHER, surface_of, surfaces_of
from askonce._world import reads_the_world

Scope: TypeAlias = "str | Callable[[Request], str]"

# A POST here makes something; a cached answer would be a job that was never started.
_CHANGES_THINGS: Final = re.compile(
    r"/(assistants|batches|containers|conversations|evals|files|fine_tuning|realtime|threads|uploads|vector_stores)\b"
)
_WRITING: Final = frozenset({"on", "refresh"})
_NEVER_STORED: Final = (ERROR, INCOMPLETE, EMPTY)  # the most telling first


@dataclass(slots=True, kw_only=True, eq=False)
class Decision:
    """What may happen with one request. Pure data.

    Attributes:
        bypass: why the call passes through untouched; "" when the cache takes part.
        terms: the policy's figures in force, rule applied.
        surface: kind of endpoint.
        model: the model asked for.
        key: `namespace:digest`; "" for a bypass.
        scope: who shares the answer, see `scope_value`.
        sample: which of several independent answers.
        read: a stored answer may be given.
        write: the answer may be stored.
        offline: the provider must not be asked.
        coalesce: the call may share a provider call with identical ones.
        ttl: life of a new answer in seconds; None: for ever.
        max_age: a stored answer may not be older; None: no bound.
        stale_while_revalidate: seconds after expiry in which the old answer is given at once.
        stale_if_error: seconds after expiry in which it is given when the provider fails.
        tags: labels for a new answer.
        items: the key of each input, where a list of them is answered item by item; else nothing.
        semantic: how similar a question must be whose answer may be given, as far as the caller says;
            infinity: no other question's answer at all.
    """

    bypass: str
    terms: Terms
    surface: Surface
    model: str
    key: str
    scope: str = field(repr=False)
    sample: int
    read: bool
    write: bool
    offline: bool
    coalesce: bool
    ttl: float | None
    max_age: float | None
    stale_while_revalidate: float
    stale_if_error: float
    tags: tuple[str, ...]
    items: tuple[str, ...] = ()
    semantic: float = 0.0

    def lives(self, now: float) -> tuple[float | None, float | None]:
        """When an answer created now stops being fresh, and when even its stale windows end."""
        if self.ttl is None:
            return None, None
        from random import random  # noqa: PLC0415 - only when something is stored

        shortened = self.ttl * (1.0 - self.terms.jitter * random())  # noqa: S311 - spread, not secrecy
        expires = now + shortened
        return expires, expires + max(self.stale_while_revalidate, self.stale_if_error)

    def refuses(self, flaws: set[str]) -> str:
        """The flaw for which an answer must not be stored; "" when there is none."""
        for flaw in _NEVER_STORED:
            if flaw in flaws:
                return flaw
        if TRUNCATED in flaws and not self.terms.store_truncated:
            return TRUNCATED
        if REFUSED in flaws and not self.terms.store_refusals:
            return REFUSED
        if EXPIRING in flaws and not self.terms.opened:
            return EXPIRING
        return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """What a Cache was made with, as far as decisions need it.

    `hears`: callers have a say in whether answers are read and stored, and for how long. Without it there is
    one thing that they may say: offline, which is a promise to them that nobody is asked.
    """

    policy: Policy
    namespace: str
    scope: Scope
    mode: str
    secret: bytes | None = field(repr=False)
    hears: bool = True

    def mode_for(self, said: Control) -> str:
        """The mode in force for a caller."""
        if not self.hears and said.mode != "offline":
            return self.mode
        return said.mode or self.mode


def considers(settings: Settings, method: str, path: str) -> bool:
    """False when a request is passed through whatever its body says, so that nobody needs to read it."""
    return method == "POST" and (bool(surfaces_of(path)) or settings.policy.opens_endpoints)


def decide(settings: Settings, request: Request, body: Body, said: Control) -> Decision:
    """What may happen with this request.

    Raises:
        ConfigurationError: for a Cache-Control directive of the caller's with a bad value.
    """
    mode = settings.mode_for(said)
    if mode != "off":  # off is off, whatever a header says
        header = request.header(b"cache-control")
        if header:
            said = from_cache_control(header).over(said)
            mode = settings.mode_for(said)
    if not settings.hears:
        said = said.of_the_question()
    target = request.target
    surface = surface_of(target.path, body)
    model = model_of(target.path, body, surface)
    namespace = said.namespace or settings.namespace
    policy = settings.policy
    terms = policy.terms
    if policy.rules:
        place = request.url.partition("?")[0]
        terms = policy.terms_for(model=model, url=place, namespace=namespace)
    ttl = terms.ttl if isinstance(said.ttl, Unset) else said.ttl
    bypass = _why_bypass(request, body, terms, surface, mode=mode, model=model, ttl=ttl)
    if not bypass and policy.cacheable is not None and not approves(policy.cacheable, request, None):
        bypass = "policy"
    key = scope = ""
    items: tuple[str, ...] = ()
    if not bypass:
        try:
            scope = scope_value(settings.scope, said.scope, request)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - nobody's tenant: never the shared one, and never an error
            events.warn(
                "policy", "the scope callable raised %s; the call is not cached", type(error).__name__
            )
            bypass = "scope"
    if not bypass:

        def key_of(body: Body) -> str:
            digest = _key.digest(
                request,
                body,
                namespace=namespace,
                scope=scope,
                sample=said.sample or 0,
                vary=policy.vary,
                ignore=policy.ignore_fields,
                secret=settings.secret,
            )
            return f"{namespace}:{digest}"

        key = key_of(body)
        if surface is not None and surface.items:
            listed = items_of(request, body, surface.items)
            items = keys_of(listed, body, surface.items, key_of)
    offline = mode == "offline"
    refresh = not offline and (mode == "refresh" or said.refresh is True)
    write = said.store is not False and mode in _WRITING
    swr, sie = said.stale_while_revalidate, said.stale_if_error
    return Decision(
        bypass=bypass,
        terms=terms,
        surface=surface or OTHER,
        model=model,
        key=key,
        scope=scope,
        sample=said.sample or 0,
        read=not refresh,
        write=write,
        offline=offline,
        coalesce=write and not refresh and said.max_age is None,
        ttl=ttl,
        max_age=said.max_age,
        stale_while_revalidate=terms.stale_while_revalidate if swr is None else swr,
        stale_if_error=terms.stale_if_error if sie is None else sie,
        tags=said.tags,
        items=items,
        semantic=said.semantic or 0.0,
    )


def model_of(path: str, body: Body, surface: Surface | None) -> str:
    """The model a request asks: its field, or the part of the path that names it; "" when unnamed."""
    model = body.fields.get("model")
    if isinstance(model, str):
        return model
    found = surface.path.search(path) if surface is not None else None
    return (found.groupdict().get("model") or "") if found else ""


def scope_value(scope: Scope, said: str | None, request: Request) -> str:
    """Who shares this answer, as it enters the key: "" for everybody; credentials only as a digest.

    What a caller says narrows the cache's own scope; it never leaves it.

    Raises:
        ConfigurationError: when a scope callable returns anything but a text.
        Exception: whatever a scope callable raises.
    """
    if scope == "shared":
        value = ""
    elif scope == "credential":
        value = "credential:" + sha256(request.credentials()).hexdigest()
    else:
        named: object = scope if isinstance(scope, str) else scope(request)
        if not isinstance(named, str):
            given = type(named).__name__
            raise ConfigurationError(f"scope: the callable returned a {given}; allowed: a text")
        value = f"name:{named}"
    return value if said is None else f"{len(value)}:{value}said:{said}"


def approves(cacheable: Cacheable, request: Request, entry: Entry | None) -> bool:
    """The caller's own last word. A callable that fails has not said yes."""
    try:
        return bool(cacheable(request, entry))
    except Exception as error:  # noqa: BLE001 - whatever a caller's function raises, the call goes on
        events.warn("policy", "Policy.cacheable raised %s; the answer is not cached", type(error).__name__)
        return False


def _why_bypass(
    request: Request,
    body: Body,
    terms: Terms,
    surface: Surface | None,
    *,
    mode: str,
    model: str,
    ttl: float | None,
) -> str:
    if mode == "off":
        return "mode off"
    if request.method != "POST":
        return "method"
    path = request.target.path
    if surface is None and not (terms.opened_endpoint and not _CHANGES_THINGS.search(path)):
        return "endpoint"
    if ttl == 0:
        return "ttl 0"
    if request.unread:
        return "unread body"
    fields = body.fields
    if fields.get("background") is True:
        return "background"
    if fields.get("conversation") is not None or fields.get("conversation_id") is not None:
        return "conversation"
    if not terms.opened and reads_the_world(fields, model):
        return "hosted tool"
    if terms.max_temperature is not None:
        given = surface.temperature(fields) if surface is not None else fields.get("temperature")
        temperature = _number(given, in_text=body.kind == "multipart")
        if given is None and surface is not None and surface.sampled:
            temperature = 1.0
        if temperature is not None and temperature > terms.max_temperature:
            return "temperature"
    return ""


def _number(value: Any, *, in_text: bool) -> float | None:
    """A number, in a form also as the text of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str) if in_text else (int, float)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
