"""What happened to one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Status: TypeAlias = Literal["hit", "stale", "semantic", "coalesced", "miss", "bypass", "error"]

SERVED: Final = frozenset({"hit", "stale", "semantic", "coalesced"})
"""The statuses of answers that cost no provider call of their own."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened to one call.

    Attributes:
        status: "hit" (fresh from a store), "stale" (past its life, inside a stale window),
            "coalesced" (shared another caller's provider call), "semantic", "miss" (asked the
            provider), "bypass" (not cacheable: asked the provider, untouched), "error" (asked the
            provider in vain, or an offline miss).
        reason: why, in a word or two: "fresh", "not stored", "expired", "mode off", ...
        key: `namespace:digest`; "" for a bypass that never had one.
        source: of a semantic hit: the key of the entry whose answer it is; "" otherwise.
        age: seconds since the answer was created; None where there was none.
        ttl: seconds it stays fresh from now; negative when stale; None: for ever, or no answer.
        tier: the store that answered: "memory", "disk", ...; "" otherwise.
        similarity: of a semantic hit: cosine of the two questions, at most 1; None otherwise.
        model: the model asked for.
        surface: kind of endpoint, such as "chat".
        usage: the provider's usage figures of the answer: spent on a miss, saved on a hit.
        seconds: time of the call inside askonce, until the caller had its answer (for a stream: its
            headers), the provider's time included.
        saved: seconds the original call took, on an answer that cost none; 0.0 otherwise.
        stored: whether the answer was stored. None while a stream is still running.
        not_stored: why it was not; "" when it was, or when there was nothing to store.
    """

    status: Status
    reason: str
    key: str = ""
    age: float | None = None
    ttl: float | None = None
    tier: str = ""
    similarity: float | None = None
    source: str = ""
    model: str = ""
    surface: str = ""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    saved: float = 0.0
    stored: bool | None = False
    not_stored: str = ""

    @property
    def served(self) -> bool:
        """True when this call cost no provider call of its own."""
        return self.status in SERVED
