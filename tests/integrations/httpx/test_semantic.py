"""Questions that mean the same, asked through a client of either package."""

from __future__ import annotations

import pytest

from askonce import Cache, Policy, Rule, track
from askonce.semantic import EndpointEmbedder, FunctionEmbedder, SemanticLayer
from askonce.testing._provider.faults import Fault
from askonce_httpx import disable_cache, enable_cache

ASKED = "How do I reset my password?"
SAME = "Please tell me how I can reset my password"


@pytest.fixture
def cache():
    embedder = FunctionEmbedder(lambda texts: [[1.0, 2.0] for _ in texts], name="alike")
    layer = SemanticLayer(embedder, shadow=0.0, timeout=5)
    rules = [Rule(url="*/messages", ttl="1h"), Rule(url="*:generateContent", ttl="1h")]
    with Cache("memory://", policy=Policy(rules=rules), semantic=layer) as cache:
        yield cache


def ask(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_similar_question_gets_the_stored_answer(way, provider, chat, cache, stream):
    client = way.client(cache)
    more = {"stream": True} if stream else {}
    first, body = await way.stream(client, chat, json=ask(ASKED, **more))
    with track() as outcomes:
        again, same = await way.stream(client, chat, json=ask(SAME, **more))
    assert same == body
    assert provider.calls == 1
    assert outcomes[0].status == "semantic"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert 'detail="semantic ' in again.headers["cache-status"]


async def test_an_embedding_endpoint_that_fails_leaves_exact_answers(way, provider, chat):
    embedder = EndpointEmbedder("m", base_url=provider.base_url, api_key="secret-key")
    layer = SemanticLayer(embedder, shadow=0.0, timeout=5)
    with Cache("memory://", semantic=layer) as cache:
        client = way.client(cache)
        provider.script(Fault(status=500), Fault())
        await way.post(client, chat, json=ask(ASKED))
        again = await way.post(client, chat, json=ask(ASKED))
        assert again.headers["cache-status"].startswith("askonce; hit")
        assert cache.stats().layer == {"consulted": 1, "embedder: EndpointError": 1}


async def test_an_embedders_calls_pass_by_a_door_that_is_everywhere(way, provider, chat):
    layer = SemanticLayer(EndpointEmbedder("m", base_url=provider.base_url), shadow=0.0, timeout=5)
    with Cache("memory://", semantic=layer) as cache:
        enable_cache(cache, hosts=["127.0.0.1"])
        try:
            client = way.client()
            await way.post(client, chat, json=ask(ASKED))
            assert provider.calls_to("/embeddings") == 1
            assert cache.stats().calls == 2  # each once
        finally:
            disable_cache()
