"""Counters of one cache, and the immutable value that shows them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from askonce._fork import renew_after_fork
from askonce._outcome import SERVED, Outcome

if TYPE_CHECKING:
    from askonce.semantic import SemanticFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a cache did in this process since it was made. A value; ask again for newer figures.

    Attributes:
        hits: answered fresh from a store.
        stale: answered from a store after expiry, inside a stale window.
        coalesced: answered by another caller's provider call.
        semantic: answered by the semantic layer.
        misses: asked the provider.
        bypasses: passed through untouched.
        errors: asked the provider in vain, or offline misses.
        stored: answers written to the store.
        dropped: answers not written, by reason.
        bypassed: bypasses by reason.
        tiers: hits by store.
        corrupt: stored values that were no entries and were deleted.
        store_errors: failed store operations, by store.
        store_skips: store operations that were not begun, because the store's breaker was open or the call
            had no time left for stores; by store.
        breakers: "closed", "open" or "half-open", by remote store.
        refreshes: background refreshes started.
        recalled: of the hits, those that were rebuilt from the caller's arguments, without a request.
        unequal: answers that could not be rebuilt equal; their kind is no longer rebuilt.
        usage_saved: provider usage figures of all answers that cost no call, summed.
        usage_spent: those of all provider calls.
        seconds_saved: provider time of all answers that cost no call.
        layer: what the semantic layer did and met: "consulted", "served", "veto numbers" and so on.
    """

    hits: int = 0
    stale: int = 0
    coalesced: int = 0
    semantic: int = 0
    misses: int = 0
    bypasses: int = 0
    errors: int = 0
    stored: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    bypassed: dict[str, int] = field(default_factory=dict[str, int])
    tiers: dict[str, int] = field(default_factory=dict[str, int])
    corrupt: int = 0
    store_errors: dict[str, int] = field(default_factory=dict[str, int])
    store_skips: dict[str, int] = field(default_factory=dict[str, int])
    breakers: dict[str, str] = field(default_factory=dict[str, str])
    refreshes: int = 0
    recalled: int = 0
    unequal: int = 0
    usage_saved: dict[str, int] = field(default_factory=dict[str, int])
    usage_spent: dict[str, int] = field(default_factory=dict[str, int])
    seconds_saved: float = 0.0
    layer: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def calls(self) -> int:
        """All calls that came through a door."""
        return self.served + self.misses + self.bypasses + self.errors

    @property
    def served(self) -> int:
        """Calls that cost no provider call of their own."""
        return self.hits + self.stale + self.coalesced + self.semantic

    @property
    def hit_rate(self) -> float:
        """Share of the cacheable calls that cost no provider call; 0.0 before the first."""
        asked = self.served + self.misses
        return self.served / asked if asked else 0.0

    @property
    def tokens_saved(self) -> int:
        """Tokens of all answers that cost no call."""
        return total_tokens(self.usage_saved)

    @property
    def tokens_provider_cached(self) -> int:
        """Of the tokens that providers read, those that came from their own prompt caches."""
        return sum(self.usage_spent.get(name, 0) for name in _PROVIDER_CACHED)

    @property
    def by_meaning(self) -> SemanticFigures | None:
        """What the semantic layer did, and how often it was wrong, with intervals; None without a layer."""
        if not self.layer.get("consulted"):
            return None
        from askonce.semantic._figures import SemanticFigures  # noqa: PLC0415 - most caches have no layer

        return SemanticFigures(
            requests=self.layer["consulted"],
            served=self.layer.get("served", 0),
            sampled=self.layer.get("sampled", 0),
            wrong=self.layer.get("sampled wrong", 0),
            explored=self.layer.get("explored", 0),
        )

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        from html import escape  # noqa: PLC0415 - only notebooks ask

        rows = [
            ("Calls", f"{self.calls:,}"),
            ("From the cache", f"{self.served:,} ({self.hit_rate:.0%} of what can be cached)"),
            ("From the provider", f"{self.misses:,}"),
            ("Passed by", _told(self.bypasses, self.bypassed)),
            ("In vain", f"{self.errors:,}"),
            ("Not stored", _told(sum(self.dropped.values()), self.dropped)),
            ("Tokens saved", f"{self.tokens_saved:,}"),
            ("Seconds saved", f"{self.seconds_saved:,.1f}"),
        ]
        if self.tokens_provider_cached:
            rows.append(("Tokens read from the provider's cache", f"{self.tokens_provider_cached:,}"))
        if self.by_meaning is not None:
            rows.append(("By meaning", str(self.by_meaning)))
        if self.store_errors:
            rows.append(("Store failures", _told(sum(self.store_errors.values()), self.store_errors)))
        inner = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
        return f"<table>{inner}</table>"


