"""An entry of the memory store, and the two rings each entry is linked into.

One ring is its eviction queue (`_s3fifo`), the other its slot of the expiry index (`_expiry`). A ring is
an entry without content that stands for the queue's two ends. Links in the entry itself are what makes
leaving from the middle free of cost and of traces: nothing else has to be told, or shrunk, or swept later.

The links are set in straight lines without calls. CPython runs signal handlers and switches threads at
calls and jumps, so an interrupted program (Ctrl-C in a notebook) does not find a ring half open.
"""

from __future__ import annotations


class Entry:
    """A value in the store, with what eviction and expiry need to know.

    `key`, `value` and `expires_at` never change: overwriting makes a new entry.

    Attributes:
        key: as it was first set.
        value: the bytes.
        expires_at: seconds since the epoch; None: never.
        uses: how often it was asked for since eviction last looked at it, up to a small limit.
        in_main: it is in the main queue, not in the small one.
        before: its neighbour in the queue that is given up earlier.
        after: its neighbour that is given up later.
        prev: one neighbour in the slot of the expiry index.
        next: the other.
    """

    __slots__ = ("after", "before", "expires_at", "in_main", "key", "next", "prev", "uses", "value")

    after: Entry
    before: Entry
    next: Entry
    prev: Entry

    def __init__(self, key: str, value: bytes, expires_at: float | None, in_main: bool) -> None:
        self.key = key
        self.value = value
        self.expires_at = expires_at
        self.in_main = in_main
        self.uses = 0


# A ring gets the one pair of links that it is used by: the other would tie it to itself, and keep what hangs
# on it alive until the next garbage collection.


def new_queue() -> Entry:
    """An empty ring for `before` and `after`: its `after` is the first, its `before` the last."""
    ring = Entry("", b"", None, True)
    ring.before = ring.after = ring
    return ring


def new_slot() -> Entry:
    """An empty ring for `prev` and `next`."""
    ring = Entry("", b"", None, True)
    ring.prev = ring.next = ring
    return ring
