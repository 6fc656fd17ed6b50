"""Lists of embeddings, all stored: `python tests/benchmarks/bench_embeddings.py`.

Beside the SDK's own decoding of the same answer: base64 to floats, and its objects.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

import httpx
import openai

from askonce import Cache
from askonce.testing import FakeProvider
from askonce_openai import disable_cache, enable_cache

ROUNDS = 30
TEXTS = [f"text number {number} of the list" for number in range(64)]


def _ms(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return (time.thread_time() - start) * 1e3


def run() -> dict[str, float]:
    """CPU milliseconds, and their ratio."""
    with FakeProvider() as provider, Cache("memory://") as cache:
        asked = {"model": "text-embedding-3-small", "input": TEXTS, "encoding_format": "base64"}
        answer = httpx.post(f"{provider.base_url}/embeddings", json=asked).content
        constant = openai.DefaultHttpxClient(transport=_constant(answer))
        with (
            openai.OpenAI(api_key="k", base_url=provider.base_url, http_client=constant) as bare,
            openai.OpenAI(
                api_key="k", base_url=provider.base_url, http_client=openai.DefaultHttpxClient(verify=False)
            ) as client,
        ):
            enable_cache(cache, client=client)

            def ask(one: openai.OpenAI, texts: list[str] = TEXTS) -> object:
                return one.embeddings.create(model="text-embedding-3-small", input=texts)

            ask(client)
            own: list[float] = []
            ours: list[float] = []
            for number in range(ROUNDS):
                own.append(_ms(lambda: ask(bare)))
                turned = TEXTS[number % 64 :] + TEXTS[: number % 64]  # never the same list twice
                ours.append(_ms(lambda texts=turned: ask(client, texts)))
            disable_cache(client=client)
    return {
        "64 embeddings, the SDK alone": statistics.median(own),
        "64 embeddings, all stored": statistics.median(ours),
        "64 embeddings, all stored / the SDK alone": statistics.median(ours) / statistics.median(own),
    }


def _constant(answer: bytes) -> object:
    """A transport of the package under the installed SDK that answers at once."""
    package = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
    headers = {"content-type": "application/json"}
    return package.MockTransport(lambda _: package.Response(200, headers=headers, content=answer))


if __name__ == "__main__":
    for name, figure in run().items():
        sys.stdout.write(f"{name}: {figure:.2f}\n")
