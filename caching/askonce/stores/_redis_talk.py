"""What a RedisStore says and how it reads the replies: the part that both of its faces share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, cast

from askonce._clock import Clock
from askonce.stores import _redis_wire as wire
from askonce.stores._redis_listener import CHANGED
from askonce.stores._redis_wire import Command
from askonce.stores.protocol import Item, Stored


class Talk:
    """Commands and replies, for keys below a prefix.

    Args:
        prefix: what all keys begin with.
        clock: seconds since the epoch.
        routed: whether several keys may lie on several servers.
    """

    def __init__(self, prefix: bytes, clock: Clock, *, routed: bool) -> None:
        self.prefix = prefix
        self.channel = prefix + b"changes"
        self._clock = clock
        self._routed = routed
        self._token = token_hex(8)

    def origin(self) -> str:
        """Who we are in announcements. A forked child is somebody else."""
        return f"{self._token}{os.getpid()}"

    def _name(self, key: str) -> bytes:
        return self.prefix + wire.encoded(key)

    def _announced(self, keys: Iterable[str]) -> list[Command]:
        return wire.announcements(self.channel, self.origin(), CHANGED, keys)

    def get(self, key: str) -> list[Command]:
        return [("GET", self._name(key))]

    def got(self, replies: Sequence[Any]) -> Stored | None:
        wire.raised(replies[0])
        return wire.stored(replies[0], self._clock())

    def get_many(self, keys: Sequence[str]) -> list[Command]:
        names = [self._name(key) for key in keys]
        return [("GET", name) for name in names] if self._routed else [("MGET", *names)]

    def got_many(self, keys: Sequence[str], replies: Sequence[Any]) -> dict[str, Stored]:
        if not self._routed:
            wire.raised(replies[0])
            replies = replies[0]
        now = self._clock()
        found: dict[str, Stored] = {}
        for key, reply in zip(keys, replies, strict=True):
            wire.raised(reply)
            stored = wire.stored(reply, now)
            if stored is not None:
                found[key] = stored
        return found

    def set(self, items: Sequence[Item]) -> list[Command]:
        now = self._clock()
        commands = [wire.set_command(self._name(key), value, expires, now) for key, value, expires in items]
        return commands + self._announced([key for key, _, _ in items])

    def was_set(self, replies: Sequence[Any], count: int) -> None:
        """The announcements are not looked at: without the right to a channel, there is still a store."""
        for reply in replies[:count]:
            wire.raised(reply)

    def delete(self, keys: Sequence[str]) -> list[Command]:
        """Looks at what is removed: the number of *live* values is what counts."""
        names = [self._name(key) for key in keys]
        looks: list[Command] = [("GETRANGE", name, 0, wire.HEAD_LAST) for name in names]
        return [*looks, *[("UNLINK", name) for name in names], *self._announced(keys)]

    def were_deleted(self, replies: Sequence[Any], count: int) -> int:
        for reply in replies[count : 2 * count]:
            wire.raised(reply)
        now = self._clock()
        return sum(wire.expiry(reply, now) is not None for reply in replies[:count])

    def pattern(self, prefix: str) -> bytes:
        return wire.pattern(self._name(prefix))

    def look(self, names: Sequence[bytes]) -> list[Command]:
        return [("GETRANGE", name, 0, wire.HEAD_LAST) for name in names]

    def live(self, names: Sequence[bytes], replies: Sequence[Any]) -> list[str]:
        """The keys among `names` that hold live values of ours."""
        now = self._clock()
        return [
            wire.decoded(name[len(self.prefix) :])
            for name, reply in zip(names, replies, strict=True)
            if wire.expiry(reply, now) is not None
        ]

    def tally(self, name: str, counts: Mapping[str, float]) -> list[Command]:
        key = b"tally!" + self._name(name)  # apart from the entries: no scan meets it
        return [("HINCRBYFLOAT", key, wire.encoded(what), repr(number)) for what, number in counts.items()]

    def tallies(self, name: str) -> list[Command]:
        return [("HGETALL", b"tally!" + self._name(name))]

    def tallied(self, replies: Sequence[Any]) -> dict[str, float]:
        wire.raised(replies[0])
        pairs = replies[0]
        if not isinstance(pairs, dict):  # a connection gives a flat list, a client makes it a dict
            pairs = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return {
            wire.decoded(what): float(number) for what, number in cast("dict[bytes, bytes]", pairs).items()
        }
