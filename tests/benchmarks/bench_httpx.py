"""The httpx door, beside a bare client: `python tests/benchmarks/bench_httpx.py`.

The bare client has a transport that answers at once, so what is left is what httpx itself costs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

import httpx

from askonce import Cache
from askonce_httpx import CacheTransport

ROUNDS = 60
CALLS = 40
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 200}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "word " * 200}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400},
}


def _answered(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


def _us(work: Callable[[], object]) -> float:
    start = time.thread_time()
    for _ in range(CALLS):
        work()
    return (time.thread_time() - start) / CALLS * 1e6


def _beside(bare: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """The median of the bare one, and that of the differences, taken in turns."""
    floors: list[float] = []
    added: list[float] = []
    for _ in range(ROUNDS):
        floor = _us(bare)
        floors.append(floor)
        added.append(_us(ours) - floor)
    return statistics.median(floors), statistics.median(added)


def run() -> dict[str, float]:
    """CPU microseconds."""
    constant: Any = httpx.Response(200, json=ANSWER)
    body = constant.content
    headers = constant.headers

    def at_once(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(body), request=request)

    floor_transport = httpx.MockTransport(at_once)
    with (
        Cache("memory://") as cache,
        httpx.Client(transport=floor_transport) as bare,
        httpx.Client(transport=CacheTransport(cache, httpx.MockTransport(at_once))) as ours,
    ):
        chat = "http://provider/v1/chat/completions"
        other = "http://provider/v1/files"

        def ask(client: httpx.Client, url: str) -> httpx.Response:
            return client.post(url, json=ASK)

        ask(ours, chat)
        floor, hit = _beside(lambda: ask(bare, chat), lambda: ask(ours, chat))
        assert cache.stats().hits
        before = cache.stats().calls
        _, untouched = _beside(lambda: ask(bare, other), lambda: ask(ours, other))
        assert cache.stats().calls == before
    return {
        "bare httpx client, answered at once": floor,
        "transport hit above it": hit,
        "untouched request above it": untouched,
    }


if __name__ == "__main__":
    for name, figure in run().items():
        sys.stdout.write(f"{name}: {figure:.1f}\n")
