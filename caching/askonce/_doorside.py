"""What doors ask of a Cache: one call, whole or in two halves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from askonce._bridge import step
from askonce._control import current_control
from askonce._decision import considers
from askonce._entry import Entry
from askonce._errors import OfflineMiss
from askonce._exchange import AsyncExchange, Exchange, RawHeaders, Reply
from askonce._faces import AsyncFace, SyncFace
from askonce._operations import Operations
from askonce._request import Request
from askonce._steps import Step


class Doorside(Operations):
    """The doors' part of a Cache."""

    _sync: SyncFace
    _async: AsyncFace

    def considers(self, method: str, path: str) -> bool:
        """False when a request is passed through whatever its body says, so that nobody needs to read it."""
        return considers(self._settings, method, path)

    def is_offline(self) -> bool:
        """True when nothing may reach a provider now, as far as the cache and `using()` say."""
        return self._settings.mode_for(current_control()) == "offline"

    def offline_miss(self, what: str) -> OfflineMiss:
        """The error for a request that a door may not let through, offline, and cannot ask about."""
        return OfflineMiss(f"mode is offline, and {what}")

    def minds(self, host: str) -> bool:  # noqa: ARG002 - for those who stand under everybody's requests
        """True when a request to this host that is no question matters, too: offline, it is refused."""
        return True

    def suffices(self, key: str) -> bool:
        """True when the answer stored by a door beneath need not be stored once more by the one above."""
        return self.entry(key) is not None

    async def asuffices(self, key: str) -> bool:
        """`suffices`, for event loops."""
        return await self.aentry(key) is not None

    def never_asks(self, request: Request) -> bool:
        """True when this request must not reach the provider, whatever is stored: offline."""
        return self._flow.decider.decide(request, current_control())[0].offline

    def ask(self, exchange: Exchange) -> Reply:
        """Answer one call of a sync door. See `askonce.doors`.

        Raises:
            ConfigurationError: for a bad Cache-Control of the caller's.
            OfflineMiss: in offline mode, when nothing is stored.
            Exception: whatever the provider call raised, unchanged.
        """
        return step(self._flow.run(self._sync, exchange, current_control()))

    async def aask(self, exchange: AsyncExchange) -> Reply:
        """`ask`, for async doors on asyncio."""
        return await self._flow.run(self._async, exchange, current_control())

    def recall(self, request: Request, fits: Callable[[Entry], bool]) -> Reply | None:
        """For doors that know a request before it is built: its fresh answer, counted as a hit.

        Args:
            request: what was asked before in the very same way.
            fits: whether the door can hand out the stored entry.

        Returns:
            None when there is no such answer: nothing was counted, and the call takes the usual way.

        Raises:
            ConfigurationError: for a bad Cache-Control of the caller's.
        """
        said = current_control()
        reply = self._flow.glance.hit(request, said, fits)
        if reply is not None:
            self._counters.recalled()
            return reply
        return step(self._flow.recall(self._sync, request, said, fits))

    async def arecall(self, request: Request, fits: Callable[[Entry], bool]) -> Reply | None:
        """`recall`, for async doors on asyncio."""
        said = current_control()
        reply = self._flow.glance.hit(request, said, fits)
        if reply is not None:
            self._counters.recalled()
            return reply
        return await self._flow.recall(self._async, request, said, fits)

    @cached_property
    def heeds_cookies(self) -> bool:
        """For doors: whether the same request with another cookie may be another question."""
        settings = self._settings
        told = settings.scope == "credential" or not isinstance(settings.scope, str)
        return told or settings.policy.cacheable is not None or b"cookie" in settings.policy.vary

    def rebuilt_unequal(self) -> None:
        """For doors: an answer that was built without a request differs from the one that had one."""
        self._counters.unequal()

    def begin(
        self,
        request: Request,
        *,
        gone: Callable[[], bool] | None = None,
        looks: bool = True,
        patience: float | None = None,
    ) -> Step:
        """For doors to frameworks that make the provider call themselves: the first half of a call.

        Args:
            request: what is asked.
            gone: whether the framework's call is over; asked by those who wait for its answer. None: nobody
                can tell, so nobody waits for it.
            looks: False: an answer is at hand, and will be stored whatever there was.
            patience: seconds to wait for another's answer at most; None, or more than 30: 30.

        Returns:
            A Step, with the answer if there is one.

        Raises:
            OfflineMiss: in offline mode, when nothing is stored.
        """
        said = current_control()
        reply = self._flow.glance.hit(request, said) if looks else None
        if reply is not None:
            return Step(entry=reply.entry, outcome=reply.outcome)
        return step(self._flow.steps.begin(self._sync, request, said, gone, looks=looks, patience=patience))

    async def abegin(
        self,
        request: Request,
        *,
        gone: Callable[[], bool] | None = None,
        looks: bool = True,
        patience: float | None = None,
    ) -> Step:
        """`begin`, for async doors on asyncio."""
        said = current_control()
        reply = self._flow.glance.hit(request, said) if looks else None
        if reply is not None:
            return Step(entry=reply.entry, outcome=reply.outcome)
        return await self._flow.steps.begin(self._async, request, said, gone, looks=looks, patience=patience)

    def finish(
        self, begun: Step, headers: RawHeaders, body: bytes, *, age: float | None = None, stores: bool = True
    ) -> None:
        """The second half: the answer to what was begun. Told by `begun.outcome`.

        Args:
            begun: what `begin` gave; one that has its answer is left alone.
            headers: of the answer; its content type at least.
            body: the answer.
            age: seconds since the provider gave it, where that was not just now.
            stores: False: a door beneath has stored it, and has told what happened.
        """
        step(self._flow.steps.finish(begun, self._sync, headers, body, age=age, stores=stores))

    async def afinish(
        self, begun: Step, headers: RawHeaders, body: bytes, *, age: float | None = None, stores: bool = True
    ) -> None:
        """`finish`, for async doors on asyncio."""
        await self._flow.steps.finish(begun, self._async, headers, body, age=age, stores=stores)

    def abandon(self, begun: Step) -> None:
        """No answer will come to what was begun: whoever waits for it asks."""
        self._flow.steps.abandon(begun)
