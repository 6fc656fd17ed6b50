"""SDKs and frameworks, each plugged in and asked: `python frameworks.py NAME` prints what was seen, as JSON.

Each one is asked the same twice, sync, async and streamed as far as it can, against a provider on loopback.
Run by `make matrix`, which gives each an environment of its own: their pins conflict.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

MESSAGES = [{"role": "user", "content": "hello"}]
Asks = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Framework:
    """One row of the matrix.

    Attributes:
        name: of the distribution.
        specs: what to install besides askonce.
        plug: how the cache gets in, in a few words of code.
        asks: given the provider's URL and a cache, plugs the cache in and gives what to ask by kind
            ("sync", "async", "stream").
        why_not: why it cannot be plugged in; then nothing is asked.
    """

    name: str
    specs: tuple[str, ...]
    plug: str
    asks: Callable[[str, Any], Asks] | None = None
    why_not: str = ""


ALL: dict[str, Framework] = {}


def framework(
    name: str, *specs: str, plug: str
) -> Callable[[Callable[[str, Any], Asks]], Callable[[str, Any], Asks]]:
    def add(asks: Callable[[str, Any], Asks]) -> Callable[[str, Any], Asks]:
        ALL[name] = Framework(name, specs or (name,), plug, asks)
        return asks

    return add


PATCH = "askonce_openai.enable_cache()"
WRAP = "askonce_httpx.wrap_client(client)"
HOOK = 'askonce_httpx.enable_cache(hosts=["..."])'


def patch(cache: Any) -> None:
    from askonce_openai import enable_cache

    enable_cache(cache)


def wrap(client: Any, cache: Any) -> Any:
    from askonce_httpx import wrap_client

    return wrap_client(client, cache)


@framework("openai", plug=PATCH)
def _openai(url: str, cache: Any) -> Asks:
    import openai

    patch(cache)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="k")
    waiting = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k")
    return {
        "sync": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "async": lambda: waiting.responses.create(model="m", input="hello"),
        "stream": lambda: client.chat.completions.create(model="m", messages=MESSAGES, stream=True),
    }


@framework("openai (Azure)", "openai", plug=PATCH)
def _azure(url: str, cache: Any) -> Asks:
    import openai

    patch(cache)
    how = {"azure_endpoint": url, "api_key": "k", "api_version": "2024-10-21"}
    client, waiting = openai.AzureOpenAI(**how), openai.AsyncAzureOpenAI(**how)
    return {
        "sync": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat.completions.create(model="m", messages=MESSAGES, seed=1),
        "stream": lambda: client.chat.completions.create(model="m", messages=MESSAGES, stream=True),
    }


@framework("anthropic", plug=WRAP)
def _anthropic(url: str, cache: Any) -> Asks:
    import anthropic

    client = wrap(anthropic.Anthropic(base_url=url, api_key="k"), cache)
    waiting = wrap(anthropic.AsyncAnthropic(base_url=url, api_key="k"), cache)
    asked: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": MESSAGES}
    return {
        "sync": lambda: client.messages.create(**asked),
        "async": lambda: waiting.messages.create(**asked, system="s"),
        "stream": lambda: client.messages.create(**asked, stream=True),
    }


@framework("google-genai", plug='HttpOptions(client_args={"transport": CacheTransport(cache)}, ...)')
def _genai(url: str, cache: Any) -> Asks:
    from google import genai
    from google.genai import types

    from askonce_httpx import AsyncCacheTransport, CacheTransport

    options = types.HttpOptions(
        base_url=url,
        client_args={"transport": CacheTransport(cache)},
        async_client_args={"transport": AsyncCacheTransport(cache)},
    )
    client = genai.Client(api_key="k", http_options=options)
    return {
        "sync": lambda: client.models.generate_content(model="m", contents="hello").text,
        "async": lambda: _then(
            client.aio.models.generate_content(model="n", contents="hello"), lambda said: said.text
        ),
        "stream": lambda: (
            one.text for one in client.models.generate_content_stream(model="m", contents="hello")
        ),
    }


@framework("mistralai", plug=WRAP)
def _mistral(url: str, cache: Any) -> Asks:
    from mistralai.client import Mistral

    client = wrap(Mistral(api_key="k", server_url=url), cache)
    return {
        "sync": lambda: client.chat.complete(model="m", messages=MESSAGES),
        "async": lambda: client.chat.complete_async(model="n", messages=MESSAGES),
        "stream": lambda: client.chat.stream(model="m", messages=MESSAGES),
    }


@framework("groq", plug=WRAP)
def _groq(url: str, cache: Any) -> Asks:
    import groq

    client = wrap(groq.Groq(base_url=url, api_key="k"), cache)
    waiting = wrap(groq.AsyncGroq(base_url=url, api_key="k"), cache)
    return {
        "sync": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat.completions.create(model="n", messages=MESSAGES),
        "stream": lambda: client.chat.completions.create(model="m", messages=MESSAGES, stream=True),
    }


@framework("together", plug=WRAP)
def _together(url: str, cache: Any) -> Asks:
    import together

    client = wrap(together.Together(base_url=f"{url}/v1", api_key="k"), cache)
    waiting = wrap(together.AsyncTogether(base_url=f"{url}/v1", api_key="k"), cache)
    return {
        "sync": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat.completions.create(model="n", messages=MESSAGES),
        "stream": lambda: client.chat.completions.create(model="m", messages=MESSAGES, stream=True),
    }


@framework("cohere", plug=WRAP)
def _cohere(url: str, cache: Any) -> Asks:
    import cohere

    client = wrap(cohere.ClientV2(api_key="k", base_url=url), cache)
    waiting = wrap(cohere.AsyncClientV2(api_key="k", base_url=url), cache)
    return {
        "sync": lambda: client.chat(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat(model="n", messages=MESSAGES),
        "stream": lambda: client.chat_stream(model="m", messages=MESSAGES),
    }


@framework("ollama", plug=WRAP)
def _ollama(url: str, cache: Any) -> Asks:
    import ollama

    client = wrap(ollama.Client(host=url), cache)
    waiting = wrap(ollama.AsyncClient(host=url), cache)
    return {
        "sync": lambda: client.chat(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat(model="n", messages=MESSAGES),
        "stream": lambda: client.chat(model="m", messages=MESSAGES, stream=True),
    }


@framework("huggingface_hub", plug=HOOK)
def _hub(url: str, cache: Any) -> Asks:
    from huggingface_hub import AsyncInferenceClient, InferenceClient

    from askonce_httpx import enable_cache

    enable_cache(cache, hosts=["127.0.0.1"])
    client = InferenceClient(base_url=f"{url}/v1", token="k")
    waiting = AsyncInferenceClient(base_url=f"{url}/v1", token="k")
    return {
        "sync": lambda: client.chat_completion(model="m", messages=MESSAGES),
        "async": lambda: waiting.chat_completion(model="n", messages=MESSAGES),
        "stream": lambda: client.chat_completion(model="m", messages=MESSAGES, stream=True),
    }


@framework("langchain-openai", plug=PATCH)
def _langchain_openai(url: str, cache: Any) -> Asks:
    from langchain_openai import ChatOpenAI

    patch(cache)
    model = ChatOpenAI(model="m", base_url=f"{url}/v1", api_key="k")
    return {
        "sync": lambda: model.invoke("hello").content,
        "async": lambda: _then(model.ainvoke("hello you"), lambda said: said.content),
        "stream": lambda: (chunk.content for chunk in model.stream("hello")),
    }


@framework("langchain-anthropic", plug="askonce_httpx.wrap_client(model)")
def _langchain_anthropic(url: str, cache: Any) -> Asks:
    from langchain_anthropic import ChatAnthropic

    model = wrap(ChatAnthropic(model="m", base_url=url, api_key="k", max_tokens=100), cache)
    return {
        "sync": lambda: model.invoke("hello").content,
        "async": lambda: _then(model.ainvoke("hello you"), lambda said: said.content),
        "stream": lambda: (chunk.content for chunk in model.stream("hello")),
    }


@framework("llama-index-llms-openai", plug=PATCH)
def _llama_index(url: str, cache: Any) -> Asks:
    from llama_index.llms.openai import OpenAI

    patch(cache)
    model = OpenAI(model="gpt-4o-mini", api_base=f"{url}/v1", api_key="k")
    return {
        "sync": lambda: model.complete("hello").text,
        "async": lambda: model.acomplete("hello you"),
        "stream": lambda: (one.delta for one in model.stream_complete("hello")),
    }


@framework("pydantic-ai-slim", "pydantic-ai-slim[openai]", plug=PATCH)
def _pydantic_ai(url: str, cache: Any) -> Asks:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    patch(cache)
    agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="k")))

    async def streamed() -> list[str]:
        async with agent.run_stream("hello again") as run:
            return [piece async for piece in run.stream_text(delta=True, debounce_by=None)]

    return {
        "sync": lambda: agent.run_sync("hello").output,
        "async": lambda: _then(agent.run("hello you"), lambda run: run.output),
        "stream": streamed,
    }


@framework("openai-agents", plug=PATCH)
def _agents(url: str, cache: Any) -> Asks:
    import openai
    from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

    patch(cache)
    set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k")
    agent = Agent("a", model=OpenAIChatCompletionsModel("m", openai_client=client))

    async def streamed() -> list[str]:
        run = Runner.run_streamed(agent, "hello again")
        return [
            str(event.data.delta)
            async for event in run.stream_events()
            if hasattr(getattr(event, "data", None), "delta")
        ]

    return {
        "sync": lambda: Runner.run_sync(agent, "hello").final_output,
        "async": lambda: _then(Runner.run(agent, "hello you"), lambda run: run.final_output),
        "stream": streamed,
    }


@framework("instructor", plug=PATCH)
def _instructor(url: str, cache: Any) -> Asks:
    import instructor
    import openai
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    patch(cache)
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="k"))
    waiting = instructor.from_openai(openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k"))
    asked: dict[str, Any] = {"model": "m", "response_model": City}
    other = [{"role": "user", "content": "hello you"}]
    return {
        "sync": lambda: client.chat.completions.create(messages=MESSAGES, **asked),
        "async": lambda: waiting.chat.completions.create(messages=other, **asked),
        "stream": lambda: client.chat.completions.create_partial(messages=MESSAGES, **asked),
    }


@framework("haystack-ai", plug=PATCH)
def _haystack(url: str, cache: Any) -> Asks:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    patch(cache)
    model = OpenAIChatGenerator(model="m", api_base_url=f"{url}/v1", api_key=Secret.from_token("k"))

    def streamed() -> list[str]:
        pieces: list[str] = []
        model.run(
            [ChatMessage.from_user("hello again")], streaming_callback=lambda c: pieces.append(c.content)
        )
        return pieces

    return {
        "sync": lambda: model.run([ChatMessage.from_user("hello")])["replies"][0].text,
        "async": lambda: _then(
            model.run_async([ChatMessage.from_user("hello you")]), lambda said: said["replies"][0].text
        ),
        "stream": streamed,
    }


@framework("smolagents", "smolagents[openai]", plug=PATCH)
def _smolagents(url: str, cache: Any) -> Asks:
    from smolagents import ChatMessage, MessageRole, OpenAIServerModel

    patch(cache)
    model = OpenAIServerModel("m", api_base=f"{url}/v1", api_key="k")
    asked = [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": "hello"}])]
    return {
        "sync": lambda: model.generate(asked).content,
        "stream": lambda: (delta.content for delta in model.generate_stream(asked)),
    }


@framework("litellm", plug=PATCH)
def _litellm(url: str, cache: Any) -> Asks:
    import litellm

    patch(cache)
    how: dict[str, Any] = {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "k"}
    other = [{"role": "user", "content": "hello you"}]
    return {
        "sync": lambda: litellm.completion(messages=MESSAGES, **how).choices[0].message.content,
        "async": lambda: _then(
            litellm.acompletion(messages=other, **how), lambda said: said.choices[0].message.content
        ),
        "stream": lambda: (
            chunk.choices[0].delta.content
            for chunk in litellm.completion(messages=MESSAGES, stream=True, **how)
        ),
    }


ALL["dspy"] = Framework("dspy", ("dspy",), "", why_not="speaks HTTP by the standard library")


async def _then(waited: Any, take: Callable[[Any], Any]) -> Any:
    return take(await waited)


def shown(value: Any) -> Any:
    """What an SDK's object says."""
    return value.model_dump() if hasattr(value, "model_dump") else repr(value)


