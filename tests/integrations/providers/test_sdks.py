"""Each vendor's own SDK over its own protocol: as without a cache the first time, the same again after it."""

from __future__ import annotations

import contextlib
import inspect
import re

import anthropic
import cohere
import groq
import httpx
import httpx2
import ollama
import openai
import pytest
import together
from google import genai
from google.genai import types
from mistralai.client import Mistral

import askonce_httpx
from askonce import Cache, OfflineMiss, track
from askonce.testing._provider import Fault
from askonce_httpx import AsyncCacheTransport, CacheTransport, wrap_client
from askonce_httpx._wrap import _clients_in

ASK = [{"role": "user", "content": "hello"}]
USE = [{"role": "user", "content": "use the tool get_weather"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "the weather", "parameters": SCHEMA}
OPENAI_TOOLS = [{"type": "function", "function": FUNCTION}]
CLAUDE_TOOLS = [{"name": "get_weather", "description": "the weather", "input_schema": SCHEMA}]


def genai_client(provider, cache, **_):
    """google-genai makes its clients itself, and its async one of aiohttp unless it is given a transport."""
    plain = httpx2.HTTPTransport(), httpx2.AsyncHTTPTransport()
    sync, awaiting = plain if cache is None else (CacheTransport(cache), AsyncCacheTransport(cache))
    options = types.HttpOptions(
        base_url=provider.url,
        client_args={"transport": sync},
        async_client_args={"transport": awaiting},
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    return genai.Client(api_key="k", http_options=options)


def wrapped(make):
    def made(provider, cache, *, awaits):
        client = make(provider, awaits)
        return client if cache is None else wrap_client(client, cache)

    return made


CLIENTS = {
    "anthropic": wrapped(
        lambda provider, awaits: (anthropic.AsyncAnthropic if awaits else anthropic.Anthropic)(
            base_url=provider.url, api_key="k", max_retries=0
        )
    ),
    "azure": wrapped(
        lambda provider, awaits: (openai.AsyncAzureOpenAI if awaits else openai.AzureOpenAI)(
            azure_endpoint=provider.url, api_key="k", api_version="2024-10-21", max_retries=0
        )
    ),
    "openai": wrapped(
        lambda provider, awaits: (openai.AsyncOpenAI if awaits else openai.OpenAI)(
            base_url=provider.base_url, api_key="k", max_retries=0
        )
    ),
    "genai": genai_client,
    "mistral": wrapped(lambda provider, _: Mistral(api_key="k", server_url=provider.url)),
    "groq": wrapped(
        lambda provider, awaits: (groq.AsyncGroq if awaits else groq.Groq)(
            base_url=provider.url, api_key="k", max_retries=0
        )
    ),
    "together": wrapped(
        lambda provider, awaits: (together.AsyncTogether if awaits else together.Together)(
            base_url=provider.base_url, api_key="k", max_retries=0
        )
    ),
    "cohere": wrapped(
        lambda provider, awaits: (cohere.AsyncClientV2 if awaits else cohere.ClientV2)(
            api_key="k", base_url=provider.url
        )
    ),
    "cohere v1": wrapped(
        lambda provider, awaits: (cohere.AsyncClient if awaits else cohere.Client)(
            api_key="k", base_url=provider.url
        )
    ),
    "ollama": wrapped(
        lambda provider, awaits: (ollama.AsyncClient if awaits else ollama.Client)(host=provider.url)
    ),
}

# name: (client, what to ask it, given the client and whether it is async)
CLAUDE = {"model": "claude", "max_tokens": 2000}
THINKING = {"type": "enabled", "budget_tokens": 1024}
GEMINI = {"model": "gemini-2.5-flash"}
GEMINI_TOOLS = types.GenerateContentConfig(
    tools=[
        types.Tool(
            function_declarations=[
                types.FunctionDeclaration(name="get_weather", parameters_json_schema=SCHEMA)
            ]
        )
    ],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


def gemini(name, **asked):
    return "genai", lambda c, a: getattr((c.aio if a else c).models, name)(**GEMINI, **asked)


def mistral(group, name, **asked):
    return "mistral", lambda c, a: getattr(getattr(c, group), name + ("_async" if a else ""))(**asked)


CASES = {
    "openai": ("openai", lambda c, _: c.chat.completions.create(model="m", messages=ASK)),
    "openai stream": (
        "openai",
        lambda c, _: c.chat.completions.create(model="m", messages=ASK, stream=True),
    ),
    "openai responses": ("openai", lambda c, _: c.responses.create(model="m", input="hello")),
    "openai responses stream": (
        "openai",
        lambda c, _: c.responses.create(model="m", input="hello", stream=True),
    ),
    "openai embeddings": ("openai", lambda c, _: c.embeddings.create(model="m", input="hello")),
    "azure": ("azure", lambda c, _: c.chat.completions.create(model="deployed", messages=ASK)),
    "azure stream": (
        "azure",
        lambda c, _: c.chat.completions.create(model="deployed", messages=ASK, stream=True),
    ),
    "anthropic": ("anthropic", lambda c, _: c.messages.create(messages=ASK, **CLAUDE)),
    "anthropic thinking": (
        "anthropic",
        lambda c, _: c.messages.create(messages=ASK, thinking=THINKING, **CLAUDE),
    ),
    "anthropic tools": (
        "anthropic",
        lambda c, _: c.messages.create(messages=USE, tools=CLAUDE_TOOLS, **CLAUDE),
    ),
    "anthropic stream": ("anthropic", lambda c, _: c.messages.create(messages=ASK, stream=True, **CLAUDE)),
    "anthropic stream thinking": (
        "anthropic",
        lambda c, _: c.messages.create(messages=ASK, stream=True, thinking=THINKING, **CLAUDE),
    ),
    "anthropic stream tools": (
        "anthropic",
        lambda c, _: c.messages.create(messages=USE, stream=True, tools=CLAUDE_TOOLS, **CLAUDE),
    ),
    "anthropic count": ("anthropic", lambda c, _: c.messages.count_tokens(model="claude", messages=ASK)),
    "gemini": gemini("generate_content", contents="hello"),
    "gemini tools": gemini("generate_content", contents="use the tool get_weather", config=GEMINI_TOOLS),
    "gemini stream": gemini("generate_content_stream", contents="hello"),
    "gemini embeddings": gemini("embed_content", contents=["a", "b"]),
    "gemini count": gemini("count_tokens", contents="hello"),
    "mistral": mistral("chat", "complete", model="m", messages=ASK),
    "mistral tools": mistral("chat", "complete", model="m", messages=USE, tools=OPENAI_TOOLS),
    "mistral stream": mistral("chat", "stream", model="m", messages=ASK),
    "mistral fim": mistral("fim", "complete", model="codestral", prompt="def f"),
    "mistral fim stream": mistral("fim", "stream", model="codestral", prompt="def f"),
    "mistral embeddings": mistral("embeddings", "create", model="mistral-embed", inputs=["a", "b"]),
    "groq": ("groq", lambda c, _: c.chat.completions.create(model="m", messages=ASK)),
    "groq stream": ("groq", lambda c, _: c.chat.completions.create(model="m", messages=ASK, stream=True)),
    "together": ("together", lambda c, _: c.chat.completions.create(model="m", messages=ASK)),
    "together stream": (
        "together",
        lambda c, _: c.chat.completions.create(model="m", messages=ASK, stream=True),
    ),
    "cohere": ("cohere", lambda c, _: c.chat(model="m", messages=ASK)),
    "cohere tools": ("cohere", lambda c, _: c.chat(model="m", messages=USE, tools=OPENAI_TOOLS)),
    "cohere stream": ("cohere", lambda c, _: c.chat_stream(model="m", messages=ASK)),
    "cohere embed": (
        "cohere",
        lambda c, _: c.embed(
            model="m", texts=["a", "b"], input_type="classification", embedding_types=["float"]
        ),
    ),
    "cohere rerank": ("cohere", lambda c, _: c.rerank(model="m", query="q", documents=["a", "bb"])),
    "cohere v1": ("cohere v1", lambda c, _: c.chat(model="m", message="hello")),
    "cohere v1 stream": ("cohere v1", lambda c, _: c.chat_stream(model="m", message="hello")),
    "ollama": ("ollama", lambda c, _: c.chat(model="m", messages=ASK)),
    "ollama tools": ("ollama", lambda c, _: c.chat(model="m", messages=USE, tools=OPENAI_TOOLS)),
    "ollama stream": ("ollama", lambda c, _: c.chat(model="m", messages=ASK, stream=True)),
    "ollama generate": ("ollama", lambda c, _: c.generate(model="m", prompt="hello")),
    "ollama generate stream": ("ollama", lambda c, _: c.generate(model="m", prompt="hello", stream=True)),
    "ollama embed": ("ollama", lambda c, _: c.embed(model="m", input=["a", "b"])),
    "ollama embeddings": ("ollama", lambda c, _: c.embeddings(model="m", prompt="a")),
}
FAULTS = ("finish_reason", "empty", "refusal", "silent_end_after", "error_event_after", "cut_after")
STREAMS = [name for name in CASES if "stream" in name]


@pytest.fixture
async def client_of(provider, cache):
    """Makes clients, with the test's cache unless another one is given, and closes them after the test."""
    made = []

    def make(sdk, *, awaits=False, cache=cache):
        client = CLIENTS[sdk](provider, cache, awaits=awaits)
        made.append(client)
        return client

    yield make
    for client in made:
        for inner in _clients_in(client):
            closed = inner.aclose() if hasattr(inner, "aclose") else inner.close()
            if closed is not None:
                await closed


def dumped(value):
    """All that an SDK's object says, its type included."""
    said = value.model_dump() if hasattr(value, "model_dump") else repr(value)
    if isinstance(said, dict):
        http = said.pop("sdk_http_response", None)  # google-genai shows the headers
        assert http is None or isinstance(http, dict)
    return type(value).__name__, said


async def asked(ask, client, awaits):
    answer = ask(client, awaits)
    if inspect.isawaitable(answer):
        answer = await answer
    if hasattr(answer, "__aiter__"):
        return [dumped(event) async for event in answer]
    if hasattr(answer, "__next__") or (
        hasattr(answer, "__iter__") and not hasattr(type(answer), "model_fields")
    ):
        return [dumped(event) for event in answer]
    return [dumped(answer)]


def shown(fault):
    """A fault by what it sets."""
    return ",".join(f"{name}={getattr(fault, name)}" for name in FAULTS if getattr(fault, name))


def unnumbered(answer):
    """Without what differs from answer to answer of the fake provider: numbers."""
    return re.sub(r"\d+|[0-9a-f]{8}", "#", repr(answer))


@pytest.mark.parametrize("awaits", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES)
async def test_first_as_without_a_cache_then_the_same_again(case, awaits, provider, cache, client_of):
    sdk, ask = CASES[case]
    provider.reply(None if "tools" in case else "the same words each time")
    bare = await asked(ask, client_of(sdk, awaits=awaits, cache=None), awaits)
    client = client_of(sdk, awaits=awaits)
    first = await asked(ask, client, awaits)
    assert unnumbered(first) == unnumbered(bare)
    assert provider.calls == 2
    with track() as tracked:
        again = await asked(ask, client, awaits)
        other = await asked(ask, client_of(sdk, awaits=awaits), awaits)
    assert again == other == first
    assert provider.calls == 2
    assert [call.status for call in tracked] == ["hit", "hit"]
    assert cache.stats().misses == 1


# Whose answers do not say what they used.
SILENT = {
    "openai stream", "azure stream", "groq stream", "together stream", "mistral stream", "mistral fim stream",
    "cohere rerank",
}  # fmt: skip


@pytest.mark.parametrize("case", [name for name in CASES if "count" not in name and "embeddings" not in name])
async def test_the_tokens_of_an_answer_are_known(case, provider, cache, client_of):
    sdk, ask = CASES[case]
    client = client_of(sdk, awaits=False)
    await asked(ask, client, False)
    await asked(ask, client, False)
    stats = cache.stats()
    assert (stats.tokens_saved == 0) == (case in SILENT), stats.tokens_saved


@pytest.mark.parametrize("awaits", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("case", "fault"),
    [
        *(
            (case, Fault(finish_reason="length"))
            for case in CASES
            if not re.search("embed|count|rerank", case)
        ),
        *((case, Fault(empty=True)) for case in CASES if not re.search("embed|count|rerank|responses", case)),
        *((case, Fault(silent_end_after=2)) for case in STREAMS),
        *((case, Fault(error_event_after=2)) for case in STREAMS),
        *((case, Fault(cut_after=2)) for case in STREAMS),
        ("anthropic", Fault(refusal=True)),
        ("anthropic stream", Fault(refusal=True)),
        ("gemini", Fault(refusal=True)),
        ("gemini", Fault(finish_reason="content_filter")),
        ("gemini", Fault(finish_reason="MALFORMED_FUNCTION_CALL")),
        ("gemini stream", Fault(finish_reason="OTHER")),
        ("anthropic", Fault(finish_reason="pause_turn")),
        ("cohere", Fault(finish_reason="ERROR")),
        ("ollama", Fault(finish_reason="load")),
    ],
    ids=lambda value: value if isinstance(value, str) else shown(value),
)
async def test_what_is_half_or_refused_or_wrong_is_given_once_and_never_again(
    case, fault, awaits, provider, client_of
):
    sdk, ask = CASES[case]
    cache = Cache("memory://")
    provider.always(fault)
    client = client_of(sdk, awaits=awaits, cache=cache)
    for _ in range(2):
        with contextlib.suppress(Exception):  # what each SDK makes of it is its own affair
            await asked(ask, client, awaits)
    assert provider.calls >= 2
    assert cache.stats().stored == 0
    provider.clear()
    before = provider.calls
    first = await asked(ask, client, awaits)
    assert await asked(ask, client, awaits) == first
    assert provider.calls == before + 1


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_left_early_is_not_kept(case, provider, cache, client_of):
    sdk, ask = CASES[case]
    client = client_of(sdk, awaits=False)
    stream = ask(client, False)
    next(iter(stream))
    if hasattr(stream, "close"):
        stream.close()
    del stream
    whole = await asked(ask, client, False)
    assert provider.calls == 2
    assert await asked(ask, client, False) == whole
    assert provider.calls == 2


async def test_models_in_the_url_are_told_apart(provider, cache, client_of):
    client = client_of("genai")
    first = client.models.generate_content(model="gemini-a", contents="hello")
    second = client.models.generate_content(model="gemini-b", contents="hello")
    assert (first.response_id, provider.calls) != (second.response_id, 1)
    assert {entry.meta.model for _, entry in cache.entries()} == {"gemini-a", "gemini-b"}


def test_ollama_streams_unless_told_otherwise_and_the_two_never_meet(provider, cache):
    with httpx.Client(transport=CacheTransport(cache)) as client:
        body = {"model": "m", "messages": ASK}
        url = f"{provider.url}/api/chat"
        answers = [
            client.post(url, json=one)
            for _ in range(2)
            for one in (body, {**body, "stream": True}, {**body, "stream": None}, {**body, "stream": False})
        ]
    kinds = [answer.headers["content-type"].partition(";")[0] for answer in answers]
    assert kinds == ["application/x-ndjson"] * 3 + ["application/json"] + ["application/x-ndjson"] * 3 + [
        "application/json"
    ]
    assert provider.calls == 2
    assert len({answer.content for answer in answers}) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
        {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]},
        {"container": "c"},
    ],
)
async def test_claude_that_looks_at_the_world_is_asked_each_time(more, provider, cache, client_of):
    client = client_of("anthropic")
    for _ in range(2):
        client.messages.create(messages=ASK, extra_body=more, **CLAUDE)
    assert provider.calls == 2
    assert cache.stats().bypasses == 2


