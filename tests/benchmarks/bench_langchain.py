"""LangChain's `invoke()` when the answer is known, beside its own caches: `bench_langchain.py`.

All over one fake model, in one run, in turns. SQLiteCache is langchain-community's and measured where that is
installed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

from langchain_core.caches import InMemoryCache
from langchain_openai import ChatOpenAI

from askonce import Cache
from askonce.testing import FakeProvider
from askonce_langchain import LangChainCache

ROUNDS = 40
CALLS = 20
WORDS = "word " * 200


def _us(work: Callable[[], object]) -> float:
    start = time.thread_time()
    for _ in range(CALLS):
        work()
    return (time.thread_time() - start) / CALLS * 1e6


def _sqlite(folder: str) -> Any:
    try:
        from langchain_community.cache import SQLiteCache
    except ImportError:
        return None
    return SQLiteCache(database_path=f"{folder}/langchain.db")


def run() -> dict[str, float]:
    """CPU microseconds of `ChatOpenAI.invoke()`, and ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeProvider() as provider,
        Cache("memory://") as memory,
        Cache(f"disk://{folder}/askonce") as disk,
    ):
        caches: dict[str, Any] = {
            "InMemoryCache": InMemoryCache(),
            "LangChainCache, memory": LangChainCache(memory),
            "LangChainCache, disk": LangChainCache(disk),
        }
        sqlite = _sqlite(folder)
        if sqlite is not None:
            caches["SQLiteCache"] = sqlite
        models = {
            name: ChatOpenAI(model="m", api_key="k", base_url=provider.base_url, cache=cache)
            for name, cache in caches.items()
        }
        for model in models.values():
            model.invoke(WORDS)
        figures: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(ROUNDS):
            for name, model in models.items():
                figures[name].append(_us(lambda model=model: model.invoke(WORDS)))
    found = {f"invoke(), {name}": statistics.median(taken) for name, taken in figures.items()}
    ratios = [
        ours / theirs
        for ours, theirs in zip(figures["LangChainCache, memory"], figures["InMemoryCache"], strict=True)
    ]
    found["LangChainCache in memory / InMemoryCache"] = statistics.median(ratios)
    if sqlite is not None:
        both = zip(figures["LangChainCache, disk"], figures["SQLiteCache"], strict=True)
        found["LangChainCache on disk / SQLiteCache"] = statistics.median(
            ours / theirs for ours, theirs in both
        )
    return found


if __name__ == "__main__":
    for name, figure in run().items():
        sys.stdout.write(f"{name}: {figure:.2f}\n")
