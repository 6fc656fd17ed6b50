"""A new answer for a stale one that was given already (RFC 5861, stale-while-revalidate)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from askonce._call import Call, Found
from askonce._flights import Flight, Flights
from askonce._keeper import Keeper
from askonce._ledger import Ledger
from askonce._outcome import Outcome

if TYPE_CHECKING:
    from askonce._fleet import Fleet

_OK: Final = 200


class Refresher:
    """Asks in the background, once for all who were given the stale answer."""

    def __init__(
        self,
        *,
        read: Callable[[Call], Awaitable[Found | None]],
        flights: Flights,
        keeper: Keeper,
        ledger: Ledger,
        fleet: Fleet | None,
    ) -> None:
        self._read = read
        self._flights = flights
        self._keeper = keeper
        self._ledger = ledger
        self._fleet = fleet

    def start(self, call: Call, landings: int) -> None:
        """Have a new answer fetched, unless somebody does already."""
        flight, leads = self._flights.join(call.decision.key, call.face.owner(), None)
        if flight is None or not leads:
            return

        def over() -> None:
            self._flights.fail(flight, counts=False)  # nothing, if it landed

        if call.face.spawn(lambda: self._refresh(call.anew(), flight, landings), over):
            self._ledger.counters.refresh()
        else:
            over()

    async def _refresh(self, call: Call, flight: Flight, landings: int) -> None:
        """Its failure is nobody's."""
        flight.owner = call.face.owner()
        outcome = Outcome(status="miss", reason="revalidate", key=call.decision.key)
        try:
            if self._flights.landings != landings:
                found = await self._read(call)
                if found is not None and found.fresh:
                    self._flights.land(flight, found.entry)
                    return
            if self._fleet is not None and not await self._fleet.allows(call, flight):
                return
            asked = time.perf_counter()
            opened = await call.face.again(call.exchange)
            if opened.status == _OK and opened.body is not None:
                await self._keeper.keep(
                    call,
                    flight,
                    outcome,
                    headers=opened.headers,
                    body=opened.body,
                    asked=asked,
                    framed=opened.framed,
                )
        except Exception as error:  # noqa: BLE001 - the caller has its answer
            self._ledger.counters.dropped(f"refresh: {type(error).__name__}")
