"""Offline: nothing is asked of a provider; what is missing says what lay nearest."""

from __future__ import annotations

from askonce._call import Call
from askonce._decision import Settings
from askonce._errors import OfflineMiss
from askonce._events import warn
from askonce._ledger import Ledger
from askonce._seal import Seal


class Offline:
    """Makes the errors of offline mode, and has them counted."""

    def __init__(self, *, settings: Settings, ledger: Ledger, seal: Seal | None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._seal = seal

    async def miss(self, call: Call) -> OfflineMiss:
        """The error for a call that nothing stored answers."""
        decision = call.decision
        why = decision.bypass
        if why:  # offline never asks, also not for what is never cached
            self._ledger.told(call, "error", "offline miss", not_stored=why)
            return OfflineMiss(
                f"mode is offline, and this {call.request.method} request is never answered by the cache "
                f"({why})"
            )
        self._ledger.told(call, "error", "offline miss")
        from askonce._explain import nearest  # noqa: PLC0415 - for people who wonder, not for calls

        differences: tuple[str, ...] = ()
        try:
            near = await nearest(
                call.tiers, decision, call.request, call.body, settings=self._settings, seal=self._seal
            )
            differences, told = near.differences, near.told()
        except Exception as error:  # noqa: BLE001 - a store that cannot list still gives a clear miss
            warn("flow", "could not look for the nearest entry: %s", type(error).__name__)
            told = "the store could not be searched for what is near it"
        return OfflineMiss(
            f"not in the cache, and mode is offline: {decision.surface.name} request for model "
            f"{decision.model!r} ({told}). Record it first with mode='on', or check the namespace.",
            key=decision.key,
            differences=differences,
        )
