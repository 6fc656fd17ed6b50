"""Which entry to give up when the room is used: S3-FIFO.

Three queues. *small*, a tenth of the room, takes what is new; what is not asked for again on its way
through leaves from there, so a scan over a million one-time keys passes through that tenth and does not
touch the rest. *main* takes what was asked for again, and gives an entry another round for each time it
was asked for. *ghost* remembers what left small unused: what comes back from there was given up too early
and goes to main at once.

Source: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache
eviction", SOSP 2023; one access promotes (the paper's default asks for two), as fits a cache that is
asked for the same thing again and again.

A hit only raises a counter of the entry, nothing is relinked: that is what lets readers go without a
lock. What keeps them right, for whoever changes this file:

* Readers look into `entries` and nowhere else; it is written under the owner's lock. An entry stays in it
  while it moves between queues.
* What a reader takes from an entry never changes. Overwriting puts a new entry in its place, and a reader
  has the old pair of value and expiry or the new pair.
* `uses` is written without a lock. Updates may get lost, and it only steers eviction.

The queues are rings of links through the entries (`_linked`). An OrderedDict for each costs up to 100 bytes
per entry more, and more time; a deque cannot let go of an entry in its middle.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from askonce.stores._linked import Entry, new_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_OVERHEAD = 350
"""Bytes an entry takes beyond the characters of its key and the bytes of its value.

Measured as growth of the process (CPython 3.11, 64 bits, 176,000 entries with an expiry of their own, after
twice as many evictions): 285 to 350, by how full the dictionary happens to be.
"""

MAX_USES = 3
"""Where the counter stops (two bits in the paper): a key once loved leaves within three rounds."""

_SMALL_SHARE = 10  # small's share of the room: one part in ten
_SEARCH = range(128)  # entries one eviction looks at, at most


class S3Fifo:
    """The entries, in the order in which they are given up. All changes need the owner's lock.

    Attributes:
        entries: by key; the one thing that may be read without the lock.
        bytes: charge of all entries; of each: len(key) + len(value) + ENTRY_OVERHEAD.
        small_bytes: charge of those in small.
        small_count: number of those in small.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.bytes = 0
        self.small_bytes = 0
        self.small_count = 0
        self._small = new_queue()
        self._main = new_queue()
        # The ghost is a table of hashes in which the latest to leave takes the place of who was there: 8 to
        # 16 bytes a key. Keeping exact order takes 140, and gains at most 0.7 points of hit ratio. One to two
        # cells per entry is the best size, too: on Zipf traces twice as many lose 0.3 to 1 point.
        self._ghost = array("q", [0])
        self._ghost_mask = 0

    def __del__(self) -> None:
        # The rings are reference cycles. Without this the memory of a dropped store would wait for the
        # next full garbage collection.
        for entry in self.entries.values():
            del entry.before, entry.after, entry.prev, entry.next

    def __iter__(self) -> Iterator[Entry]:
        """Main's entries, then small's, each from the next to go to the last."""
        for ring in (self._main, self._small):
            entry = ring.after
            while entry is not ring:
                yield entry
                entry = entry.after

    def add(self, key: str, value: bytes, expires_at: float | None, slot: Entry, charge: int) -> Entry:
        """Make the entry of a key that has none.

        Args:
            key: its key.
            value: its value.
            expires_at: seconds since the epoch; None: never.
            slot: the ring of the expiry index that it belongs to.
            charge: len(key) + len(value) + ENTRY_OVERHEAD.
        """
        mark = hash(key)
        known = self._ghost[mark & self._ghost_mask] == mark
        entry = Entry(key, value, expires_at, known)
        if known:
            ring = self._main
        else:
            ring = self._small
            self.small_bytes += charge
            self.small_count += 1
        self.bytes += charge
        last, last_in_slot = ring.before, slot.prev
        entry.before, entry.after = last, ring
        last.after = ring.before = entry
        entry.prev, entry.next = last_in_slot, slot
        last_in_slot.next = slot.prev = entry
        self.entries[key] = entry
        return entry

    def replace(self, old: Entry, value: bytes, expires_at: float | None, slot: Entry) -> Entry:
        """Put a new entry into the place of an old one; the arguments are those of `add`.

        This counts as a use, since somebody asked for that key again.
        """
        entry = Entry(old.key, value, expires_at, old.in_main)
        entry.uses = min(old.uses + 1, MAX_USES)
        growth = len(value) - len(old.value)
        self.bytes += growth
        if not old.in_main:
            self.small_bytes += growth
        before, after, prev, next_ = old.before, old.after, old.prev, old.next
        entry.before, entry.after = before, after
        before.after = after.before = entry
        prev.next, next_.prev = next_, prev
        last_in_slot = slot.prev
        entry.prev, entry.next = last_in_slot, slot
        last_in_slot.next = slot.prev = entry
        self.entries[entry.key] = entry
        return entry

    def remove(self, entry: Entry) -> None:
        """Take an entry out of everything; it leaves no ghost, unless `evict` chose it."""
        charge = len(entry.key) + len(entry.value) + ENTRY_OVERHEAD
        before, after, prev, next_ = entry.before, entry.after, entry.prev, entry.next
        del self.entries[entry.key]
        before.after, after.before = after, before
        prev.next, next_.prev = next_, prev
        self.bytes -= charge
        if not entry.in_main:
            self.small_bytes -= charge
            self.small_count -= 1

    def evict(self, spare: Entry, by_count: bool) -> None:
        """Take out the entry that is least worth keeping.

        The search is bounded, to keep the longest stall of an event loop below a millisecond. If all that it
        meets has been used, the youngest in small goes: nothing speaks for it yet, and the ghost remembers.

        Args:
            spare: an entry to leave alone, the one that needs the room; there must be others.
            by_count: the number of entries is at its limit, so small's share is one of entries; else bytes.
        """
        small, main = self._small, self._main
        for _ in _SEARCH:
            # Alone in small is mostly the one that needs the room, and it may be larger than the share.
            if self.small_count > 1 and (
                self.small_count * _SMALL_SHARE >= len(self.entries)
                if by_count
                else self.small_bytes * _SMALL_SHARE >= self.bytes
            ):
                entry = small.after
            else:
                entry = main.after
                if entry is main:
                    entry = small.after
            if not entry.uses and entry is not spare:
                break
            self._requeue(entry)
        else:
            entry = small.before if small.before is not spare else spare.before
            if entry is small:
                entry = main.after if main.after is not spare else spare.after
        self.remove(entry)
        if not entry.in_main:
            if len(self.entries) > self._ghost_mask:
                # Forgetting all is simpler than moving it, and happens once per doubling.
                self._ghost_mask = (1 << len(self.entries).bit_length()) - 1
                self._ghost = array("q", bytes(8 * (self._ghost_mask + 1)))
            mark = hash(entry.key)
            self._ghost[mark & self._ghost_mask] = mark

    def _requeue(self, entry: Entry) -> None:
        """From small to main, with the counter cleared; from main to its end, with a use spent."""
        if entry.in_main:
            entry.uses = max(entry.uses - 1, 0)
        else:
            entry.uses = 0
            entry.in_main = True
            self.small_bytes -= len(entry.key) + len(entry.value) + ENTRY_OVERHEAD
            self.small_count -= 1
        before, after = entry.before, entry.after
        before.after, after.before = after, before
        ring = self._main
        last = ring.before
        entry.before, entry.after = last, ring
        last.after = ring.before = entry
