"""The cache of a replay block: it stands in for the providers, from what one file has."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Final

import orjson

from askonce._cache import Cache
from askonce._control import current_control
from askonce._decision import Decision
from askonce._errors import OfflineMiss
from askonce._events import fault
from askonce._exchange import AsyncExchange, Exchange, Reply
from askonce._items import items_of
from askonce._outcome import Outcome
from askonce._policy import Policy, Rule
from askonce._replay._about import about, secrets_of, shortened
from askonce._replay._recording import Recording
from askonce._request import Request
from askonce._steps import Step
from askonce._surfaces import read_body

# A recording never ages, and shows what the provider did, also when that was cut short or refused. The
# rule opens what reads the world: in a test the world stands still.
_POLICY: Final = Policy(
    ttl=None,
    jitter=0,
    max_entry_bytes="1GiB",
    store_truncated=True,
    store_refusals=True,
    rules=(Rule(model="*", ttl=None),),
)
_asking: ContextVar[Cache | None] = ContextVar("askonce_recording", default=None)


class RecordingCache(Cache):
    """Answers the asks of a block from its recording, and in the modes that record also from providers.

    What callers say about modes, lives and freshness does not count: it is for caches, and this is what
    would be behind one.

    Args:
        recording: what the block has, and is told.
    """

    _hears: ClassVar[bool] = False

    def __init__(self, recording: Recording) -> None:
        replays = recording.mode == "replay"
        super().__init__(recording.shelf, policy=_POLICY, mode="offline" if replays else "on")
        self._recording = recording

    # -- for doors ------------------------------------------------------------------------------

    def ask(self, exchange: Exchange) -> Reply:
        """See `Cache.ask`."""
        if self._is_beneath():
            return _beneath()
        with self._noted(exchange.request), self._in_an_ask():
            return super().ask(exchange)

    async def aask(self, exchange: AsyncExchange) -> Reply:
        """See `Cache.aask`."""
        if self._is_beneath():
            return _beneath()
        with self._noted(exchange.request), self._in_an_ask():
            return await super().aask(exchange)

    def begin(
        self,
        request: Request,
        *,
        gone: Callable[[], bool] | None = None,
        looks: bool = True,
        patience: float | None = None,
    ) -> Step:
        """See `Cache.begin`."""
        with self._noted(request):
            return super().begin(request, gone=gone, looks=looks, patience=patience)

    async def abegin(
        self,
        request: Request,
        *,
        gone: Callable[[], bool] | None = None,
        looks: bool = True,
        patience: float | None = None,
    ) -> Step:
        """See `Cache.abegin`."""
        with self._noted(request):
            return await super().abegin(request, gone=gone, looks=looks, patience=patience)

    def suffices(self, key: str) -> bool:
        """Never: a replay begins at the door above, so it is there that the answer has to be."""
        self._recording.superseded(key)
        return False

    async def asuffices(self, key: str) -> bool:
        """See `suffices`."""
        return self.suffices(key)

    def offline_miss(self, what: str) -> OfflineMiss:
        """See `Cache.offline_miss`."""
        return self._remembered(OfflineMiss(f"{self._recording.path} is replayed, and {what}"))

    def minds(self, host: str) -> bool:
        """Only hosts that recordings come from are providers, as far as anybody knows."""
        return host.lower() in self._recording.hosts

    # -- what is asked --------------------------------------------------------------------------

    def _is_beneath(self) -> bool:
        # A replay opens nothing, so nothing can be beneath it; a task that remembers an ask is no excuse.
        return _asking.get() is self and self._recording.mode != "replay"

    @contextmanager
    def _noted(self, request: Request) -> Generator[None]:
        """What happens in the block is the ask of this request; that nothing is stored becomes its miss."""
        self._note(request)
        try:
            yield
        except OfflineMiss:
            raise self._missed(request) from None

    @contextmanager
    def _in_an_ask(self) -> Generator[None]:
        """What a model in this process asks on its way is part of its answer, and no ask of the test's."""
        before = _asking.get()
        _asking.set(self)
        try:
            yield
        finally:
            _asking.set(before)  # no token: a forgotten coroutine is closed in whatever context

    def _note(self, request: Request) -> None:
        recording = self._recording
        try:
            decision = self._decided(request)
            keys = decision.items or ((decision.key,) if decision.key else ())
            recording.asked.extend(keys)
            recording.secrets |= secrets_of(request)
            if recording.mode != "replay" and any(key not in recording.shelf.values for key in keys):
                self._tell_about(request, decision)
        except Exception as error:  # noqa: BLE001 - it is told beside the answer, never in its way
            fault("a recording was not described", error)

    def _tell_about(self, request: Request, decision: Decision) -> None:
        recording = self._recording
        for key, item in self._items(request, decision):
            text = item if isinstance(item, str) else ""
            recording.abouts[key] = shortened(text, recording.secrets)
        if decision.key and not decision.items:
            recording.abouts[decision.key] = about(read_body(request), recording.secrets)

    def _decided(self, request: Request) -> Decision:
        return self._flow.decider.decide(request, current_control())[0]

    def _items(self, request: Request, decision: Decision) -> list[tuple[str, Any]]:
        """The key and the text or tokens of each input, of a list that is answered item by item."""
        if not decision.items:
            return []
        listed = items_of(request, read_body(request), decision.surface.items)
        return list(zip(decision.items, listed, strict=True))

    # -- what is missing ------------------------------------------------------------------------

    def _missed(self, request: Request) -> OfflineMiss:
        miss = self._explained(request)
        # Whoever wants nobody to be asked gets the miss that he would get of a cache, and deals with it.
        own = (
            current_control().mode == "offline"
            or "only-if-cached" in request.header(b"cache-control").lower()
        )
        return miss if own else self._remembered(miss)

    def _explained(self, request: Request) -> OfflineMiss:
        decision = self._decided(request)
        path = self._recording.path
        if decision.bypass:
            return OfflineMiss(
                f"{path} is replayed, and this {request.method} request is never recorded ({decision.bypass})"
            )
        values = self._recording.shelf.values
        missing = [(key, item) for key, item in self._items(request, decision) if key not in values]
        what = f"{decision.surface.name} request for model {decision.model!r}"
        if missing:
            total = len(set(decision.items))
            what += f", {len({key for key, _ in missing})} of {total} inputs; of the first of these"
            fields = {**read_body(request).fields, decision.surface.items: missing[0][1]}
            request = Request(request.method, request.url, request.headers, orjson.dumps(fields))
        found = self.explain(request)
        told = found.told() if values else "no answer is recorded there yet"
        return OfflineMiss(
            f"{path} has no answer to this ask: {what}; {told}. Record it with mode='auto' or 'record' "
            "(pytest --askonce=auto or record)",
            key=decision.key,
            differences=found.differences,
        )

    def _remembered(self, miss: OfflineMiss) -> OfflineMiss:
        """SDKs disguise errors and programs swallow them; the block raises what is remembered."""
        self._recording.misses.append(miss)
        return miss


def _beneath() -> Reply:
    return Reply(outcome=Outcome(status="bypass", reason="asked beneath"))
