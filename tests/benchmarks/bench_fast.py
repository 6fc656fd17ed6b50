"""Hits by the short way beside the SDK's whole way, in one run: `python tests/benchmarks/bench_fast.py`.

Hot: back to back. In situ: right after a call that the provider answers, when the processor's caches hold
other things. Each figure is a median; where two ways are compared, they take turns.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

import openai

from askonce import Cache
from askonce.testing import FakeProvider
from askonce_openai import disable_cache, enable_cache

ROUNDS = 25
DIMENSIONS = 1536
SHORT = [{"role": "user", "content": "word " * 200}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": "what it is for, in a sentence or two; " * 4,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    }
    for number in range(10)
]
TURNS = [
    {"role": ("user", "assistant")[number % 2], "content": "some words of a turn " * 10}
    for number in range(40)
]
CASES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "chat, 1 KB": (60, lambda client: client.chat.completions.create(model="m", messages=SHORT)),
    "chat, 30 KB": (
        40,
        lambda client: client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "word " * 6000}]
        ),
    ),
    "chat, 40 messages and 10 tools": (
        10, lambda client: client.chat.completions.create(model="m", messages=TURNS, tools=TOOLS)
    ),
    "stream of 40 chunks": (
        10, lambda client: list(client.chat.completions.create(model="m", messages=SHORT, stream=True))
    ),
    "response": (40, lambda client: client.responses.create(model="m", input="word " * 200)),
    f"64 embeddings of {DIMENSIONS}": (
        2,
        lambda client: client.embeddings.create(
            model="m", input=[f"text {number}" for number in range(64)], dimensions=DIMENSIONS
        ),
    ),
}  # fmt: skip


def _us(work: Callable[[], object], calls: int) -> float:
    start = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - start) / calls * 1e6


def _both(url: str, store: str) -> dict[str, float]:
    """Each case by both ways, in turns."""
    figures: dict[str, float] = {}
    clients = {fast: openai.OpenAI(api_key="k", base_url=url) for fast in (True, False)}
    with Cache(store) as cache:
        for fast, client in clients.items():
            enable_cache(cache, client=client, fast=fast)
        for name, (calls, ask) in CASES.items():
            found: dict[bool, list[float]] = {True: [], False: []}
            for client in clients.values():
                for _ in range(3):
                    ask(client)
            for _ in range(ROUNDS):
                for fast, client in clients.items():
                    found[fast].append(_us(partial(ask, client), calls if fast else max(1, calls // 10)))
            short, whole = (statistics.median(found[fast]) for fast in (True, False))
            figures[f"{name}, short way"] = short
            figures[f"{name}, whole way"] = whole
            figures[f"{name}, short / whole"] = short / whole
        for client in clients.values():
            disable_cache(client=client)
            client.close()
    return figures


def _in_situ(url: str) -> float:
    """A hit right after a call that reaches the provider; wall time."""
    client, found = openai.OpenAI(api_key="k", base_url=url), []
    with Cache("memory://") as cache:
        enable_cache(cache, client=client)
        ask = CASES["chat, 1 KB"][1]
        for _ in range(3):
            ask(client)
        for number in range(200):
            client.chat.completions.create(model="m", messages=SHORT, seed=number)
            start = time.perf_counter()
            ask(client)
            found.append((time.perf_counter() - start) * 1e6)
        disable_cache(client=client)
    client.close()
    return statistics.median(found)


async def _async(url: str) -> float:
    found = []
    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client, Cache("memory://") as cache:
        enable_cache(cache, client=client)
        for round_ in range(ROUNDS + 1):
            start = time.thread_time()
            for _ in range(60):
                await client.chat.completions.create(model="m", messages=SHORT)
            if round_:
                found.append((time.thread_time() - start) / 60 * 1e6)
        disable_cache(client=client)
    return statistics.median(found)


def run() -> dict[str, float]:
    """Microseconds by name; ratios."""
    with FakeProvider() as provider, tempfile.TemporaryDirectory() as folder:
        provider.reply(" ".join(["word"] * 38))
        figures = _both(provider.base_url, "memory://")
        figures["chat, 1 KB, asyncio, short way"] = asyncio.run(_async(provider.base_url))
        figures["chat, 1 KB, in situ, short way"] = _in_situ(provider.base_url)
        disk = _both(provider.base_url, f"disk://{folder}")
        figures["chat, 1 KB, disk, short way"] = disk["chat, 1 KB, short way"]
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        sys.stdout.write(f"{name:48} {figure:12.3f}\n")
