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
        looked_at: entries that were compared, of a miss. The look is bounded: 5,000 entries, and it ends
            at one that differs in a single part.
        entries: keys in the namespace at the time, of a miss.
    """

    verdict: str
    reason: str = ""
    key: str = ""
    nearest: str = ""
    differences: tuple[str, ...] = ()
    looked_at: int = 0
    entries: int = 0

    def __str__(self) -> str:
        if self.verdict == "bypass":
            return f"not cacheable: {self.reason}"
        if self.verdict != "miss":
            return f"{self.verdict}: {self.key}"
        return f"miss: {self.told()}"

    def told(self) -> str:
        """What is near, and how it differs, in one line."""
        if not self.nearest:
            text = "nothing near it is stored"
        else:
            text = f"nearest is {self.nearest}, which differs in {'; '.join(self.differences)}"
        if self.looked_at < self.entries and len(self.differences) != 1:
            text += f" (looked at {self.looked_at:,} of {self.entries:,} entries)"
        return text


async def nearest(
    tiers: Tiers,
    decision: Decision,
    request: Request,
    body: Body,
    *,
    settings: Settings,
    seal: Seal | None,
) -> Explanation:
    """The stored entry of the same surface that differs in the fewest parts, and those parts.

    Looks at the first few thousand entries of the namespace: this is for people who wonder, not for calls.
    """
    asked = fingerprint(request, body, decision, settings)
    namespace = decision.key.partition(":")[0]
    best_key, best = "", list[str]()
    best_rank: tuple[bool, int] | None = None
    known = await tiers.scan(f"{namespace}:")
    keys = iter(islice(known, _LOOK_AT))
    looked_at = 0
    while (best_rank is None or best_rank > (False, 1)) and (batch := list(islice(keys, _BATCH))):
        looked_at += len(batch)
        for key, stored in (await tiers.get_many(batch, copy_up=False)).items():
            try:
                meta = _codec.decode_meta(key, stored.value, seal)
            except _codec.Undecodable:
                continue
            if meta.surface != decision.surface.name or not meta.fingerprint:
                continue
            told = differences(meta.fingerprint, asked)
            # One's own scope first: of others nothing is told but that they are others. Without a
            # difference it is an answer that may not be given: older than max_age, or just expired.
            rank = (meta.fingerprint.get(SCOPE) != asked.get(SCOPE), len(told))
            if best_rank is None or rank < best_rank:
                best_key, best, best_rank = key, told or ["age only"], rank
    return Explanation(
        verdict="miss",
        key=decision.key,
        nearest=best_key,
        differences=tuple(best),
        looked_at=looked_at,
        entries=len(known),
    )
