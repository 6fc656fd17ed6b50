"""Leases in a Redis: for one call among all processes and hosts that leads while the others wait.

A lease is a key with a token and a life. Only who holds the token renews or gives back; a holder that dies
leaves it to its life's end.
"""

from __future__ import annotations

from typing import Final

from askonce.stores._redis_listener import RELEASED
from askonce.stores._redis_wire import Command, announcements, encoded

# Lua, because what these servers have in one command has different names on Redis and Valkey.
_RENEW: Final = (
    "if redis.call('GET',KEYS[1])==ARGV[1] then "
    "return redis.call('PEXPIRE',KEYS[1],ARGV[2]) else return 0 end"
)
_RELEASE: Final = (
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) else return 0 end"
)


class LeaseCommands:
    """The commands, for keys below a prefix."""

    def __init__(self, prefix: bytes, channel: bytes) -> None:
        # Apart from the entries: a scan for entries never meets a lease.
        self._prefix = b"lease!" + prefix
        self._channel = channel

    def _name(self, key: str) -> bytes:
        return self._prefix + encoded(key)

    def acquire(self, key: str, token: str, life: float) -> list[Command]:
        return [("SET", self._name(key), token, "NX", "PX", max(1, int(life * 1000)))]

    def renew(self, key: str, token: str, life: float) -> list[Command]:
        return [("EVAL", _RENEW, 1, self._name(key), token, max(1, int(life * 1000)))]

    def release(self, key: str, token: str) -> list[Command]:
        return [
            ("EVAL", _RELEASE, 1, self._name(key), token),
            *announcements(self._channel, token, RELEASED, [key]),
        ]
