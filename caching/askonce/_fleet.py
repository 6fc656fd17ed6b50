"""One provider call among all processes and hosts that share a store.

Whoever leads a call in its process takes the key's lease before it asks the provider. Whoever does not get
it waits until it is given back, and finds the answer in the store; when there is none, that leader failed,
and one of the waiters leads next. After two of them everybody asks alone, as within a process.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from askonce._call import Call, Found
from askonce._flights import Flight
from askonce._leases import LIFE, LOOK, LeaseKeeper, new_token
from askonce.stores.protocol import Leasing

_FAILURES: Final = 2


class Fleet:
    """Takes turns with other processes.

    Args:
        store: where the leases are.
        read: looks up a call's answer.
    """

    def __init__(self, store: Leasing, read: Callable[[Call], Awaitable[Found | None]]) -> None:
        self._keeper = LeaseKeeper(store)
        self._read = read

    async def turn(self, call: Call, flight: Flight) -> tuple[Found | None, bool]:
        """Wait until it is this call's turn to ask, or until there is an answer.

        Returns:
            The answer, if there is one now, and whether another process was waited for. Without an answer
            the caller asks: with the lease, or without it when the store is lost, when patience runs out,
            or when others failed before.
        """
        key = call.decision.key
        token = new_token()
        patience = call.exchange.patience
        give_up = None if patience is None else time.monotonic() + patience
        failures = 0
        waited = False
        while failures < _FAILURES:
            taken = await call.tiers.acquire(key, token, LIFE)
            if taken is None:
                return None, waited
            if taken:
                flight.on_end(self._keeper.hold(key, token))
                # Somebody may have answered between our look into the store and now.
                return await self._fresh(call), waited
            waited = True
            left = LOOK if give_up is None else min(LOOK, give_up - time.monotonic())
            if left <= 0:
                return None, waited
            woken = await call.face.pause(lambda wake: self._keeper.store.on_release(key, wake), left)
            # Waiting for another's call is no time lost to a store: each look has a budget of its own,
            # or a long call would wear it out, and everybody would ask.
            call = call.anew()
            found = await self._fresh(call)
            if found is not None:
                return found, waited
            failures += woken
        return None, waited

    async def allows(self, call: Call, flight: Flight) -> bool:
        """Whether this process may refresh a stale answer: False when another one does."""
        token = new_token()
        taken = await call.tiers.acquire(call.decision.key, token, LIFE)
        if taken:
            flight.on_end(self._keeper.hold(call.decision.key, token))
        return taken is not False

    async def _fresh(self, call: Call) -> Found | None:
        found = await self._read(call)
        return found if found is not None and found.fresh else None

    def close(self) -> None:
        """Give all leases back."""
        self._keeper.close()
