"""Entries decoded a moment ago: the same bytes are not read twice.

A memory store returns the very object it was given; other stores return equal bytes, and comparing a few
kilobytes costs a hundredth of decoding them. Entries are frozen; whoever builds an answer from one makes
new objects.
"""

from __future__ import annotations

from typing import Final

from askonce import _codec
from askonce._entry import Entry
from askonce._seal import Seal

_MOST: Final = 512
_LARGEST: Final = 64 << 10


class Hot:
    """A small table of decoded entries, bounded to 512 of at most 64 KiB each.

    Without locks: each step is one operation on a dict, and the worst that threads can do to each other
    is to decode once more.
    """

    __slots__ = ("_known", "_seal")

    def __init__(self, seal: Seal | None) -> None:
        self._seal = seal
        self._known: dict[str, tuple[bytes, Entry]] = {}

    def forget(self) -> None:
        """Keep nothing: somebody removes entries."""
        self._known.clear()

    def decode(self, key: str, value: bytes) -> Entry:
        """`_codec.decode`, or what it said the last time.

        Raises:
            Undecodable: when the bytes are no entry under this key.
        """
        known = self._known.get(key)
        if known is not None and known[0] == value:  # identity is looked at first
            return known[1]
        entry = _codec.decode(key, value, self._seal)
        if len(entry.body) <= _LARGEST:
            if len(self._known) >= _MOST:
                self._known.clear()  # rare, and cheaper than keeping an order on every hit
            self._known[key] = (value, entry)
        return entry
