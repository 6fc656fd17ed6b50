"""What a miss costs above the bare client, call by call in turn: `python tests/benchmarks/bench_miss.py`.

The provider is a process of its own, so that it does not share the interpreter with what is measured.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("caching", "integrations")]

import openai

from askonce import Cache
from askonce_openai import disable_cache, enable_cache

CALLS = 400


def _ask(client: openai.OpenAI, number: int, *, stream: bool) -> float:
    start = time.perf_counter()
    answer = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": f"question {number}"}], stream=stream
    )
    if stream:
        for _ in answer:
            pass
    return (time.perf_counter() - start) * 1e6


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=url, http_client=openai.DefaultHttpxClient(verify=False))


def _compare(url: str, store: str, *, stream: bool) -> dict[str, float]:
    """The bare median, and the median of the differences of neighbouring calls.

    Two clients: patching and unpatching a class between calls would make the interpreter forget what it
    knows of it, and measure that.
    """
    numbers = itertools.count()
    bare: list[float] = []
    cached: list[float] = []
    with Cache(store) as cache, _client(url) as plain, _client(url) as served:
        for client in (plain, served):
            for _ in range(20):
                _ask(client, next(numbers), stream=stream)
        enable_cache(cache, client=served)
        try:
            for turn in range(CALLS):
                pair = ((plain, bare), (served, cached))
                for client, times in pair if turn % 2 else pair[::-1]:
                    times.append(_ask(client, next(numbers), stream=stream))
        finally:
            disable_cache(client=served)
    pairs = [after - before for before, after in zip(bare, cached, strict=True)]
    return {"bare": statistics.median(bare), "extra": statistics.median(pairs)}


def run() -> dict[str, float]:
    """Microseconds by name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "caching")}
    command = [sys.executable, "-m", "askonce.testing._provider", "--port", "0"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = {}
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        for what, stream in (("chat", False), ("stream", True)):
            for name in ("memory", "disk"):
                with tempfile.TemporaryDirectory() as folder:
                    store = "memory://" if name == "memory" else f"disk://{folder}"
                    found = _compare(url, store, stream=stream)
                figures[f"{what}, bare client ({name} run)"] = found["bare"]
                figures[f"{what}, miss with {name} adds"] = found["extra"]
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:34} {figure:10.1f} us")
