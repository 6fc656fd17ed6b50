"""Offline: nothing is asked of a provider; what is missing says what lay nearest."""

from __future__ import annotations

from askonce._call import Call
from askonce._decision import Settings
from askonce._errors import OfflineMiss
from askonce._events import warn
from askonce._exchange import Reply
from askonce._layer import Layer, Read
from askonce._ledger import Ledger
from askonce._seal import Seal


class Offline:
    """What calls get in offline mode that nothing stored answers exactly."""

    def __init__(self, *, settings: Settings, ledger: Ledger, seal: Seal | None, layer: Layer | None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._seal = seal
        self._layer = layer

    async def answer(self, call: Call, read: Read) -> Reply:
        """The answer to a similar question, where a layer finds one without a network of its own.

        Raises:
            OfflineMiss: there is none.
        """
        if self._layer is not None and call.decision.read:
            similar = await self._layer.consult(call, read)
            if similar is not None:
                return self._ledger.similar(call, similar, "similar")
        raise await self.miss(call)

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
