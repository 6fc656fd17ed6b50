"""One cache at work, in an environment of its own: told what to do line by line, tells how long it took.

`contestants.py NAME PROVIDER_URL REDIS_URL FOLDER` reads JSON lines from stdin, such as
`{"case": "chat", "store": "memory", "calls": 50}`, and answers each with `{"us": [...]}` or
`{"why_not": "..."}`. Everything asks the same provider on loopback; what is measured is a hit.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

MESSAGES = {
    "chat": [{"role": "user", "content": "word " * 200}],
    "30 KB": [{"role": "user", "content": "word " * 6000}],
    "40 turns": [
        {"role": ("user", "assistant")[number % 2], "content": "some words of a turn " * 10}
        for number in range(40)
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": "what it is for, in a sentence or two; " * 4,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for number in range(10)
]
TEXTS = [f"text {number}" for number in range(64)]
DIMENSIONS = 1536


class NoneError(Exception):
    """The contestant has nothing of the kind. The text says what."""


class Contestant:
    """A cache, and how one asks through it.

    Args:
        url: of the provider, with `/v1`.
        redis: of a server.
        folder: for files.
    """

    package = ""

    def __init__(self, url: str, redis: str, folder: str) -> None:
        self.url, self.redis, self.folder = url, redis, folder

    def use(self, store: str) -> None:
        """Have answers kept in memory, on disk or in Redis from now on."""
        raise NotImplementedError

    def ask(self, case: str) -> Any:
        """One call, whole."""
        raise NotImplementedError

    async def aask(self, case: str) -> Any:
        """The same, on an event loop."""
        raise NotImplementedError

    def arguments(self, case: str) -> dict[str, Any]:
        """What a case asks."""
        more = {"tools": TOOLS} if case == "40 turns" else {}
        return {"messages": MESSAGES.get(case, MESSAGES["chat"]), **more}


class AskOnce(Contestant):
    package = "askonce"
    fast = True

    def use(self, store: str) -> None:
        import openai

        from askonce import Cache
        from askonce_openai import disable_cache, enable_cache

        disable_cache()
        where = {"memory": "memory://", "disk": f"disk://{self.folder}", "redis": self.redis}[store]
        enable_cache(Cache(where, namespace=type(self).__name__), fast=self.fast)
        self.client = openai.OpenAI(base_url=self.url, api_key="k", timeout=60)
        self.aclient = openai.AsyncOpenAI(base_url=self.url, api_key="k", timeout=60)

    def ask(self, case: str) -> Any:
        if case == "embeddings":
            return self.client.embeddings.create(model="m", input=TEXTS, dimensions=DIMENSIONS)
        if case == "stream":
            return list(self.client.chat.completions.create(model="m", stream=True, **self.arguments(case)))
        return self.client.chat.completions.create(model="m", **self.arguments(case))

    async def aask(self, case: str) -> Any:
        return await self.aclient.chat.completions.create(model="m", **self.arguments(case))


class AskOnceWholeWay(AskOnce):
    fast = False


class LiteLLM(Contestant):
    package = "litellm"

    def use(self, store: str) -> None:
        import litellm
        from litellm.caching.caching import Cache

        if store == "disk":
            raise NoneError("has none any more")
        server = urlsplit(self.redis)
        litellm.suppress_debug_info = True
        kinds: dict[str, dict[str, Any]] = {
            "memory": {"type": "local"},
            "redis": {"type": "redis", "host": server.hostname, "port": server.port},
        }
        litellm.cache = Cache(**kinds[store])
        self.litellm = litellm

    def _options(self, case: str) -> dict[str, Any]:
        return {
            "model": "openai/m",
            "api_base": self.url,
            "api_key": "k",
            "caching": True,
            **self.arguments(case),
        }

    def ask(self, case: str) -> Any:
        if case == "embeddings":
            return self.litellm.embedding(
                model="openai/text-embedding-3-small", api_base=self.url, api_key="k", input=TEXTS,
                dimensions=DIMENSIONS, caching=True,
            )  # fmt: skip
        if case == "stream":
            return list(self.litellm.completion(stream=True, **self._options(case)))
        return self.litellm.completion(**self._options(case))

    async def aask(self, case: str) -> Any:
        return await self.litellm.acompletion(**self._options(case))


class LangChain(Contestant):
    package = "langchain-core"

    def use(self, store: str) -> None:
        from langchain_core.caches import InMemoryCache
        from langchain_core.globals import set_llm_cache
        from langchain_openai import ChatOpenAI

        if store == "memory":
            set_llm_cache(InMemoryCache())
        elif store == "disk":
            from langchain_community.cache import SQLiteCache

            set_llm_cache(SQLiteCache(database_path=f"{self.folder}/langchain.db"))
        else:
            import redis
            from langchain_community.cache import RedisCache

            set_llm_cache(RedisCache(redis_=redis.Redis.from_url(self.redis)))
        self.model = ChatOpenAI(model="m", base_url=self.url, api_key="k", timeout=60)

    def ask(self, case: str) -> Any:
        if case in {"embeddings", "stream"}:
            raise NoneError("not cached by it")
        model = self.model.bind(tools=TOOLS) if case == "40 turns" else self.model
        return model.invoke(self.arguments(case)["messages"])

    async def aask(self, case: str) -> Any:
        return await self.model.ainvoke(self.arguments(case)["messages"])


class LangChainOverAskOnce(LangChain):
    def use(self, store: str) -> None:
        super().use("memory")
        from langchain_core.globals import set_llm_cache

        from askonce import Cache
        from askonce_langchain import LangChainCache

        where = {"memory": "memory://", "disk": f"disk://{self.folder}", "redis": self.redis}[store]
        set_llm_cache(LangChainCache(Cache(where, namespace="langchain")))


class DSPy(Contestant):
    package = "dspy"

    def use(self, store: str) -> None:
        import dspy

        if store == "redis":
            raise NoneError("has none")
        dspy.configure_cache(
            enable_disk_cache=store == "disk",
            enable_memory_cache=store == "memory",
            disk_cache_dir=self.folder,
        )
        self.model = dspy.LM("openai/m", api_base=self.url, api_key="k", cache=True)

    def ask(self, case: str) -> Any:
        if case in {"embeddings", "stream", "40 turns"}:
            raise NoneError("not asked through it")
        return self.model(messages=self.arguments(case)["messages"])

    async def aask(self, case: str) -> Any:
        return await self.model.acall(messages=self.arguments(case)["messages"])


class Floors(Contestant):
    """What the stores alone cost: bytes in, bytes out, no question understood and no object made."""

    package = "diskcache"

    def use(self, store: str) -> None:
        import cachetools
        import diskcache
        import redis

        value = b"x" * 1600
        if store == "memory":
            self.get: Callable[[str], Any] = cachetools.LRUCache(10_000).get
            self.get.__self__["key"] = value  # type: ignore[attr-defined]
        elif store == "disk":
            cache = diskcache.Cache(self.folder)
            cache["key"] = value
            self.get = cache.get
        else:
            client = redis.Redis.from_url(self.redis)
            client.set("key", value)
            self.get = client.get

    def ask(self, case: str) -> Any:
        if case != "chat":
            raise NoneError("")
        return self.get("key")

    async def aask(self, case: str) -> Any:
        raise NoneError("")


ALL: dict[str, type[Contestant]] = {
    "askonce": AskOnce,
    "askonce, whole way": AskOnceWholeWay,
    "litellm": LiteLLM,
    "langchain": LangChain,
    "langchain, over askonce": LangChainOverAskOnce,
    "dspy": DSPy,
    "the store alone": Floors,
}


class Worker:
    """Does what it is told, and keeps what was set up for it."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.loop = asyncio.new_event_loop()
        self.ready: tuple[str, str, bool] | None = None

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        if order["case"] == "version":
            return {"version": version(self.contestant.package)}
        try:
            return self._measured(order)
        except NoneError as why:
            return {"why_not": str(why)}
        except Exception as error:
            return {"why_not": f"raises {type(error).__name__}"}

    def _measured(self, order: dict[str, Any]) -> dict[str, Any]:
        case, store, awaits = order["case"], order["store"], bool(order.get("async"))
        now = (case, store, awaits)
        if self.ready != now:
            self.contestant.use(store)
            for _ in range(4):
                self._once(case, awaits=awaits)
            self.ready = now
        if "threads" in order:
            return {"per_second": self._threads(case, order["threads"], order["calls"])}
        if "tasks" in order:
            return {"per_second": self.loop.run_until_complete(self._tasks(case, order["tasks"]))}
        if awaits:
            return {"us": self.loop.run_until_complete(self._several(case, order["calls"]))}
        start = time.perf_counter()
        for _ in range(order["calls"]):
            self.contestant.ask(case)
        return {"us": (time.perf_counter() - start) / order["calls"] * 1e6}

    def _once(self, case: str, *, awaits: bool) -> None:
        if awaits:
            self.loop.run_until_complete(self.contestant.aask(case))
        else:
            self.contestant.ask(case)

    async def _several(self, case: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            await self.contestant.aask(case)
        return (time.perf_counter() - start) / calls * 1e6

    async def _tasks(self, case: str, tasks: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*[self.contestant.aask(case) for _ in range(tasks)])
        return tasks / (time.perf_counter() - start)

    def _threads(self, case: str, threads: int, calls: int) -> float:
        def work(_: int) -> None:
            for _ in range(calls):
                self.contestant.ask(case)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))  # the threads are there
            start = time.perf_counter()
            list(pool.map(work, range(threads)))
            return threads * calls / (time.perf_counter() - start)


def main() -> None:
    """Serve orders until stdin ends."""
    name, url, redis, folder = sys.argv[1:]
    said, sys.stdout = sys.stdout, sys.stderr  # whatever packages print is no answer
    worker = Worker(ALL[name](url, redis, folder))
    for line in sys.stdin:
        said.write(json.dumps(worker.do(json.loads(line))) + "\n")
        said.flush()


if __name__ == "__main__":
    main()
