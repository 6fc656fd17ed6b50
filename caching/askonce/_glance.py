"""The shortest way to an answer: a request that is known, and a front store that has it at hand, fresh.

What it gives and leaves behind is what the whole way would; where anything is out of the ordinary it gives
nothing, and the whole way is taken. No coroutine is made, and no tiers: right after a framework's own code,
whose size empties the processor's caches, each function more on the way costs several times what it does in
a loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from askonce._call import Asked
from askonce._clock import Clock
from askonce._control import Control
from askonce._decider import Decider
from askonce._entry import Entry
from askonce._exchange import Reply
from askonce._hot import Hot
from askonce._ledger import Ledger
from askonce._request import Request
from askonce.stores.protocol import Store


class Glance:
    """One per cache.

    Args:
        front: the front store, when it answers at once on any thread and loop; else None.
        decider: knows what may happen with a request it has seen.
        hot: decodes.
        clock: seconds since the epoch.
        ledger: told of a hit.
    """

    __slots__ = ("_clock", "_decider", "_front", "_hot", "_ledger")

    def __init__(
        self, front: Store | None, *, decider: Decider, hot: Hot, clock: Clock, ledger: Ledger
    ) -> None:
        self._front = front
        self._decider = decider
        self._hot = hot
        self._clock = clock
        self._ledger = ledger

    def hit(
        self, request: Request, said: Control, fits: Callable[[Entry], bool] | None = None
    ) -> Reply | None:
        """A fresh answer, counted as a hit; None: nothing was counted, and the whole way says more.

        Args:
            request: as it was asked before, the very object.
            said: the caller's settings.
            fits: whether the caller can hand out the stored entry.
        """
        front = self._front
        decision = self._decider.noted(request, said)
        if front is None or decision is None or decision.bypass or not decision.read or decision.items:
            return None
        asked = Asked(request, decision, time.perf_counter())
        try:
            stored = front.get(decision.key)
            if stored is None:
                return None
            found = asked.found(self._hot.decode(decision.key, stored.value), stored.tier, self._clock())
        except Exception:  # noqa: BLE001 - what fails here fails again on the whole way, which tells of it
            return None
        if found is None or not found.fresh or (fits is not None and not fits(found.entry)):
            return None
        return self._ledger.hit(asked, "hit", "fresh", found)
