"""What a miss costs above the bare client, call by call in turn: `python tests/benchmarks/bench_miss.py`.

The provider is a process of its own, so that it does not share the interpreter with what is measured. Two
figures, because they differ by much: *hot*, our own code back to back, and *in situ*, beside real calls,
where the processor's caches hold the SDK's code and not ours.
"""

from __future__ import annotations

import itertools
import json
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

from askonce import Cache, Request
from askonce.doors import Opened
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


class _Answered:
    """An exchange whose provider answers at once: what is left is ours."""

    live = False
    patience = None

    def __init__(self, number: int) -> None:
        asked = {"messages": [{"role": "user", "content": f"{number} " + "word " * 200}], "model": "gpt-4o"}
        body = json.dumps(asked, separators=(",", ":"))  # as the SDK sends it
        headers = ((b"content-type", b"application/json"), (b"authorization", b"Bearer k"))
        self.request = Request("POST", "http://localhost/v1/chat/completions", headers, body.encode())

    def open(self) -> Opened:
        return Opened(status=200, headers=_HEADERS, native=None, body=_ANSWER, framed=True)

    def again(self) -> Opened:
        return self.open()


_HEADERS = [(b"content-type", b"application/json"), (b"x-request-id", b"req_1"), (b"openai-version", b"1")]
_ANSWER = json.dumps({
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"content": "an answer " * 60}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
}).encode()  # fmt: skip


def _own_share(store: str) -> float:
    """CPU microseconds of a miss without the provider and the SDK, back to back."""
    numbers = itertools.count()
    rounds: list[float] = []
    with Cache(store) as cache:
        for _ in range(30):
            calls = [_Answered(next(numbers)) for _ in range(50)]
            start = time.thread_time()
            for call in calls:
                cache.ask(call)
            rounds.append((time.thread_time() - start) / len(calls) * 1e6)
    return statistics.median(rounds)


def run() -> dict[str, float]:
    """Microseconds by name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "caching")}
    command = [sys.executable, "-m", "askonce.testing._provider", "--port", "0"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = {"miss with memory, own share, hot": _own_share("memory://")}
    with tempfile.TemporaryDirectory() as folder:
        figures["miss with disk, own share, hot"] = _own_share(f"disk://{folder}")
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        for what, stream in (("chat", False), ("stream", True)):
            for name in ("memory", "disk"):
                with tempfile.TemporaryDirectory() as folder:
                    store = "memory://" if name == "memory" else f"disk://{folder}"
                    found = _compare(url, store, stream=stream)
                figures[f"{what}, bare client ({name} run)"] = found["bare"]
                figures[f"{what}, miss with {name} adds, in situ"] = found["extra"]
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:34} {figure:10.1f} us")
