"""Which entries have run out, without a heap: a hierarchical timing wheel.

Five dials of 64 slots. A slot of the first dial is one tick (a second) wide, a slot of the second 64
ticks, and so on to 34 years. An entry is linked into exactly one slot; when time reaches a slot of an outer
dial its entries are dealt again over the inner ones, so an entry moves at most four times in its life. An
entry that leaves early leaves nothing behind: evicted days before its expiry, it costs nothing from then on.

Source: G. Varghese and T. Lauck, "Hashed and hierarchical timing wheels", SOSP 1987, scheme 7.

The wheel finds an expired entry at most one tick late. That is enough to reclaim room; readers compare
`expires_at` themselves and are never late.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from askonce.stores._linked import new_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from askonce.stores._linked import Entry

_BITS = 6
_SLOTS = 1 << _BITS
_DIALS = 5


class ExpiryWheel:
    """Entries by the time they run out. Not thread-safe: the owner holds its lock.

    An entry is put on the wheel by linking it into `slot(...)`, and taken off by unlinking it.

    Args:
        now: seconds since the epoch, where the wheel starts.

    Attributes:
        tick: the second the wheel stands at; there is nothing to advance within it.
        pending: slots that have come up and are not yet looked through. Kept so that one call never has to
            handle a whole slot: what was written in one second may all run out in one second.
    """

    def __init__(self, now: float) -> None:
        self.tick = math.floor(now)
        self.pending: deque[Entry] = deque()
        self._dials = [[new_slot() for _ in range(_SLOTS)] for _ in range(_DIALS)]
        self._never = new_slot()

    def __iter__(self) -> Iterator[Entry]:
        """Every entry on the wheel, in no useful order; for tests."""
        for ring in (*(ring for dial in self._dials for ring in dial), *self.pending, self._never):
            entry = ring.next
            while entry is not ring:
                yield entry
                entry = entry.next

    def slot(self, expires_at: float | None) -> Entry:
        """The ring for an entry that runs out at `expires_at`, which is later than the last `advance`.

        None, infinity and what is more than 34 years off share a slot that never comes up.
        """
        if expires_at is None:
            return self._never
        try:
            tick = math.ceil(expires_at)
        except (OverflowError, ValueError):  # infinite, or not a number
            return self._never
        ahead = tick - self.tick
        dial = (ahead.bit_length() - 1) // _BITS if ahead > 1 else 0
        return self._dials[dial][(tick >> (_BITS * dial)) & (_SLOTS - 1)] if dial < _DIALS else self._never

    def advance(self, now: float) -> None:
        """Turn to `now`: `due` finds what has come up by then.

        A clock set back needs no repair. Slots are picked by absolute time, so an entry comes up early at
        worst, is found alive and is put back.
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
                ring = dial[slot]
                if ring.next is not ring:
                    dial[slot] = new_slot()
                    # Entries of the first dial have certainly run out, those of the others perhaps.
                    put = self.pending.append if index else self.pending.appendleft
                    put(ring)

    def due(self) -> Entry | None:
        """An entry that has come up; None when there is none. It stays on the wheel, and is next again.

        It may still be alive (it was dealt from an outer dial, or the clock was set back): the caller
        compares, and either unlinks it or calls `put_back`.
        """
        while self.pending:
            ring = self.pending[0]
            if ring.next is not ring:
                return ring.next
            self.pending.popleft()
        return None

    def put_back(self, entry: Entry) -> None:
        """Move an entry to the slot that its expiry belongs to now."""
        ring = self.slot(entry.expires_at)
        last, prev, next_ = ring.prev, entry.prev, entry.next
        prev.next, next_.prev = next_, prev
        entry.prev, entry.next = last, ring
        last.next = ring.prev = entry
