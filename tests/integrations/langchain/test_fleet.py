"""The LangChain door over shared stores: every store keeps the whole answer, and a fleet asks once."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

from askonce import Cache
from askonce.semantic import FunctionEmbedder, SemanticLayer
from askonce.testing._provider import Fault
from askonce_langchain import LangChainCache

RICH = AIMessage(
    content=[
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "é🦊"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"b": 1, "a": [1.5, None]}},
    ],
    tool_calls=[{"name": "f", "args": {"b": 1, "a": [1.5, None]}, "id": "1", "type": "tool_call"}],
    response_metadata={
        "logprobs": {"content": [{"token": "a", "logprob": -1e-7}]},
        "stop_reason": "tool_use",
    },
    usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
)


@pytest.mark.parametrize("kind", ["memory", "disk", "redis", "s3", "tiered"])
@pytest.mark.parametrize("again", ["the same process", "another one"])
def test_every_store_keeps_the_whole_answer(kind, again, store_of):
    store, namespace = store_of(kind), uuid.uuid4().hex
    if kind == "memory" and again == "another one":
        pytest.skip("memory is of one process")

    def ask(door, answers):
        return GenericFakeChatModel(messages=iter(answers), cache=door).invoke("hello")

    with Cache(store, namespace=namespace, store_timeout=10) as cache:
        first = ask(LangChainCache(cache), [RICH])
        if again == "the same process":
            hit = ask(LangChainCache(cache), [])
    if again == "another one":
        with Cache(store, namespace=namespace, store_timeout=10) as cache:
            hit = ask(LangChainCache(cache), [])
    assert hit.response_metadata.pop("askonce")["status"] == "hit"
    for message in (first, hit):
        message.id = None
        message.usage_metadata.pop("total_cost", None)
    assert hit == first


@pytest.mark.parametrize("kind", ["threads", "tasks"])
async def test_a_fleet_asks_once(kind, valkey, provider, models):
    """Two caches with nothing in common but the server stand for two processes."""
    provider.always(Fault(delay=0.5))
    namespace = uuid.uuid4().hex
    caches = [Cache(valkey.url, namespace=namespace, coalesce="fleet", store_timeout=5) for _ in range(2)]
    for cache in caches:
        model = ChatOpenAI(
            model="m", api_key="k", base_url=provider.base_url, max_retries=0, cache=LangChainCache(cache)
        )
        models.append(model)
    if kind == "threads":
        with ThreadPoolExecutor(8) as pool:
            work = [pool.submit(models[number % 2].invoke, "hello") for number in range(8)]
            said = {(await asyncio.to_thread(one.result, 20)).content for one in work}
    else:
        answers = await asyncio.gather(*[models[number % 2].ainvoke("hello") for number in range(8)])
        said = {answer.content for answer in answers}
    assert len(said) == 1
    assert provider.calls == 1
    for cache in caches:
        await cache.aclose()


def test_a_question_that_means_the_same_shares_the_answer(provider, models):
    embedder = FunctionEmbedder(lambda texts: [[1.0, 0.0] for _ in texts], name="all the same")
    with Cache("memory://", semantic=SemanticLayer(embedder, shadow=0.0, guards=False)) as cache:
        model = ChatOpenAI(
            model="m", api_key="k", base_url=provider.base_url, max_retries=0, cache=LangChainCache(cache)
        )
        models.append(model)
        first = model.invoke("how are you today?")
        again = model.invoke("how do you do today?")
        assert (again.content, provider.calls) == (first.content, 1)
        assert again.response_metadata["askonce"]["status"] == "semantic"
        other = ChatOpenAI(
            model="n", api_key="k", base_url=provider.base_url, max_retries=0, cache=LangChainCache(cache)
        )
        models.append(other)
        other.invoke("how are you today?")
        assert provider.calls == 2
