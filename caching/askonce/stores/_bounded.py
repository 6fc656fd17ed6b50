"""A remote store within one call: past its breaker, within what is left of the call's time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar, TypeVarTuple

from askonce._bridge import Port
from askonce._deadline import deadline, set_deadline
from askonce._errors import Refused
from askonce.stores._breaker import Breaker
from askonce.stores._limit import Limit
from askonce.stores.protocol import Health, Item, Stored

_LEAST: Final = 0.001
"""Seconds with which it is not worth beginning."""
_SLOW: Final = 0.8
"""Share of the whole budget: a store that takes more of it in one call is as good as dead."""
_OWN: Final = 0.5
"""Share of the whole budget: a store that had less before time was up is not to blame."""
_UP: Final = 0.9
"""Share of the time given: who fails later fails for want of time. (Timers end a little early.)"""

Trouble: TypeAlias = Callable[[str, str, Exception], None]
"""Told of every failure: store name, operation, exception."""
Peek: TypeAlias = Callable[[str], tuple[bool, Stored | None]]
"""Looks for a key among the writes still to be made: whether it is there, and what will be there then."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(slots=True, eq=False)
class Budget:
    """Seconds that one call may still lose to remote stores, all of them together."""

    left: float


@dataclass(slots=True, eq=False, kw_only=True)
class Watch:
    """What a cache knows about one of its remote stores.

    Attributes:
        name: for figures, events and logs; no two stores of a cache have the same.
        timeout: the whole budget of a call, in seconds.
        breaker: the store's own.
        trouble: told of every failure.
        skipped: told of every operation that was left out, with the store's name.
        peek: looks into the queue of a store that is written behind.
        clock: seconds that never go back.
    """

    name: str
    timeout: float
    breaker: Breaker
    trouble: Trouble
    skipped: Callable[[str], None]
    peek: Peek | None = None
    clock: Callable[[], float] = time.monotonic


class Bounded:
    """A port that never fails and costs its call no more than the budget. One per call and store.

    A thread's wait ends because the store obeys `time_left()`, a task's in any case.

    Args:
        port: the store.
        watch: what is known about it.
        awaits: True in tasks, False in threads.
        budget: the call's.
    """

    __slots__ = ("_awaits", "_budget", "_spent", "_watch", "name", "port")

    def __init__(self, port: Port, watch: Watch, awaits: bool, budget: Budget) -> None:
        self.name = watch.name
        self.port = port
        self._watch = watch
        self._awaits = awaits
        self._budget = budget
        self._spent = 0.0

    async def get(self, key: str) -> Stored | None:
        return await self._run("get", None, self.port.get, key)

    async def set(self, key: str, value: bytes, expires_at: float | None) -> bool:
        return await self._run("set", False, self.port.set, key, value, expires_at)

    async def delete(self, *keys: str) -> int:
        return await self._run("delete", 0, self.port.delete, *keys)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return await self._run("get_many", {}, self.port.get_many, keys)

    async def set_many(self, items: Iterable[Item]) -> bool:
        return await self._run("set_many", False, self.port.set_many, items)

    async def scan(self, prefix: str) -> list[str]:
        return await self._run("scan", [], self.port.scan, prefix)

    async def ping(self) -> Health:
        return await self.port.ping()

    async def close(self) -> None:
        await self.port.close()

    @property
    def leases(self) -> bool:
        return self.port.leases

    async def acquire(self, key: str, token: str, life: float) -> bool | None:
        return await self._run("acquire", None, self.port.acquire, key, token, life)

    async def _run(self, operation: str, otherwise: T, work: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """The work's result; `otherwise` when it failed, took too long, or was not begun."""
        watch = self._watch
        given = self._budget.left
        ticket = watch.breaker.admit() if given > _LEAST else None
        if ticket is None:
            watch.skipped(self.name)
            return otherwise
        ok: bool | None = None  # cancelled, or interrupted
        trouble: Exception | None = None
        limit: Limit | None = None
        value = otherwise
        before = deadline()
        started = watch.clock()
        set_deadline(time.monotonic() + given)
        try:
            if self._awaits:
                limit = Limit(given)
                async with limit:
                    value = await work(*args)
            else:
                value = await work(*args)
            ok = True
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the call goes on
            trouble = error
            ok = isinstance(error, Refused)
        finally:
            set_deadline(before)  # no token: a forgotten coroutine is closed in whatever context
            took = watch.clock() - started
            self._budget.left -= took
            fair = took if limit is None else max(0.0, took - limit.lag)
            self._report(ticket, self._judged(ok, operation, fair, in_time=took < _UP * given))
        if trouble is not None:
            watch.trouble(self.name, operation, trouble)
        return value

    def _judged(self, ok: bool | None, operation: str, fair: float, *, in_time: bool) -> bool | None:
        """Whether the store did well, in view of the time it took; None: it cannot be told."""
        if operation == "scan":
            # Only the explanation of an offline miss scans, and a large store takes its time for that.
            return ok if in_time else None
        self._spent += fair
        timeout = self._watch.timeout
        if ok and self._spent > _SLOW * timeout:
            return False
        if ok is False and not in_time and self._spent < _OWN * timeout:
            return None  # other stores, or a busy event loop, had the time
        return ok

    def _report(self, ticket: int, ok: bool | None) -> None:
        breaker = self._watch.breaker
        if ok is None:
            breaker.gave_up(ticket)
        elif ok:
            breaker.succeeded(ticket)
        else:
            breaker.failed(ticket)
