"""What a hit in Redis costs above redis-py's GET of the same bytes: `python tests/benchmarks/bench_redis.py`.

Store and client take turns within one run, over one Valkey on loopback, each with its own warm connection.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [*(str(ROOT / name) for name in ("caching", "integrations")), str(ROOT / "tests")]

import redis
import redis.asyncio
from bench_hit import _client, _prompt, _request
from servers.redis import redis_server

from askonce import Cache
from askonce.stores import MemoryStore, RedisStore, TieredStore
from askonce.testing import FakeProvider
from askonce_openai import disable_cache, enable_cache

ROUNDS = 30
CALLS = 100
VALUE = bytes(1600)


def _turns(*works: Callable[[], object], calls: int = CALLS) -> list[float]:
    """Wall microseconds a call of each, medians over rounds in which they take turns."""
    rounds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, figures in zip(works, rounds, strict=True):
            start = time.perf_counter()
            for _ in range(calls):
                work()
            figures.append((time.perf_counter() - start) / calls * 1e6)
    return [statistics.median(figures) for figures in rounds]


async def _async_turns(*works: Callable[[], Awaitable[object]], calls: int = CALLS) -> list[float]:
    rounds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, figures in zip(works, rounds, strict=True):
            start = time.perf_counter()
            for _ in range(calls):
                await work()
            figures.append((time.perf_counter() - start) / calls * 1e6)
    return [statistics.median(figures) for figures in rounds]


async def _throughput(work: Callable[[], Awaitable[object]]) -> float:
    """Operations a second of 1,000 tasks."""
    rounds: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(1000)])
        rounds.append(1000 / (time.perf_counter() - start))
    return statistics.median(rounds)


async def _tasks(url: str) -> dict[str, float]:
    store = RedisStore(url)
    client = redis.asyncio.Redis.from_url(url, max_connections=64)
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=64)
    pooled = redis.asyncio.Redis(connection_pool=pool)
    try:
        raw, ours = await _async_turns(lambda: client.get("askonce:key"), lambda: store.aget("key"))
        many = [f"k{number}" for number in range(500)]
        names = [f"askonce:{key}" for key in many]
        raw_many, our_many = await _async_turns(
            lambda: client.mget(names), lambda: store.aget_many(many), calls=5
        )
        return {
            "redis-py GET, asyncio": raw,
            "store get above redis-py GET, asyncio": ours - raw,
            "get_many(500) / MGET, asyncio": our_many / raw_many,
            "redis-py GETs a second, 1,000 tasks": await _throughput(lambda: pooled.get("askonce:key")),
            "store gets a second, 1,000 tasks": await _throughput(lambda: store.aget("key")),
        }
    finally:
        await store.aclose()
        await client.aclose()
        await pooled.aclose()
        await pool.disconnect()


def _threads(url: str) -> dict[str, float]:
    store = RedisStore(url)
    tiered = TieredStore(MemoryStore(), store)
    memory = MemoryStore()
    with redis.Redis.from_url(url) as client:
        many = [f"k{number}" for number in range(500)]
        store.set_many([(key, VALUE, None) for key in [*many, "key"]])
        memory.set("key", VALUE, None)
        tiered.get("key")
        time.sleep(0.2)  # until it listens: a front tier starts empty then
        tiered.get("key")
        names = [f"askonce:{key}" for key in many]
        raw, ours = _turns(lambda: client.get("askonce:key"), lambda: store.get("key"))
        raw_many, our_many = _turns(lambda: client.mget(names), lambda: store.get_many(many), calls=5)
        plain, front = _turns(lambda: memory.get("key"), lambda: tiered.get("key"))
    store.close()
    return {
        "redis-py GET": raw,
        "store get above redis-py GET": ours - raw,
        "get_many(500) / MGET": our_many / raw_many,
        "tiered get in memory above a memory get": front - plain,
    }


def _coherence(url: str) -> float:
    """Milliseconds until a key overwritten by one process has left another's memory; the 95th percentile."""
    writer, reader = (TieredStore(MemoryStore(), RedisStore(url)) for _ in range(2))
    front = reader.tiers[0]
    for store in (writer, reader):
        store.get("nothing")
    time.sleep(0.3)  # until both listen
    taken: list[float] = []
    for _ in range(200):
        writer.set("shared", VALUE, None)
        while front.get("shared") is None:
            reader.get("shared")
        start = time.perf_counter()
        writer.set("shared", VALUE, None)
        while front.get("shared") is not None:
            time.sleep(0.0002)
        taken.append((time.perf_counter() - start) * 1e3)
    writer.close()
    reader.close()
    return statistics.quantiles(taken, n=20)[-1]


def _hits(url: str) -> dict[str, float]:
    """The own share of hits through the OpenAI door, memory and memory over Redis in turn."""
    with (
        FakeProvider() as provider,
        Cache("memory://") as plain,
        Cache(["memory://", url]) as tiered,
        Cache(url) as remote,
    ):
        client = _client(provider.base_url)
        request = _request(client, _prompt(1000))
        turns = (("memory", plain), ("tiered", tiered), ("redis", remote), ("redis, anew", remote))
        shares: dict[str, list[float]] = {name: [] for name, _ in turns}
        for _ in range(ROUNDS):
            for name, cache in turns:
                enable_cache(cache, fast=False)
                for _ in range(5):
                    request.extensions.pop("askonce", None)
                    client._send_request(request, stream=False)
                start = time.perf_counter()
                for _ in range(CALLS):
                    request.extensions.pop("askonce", None)
                    if name == "redis, anew":
                        cache._flow.forget()  # an entry that this process has not decoded before
                    client._send_request(request, stream=False)
                shares[name].append((time.perf_counter() - start) / CALLS * 1e6)
                disable_cache()
        client.close()
    medians = {name: statistics.median(figures) for name, figures in shares.items()}
    return {
        "hit in memory, wall": medians["memory"],
        "tiered hit in memory above it": medians["tiered"] - medians["memory"],
        "hit in Redis, wall": medians["redis"],
        "hit in Redis, decoded anew, wall": medians["redis, anew"],
    }


def run() -> dict[str, float]:
    """Microseconds and ratios by name."""
    with redis_server("valkey") as server:
        figures = _threads(server.url)
        figures |= asyncio.run(_tasks(server.url))
        figures |= _hits(server.url)
        for what in ("", ", decoded anew"):
            figures[f"hit in Redis{what}, own share above redis-py GET"] = (
                figures[f"hit in Redis{what}, wall"] - figures["redis-py GET"]
            )
        figures["ms until another memory drops a key, p95"] = _coherence(server.url)
        return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:45} {figure:12.2f}")