async def _gathered(value: Any) -> Any:
    if inspect.isawaitable(value):
        value = await value
    if hasattr(value, "__aiter__"):
        return [shown(one) async for one in value]
    return value


def ask(work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> Any:
    """What it says, whichever way it says it."""
    answer = work()
    if inspect.isawaitable(answer) or hasattr(answer, "__aiter__"):
        answer = loop.run_until_complete(_gathered(answer))
    if hasattr(answer, "__next__") or type(answer).__name__.endswith("Stream"):
        return [shown(one) for one in answer]
    return shown(answer) if not isinstance(answer, list) else [shown(one) for one in answer]


def look(one: Framework) -> dict[str, Any]:
    """Plug it in and ask each kind twice."""
    from askonce import Cache
    from askonce.testing import FakeProvider

    row: dict[str, Any] = {
        "name": one.name,
        "version": version(_distribution(one)),
        "plug": one.plug,
        "seen": {},
    }
    if one.asks is None:
        return {**row, "why_not": one.why_not}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with FakeProvider() as provider, Cache("memory://") as cache:
        for kind, work in one.asks(provider.url, cache).items():
            before, hits = provider.calls, cache.stats().hits
            try:
                first, again = ask(work, loop), ask(work, loop)
            except Exception as error:
                row["seen"][kind] = f"{type(error).__name__}: {error}"[:200]
                continue
            asked, answered = provider.calls - before, cache.stats().hits - hits
            equal = first == again and bool(first)
            row["seen"][kind] = (
                "yes" if equal and asked == 1 and answered == 1
                else f"no: {asked} provider calls, {answered} hits, equal: {equal}"
            )  # fmt: skip
    return row


def _distribution(one: Framework) -> str:
    return one.specs[0].partition("[")[0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(ALL[sys.argv[1]])) + "\n")
    sys.stdout.flush()
    import os

    os._exit(0)  # whatever threads and loops a framework left behind
