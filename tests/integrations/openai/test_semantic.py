"""Questions that mean the same, asked with the OpenAI SDK: the answer comes in the form it is asked for."""

from __future__ import annotations

import pytest

from askonce import Cache, track
from askonce.semantic import EndpointEmbedder, FunctionEmbedder, SemanticLayer

pytest.importorskip("numpy")
ASKED = "How do I reset my password?"
SAME = "Please tell me how I can reset my password"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "reset",
            "parameters": {"type": "object", "properties": {"who": {"type": "string"}}},
        },
    }
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "steps",
        "schema": {"type": "object", "properties": {"steps": {"type": "string"}}, "required": ["steps"]},
    },
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def alike(texts):
    return [[1.0, 2.0, 3.0] for _ in texts]


@pytest.fixture
def cache():
    layer = SemanticLayer(FunctionEmbedder(alike, name="alike"), shadow=0.0, timeout=5)
    with Cache("memory://", semantic=layer) as cache:
        yield cache


def user(text):
    return [{"role": "user", "content": text}]


async def chat(side, client, text, **options):
    made = client.chat.completions.create(model="m", messages=user(text), **options)
    return await (side.all(made) if options.get("stream") else side.get(made))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stream": True},
        {"tools": TOOLS, "tool_choice": "required"},
        {"response_format": SCHEMA},
        {"n": 2},
    ],
    ids=["plain", "stream", "tools", "structured", "several"],
)
async def test_a_similar_question_gets_the_stored_answer_in_the_same_form(side, client, provider, options):
    first = await chat(side, client, ASKED, **options)
    with track() as outcomes:
        again = await chat(side, client, SAME, **options)
    assert again == first
    assert provider.calls == 1
    (outcome,) = outcomes
    assert (outcome.status, outcome.surface) == ("semantic", "chat")
    assert outcome.similarity == pytest.approx(1.0)
    if options.get("tools"):
        assert again.choices[0].message.tool_calls[0].function.name == "reset"


async def test_forms_never_mix(side, client, provider):
    answers = [{}, {"stream": True}, {"tools": TOOLS}, {"response_format": SCHEMA}, {"temperature": 0.5}]
    for number, options in enumerate(answers, 1):
        await chat(side, client, ASKED if number % 2 else SAME, **options)
        assert provider.calls == number


async def test_images_system_prompts_and_earlier_turns_keep_apart(side, client, provider):
    text = {"type": "text", "text": ASKED}
    turns = [*user("hi"), {"role": "assistant", "content": "hello"}]
    conversations = [
        user(ASKED),
        [{"role": "system", "content": "Be brief."}, *user(SAME)],
        [{"role": "system", "content": "Be long."}, *user(ASKED)],
        [*turns, *user(SAME)],
        [*turns, *turns, *user(ASKED)],
        user([text, IMAGE]),
        user([text, {**IMAGE, "image_url": {"url": "data:image/png;base64,AAAB"}}]),
    ]
    for number, messages in enumerate(conversations, 1):
        await side.get(client.chat.completions.create(model="m", messages=messages))
        assert provider.calls == number
    await side.get(client.chat.completions.create(model="m", messages=user([{**text, "text": SAME}, IMAGE])))
    assert provider.calls == len(conversations)


async def test_the_responses_api_is_answered_too(side, client, provider):
    first = await side.get(client.responses.create(model="m", input=ASKED))
    again = await side.get(client.responses.create(model="m", input=SAME))
    assert again.output_text == first.output_text
    assert provider.calls == 1


async def test_the_header_says_what_happened_and_whose_answer_it_is(side, client, provider):
    create = client.chat.completions.with_raw_response.create
    with track() as outcomes:
        await side.get(create(model="m", messages=user(ASKED)))
        raw = await side.get(create(model="m", messages=user(SAME)))
    said = raw.headers["cache-status"]
    assert said.startswith("askonce; hit; ttl=")
    assert outcomes[0].key in said
    assert 'detail="semantic ' in said


async def test_embeddings_of_an_endpoint_come_from_the_exact_cache(side, provider, enable):
    embedder = EndpointEmbedder(
        "text-embedding-3-small", base_url=provider.base_url, api_key="k", dimensions=64
    )
    layer = SemanticLayer(embedder, threshold=0.5, shadow=0.0, timeout=5)
    with Cache("memory://", semantic=layer) as cache:
        enable(cache)
        client = side.client(provider.base_url)
        with track() as outcomes:
            await chat(side, client, ASKED)
        assert [outcome.surface for outcome in outcomes] == ["chat"]  # the embedding is not the caller's
        assert provider.calls_to("/embeddings") == 1
        # The same text in another partition: another provider call, and no embedding.
        await chat(side, client, ASKED, temperature=0.5)
        assert provider.calls_to("/embeddings") == 1
        assert provider.calls_to("/chat/completions") == 2
        # The fake provider's vectors of different texts are far apart.
        await chat(side, client, SAME)
        assert provider.calls_to("/chat/completions") == 3
        assert cache.stats().layer == {"consulted": 3}
        (sent,) = {
            request.header("authorization") for request in provider.requests if "embed" in request.path
        }
        assert sent == "Bearer k"


async def test_an_embedder_that_uses_the_patched_sdk_never_meets_the_layer(side, provider, enable):
    import openai

    def embed(texts):
        with openai.OpenAI(base_url=provider.base_url, api_key="x", max_retries=0) as inner:
            answer = inner.chat.completions.create(model="m", messages=user(f"Embed: {texts[0]}"))
            assert answer.choices
            return alike(texts)

    layer = SemanticLayer(FunctionEmbedder(embed, name="m"), shadow=0.0, timeout=10)
    with Cache("memory://", semantic=layer) as cache:
        enable(cache)
        client = side.client(provider.base_url)
        first = await chat(side, client, ASKED)
        assert await chat(side, client, SAME) == first
        assert cache.stats().layer == {"consulted": 2, "served": 1}