@pytest.mark.parametrize(
    "tool",
    [
        types.Tool(google_search=types.GoogleSearch()),
        types.Tool(url_context=types.UrlContext()),
        types.Tool(code_execution=types.ToolCodeExecution()),
    ],
    ids=repr,
)
async def test_gemini_that_looks_at_the_world_is_asked_each_time(tool, provider, cache, client_of):
    client = client_of("genai")
    for _ in range(2):
        client.models.generate_content(
            contents="hello", config=types.GenerateContentConfig(tools=[tool]), **GEMINI
        )
    assert provider.calls == 2


async def test_cohere_that_remembers_or_looks_is_asked_each_time(provider, cache, client_of):
    client = client_of("cohere v1")
    for _ in range(2):
        client.chat(message="hello", conversation_id="c")
        client.chat(message="hello", connectors=[{"id": "web-search"}])
    assert provider.calls == 4


async def test_the_versions_of_anthropic_are_told_apart(provider, cache, client_of):
    client = client_of("anthropic")
    for beta in ("a", "b", "a"):
        client.messages.create(messages=ASK, extra_headers={"anthropic-beta": beta}, **CLAUDE)
    assert provider.calls == 2


def test_a_path_that_others_use_too_wants_the_shape_of_a_question(provider, cache):
    with httpx.Client(transport=CacheTransport(cache)) as client:
        for path, body in (
            ("/api/chat", {"text": "hello"}),
            ("/v1/messages", {"to": "somebody"}),
            ("/v1/responses", {"survey": 1}),
            ("/", {"a": 1}),
            ("/v1/rerank", {"x": 1}),
        ):
            before = provider.calls
            for _ in range(2):
                client.post(provider.url + path, json=body)
            assert provider.calls in (before, before + 2), path
    assert cache.stats().misses == 0


