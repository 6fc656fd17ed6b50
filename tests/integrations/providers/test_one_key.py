"""The same question through any door and any SDK is one entry and one provider call."""

from __future__ import annotations

import groq
import httpx
import httpx2
import langchain_openai
import openai
import together
from mistralai.client import Mistral

from askonce import Cache, track
from askonce_httpx import CacheTransport, wrap_client
from askonce_openai import disable_cache, enable_cache

MESSAGES = [{"role": "user", "content": "hello"}]


def test_every_door_and_every_sdk_share_one_entry(provider, cache):
    base = f"{provider.url}/v1"
    url = f"{base}/chat/completions"
    body = {"model": "m", "messages": MESSAGES}
    patched = openai.OpenAI(base_url=base, api_key="a")
    enable_cache(cache, client=patched)
    vendors = [
        wrap_client(openai.OpenAI(base_url=base, api_key="b"), cache),
        wrap_client(together.Together(base_url=provider.url, api_key="c"), cache),
    ]
    langchain = langchain_openai.ChatOpenAI(model="m", base_url=base, api_key="g")
    mistral = wrap_client(Mistral(api_key="e", server_url=provider.url), cache)
    with (
        track() as tracked,
        httpx.Client(transport=CacheTransport(cache)) as one,
        httpx2.Client(transport=CacheTransport(cache)) as other,
    ):
        ids = {
            patched.chat.completions.create(**body).id,
            patched.chat.completions.create(messages=MESSAGES, model="m", temperature=None, user="u").id,
            *(vendor.chat.completions.create(**body).id for vendor in vendors),
            mistral.chat.complete(**body).id,
            wrap_client(langchain, cache).invoke("hello").response_metadata["id"],
            one.post(
                url, json={"messages": MESSAGES, "model": "m"}, headers={"authorization": "Bearer f"}
            ).json()["id"],
            other.post(url, json={**body, "stream": False, "metadata": {"a": "b"}}).json()["id"],
        }
    disable_cache(client=patched)
    langchain.root_client._client.close()
    assert (len(ids), provider.calls) == (1, 1)
    assert [call.status for call in tracked] == ["miss", *["hit"] * 7]
    assert len({call.key for call in tracked}) == 1


def test_groq_and_openai_on_groqs_own_address(provider, cache):
    enable = wrap_client(groq.Groq(base_url=provider.url, api_key="a"), cache)
    same = wrap_client(openai.OpenAI(base_url=f"{provider.url}/openai/v1", api_key="b"), cache)
    first = enable.chat.completions.create(model="m", messages=MESSAGES)
    assert same.chat.completions.create(model="m", messages=MESSAGES).id == first.id
    assert provider.calls == 1


def test_layered_doors_count_and_store_once(provider, cache):
    client = wrap_client(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="a"), cache)
    with Cache("memory://") as outer:
        enable_cache(outer, client=client)
        for _ in range(2):
            client.chat.completions.create(model="m", messages=MESSAGES)
            client.embeddings.create(model="e", input=["a", "b"])
        disable_cache(client=client)
        assert (outer.stats().misses, outer.stats().hits, cache.stats().calls) == (2, 2, 0)
    assert provider.calls == 2
