"""The Cache: what users make, doors call, and operators ask."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Final, Self, TypeAlias

from askonce import _clock, _codec
from askonce._body import parse
from askonce._bridge import async_port, step, sync_port
from askonce._clock import Clock
from askonce._control import Mode, check_mode, check_namespace, current_control
from askonce._decision import Scope, Settings, decide
from askonce._entry import Entry
from askonce._errors import ConfigurationError, not_allowed
from askonce._events import Events, Listener, StoreFailed, warn
from askonce._exchange import AsyncExchange, Exchange, Reply
from askonce._explain import Explanation
from askonce._faces import AsyncFace, SyncFace
from askonce._flow import Flow
from askonce._policy import Policy, Unset
from askonce._request import Request
from askonce._seal import Seal
from askonce._stats import Counters, Stats
from askonce._surface import surface_of
from askonce._units import Duration, seconds
from askonce.stores.guard import Guarded
from askonce.stores.protocol import Health, Store
from askonce.stores.tiered import Epochs, TieredStore, Tiers
from askonce.stores.urls import open_store

StoreSpec: TypeAlias = "str | Store | Sequence[str | Store] | None"

_COALESCE: Final = ("process", "off")
_BATCH: Final = 200
_UNSET: Final = Unset()


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
        coalesce: "process": identical concurrent calls share one provider call; "off": they do not.
        secret: keys become HMACs and stored answers are sealed with AES-256-GCM.
        store_timeout: seconds that one call may lose to a network store.
        clock: seconds since the epoch; tests inject `askonce.testing.ManualClock`.

    Raises:
        ConfigurationError: for a bad option, naming it and what is allowed.
    """

    def __init__(
        self,
        store: StoreSpec = None,
        *,
        ttl: Duration | Unset | None = _UNSET,
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
        if scope not in {"shared", "credential"} and not callable(scope):
            raise not_allowed("scope", scope, '"shared", "credential", or a callable(Request) -> str')
        if coalesce not in _COALESCE:
            raise not_allowed("coalesce", coalesce, _COALESCE)
        self.store_timeout = seconds("store_timeout", store_timeout)
        key_secret = _secret(secret)
        self._settings = Settings(
            policy=policy or Policy(), namespace=namespace, scope=scope, mode=mode, secret=key_secret
        )
        self._seal = None if key_secret is None else Seal(key_secret)
        self._clock = clock
        self._counters = Counters()
        self._events = Events()
        self._stores = _stores(store, clock)
        epochs = Epochs()
        self._sync = SyncFace(Tiers([Guarded(sync_port(s), self._trouble) for s in self._stores], epochs))
        self._async = AsyncFace(Tiers([Guarded(async_port(s), self._trouble) for s in self._stores], epochs))
        self._flow = Flow(
            settings=self._settings,
            clock=clock,
            counters=self._counters,
            events=self._events,
            seal=self._seal,
            coalesce=coalesce == "process",
        )

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
        return method == "POST" and (surface_of(path) is not None or bool(self._settings.policy.rules))

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
        return self._counters.snapshot()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(event)` called for every event (see `askonce.events`); returns the way out.

        Called in the thread of the call, so it should be quick; what it raises is logged and dropped.
        """
        return self._events.subscribe(listener)

    def ping(self) -> list[Health]:
        """The health of every tier, front first."""
        return [store.ping() for store in self._stores]

    async def aping(self) -> list[Health]:
        """`ping`, for event loops."""
        return [await port.ping() for port in self._async.tiers.ports]

    def delete(self, key: str) -> bool:
        """Remove one entry from every tier; whether it was there."""
        return step(self._sync.tiers.delete(key)) > 0

    async def adelete(self, key: str) -> bool:
        """`delete`, for event loops."""
        return await self._async.tiers.delete(key) > 0

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
        return step(self._invalidate(self._sync.tiers, self._matcher(model, tag, older_than, url)))

    async def ainvalidate(
        self,
        *,
        model: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
        url: str | None = None,
    ) -> int:
        """`invalidate`, for event loops."""
        return await self._invalidate(self._async.tiers, self._matcher(model, tag, older_than, url))

    def clear(self) -> int:
        """Remove every entry of this namespace from every tier; how many they were."""
        return step(self._clear(self._sync.tiers))

    async def aclear(self) -> int:
        """`clear`, for event loops."""
        return await self._clear(self._async.tiers)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """The (key, entry) pairs of this namespace, a batch at a time; what cannot be read is left out."""
        keys = iter(step(self._sync.tiers.scan(f"{self.namespace}:")))
        while batch := list(islice(keys, _BATCH)):
            yield from step(self._load(self._sync.tiers, batch))

    async def aentries(self) -> AsyncIterator[tuple[str, Entry]]:
        """`entries`, for event loops."""
        keys = iter(await self._async.tiers.scan(f"{self.namespace}:"))
        while batch := list(islice(keys, _BATCH)):
            for pair in await self._load(self._async.tiers, batch):
                yield pair

    def explain(self, request: Request) -> Explanation:
        """Why a request is or is not answered from the cache: its nearest entry and what differs."""
        return step(self._explain(self._sync.tiers, request))

    async def aexplain(self, request: Request) -> Explanation:
        """`explain`, for event loops."""
        return await self._explain(self._async.tiers, request)

    def close(self) -> None:
        """Give back files and connections. The cache may be used again; it reopens what it needs."""
        for store in self._stores:
            store.close()

    async def aclose(self) -> None:
        """`close`, for event loops."""
        for port in self._async.tiers.ports:
            await port.close()

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

    def _trouble(self, store: str, operation: str, error: Exception) -> None:
        name = type(error).__name__
        self._counters.store_error(store)
        self._events.emit(StoreFailed(store=store, operation=operation, error=name))
        warn("stores", "the %s store failed (%s: %s); calls go on without it", store, operation, name)

    def _matcher(
        self, model: str | None, tag: str | None, older_than: Duration | None, url: str | None
    ) -> Callable[[Entry], bool]:
        if model is None and tag is None and older_than is None and url is None:
            raise ConfigurationError(
                "invalidate() needs at least one condition: model=, tag=, older_than=, url=; clear() removes all"
            )
        before = None if older_than is None else self._clock() - seconds("older_than", older_than)

        def matches(entry: Entry) -> bool:
            meta = entry.meta
            return (
                (model is None or _globs(meta.model, model))
                and (tag is None or tag in meta.tags)
                and (before is None or meta.created_at < before)
                and (url is None or _globs(meta.url, url))
            )

        return matches

    async def _invalidate(self, tiers: Tiers, matches: Callable[[Entry], bool]) -> int:
        removed = 0
        keys = iter(await tiers.scan(f"{self.namespace}:"))
        while batch := list(islice(keys, _BATCH)):
            doomed = [key for key, entry in await self._load(tiers, batch) if matches(entry)]
            if doomed:
                removed += await tiers.delete(*doomed)
        return removed

    async def _clear(self, tiers: Tiers) -> int:
        removed = 0
        keys = iter(await tiers.scan(f"{self.namespace}:"))
        while batch := list(islice(keys, _BATCH)):
            removed += await tiers.delete(*batch)
        return removed

    async def _load(self, tiers: Tiers, keys: list[str]) -> Iterable[tuple[str, Entry]]:
        found: list[tuple[str, Entry]] = []
        for key, stored in (await tiers.get_many(keys)).items():
            try:
                found.append((key, _codec.decode(key, stored.value, self._seal)))
            except _codec.Undecodable:
                continue
        return found

    async def _explain(self, tiers: Tiers, request: Request) -> Explanation:
        body = parse(request.header(b"content-type"), request.body)
        decision = decide(self._settings, request, body, current_control())
        if decision.bypass:
            return Explanation(verdict="bypass", reason=decision.bypass)
        stored = await tiers.get(decision.key)
        if stored is not None:
            for _, entry in await self._load(tiers, [decision.key]):
                expires = entry.meta.expires_at
                fresh = expires is None or expires > self._clock()
                return Explanation(verdict="hit" if fresh else "expired", key=decision.key)
        near, told = await self._flow.nearest(tiers, decision, request, body)
        return Explanation(verdict="miss", key=decision.key, nearest=near, differences=told)


def _globs(text: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase  # noqa: PLC0415 - administration only

    return fnmatchcase(text, pattern)


def _secret(secret: object) -> bytes | None:
    if secret is None:
        return None
    found = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(found, bytes) or len(found) < 16:  # noqa: PLR2004
        raise ConfigurationError(
            "secret is not allowed; allowed: None, or bytes or text of at least 16 bytes"
        )
    return found


def _stores(spec: StoreSpec, clock: Clock) -> list[Store]:
    """The tiers, front first; a TieredStore's own tiers are taken apart, so that each is guarded alone."""
    if spec is None:
        spec = os.environ.get("ASKONCE_STORE") or ("memory://", "disk://")
    if isinstance(spec, str):
        # The environment has one line: tiers are separated by spaces there.
        spec = spec.split() or [spec]
    elif not isinstance(spec, Sequence):
        spec = [spec]
    found: list[Store] = []
    for one in spec:
        if isinstance(one, TieredStore):
            found += one.tiers
        elif isinstance(one, str):
            found.append(open_store(one, clock))
        elif all(callable(getattr(one, name, None)) for name in ("get", "set", "delete", "scan")):
            found.append(one)
        else:
            raise not_allowed("store", one, "a URL, a Store, or a list of them, front tier first")
    if not found:
        raise ConfigurationError(
            "store=[] is not allowed; allowed: a URL, a Store, or a list of at least one"
        )
    return found
