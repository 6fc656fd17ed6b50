"""The whole public API with its types, for mypy and pyright. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import httpx
import httpx2
import openai

import askonce
from askonce import (
    AskOnceError,
    Cache,
    ConfigurationError,
    Entry,
    OfflineMiss,
    Outcome,
    Policy,
    Request,
    Rule,
    Stats,
    StoreError,
    replay,
    track,
    using,
)
from askonce.doors import AsyncExchange, Exchange, Opened, Reader, Reply, cache_status
from askonce.events import (
    AnswerDropped,
    AnswersCompared,
    AnswerStored,
    BreakerChanged,
    CallDone,
    CorruptEntry,
    Event,
    Listener,
    StoreFailed,
)
from askonce.prefix import Pick, PrefixAffinity, annotate
from askonce.report import Price, Report, Tokens
from askonce.semantic import (
    EndpointEmbedder,
    FunctionEmbedder,
    Index,
    Judgement,
    LocalIndex,
    Near,
    RedisIndex,
    Row,
    SemanticFigures,
    SemanticLayer,
)
from askonce.stores.disk import DiskStore
from askonce.stores.memory import MemoryStore
from askonce.stores.protocol import AsyncLeasing, Health, Item, NativeAsync, Store, Stored
from askonce.stores.s3 import S3Store
from askonce.stores.tiered import TieredStore
from askonce.telemetry import Telemetry, instrument
from askonce.testing import FakeProvider, FlakyStore, ManualClock
from askonce.tools import export_entries, import_entries
from askonce_httpx import (
    AffinityTransport,
    AsyncAffinityTransport,
    AsyncCacheTransport,
    CacheTransport,
    Deployment,
)
from askonce_openai import disable_cache, enable_cache


def caches(request: Request) -> list[Cache]:
    store: Store = MemoryStore()
    return [
        Cache(),
        Cache("memory://"),
        Cache(["memory://", "disk:///tmp/x"]),
        Cache(("memory://", store)),
        Cache(store, ttl=5),
        Cache(DiskStore("/tmp/x"), ttl="1h30m"),
        Cache(TieredStore(MemoryStore(), DiskStore("/tmp/x")), ttl=timedelta(days=1)),
        Cache(FlakyStore(MemoryStore()), ttl=None),
        Cache(S3Store("bucket", "prefix", endpoint_url="http://host", write="through", max_pool=4)),
        Cache(store=None, policy=Policy(ttl=0.5), namespace="n", scope="shared", mode="read_only"),
        Cache(scope="credential", mode="offline", coalesce="off", secret=b"0" * 16, store_timeout=0.5),
        Cache(scope=lambda asked: asked.header(b"x-tenant"), secret="0" * 16, clock=ManualClock()),
    ]


def layers(vectors: Callable[[list[str]], list[list[float]]]) -> list[Cache]:
    def right(asked: Judgement) -> bool:
        return asked.cached == asked.fresh or asked.similarity > 0.99

    async def later(texts: list[str]) -> list[list[float]]:
        return vectors(texts)

    index: Index = LocalIndex(max_rows=10)
    layers = [
        SemanticLayer(FunctionEmbedder(vectors, name="m")),
        SemanticLayer(FunctionEmbedder(vectors, name="m", afunction=later), threshold=0.9, index=index),
        SemanticLayer(EndpointEmbedder("m", base_url="http://host/v1"), max_error=0.01, judge=right),
        SemanticLayer(EndpointEmbedder("m"), index=RedisIndex("redis://host"), judge="exact", shadow=0.1),
        SemanticLayer(EndpointEmbedder("m"), guards=["numbers"], partition=lambda asked: asked.url),
    ]
    return [Cache(semantic=layer) for layer in layers]


def figures(cache: Cache, index: Index, row: Row) -> list[SemanticFigures]:
    index.add("p", row)
    assert_type(index.search("p", row.vector, 3), list[Near])
    for found in cache.semantic_figures():
        assert_type(found.wrong_of_hits.high, float)
        assert_type(found.wrong_of_requests.rate, float)
    with using(semantic=False), using(semantic=0.99):
        return cache.semantic_figures()


def faces(store: S3Store) -> tuple[Store, NativeAsync, AsyncLeasing]:
    return store, store, store


def policies() -> Policy:
    def cacheable(request: Request, entry: Entry | None) -> bool:
        return entry is None or entry.status == 200 or request.method == "POST"

    rule = Rule(
        model="gpt-4o*",
        url="*/embeddings",
        namespace="n*",
        ttl=None,
        stale_while_revalidate="1m",
        stale_if_error=timedelta(hours=1),
        max_temperature=None,
        store_truncated=True,
        store_refusals=False,
    )
    policy = Policy(
        ttl="7d",
        stale_while_revalidate=5,
        stale_if_error="1h",
        jitter=0.2,
        rules=(rule, Rule(url="*")),
        max_entry_bytes="1MiB",
        max_temperature=0.5,
        store_truncated=False,
        store_refusals=True,
        ignore_fields=frozenset({"user"}),
        vary_headers=frozenset({"x-tier"}),
        cacheable=cacheable,
    )
    assert_type(policy.rules, tuple[Rule, ...])
    return policy


def blocks(names: Iterable[str]) -> None:
    with using(
        ttl="1h",
        max_age=5,
        refresh=True,
        store=False,
        mode="on",
        namespace="n",
        scope="s",
        tags=names,
        sample=1,
    ):
        pass
    with using(ttl=None), using(), track() as outcomes:
        assert_type(outcomes, list[Outcome])
    for outcome in outcomes:
        assert_type(outcome.key, str)
        assert_type(outcome.age, float | None)
        assert_type(outcome.usage, dict[str, int])
        assert_type(outcome.stored, bool | None)
        assert_type(outcome.served, bool)
        assert_type(cache_status(outcome), str)


def operate(cache: Cache, request: Request) -> None:
    with cache as same:
        assert_type(same, Cache)
    stats = cache.stats()
    assert_type(stats, Stats)
    assert_type(stats.hit_rate, float)
    assert_type(stats.tokens_saved, int)
    assert_type(stats.dropped, dict[str, int])
    assert_type(cache.ping(), list[Health])
    assert_type(cache.delete("n:1"), bool)
    assert_type(cache.invalidate(model="gpt*", tag="t", older_than="1d", url="*"), int)
    assert_type(cache.clear(), int)
    entries: Iterator[tuple[str, Entry]] = cache.entries()
    for key, entry in entries:
        assert_type(key, str)
        assert_type(entry.body, bytes)
        assert_type(entry.header("date"), str)
        assert_type(entry.is_stream, bool)
        assert_type(entry.meta.expires_at, float | None)
    explanation = cache.explain(request)
    assert_type(explanation.differences, tuple[str, ...])
    assert_type(explanation.looked_at, int)
    assert_type(cache.entry("n:1"), Entry | None)
    assert_type(cache.write_items(cache.read_items(cache.keys()), overwrite=True), int)
    assert_type(export_entries(cache, Path("answers.jsonl")).entries, int)
    assert_type(import_entries(cache, Path("answers.jsonl"), overwrite=True).complete, bool)
    assert_type(export_entries(cache, Path("answers.jsonl"), index=LocalIndex()).rows, int)
    assert_type(import_entries(cache, Path("answers.jsonl"), index=LocalIndex()).rows_written, int)
    report = cache.report(days=7, prices={"own*": Price(input=1, output=2)})
    assert_type(report, Report)
    assert_type(report.total.money_saved, float | None)
    assert_type(report.by_day[0].saved + report.total.spent, Tokens)
    assert_type(report.to_html(), str)
    assert_type(cache.namespace, str)
    assert_type(cache.policy, Policy)
    assert_type(cache.considers("POST", "/v1/responses"), bool)
    cache.close()


async def aoperate(cache: Cache, request: Request) -> None:
    async with cache as same, using(ttl=5):
        assert_type(same, Cache)
    assert_type(await cache.aping(), list[Health])
    assert_type(await cache.adelete("n:1"), bool)
    assert_type(await cache.ainvalidate(older_than=5), int)
    assert_type(await cache.aclear(), int)
    entries: AsyncIterator[tuple[str, Entry]] = cache.aentries()
    async for _key, entry in entries:
        assert_type(entry.status, int)
    assert_type((await cache.aexplain(request)).verdict, str)
    assert_type(await cache.aentry("n:1"), Entry | None)
    assert_type(await cache.areport(), Report)
    await cache.aclose()


def listen(cache: Cache) -> Callable[[], None]:
    def listener(event: Event) -> None:
        match event:
            case CallDone(outcome=outcome):
                assert_type(outcome, Outcome)
            case AnswerStored(key=key, size=size):
                assert_type((key, size), tuple[str, int])
            case AnswerDropped(reason=reason) | CorruptEntry(reason=reason):
                assert_type(reason, str)
            case AnswersCompared(right=right, similarity=similarity, source=source):
                assert_type((right, similarity, source), tuple[bool, float, str])
            case StoreFailed(store=store, operation=operation, error=error):
                assert_type((store, operation, error), tuple[str, str, str])
            case BreakerChanged(store=store, state=state):
                assert_type((store, state), tuple[str, str])

    typed: Listener = listener
    return cache.subscribe(typed)


def telemetry(cache: Cache) -> None:
    with instrument(cache, name="mine", prices={"m": Price(input=1, output=2)}) as handle:
        assert_type(handle, Telemetry)
    assert_type(cache.tiers, tuple[str, ...])


class MyDoor:
    """An Exchange, as those who build a door write it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.live = False
        self.patience: float | None = 5.0

    def open(self) -> Opened:
        return Opened(
            status=200,
            headers=[(b"content-type", b"application/json")],
            native=object(),
            body=b"{}",
            framed=True,
        )

    def again(self) -> Opened:
        return self.open()

    def instead(self, body: bytes) -> Opened:
        return Opened(status=200, headers=[], native=None, body=body)


