"""What was answered: the Entry, and the Meta that says how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, cast

Headers: TypeAlias = tuple[tuple[str, str], ...]

_KEPT = frozenset({"content-type", "date", "content-disposition", "content-language"})


def kept_headers(headers: list[tuple[bytes, bytes]]) -> Headers:
    """The response headers that are stored: an allow-list, names in lower case.

    Content type, date, request ids, and what OpenAI says about the call. Never cookies, rate limits,
    retry hints or credentials; never the encoding and length of a body that is stored decoded.
    """
    return tuple(
        [(name, value.decode("latin-1")) for raw, value in headers if (name := _kept_name(raw)) is not None]
    )


@lru_cache(maxsize=512)
def _kept_name(raw: bytes) -> str | None:
    """A header's name in lower case; None for one that is not stored. Providers send the same few."""
    name = raw.decode("latin-1").lower()
    kept = name in _KEPT or name.startswith("openai-") or name.endswith("request-id")
    return name if kept else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """How an entry came about and how long it lives.

    Attributes:
        created_at: when the provider had answered, seconds since the epoch.
        expires_at: when it stops being fresh; None: never.
        stale_until: until when it may still be given under stale-while-revalidate or stale-if-error;
            equal to `expires_at` without such windows. The store keeps the bytes until then.
        model: the model asked for; "" when the request names none.
        surface: which kind of endpoint answered, such as "chat" or "embeddings".
        url: where it was asked, without query.
        usage: the provider's own usage figures, numbers only.
        latency: seconds the provider took for the whole answer.
        tags: labels given by `using(tags=...)`.
        fingerprint: a short digest per part of the request (numbers, booleans and the model in
            clear), so that two requests can be compared field by field without storing the prompt.
    """

    created_at: float
    expires_at: float | None
    stale_until: float | None
    model: str = ""
    surface: str = ""
    url: str = ""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    latency: float = 0.0
    tags: tuple[str, ...] = ()
    fingerprint: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One answer, complete.

    Attributes:
        status: HTTP status.
        headers: the kept headers as (lower-case name, value).
        body: the body's bytes, not content-encoded; a stream's whole text.
        meta: how it came about.

    The repr shows figures only.
    """

    status: int
    headers: Headers
    body: bytes
    meta: Meta

    def header(self, name: str) -> str:
        """The first value of a header (lower-case name); "" if absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return ""

    @property
    def is_stream(self) -> bool:
        """True for a recorded event stream."""
        return self.header("content-type").startswith("text/event-stream")

    def __repr__(self) -> str:
        return f"<Entry {self.meta.surface} {self.meta.model} {self.status}, {len(self.body)} bytes>"


def plain_usage(usage: Any, depth: int = 3) -> dict[str, int]:
    """The numbers of a provider's usage object other than 0, nested ones as "outer.inner"."""
    found: dict[str, int] = {}
    if isinstance(usage, dict):
        for name, value in cast("dict[object, object]", usage).items():
            if isinstance(value, int) and not isinstance(value, bool):
                if value:  # most details are 0, and every entry carries them
                    found[str(name)] = value
            elif isinstance(value, dict) and depth:
                for inner, number in plain_usage(value, depth - 1).items():
                    found[f"{name}.{inner}"] = number
    return found
