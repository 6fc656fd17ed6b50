"""What was learnt of a client's calls: for these arguments the SDK makes this request and this object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from askonce import Entry, Request
from askonce.doors import Build
from askonce_openai._client_state import ClientState, NotUnderstoodError
from askonce_openai._replays import StreamParts

_MOST: Final = 1024
_ROOM: Final = 16 << 20
_SHARE: Final = 4
_FOLD: Final = 4
"""A parsed answer takes about so many times its text."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """One call of which the next is the same.

    Attributes:
        request: what it asks.
        entry: what answered it.
        build: makes the object; None for a stream.
        stream: how to make the stream; None for an object.
    """

    request: Request
    entry: Entry
    build: Build | None = None
    stream: StreamParts | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether a stored entry is the answer of which the object is known."""
        mine = self.entry
        return entry is mine or (entry.body == mine.body and entry.headers == mine.headers)

    @property
    def size(self) -> int:
        """Bytes held, roughly."""
        return _size(self.request, self.entry)


def _size(request: Request, entry: Entry) -> int:
    return len(request.body) + _FOLD * len(entry.body)


class Lessons:
    """The learnt calls of one client, while it stays as it was.

    Two generations of at most 1024 calls and 16 MiB each: when the young one is full, the older one is
    dropped. Without locks: each step is one operation on a dict.
    """

    __slots__ = ("_old", "_room", "_young", "state")

    def __init__(self, state: ClientState) -> None:
        self.state = state
        self._young: dict[Any, Learned] = {}
        self._old: dict[Any, Learned] = {}
        self._room = _ROOM

    def get(self, ticket: Any) -> Learned | None:
        """What is known of a call."""
        known = self._young.get(ticket)
        if known is None:
            known = self._old.get(ticket)
            if known is not None:
                self.learn(ticket, known)
        return known

    def has_room_for(self, request: Request, entry: Entry) -> bool:
        """Whether a call is small enough to be kept beside others."""
        return _size(request, entry) <= _ROOM // _SHARE

    def learn(self, ticket: Any, learned: Learned) -> None:
        """Keep it, in place of what was known."""
        self._room -= learned.size
        if self._room < 0 or len(self._young) >= _MOST:
            self._old, self._young = self._young, {}
            self._room = _ROOM - learned.size
        self._young[ticket] = learned


_all: WeakKeyDictionary[Any, Lessons | None] = WeakKeyDictionary()


def lessons_of(client: Any, *, cookies: bool) -> Lessons | None:
    """The learnt calls of a client; None for one whose requests are not understood.

    Args:
        client: who asks.
        cookies: whether those of its HTTP client can make another question of a request.
    """
    try:
        known = _all[client]
    except KeyError:
        known = None
    try:
        if known is not None and known.state.holds(client, cookies=cookies):
            return known
        known = Lessons(ClientState(client))
    except (NotUnderstoodError, AttributeError, TypeError):
        _all.pop(client, None)
        return None
    _all[client] = known
    return known if known.state.holds(client, cookies=cookies) else None