def _told(total: int, reasons: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {number:,}" for name, number in reasons.items())
    return f"{total:,}: {parts}" if parts else f"{total:,}"


_COUNTED: Final = (
    "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens",
    "cache_read_input_tokens", "cache_creation_input_tokens",  # of Anthropic: beside its input
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount",
)  # fmt: skip


_PROVIDER_CACHED: Final = (
    "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens",
    "cache_read_input_tokens", "cachedContentTokenCount",
)  # fmt: skip


def total_tokens(usage: dict[str, int]) -> int:
    """Input and output tokens, under whichever names the providers use; nested details are parts of them."""
    return sum(usage.get(name, 0) for name in _COUNTED)


class Counters:
    """Thread-safe counting; one short lock, no I/O under it."""

    __slots__ = (
        "__weakref__",
        "_dropped",
        "_layer",
        "_lock",
        "_plain",
        "_reasons",
        "_saved",
        "_seconds",
        "_spent",
        "_store_errors",
        "_store_skips",
        "_tiers",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._plain: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._tiers: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._store_errors: Counter[str] = Counter()
        self._store_skips: Counter[str] = Counter()
        self._saved: Counter[str] = Counter()
        self._spent: Counter[str] = Counter()
        self._seconds = 0.0
        self._layer: Counter[str] = Counter()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.RLock()

    def outcome(self, outcome: Outcome) -> None:
        """Count a call. Usage of a miss is counted when it is known, see `spent`."""
        status = outcome.status
        with self._lock:
            self._plain[status] += 1
            if status in SERVED:
                if outcome.tier:
                    self._tiers[outcome.tier] += 1
                self._seconds += outcome.saved
                saved = self._saved
                for name, number in outcome.usage.items():
                    saved[name] += number
            elif status == "bypass":
                self._reasons[outcome.reason] += 1

    def spent(self, usage: dict[str, int]) -> None:
        """Add the usage of an answer that the provider gave."""
        if usage:
            with self._lock:
                for name, number in usage.items():
                    self._spent[name] += number

    def stored(self) -> None:
        """An answer was written."""
        self._add("stored")

    def corrupt(self) -> None:
        """A stored value was no entry."""
        self._add("corrupt")

    def refresh(self) -> None:
        """A background refresh was started."""
        self._add("refreshes")

    def recalled(self) -> None:
        """A hit needed no request."""
        self._add("recalled")

    def unequal(self) -> None:
        """An answer could not be rebuilt equal."""
        self._add("unequal")

    def dropped(self, reason: str) -> None:
        """An answer was not written."""
        with self._lock:
            self._dropped[reason] += 1

    def store_error(self, store: str) -> None:
        """A store operation failed."""
        with self._lock:
            self._store_errors[store] += 1

    def store_skip(self, store: str) -> None:
        """A store operation was not begun."""
        with self._lock:
            self._store_skips[store] += 1

    def layer(self, what: str) -> None:
        """The semantic layer did or met something."""
        with self._lock:
            self._layer[what] += 1

    def _add(self, name: str) -> None:
        with self._lock:
            self._plain[name] += 1

    def snapshot(self, breakers: dict[str, str] | None = None) -> Stats:
        """The figures now, with what the breakers say."""
        with self._lock:
            plain = self._plain
            return Stats(
                hits=plain["hit"],
                stale=plain["stale"],
                coalesced=plain["coalesced"],
                semantic=plain["semantic"],
                misses=plain["miss"],
                bypasses=plain["bypass"],
                errors=plain["error"],
                stored=plain["stored"],
                dropped=dict(self._dropped),
                bypassed=dict(self._reasons),
                tiers=dict(self._tiers),
                corrupt=plain["corrupt"],
                store_errors=dict(self._store_errors),
                store_skips=dict(self._store_skips),
                breakers=breakers or {},
                refreshes=plain["refreshes"],
                recalled=plain["recalled"],
                unequal=plain["unequal"],
                usage_saved=dict(self._saved),
                usage_spent=dict(self._spent),
                seconds_saved=self._seconds,
                layer=dict(self._layer),
            )
