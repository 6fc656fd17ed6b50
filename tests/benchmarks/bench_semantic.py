"""The semantic layer without its embedder: what it adds to a miss, at several sizes of a partition.

The embedder here looks a vector up; what its own time is, and that of the worker thread it runs in, is apart.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import usearch.index  # noqa: F401 - its own size is none of the rows'

from askonce import Cache, Request
from askonce.doors import Opened
from askonce.semantic import FunctionEmbedder, LocalIndex, Row, SemanticLayer
from askonce.semantic import _consult as consult_module
from askonce.stores import MemoryStore

DIMENSIONS = 384
SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
ROUNDS = 300
SETTLED = 10_000
URL = "https://provider.test/v1/chat/completions"
HEADERS = ((b"content-type", b"application/json"),)
QUESTION = "How do I reset the password of my account number {} on the new website of the shop?"


class Asked:
    """A question and the provider's answer to it."""

    live = False
    patience = None

    def __init__(self, text: str) -> None:
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        self.request = Request("POST", URL, HEADERS, body)

    def open(self) -> Opened:
        """One answer for all."""
        body = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"answer"}}]}'
        headers = [(b"content-type", b"application/json")]
        return Opened(status=200, headers=headers, native=body, body=body, framed=True)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def unit_rows(count: int) -> Any:
    """Directions at random."""
    rows = np.random.default_rng(count).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure(count: int) -> tuple[float, float, float]:
    """us that the layer adds to a miss and takes for a hit's search; bytes over those of the vectors."""
    spare = unit_rows(2 * ROUNDS)
    turn = iter(range(10**9))
    took: list[float] = []

    def embed(texts: list[str]) -> Any:
        return spare[next(turn) % len(spare)][None]

    vectors = unit_rows(count)
    index = LocalIndex(max_rows=2 * count + 10_000, max_rows_per_partition=2 * count + 10_000)
    layer = SemanticLayer(FunctionEmbedder(embed, name="m"), index=index, shadow=0.0, timeout=30)
    with Cache(MemoryStore(), semantic=layer) as cache:
        cache.ask(Asked("warm up"))
        (space,) = index._partitions
        gc.collect()
        before = resident()
        for number, vector in enumerate(vectors):
            # A question of some 12 words, and bytes of its own for each.
            index.add(space, Row(f"{number:064x}", vector, number.to_bytes(92, "big")))
        gc.collect()
        # Of few rows the process says more about its allocator than about them.
        taken = index.bytes if count <= SETTLED else resident() - before
        ratio = taken / vectors.nbytes
        inner = cache._layer
        real = inner._embedding.vector

        async def timed(call: Any, text: str) -> Any:
            started = time.perf_counter()
            try:
                return await real(call, text)
            finally:
                took.append(time.perf_counter() - started)

        inner._embedding.vector = timed
        with_layer: list[float] = []
        for number in range(ROUNDS):
            asked = Asked(QUESTION.format(number))
            started = time.perf_counter()
            reply = cache.ask(asked)
            with_layer.append(time.perf_counter() - started - took[-1])
            assert reply.outcome.status == "miss"
        searches: list[float] = []
        for number in range(ROUNDS):
            started = time.perf_counter()
            index.search(space, spare[number], consult_module._LOOK_AT, 0.95)
            searches.append(time.perf_counter() - started)
    bare: list[float] = []
    with Cache(MemoryStore()) as cache:
        for number in range(ROUNDS):
            asked = Asked(QUESTION.format(number))
            started = time.perf_counter()
            cache.ask(asked)
            bare.append(time.perf_counter() - started)
    return (median(with_layer) - median(bare)) * 1e6, median(searches) * 1e6, ratio


def run() -> dict[str, float]:
    """All figures."""
    found: dict[str, float] = {}
    for name, count in SIZES.items():
        adds, search, ratio = measure(count)
        found[f"layer adds to a miss, {name} rows"] = adds
        found[f"search, {name} rows"] = search
        found[f"memory over the vectors, {name} rows"] = ratio
    return found


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:45} {figure:10.2f}")
