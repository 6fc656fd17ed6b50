"""The Cache: what users make, doors call, and operators ask."""

from __future__ import annotations

from hashlib import blake2b, sha256
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from askonce import _clock
from askonce._backing import Backing
from askonce._clock import Clock
from askonce._control import Mode, check_mode, check_namespace
from askonce._days import Days
from askonce._decision import Scope, Settings
from askonce._doorside import Doorside
from askonce._errors import ConfigurationError, not_allowed
from askonce._events import Events
from askonce._faces import AsyncFace, SyncFace
from askonce._flow import Flow
from askonce._layer import Layer
from askonce._ledger import Ledger
from askonce._options import StoreSpec, read_secret, read_stores
from askonce._policy import UNSET, Policy, Unset
from askonce._seal import Seal
from askonce._side import SideStore
from askonce._stats import Counters
from askonce._totals import Totals
from askonce._units import Duration, seconds

if TYPE_CHECKING:
    from askonce.semantic import SemanticLayer

_COALESCE: Final = ("process", "fleet", "off")
_SCOPES: Final = ("shared", "credential")


class Cache(Doorside):
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
        semantic: an `askonce.semantic.SemanticLayer`: after an exact miss, an answer to a question that
            means the same may be given. None: exact means alone.
        secret: keys become HMACs and stored answers are sealed with AES-256-GCM.
        store_timeout: seconds that one call may lose to network stores, all its operations together,
            connecting included.
        clock: seconds since the epoch; tests inject `askonce.testing.ManualClock`.

    Raises:
        ConfigurationError: for a bad option, naming it and what is allowed.
    """

    _hears: ClassVar[bool] = True
    """Callers have a say, by `using()` and Cache-Control. Not in what stands in for a provider."""

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
        semantic: SemanticLayer | None = None,
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
            policy=policy or Policy(),
            namespace=namespace,
            scope=scope,
            mode=mode,
            secret=key_secret,
            hears=self._hears,
        )
        seal = None if key_secret is None else Seal(key_secret)
        self._clock = clock
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
        self._sync = SyncFace(self._backing.sync_guard)
        self._async = AsyncFace(self._backing.async_guard)
        self._totals = Totals(self._backing.tallying(), namespace, self._counters, Days())
        self._layer = None if semantic is None else self._attached(semantic, seal)
        self._flow = Flow(
            settings=self._settings,
            clock=clock,
            ledger=Ledger(clock=clock, counters=self._counters, events=self._events, totals=self._totals),
            seal=seal,
            coalesce=coalesce != "off",
            lessor=self._backing.lessor() if coalesce == "fleet" else None,
            layer=self._layer,
            front=self._backing.front,
        )
        self._seal = seal

    def _attached(self, semantic: SemanticLayer, seal: Seal | None) -> Layer:
        if not callable(getattr(semantic, "attach", None)):
            raise not_allowed("semantic", semantic, "an askonce.semantic.SemanticLayer, or None")
        from askonce.semantic._parts import Parts  # noqa: PLC0415 - most caches have no such layer

        parts = Parts(self._settings, self._backing, self._counters, self._clock, self._events, seal)
        return semantic.attach(self, parts)

    # -- what it is -----------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._settings.policy

    @property
    def scope(self) -> Scope:
        """Who shares answers, as it was made with."""
        return self._settings.scope

    @property
    def mode(self) -> str:
        """The mode it was made with; `using(mode=...)` changes it for a block."""
        return self._settings.mode

    def __repr__(self) -> str:
        stores = " over ".join(store.name for store in self._stores)
        return f"<Cache {stores}, namespace={self.namespace!r}, mode={self.mode!r}>"

    # -- for what is built on it ----------------------------------------------------------------

    def side_store(self, kind: str) -> SideStore:
        """For what is built on a cache: small notes of a kind beside its answers, in the same stores."""
        return SideStore(self._backing, self._clock, f"{self.namespace}~{kind}:")

    def digest_key(self, purpose: str) -> bytes:
        """For what is built on a cache: a key for digests, from its secret if it has one."""
        secret = self._settings.secret or b""
        return blake2b(f"{self.namespace}~{purpose}".encode(), key=sha256(secret).digest()).digest()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back files and connections. The cache may be used again; it reopens what it needs."""
        self._flow.close()
        self._totals.add()
        self._backing.close()

    async def aclose(self) -> None:
        """`close`, for event loops."""
        import asyncio  # noqa: PLC0415

        self._flow.close()
        await asyncio.to_thread(self._totals.add)
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
