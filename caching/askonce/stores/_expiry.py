"""Which keys have run out, without a heap over the entries: a hierarchical timing wheel.

Five dials of 64 slots. A slot of the first dial is one tick (a second) wide, a slot of the second 64
ticks, and so on to 34 years. A key lies in exactly one slot; when time reaches a slot of an outer dial
its keys are dealt again over the inner ones, so a key moves at most four times in its life. Adding and
removing are one set operation each, and a removed key leaves nothing behind: an entry that was evicted
days before its expiry costs nothing from then on.

Source: G. Varghese and T. Lauck, "Hashed and hierarchical timing wheels", SOSP 1987, scheme 7.

The wheel finds an expired key at most one tick late. That is enough to reclaim room; readers compare
`expires_at` themselves and are never late.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TypeAlias

Slot: TypeAlias = set[str]
"""Keys that come up for inspection together. Whoever adds a key keeps the slot, to discard it from."""

_BITS = 6
_SLOTS = 1 << _BITS
_DIALS = 5


class ExpiryWheel:
    """Keys by the time they run out. Not thread-safe: the owner holds its lock.

    Args:
        now: seconds since the epoch, where the wheel starts.

    Attributes:
        pending: slots that have come up and are not yet looked through. Kept so that one call never has to
            handle a whole slot: what was written in one second may all run out in one second.
        tick: the second the wheel stands at; there is nothing to advance within it.
    """

    def __init__(self, now: float) -> None:
        self.pending: deque[Slot] = deque()
        self.tick = math.floor(now)
        self._dials: list[list[Slot]] = [[set() for _ in range(_SLOTS)] for _ in range(_DIALS)]

    def __len__(self) -> int:
        """Keys on the wheel; for tests, since it visits every slot."""
        return sum(len(slot) for dial in self._dials for slot in dial) + sum(map(len, self.pending))

    def add(self, key: str, expires_at: float) -> Slot | None:
        """Put `key` where it comes up at `expires_at`, which must be later than the last `advance`.

        Returns:
            The slot to discard the key from when its entry goes; None when the expiry is too far off to
            be indexed (34 years, or infinite). Such a key never comes up by itself.
        """
        try:
            tick = math.ceil(expires_at)
        except (OverflowError, ValueError):  # infinite, or not a number
            return None
        ahead = tick - self.tick
        dial = (ahead.bit_length() - 1) // _BITS if ahead > 1 else 0
        if dial >= _DIALS:
            return None
        slot = self._dials[dial][(tick >> (_BITS * dial)) & (_SLOTS - 1)]
        slot.add(key)
        return slot

    def advance(self, now: float) -> None:
        """Turn to `now`: what `pop` finds from here on has come up by then.

        A clock set back needs no repair. Slots are picked by absolute time, so a key on the wheel comes
        up early at worst, is found alive and is put back.
        """
        last, tick = self.tick, math.floor(now)
        self.tick = tick
        if tick <= last:
            return
        for index, dial in enumerate(self._dials):
            first, final = last >> (_BITS * index), tick >> (_BITS * index)
            if first == final:
                break
            for position in range(max(first, final - _SLOTS) + 1, final + 1):
                slot = position & (_SLOTS - 1)
                if dial[slot]:
                    # Keys of the first dial have certainly run out, those of the others perhaps.
                    put = self.pending.append if index else self.pending.appendleft
                    put(dial[slot])
                    dial[slot] = set()

    def pop(self) -> str | None:
        """Take a key that has come up off the wheel; None when there is none.

        It may still be alive (it was dealt from an outer dial, or the clock was set back): the caller
        compares, and adds it again.
        """
        while self.pending:
            slot = self.pending[0]
            if slot:
                return slot.pop()
            self.pending.popleft()
        return None