class MyAsyncDoor:
    """An AsyncExchange."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.live = True
        self.patience: float | None = None

    async def open(self) -> Opened:
        return Opened(status=200, headers=[], native=None, body=b"")

    async def again(self) -> Opened:
        return await self.open()

    async def instead(self, body: bytes) -> Opened:
        return Opened(status=200, headers=[], native=None, body=body)


def through_a_door(cache: Cache, request: Request) -> Reply:
    exchange: Exchange = MyDoor(request)
    reply = cache.ask(exchange)
    assert_type(reply.outcome, Outcome)
    assert_type(reply.entry, Entry | None)
    assert_type(reply.reader, Reader | None)
    return reply


async def through_an_async_door(cache: Cache, request: Request) -> Reply:
    exchange: AsyncExchange = MyAsyncDoor(request)
    return await cache.aask(exchange)


class MyStore:
    """A Store, as users write one."""

    name = "mine"
    blocking = False

    def get(self, key: str) -> Stored | None:
        return Stored(b"", None, self.name) if key else None

    def set(self, key: str, value: bytes, expires_at: float | None) -> None: ...
    def delete(self, *keys: str) -> int:
        return len(keys)

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return {key: found for key in keys if (found := self.get(key)) is not None}

    def set_many(self, items: Iterable[Item]) -> None: ...
    def scan(self, prefix: str) -> Iterator[str]:
        yield prefix

    def ping(self) -> Health:
        return Health(ok=True, kind="mine", latency=0.0)

    def close(self) -> None: ...


def with_my_store() -> Cache:
    return Cache([MyStore(), "disk://"])


def openai_door(client: openai.OpenAI, other: openai.AsyncOpenAI) -> None:
    assert_type(enable_cache(), Cache)
    enable_cache(Cache())
    enable_cache(Cache(), client=client)
    enable_cache(client=other)
    disable_cache()
    disable_cache(client=client)


def prefixes(cache: Cache, body: dict[str, Any]) -> None:
    affinity = PrefixAffinity(cache, candidates=["eu", "us"], ttl=300)
    with affinity.pick(body) as pick:
        assert_type(pick, Pick)
        assert_type(pick.name, str)
    assert_type(annotate(body, provider="anthropic", ttl="1h"), dict[str, Any])


def routed(cache: Cache, affinity: PrefixAffinity) -> tuple[httpx.Client, httpx2.AsyncClient]:
    fleet = {
        "eu": Deployment("https://eu.test/v1", {"api-key": "k"}),
        "us": Deployment("https://us.test/v1", lambda: {"Authorization": "Bearer t"}),
        "mine": Deployment("https://mine.test/v1", same_credentials=True),
    }
    below = AffinityTransport(affinity, fleet, annotate=True)
    assert_type(below, httpx.BaseTransport)
    beside = AsyncAffinityTransport(affinity, fleet, httpx2.AsyncHTTPTransport())
    assert_type(beside, httpx2.AsyncBaseTransport)
    return (
        httpx.Client(transport=CacheTransport(cache, below)),
        httpx2.AsyncClient(transport=AsyncCacheTransport(cache, beside)),
    )


def errors() -> None:
    try:
        Cache("memory://")
    except ConfigurationError as error:
        base: AskOnceError = error
        value: ValueError = error
        print(base, value)
    except OfflineMiss as miss:
        assert_type(miss.key, str)
        assert_type(miss.differences, tuple[str, ...])
    except StoreError as trouble:
        print(trouble)


def requests() -> Request:
    request = Request(method="POST", url="https://h/x", headers=((b"a", b"b"),), body=b"{}")
    assert_type(request.header(b"a"), str)
    assert_type(request.target.origin, str)
    assert_type(request.credentials(), bytes)
    assert_type(askonce.__version__, str)
    return request


def provider() -> str:
    with FakeProvider() as running:
        assert_type(running.calls, int)
        anything: Any = running.requests
        print(anything)
        return running.base_url


@replay(Path("answers.json"), mode="replay")
def replayed(text: str, *, number: int = 1) -> bool:
    return bool(text) and number > 0


@replay("answers.json")
async def areplayed(text: str) -> int:
    async with replay("other.json", "record"):
        return len(text)


async def recordings() -> None:
    with replay("answers.json", "auto") as recording:
        assert_type(replayed("a", number=2), bool)
        assert_type(await areplayed("a"), int)
    assert_type(recording.path, Path)
    assert_type(recording.unused, tuple[str, ...])
    assert_type(recording.not_recorded, tuple[str, ...])
    assert_type(recording.misses, list[OfflineMiss])
    assert_type(recording.outcomes, list[Outcome])
    assert_type(recording.new, int)
