"""The Cache: what users make, doors call, and operators ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from askonce import _clock
from askonce._backing import Backing
from askonce._bridge import step
from askonce._clock import Clock
from askonce._control import Mode, check_mode, check_namespace, current_control
from askonce._decision import Scope, Settings, considers
from askonce._entry import Entry
from askonce._errors import ConfigurationError, not_allowed
from askonce._events import Events, Listener
from askonce._exchange import AsyncExchange, Exchange, Reply
from askonce._faces import AsyncFace, SyncFace
from askonce._flow import Flow
from askonce._ledger import Ledger
from askonce._options import StoreSpec, read_secret, read_stores
from askonce._policy import UNSET, Policy, Unset
from askonce._request import Request
from askonce._seal import Seal
from askonce._stats import Counters, Stats
from askonce._units import Duration, seconds
from askonce.stores.protocol import Health

if TYPE_CHECKING:
    from askonce._admin import Admin
    from askonce._explain import Explanation

_BATCH: Final = 200
_COALESCE: Final = ("process", "fleet", "off")
_SCOPES: Final = ("shared", "credential")


class Cache:
    """A cache for questions to language models; every door takes one.

    Making one does no I/O. It may be used from any thread, any event loop, and after a fork. Close it
    (or use it as a context manager, sync or async) to give files and connections back at a known time.

    Args:
        store: a URL ("memory://", "disk:///path", ...), a Store, or a list of them, front tier first.
            None: `$ASKONCE_STORE`, else memory over disk in the user's cache folder.
        ttl: life of an answer: seconds, "90s" "15m" "12h" "7d", a timedelta, or None for ever.
            Shorthand for `policy=Policy(ttl=...)`; default one day.
        policy: a Policy, instead of `ttl`.
        namespace: logical separation; `clear()`, `entries()` and `invalidate()` stay inside it.
        scope: who may share an answer: "shared" (everybody), "credential" (whoever uses the same API
            key), or a callable `(Request) -> str` that names the group.
        mode: "on"; "refresh" (always ask, store the new answer); "read_only" (never write);
            "offline" (never ask: a miss raises OfflineMiss); "off".
        coalesce: "process": identical concurrent calls of this process share one provider call; "fleet":
            those of all processes and hosts over the same `redis://` or `disk://` do; "off": none do.
        secret: keys become HMACs and stored answers are sealed with AES-256-GCM.
        store_timeout: seconds that one call may lose to network stores, all its operations together,
            connecting included.
        clock: seconds since the epoch; tests inject `askonce.testing.ManualClock`.

    Raises:
        ConfigurationError: for a bad option, naming it and what is allowed.
    """

    def __init__(
        self,
        store: StoreSpec = None,
        *,
        ttl: Duration | Unset | None = UNSET,
        policy: Policy | None = None,
        namespace: str = "default",
        scope: Scope = "shared",
        mode: Mode = "on",
        coalesce: str = "process",
        secret: bytes | str | None = None,
        store_timeout: float = 0.25,
        clock: Clock = _clock.wall,
    ) -> None:
        if not isinstance(ttl, Unset):
            if policy is not None:
                raise ConfigurationError(
                    "ttl and policy are given together; allowed: one of them (Policy has a ttl)"
                )
            policy = Policy(ttl=ttl)
        if policy is not None and not isinstance(policy, Policy):
            raise not_allowed("policy", policy, "a Policy or None")
        check_mode("mode", mode)
        check_namespace(namespace)
        if not callable(scope) and not (isinstance(scope, str) and scope in _SCOPES):
            raise not_allowed("scope", scope, '"shared", "credential", or a callable(Request) -> str')
        if coalesce not in _COALESCE:
            raise not_allowed("coalesce", coalesce, _COALESCE)
        self.store_timeout = seconds("store_timeout", store_timeout)
        if not self.store_timeout:
            raise not_allowed("store_timeout", store_timeout, "a duration above 0")
        key_secret = read_secret(secret)
        self._settings = Settings(
            policy=policy or Policy(), namespace=namespace, scope=scope, mode=mode, secret=key_secret
        )
        seal = None if key_secret is None else Seal(key_secret)
        self._counters = Counters()
        self._events = Events()
        self._backing = Backing(
            read_stores(store, clock),
            clock=clock,
            timeout=self.store_timeout,
            counters=self._counters,
            events=self._events,
        )
        # Calls go through the guards, which never fail; operators want to see what fails.
        self._stores = self._backing.stores
        self._sync_tiers = self._backing.sync_tiers
        self._async_tiers = self._backing.async_tiers
        self._sync = SyncFace(self._backing.sync_guard)
        self._async = AsyncFace(self._backing.async_guard)
        self._flow = Flow(
            settings=self._settings,
            clock=clock,
            ledger=Ledger(clock=clock, counters=self._counters, events=self._events),
            seal=seal,
            coalesce=coalesce != "off",
            lessor=self._backing.lessor() if coalesce == "fleet" else None,
        )
        self._clock = clock
        self._seal = seal

    # -- what it is -----------------------------------------------------------------------------

    @property
    def namespace(self) -> str:
        """The namespace it was made with."""
        return self._settings.namespace

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._settings.policy

    @property
    def mode(self) -> str:
        """The mode it was made with; `using(mode=...)` changes it for a block."""
        return self._settings.mode

    def __repr__(self) -> str:
        stores = " over ".join(store.name for store in self._stores)
        return f"<Cache {stores}, namespace={self.namespace!r}, mode={self.mode!r}>"

    # -- for doors ------------------------------------------------------------------------------

    def considers(self, method: str, path: str) -> bool:
        """False when a request is passed through whatever its body says, so that nobody needs to read it."""
        return considers(self._settings, method, path)

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

    # -- for operators --------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What happened in this process since the cache was made."""
        return self._counters.snapshot(self._backing.breakers())

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(event)` called for every event (see `askonce.events`); returns the way out.

        Called in the thread of the call, so it should be quick; what it raises is logged and dropped.
        """
        return self._events.subscribe(listener)

    def ping(self) -> list[Health]:
        """The health of every tier, front first."""
        return self._backing.ping()

    async def aping(self) -> list[Health]:
        """`ping`, for event loops."""
        return await self._backing.aping()

    def delete(self, key: str) -> bool:
        """Remove one entry from every tier; whether it was there."""
        self._flow.forget()
        return step(self._sync_tiers.delete(key)) > 0

    async def adelete(self, key: str) -> bool:
        """`delete`, for event loops."""
        self._flow.forget()
        return await self._async_tiers.delete(key) > 0

    def invalidate(
        self,
        *,
        model: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        url: str | None = None,
    ) -> int:
        """Remove the entries of this namespace that match every condition given; how many they were.

        Args:
            model: model name; `*` globs.
            tag: a label given by `using(tags=...)`.
            older_than: created longer ago than this.
            url: where it was asked, without query; `*` globs.

        Raises:
            ConfigurationError: without any condition (that is `clear()`).
        """
        self._flow.forget()
        matches = self._admin.matcher(model, tag, older_than, url)
        return step(self._admin.invalidate(self._sync_tiers, matches))

    async def ainvalidate(
        self,
        *,
        model: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        url: str | None = None,
    ) -> int:
        """`invalidate`, for event loops."""
        self._flow.forget()
        matches = self._admin.matcher(model, tag, older_than, url)
        return await self._admin.invalidate(self._async_tiers, matches)

    def clear(self) -> int:
        """Remove every entry of this namespace from every tier; how many they were."""
        self._flow.forget()
        return step(self._admin.clear(self._sync_tiers))

    async def aclear(self) -> int:
        """`clear`, for event loops."""
        self._flow.forget()
        return await self._admin.clear(self._async_tiers)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """The (key, entry) pairs of this namespace, a batch at a time; what cannot be read is left out."""
        keys = iter(step(self._admin.keys(self._sync_tiers)))
        while batch := list(islice(keys, _BATCH)):
            yield from step(self._admin.load(self._sync_tiers, batch))

    async def aentries(self) -> AsyncIterator[tuple[str, Entry]]:
        """`entries`, for event loops."""
        keys = iter(await self._admin.keys(self._async_tiers))
        while batch := list(islice(keys, _BATCH)):
            for pair in await self._admin.load(self._async_tiers, batch):
                yield pair

    def explain(self, request: Request) -> Explanation:
        """Why a request is or is not answered from the cache: its nearest entry and what differs."""
        return step(self._admin.explain(self._sync_tiers, request))

    async def aexplain(self, request: Request) -> Explanation:
        """`explain`, for event loops."""
        return await self._admin.explain(self._async_tiers, request)

    def close(self) -> None:
        """Give back files and connections. The cache may be used again; it reopens what it needs."""
        self._flow.close()
        self._backing.close()

    async def aclose(self) -> None:
        """`close`, for event loops."""
        self._flow.close()
        await self._backing.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside ---------------------------------------------------------------------------------

    @cached_property
    def _admin(self) -> Admin:
        from askonce._admin import Admin  # noqa: PLC0415 - most programs never operate on a cache

        return Admin(settings=self._settings, clock=self._clock, seal=self._seal)
