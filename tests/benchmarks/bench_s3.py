"""What a hit in S3 costs beside boto3's get_object of the same object: `python tests/benchmarks/bench_s3.py`.

Store and client take turns within one run, over one Moto on loopback, each with its own warm connections. A
real S3 takes ten times as long for its own part, so the ratios are as bad as they get.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [*(str(ROOT / name) for name in ("caching", "integrations")), str(ROOT / "tests")]

from servers.s3 import S3Server, moto_server

from askonce.stores import S3Store

ROUNDS = 30
CALLS = 20
VALUE = bytes(1600)
KEYS = [f"default:{number:064x}" for number in range(0, 50 << 248, 1 << 248)]


def _ratio(ours: list[float], raw: list[float]) -> float:
    """Median of the ratios of neighbouring rounds: what slows the machine slows both."""
    return statistics.median(one / other for one, other in zip(ours, raw, strict=True))


def _turns(*works: Callable[[], object], calls: int = CALLS) -> list[list[float]]:
    """Wall milliseconds a call of each, by round; in each round they take turns call by call."""
    rounds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        taken: list[list[float]] = [[] for _ in works]
        for _ in range(calls):
            for work, times in zip(works, taken, strict=True):
                start = time.perf_counter()
                work()
                times.append((time.perf_counter() - start) * 1e3)
        for times, figures in zip(taken, rounds, strict=True):
            figures.append(statistics.median(times))
    return rounds


def _asyncio_turns(store: S3Store, raw: Callable[[], object]) -> list[list[float]]:
    """The same, with the store's calls awaited in a loop that runs on."""
    with asyncio.Runner() as runner:

        def awaited(work: Callable[[], Awaitable[object]]) -> float:
            async def timed() -> float:
                start = time.perf_counter()
                await work()
                return (time.perf_counter() - start) * 1e3

            return runner.run(timed())

        rounds: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            ours, theirs = [], []
            for _ in range(CALLS):
                ours.append(awaited(lambda: store.aget(KEYS[0])))
                start = time.perf_counter()
                raw()
                theirs.append((time.perf_counter() - start) * 1e3)
            rounds[0].append(statistics.median(ours))
            rounds[1].append(statistics.median(theirs))
        return rounds


def _measured(server: S3Server) -> dict[str, float]:
    bucket = server.create_bucket()
    store = S3Store(bucket, endpoint_url=server.endpoint_url, timeout=30)
    store.set_many((key, VALUE, time.time() + 86_400) for key in KEYS)
    with server.client() as client:
        name = store._names.of(KEYS[0])

        def raw() -> bytes:
            return client.get_object(Bucket=bucket, Key=name)["Body"].read()

        assert store.get(KEYS[0]).value == raw() == VALUE
        theirs, ours = _turns(raw, lambda: store.get(KEYS[0]))
        awaited, beside = _asyncio_turns(store, raw)
        puts, sets = _turns(
            lambda: client.put_object(Bucket=bucket, Key="raw", Body=VALUE),
            lambda: store.set(KEYS[0], VALUE, None),
            calls=5,
        )
        many, _ = _turns(lambda: store.get_many(KEYS), raw, calls=1)
    store.close()
    return {
        "raw get_object, ms": statistics.median(theirs),
        "S3 get, ms": statistics.median(ours),
        "S3 get / raw get_object": _ratio(ours, theirs),
        "S3 get / raw get_object, asyncio": _ratio(awaited, beside),
        "S3 set / raw put_object": _ratio(sets, puts),
        "S3 get_many(50) / 50 raw get_object": statistics.median(many) / 50 / statistics.median(theirs),
    }


def run() -> dict[str, float]:
    """Milliseconds and ratios by name."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": S3Server.access_key,
        "AWS_SECRET_ACCESS_KEY": S3Server.secret_key,
        "AWS_DEFAULT_REGION": S3Server.region,
    }
    with moto_server() as server:
        return _measured(server)


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:40} {figure:8.2f}")
