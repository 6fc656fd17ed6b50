"""What a hit costs beside the SDK's own work: `python tests/benchmarks/bench_hit.py`.

The own share is everything between `_send_request` and the response it returns: reading the request,
key, lookup, decoding, building the response, counting. Each figure is the median of rounds.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

import openai

from askonce import Cache
from askonce._body import parse
from askonce._key import digest
from askonce._request import Request
from askonce.testing import FakeProvider
from askonce_openai import disable_cache, enable_cache

ROUNDS = 40
CALLS = 50


def median_us(work: Callable[[], object], calls: int = CALLS, rounds: int = ROUNDS) -> float:
    """CPU microseconds a call, median over rounds: neighbours on a busy machine count little."""
    figures: list[float] = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            work()
        figures.append((time.thread_time() - start) / calls * 1e6)
    return statistics.median(figures)


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=url, http_client=openai.DefaultHttpxClient(verify=False))


def _prompt(size: int) -> list[Any]:
    return [{"role": "user", "content": "word " * (size // 5)}]


def _request(client: openai.OpenAI, messages: list[Any]) -> Any:
    """The request that the SDK hands to `_send_request`."""
    return client._build_request(
        openai._models.FinalRequestOptions.construct(
            method="post", url="/chat/completions", json_data={"messages": messages, "model": "gpt-4o"}
        ),
        retries_taken=0,
    )


def _first_us(cache: Cache, client: openai.OpenAI, size: int) -> float:
    """The own share of hits that this process sees for the first time: each round asks other questions."""
    rounds: list[float] = []
    for round_ in range(ROUNDS):
        asks = [[*_prompt(size), {"role": "user", "content": f"{round_} {call}"}] for call in range(CALLS)]
        for messages in asks:
            client._send_request(_request(client, messages), stream=False)
        cache._flow.decider.forget()
        cache._flow.forget()
        requests = [_request(client, messages) for messages in asks]
        start = time.thread_time()
        for request in requests:
            client._send_request(request, stream=False)
        rounds.append((time.thread_time() - start) / CALLS * 1e6)
    return statistics.median(rounds)


def _hit(cache: Cache, url: str, size: int) -> dict[str, float]:
    """A whole hit, and the part of it that is ours."""
    client = _client(url)
    messages = _prompt(size)
    enable_cache(cache, fast=False)
    try:

        def ask() -> object:
            return client.chat.completions.create(model="gpt-4o", messages=messages)

        ask()
        whole = median_us(ask)
        request = _request(client, messages)

        def own() -> object:
            request.extensions.pop("askonce", None)
            return client._send_request(request, stream=False)

        return {"whole": whole, "own": median_us(own), "first": _first_us(cache, client, size)}
    finally:
        disable_cache()
        client.close()


def _key_us(size: int) -> float:
    text = "word " * (size // 5)
    body = ('{"messages":[{"role":"user","content":"' + text + '"}],"model":"gpt-4o"}').encode()
    headers = tuple((f"x-header-{number}".encode(), b"value") for number in range(14))
    request = Request("POST", "https://api.openai.com/v1/chat/completions", headers, body)
    return median_us(lambda: digest(request, parse("application/json", body), namespace="default"))


def run() -> dict[str, float]:
    """Microseconds by name."""
    kilobyte = bytes(1024)
    figures: dict[str, float] = {
        "yardstick: sha256 of 1 KB": median_us(lambda: hashlib.sha256(kilobyte).digest()),
        "key, 1 KB prompt": _key_us(1000),
        "key, 30 KB prompt": _key_us(30_000),
    }
    with FakeProvider() as provider, tempfile.TemporaryDirectory() as folder:
        provider.reply("an answer of about one kilobyte; " * 18)
        with Cache("memory://") as cache:
            memory = _hit(cache, provider.base_url, 1000)
        with Cache(f"disk://{folder}") as cache:
            disk = _hit(cache, provider.base_url, 1000)
    figures["hit in memory, own share"] = memory["own"]
    figures["the same, asked for the first time in the process"] = memory["first"]
    figures["hit in memory, whole call"] = memory["whole"]
    figures["hit on disk, own share"] = disk["own"]
    figures["hit on disk above memory"] = disk["own"] - memory["own"]
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:32} {figure:10.1f} us")
