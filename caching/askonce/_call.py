"""One call on its way through the flow, and the stored answer it may have found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from askonce._body import Body
from askonce._decision import Decision
from askonce._entry import Entry
from askonce._faces import Face
from askonce._request import Request
from askonce._surfaces import read_body
from askonce.stores.tiered import Tiers


class Found(NamedTuple):
    """A stored answer and how fresh it is: age, seconds it stays fresh (None: for ever), its tier."""

    entry: Entry
    age: float
    ttl: float | None
    tier: str

    @property
    def fresh(self) -> bool:
        """Not past its life."""
        return self.ttl is None or self.ttl > 0

    def within(self, window: float) -> bool:
        """Past its life, but by less than `window` seconds."""
        return self.ttl is not None and -window < self.ttl <= 0


@dataclass(slots=True, eq=False)
class Asked:
    """What is asked, what was decided, and since when (`time.perf_counter`)."""

    request: Request
    decision: Decision
    started: float

    def found(self, entry: Entry, tier: str, now: float) -> Found | None:
        """A stored entry as this call sees it; None when it is older than the caller allows."""
        # A clock that went back makes an entry newer than now; it is at most as old as it was.
        age = max(0.0, now - entry.meta.created_at)
        if self.decision.max_age is not None and age > self.decision.max_age:
            return None
        expires = entry.meta.expires_at
        return Found(entry, age, None if expires is None else expires - now, tier)


@dataclass(slots=True, eq=False)
class Call(Asked):
    """Also by whom, and through which tiers."""

    face: Face
    tiers: Tiers = field(repr=False)
    exchange: Any = field(repr=False)
    read: Body | None = field(repr=False)
    notes: Any = field(default=None, repr=False)

    @property
    def body(self) -> Body:
        """The request's body; read when it was not needed to decide."""
        if self.read is None:
            self.read = read_body(self.request)
        return self.read

    def anew(self) -> Call:
        """The same call once more, for a refresh: it may lose as much time to stores again."""
        return replace(self, tiers=self.face.tiers())