@pytest.mark.parametrize("awaits", [False, True], ids=["sync", "async"])
async def test_hugging_face_through_the_process_wide_hook(awaits, provider, cache, client_of):
    hub = pytest.importorskip("huggingface_hub")
    kind = hub.AsyncInferenceClient if awaits else hub.InferenceClient
    askonce_httpx.enable_cache(cache, hosts=["127.0.0.1"])
    try:
        chat = kind(base_url=provider.base_url, token="k")
        text = kind(model=f"{provider.url}/hf-inference/models/a/b", token="k")
        asks = {
            "chat": lambda _, a: chat.chat_completion(messages=ASK, model="m"),
            "chat stream": lambda _, a: chat.chat_completion(messages=ASK, model="m", stream=True),
            "text": lambda _, a: text.text_generation("hello", details=True),
            "text stream": lambda _, a: text.text_generation("hello", stream=True, details=True),
        }
        for number, ask in enumerate(asks.values(), 1):
            first = await asked(ask, None, awaits)
            assert await asked(ask, None, awaits) == first
            assert provider.calls == number
    finally:
        askonce_httpx.disable_cache()
        if awaits:
            await chat.close()
            await text.close()
        else:
            hub.close_session()
    assert {entry.meta.model for _, entry in cache.entries()} == {"m", "a/b"}


def test_hugging_face_vectors(provider, cache):
    with httpx.Client(transport=CacheTransport(cache)) as client:
        url = f"{provider.url}/hf-inference/models/a/b/pipeline/feature-extraction"
        for inputs in ("hello", ["hello", "you"]):
            first, again = (client.post(url, json={"inputs": inputs}) for _ in range(2))
            assert first.content == again.content
    assert provider.calls == 2


async def test_offline_reaches_the_caller_of_every_sdk(provider, client_of):
    with Cache("memory://", mode="offline") as cache:
        for name in CLIENTS:
            ask = CASES[name if name != "genai" else "gemini"][1]
            with pytest.raises(Exception) as caught:
                await asked(ask, client_of(name, cache=cache), False)
            found = caught.value
            while found is not None and not isinstance(found, OfflineMiss):
                found = found.__cause__ or found.__context__
            assert isinstance(found, OfflineMiss), name
    assert provider.calls == 0
