"""Why did this miss? The nearest stored entry, and the parts in which it differs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from askonce import _codec
from askonce._body import Body
from askonce._decision import Decision, Settings
from askonce._fingerprint import SCOPE, differences, fingerprint
from askonce._request import Request
from askonce._seal import Seal
from askonce.stores.tiered import Tiers

_LOOK_AT: Final = 5_000
_BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the cache makes of a request.

    Attributes:
        verdict: "hit" (an answer is stored and fresh), "expired" (stored, past its life), "miss", or
            "bypass" (not cacheable).
        reason: of a bypass; "" otherwise.
        key: the request's key; "" for a bypass.
        nearest: key of the stored entry that differs in the fewest parts; "" when none is near.
        differences: those parts, in words.
    """

    verdict: str
    reason: str = ""
    key: str = ""
    nearest: str = ""
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict == "bypass":
            return f"not cacheable: {self.reason}"
        if self.verdict != "miss":
            return f"{self.verdict}: {self.key}"
        if not self.nearest:
            return "miss: nothing near it is stored"
        return f"miss: nearest is {self.nearest}, which differs in " + "; ".join(self.differences)


async def nearest(
    tiers: Tiers,
    decision: Decision,
    request: Request,
    body: Body,
    *,
    settings: Settings,
    seal: Seal | None,
) -> tuple[str, tuple[str, ...]]:
    """The stored entry of the same surface that differs in the fewest parts, and those parts.

    Looks at the first few thousand entries of the namespace: this is for people who wonder, not for calls.
    """
    asked = fingerprint(request, body, decision, settings)
    namespace = decision.key.partition(":")[0]
    best_key, best = "", list[str]()
    best_rank: tuple[bool, int] | None = None
    keys = iter(islice(await tiers.scan(f"{namespace}:"), _LOOK_AT))
    while batch := list(islice(keys, _BATCH)):
        for key, stored in (await tiers.get_many(batch, copy_up=False)).items():
            try:
                meta = _codec.decode(key, stored.value, seal).meta
            except _codec.Undecodable:
                continue
            if meta.surface != decision.surface.name or not meta.fingerprint:
                continue
            told = differences(meta.fingerprint, asked)
            # One's own scope first: of others nothing is told but that they are others.
            rank = (meta.fingerprint.get(SCOPE) != asked.get(SCOPE), len(told))
            if best_rank is None or rank < best_rank:
                best_key, best, best_rank = key, told, rank
    return best_key, tuple(best)
