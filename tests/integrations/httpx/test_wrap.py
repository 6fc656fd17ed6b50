"""Clients that exist are wrapped in place, those of SDKs too, and the hook serves listed hosts only."""

from __future__ import annotations

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
from mistralai.client import Mistral

import askonce_httpx
import askonce_openai
from askonce import Cache, ConfigurationError, track
from askonce_httpx import AsyncCacheTransport, unwrap_client, wrap_client
from askonce_httpx._wrap import _clients_in

QUESTION = [{"role": "user", "content": "hello"}]
ASK = {"model": "m", "messages": QUESTION}
HEADERS = {"authorization": "Bearer k"}


def openai_http(**options):
    """A client of the package under the installed openai."""
    return openai.DefaultHttpxClient(verify=False, **options)


async def test_wrapping_keeps_transport_and_mounts_and_unwrapping_gives_them_back(way, provider, chat, cache):
    mounted = way.plain_transport(verify=False)
    client = way.client(mounts={"http://elsewhere": mounted, "all://none": None})
    before = client._transport, dict(client._mounts)
    assert wrap_client(client, cache) is client
    await way.post(client, chat, json=ASK)
    await way.post(client, chat, json=ASK)
    assert provider.calls == 1
    assert client._transport.inner is before[0]
    assert {one and one.inner for one in client._mounts.values()} == {*before[1].values()}
    unwrap_client(client)
    assert (client._transport, client._mounts) == before
    unwrap_client(client)
    await way.post(client, chat, json=ASK)
    assert provider.calls == 2


async def test_wrapping_again_changes_the_cache_and_adds_no_layer(way, provider, chat, cache):
    client = way.client()
    with Cache("memory://") as other:
        wrap_client(wrap_client(client, cache), other)
        await way.post(client, chat, json=ASK)
        assert (cache.stats().calls, other.stats().misses) == (0, 1)
    plain = client._transport.inner
    assert not hasattr(plain, "inner")
    unwrap_client(client)
    assert client._transport is plain


def groq_http():
    return groq.DefaultHttpxClient(verify=False)


SDKS = {
    "openai": lambda: openai.OpenAI(api_key="k"),
    "openai async": lambda: openai.AsyncOpenAI(api_key="k"),
    "anthropic": lambda: anthropic.Anthropic(api_key="k"),
    "anthropic async": lambda: anthropic.AsyncAnthropic(api_key="k"),
    "groq": lambda: groq.Groq(api_key="k"),
    "groq async": lambda: groq.AsyncGroq(api_key="k"),
    "together": lambda: together.Together(api_key="k"),
    "mistralai": lambda: Mistral(api_key="k"),
    "cohere": lambda: cohere.ClientV2(api_key="k"),
    "cohere async": lambda: cohere.AsyncClientV2(api_key="k"),
    "ollama": ollama.Client,
    "ollama async": ollama.AsyncClient,
    "google-genai": lambda: genai.Client(api_key="k"),
}


@pytest.mark.parametrize("name", SDKS)
def test_the_http_clients_inside_an_sdks_client_are_found(name, cache):
    client = SDKS[name]()
    found = _clients_in(client)
    assert found
    wrap_client(client, cache)
    assert all(one._transport.cache is cache for one in found)
    unwrap_client(client)
    assert not any(hasattr(one._transport, "cache") for one in found)


async def test_calls_that_go_past_httpx_are_told_of(cache, caplog):
    pytest.importorskip("aiohttp")
    wrap_client(genai.Client(api_key="k"), cache)
    assert "aiohttp" in caplog.text
    assert "AsyncCacheTransport" in caplog.text
    caplog.clear()
    options = genai.types.HttpOptions(async_client_args={"transport": AsyncCacheTransport(cache)})
    wrap_client(genai.Client(api_key="k", http_options=options), cache)
    wrap_client(openai.AsyncOpenAI(api_key="k"), cache)
    assert caplog.text == ""


def test_a_vendors_sdk_and_a_raw_request_share_one_entry(provider, cache):
    """The same bytes to the same place: one question, whoever asks."""
    client = wrap_client(groq.Groq(api_key="k", base_url=provider.url, http_client=groq_http()), cache)
    said = client.chat.completions.create(model="m", messages=QUESTION).choices[0].message.content
    url = f"{provider.url}/openai/v1/chat/completions"
    with wrap_client(httpx2.Client(verify=False), cache) as raw:
        answer = raw.post(url, json=ASK, headers=HEADERS)
    client.close()
    assert answer.json()["choices"][0]["message"]["content"] == said
    assert provider.calls == 1


@pytest.mark.parametrize("what", [object(), "https://api.openai.com", None])
def test_what_cannot_be_reached_is_said_so(what, cache):
    with pytest.raises(ConfigurationError, match="holds no httpx or httpx2 client"):
        wrap_client(what, cache)
    with pytest.raises(ConfigurationError, match="holds no httpx or httpx2 client"):
        unwrap_client(what)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_layered_doors_count_and_store_once(provider, cache, stream):
    client = wrap_client(
        openai.OpenAI(api_key="k", base_url=provider.base_url, http_client=openai_http()), cache
    )
    askonce_openai.enable_cache(cache)
    askonce_httpx.enable_cache(cache, hosts=["127.0.0.1", "localhost"])
    try:
        with track() as outcomes:
            for _ in range(2):
                answer = client.chat.completions.create(model="m", messages=QUESTION, stream=stream)
                if stream:
                    list(answer)
    finally:
        askonce_httpx.disable_cache()
        askonce_openai.disable_cache()
        client.close()
    assert [one.status for one in outcomes] == ["miss", "hit"]
    assert (provider.calls, cache.stats().stored, cache.stats().calls) == (1, 1, 2)


def test_the_openai_door_and_this_one_share_entries(provider, chat, cache):
    client = openai.OpenAI(api_key="k", base_url=provider.base_url, http_client=openai_http())
    askonce_openai.enable_cache(cache)
    try:
        first = client.chat.completions.create(model="m", messages=QUESTION)
    finally:
        askonce_openai.disable_cache()
        client.close()
    with wrap_client(httpx2.Client(verify=False), cache) as raw:
        answer = raw.post(chat, json={"model": "m", "messages": QUESTION}, headers=HEADERS)
    assert answer.json()["id"] == first.id
    assert provider.calls == 1


class TestEverywhere:
    @pytest.fixture(autouse=True)
    def _enabled(self, cache):
        askonce_httpx.enable_cache(cache, hosts=["127.0.0.1", "*.example"])
        yield
        askonce_httpx.disable_cache()

    async def test_clients_made_before_and_after_are_served(self, way, provider, chat, cache):
        for client in (way.client(), way.client()):
            await way.post(client, chat, json=ASK)
        assert provider.calls == 1

    @pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
    def test_so_are_the_functions_without_a_client(self, package, provider, chat):
        answers = [package.post(chat, json=ASK, headers=HEADERS).json() for _ in range(2)]
        assert answers[0] == answers[1]
        assert provider.calls == 1

    async def test_other_hosts_are_left_alone(self, way, provider, chat, cache):
        url = chat.replace("127.0.0.1", "localhost")
        assert url != chat
        for _ in range(2):
            await way.post(way.client(), url, json=ASK)
        assert (provider.calls, cache.stats().calls) == (2, 0)

    async def test_a_custom_transport_is_asked_for_what_is_not_stored(self, way, chat, cache):
        calls = []

        def answer(request):
            calls.append(request.url)
            return way.package.Response(200, json={"choices": [{"message": {"content": "x"}}]})

        client = way.kind(transport=way.package.MockTransport(answer))
        for _ in range(2):
            response = await way.post(client, chat, json=ASK)
            assert response.json()["choices"][0]["message"]["content"] == "x"
        assert len(calls) == 1
        await way.get(client.aclose() if way.is_async else client.close())

    def test_a_client_that_is_gone_is_not_kept(self, provider, chat):
        import gc
        import weakref

        client = httpx.Client(verify=False)
        client.post(chat, json=ASK, headers=HEADERS)
        client.close()
        gone = weakref.ref(client._transport)
        del client
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("hosts", [[], "api.openai.com", [""], [7]])
def test_hosts_have_to_be_named(hosts):
    with pytest.raises(ConfigurationError, match=r"hosts=.* is not allowed; allowed: a list of host names"):
        askonce_httpx.enable_cache(hosts=hosts)


def test_disabling_without_enabling_does_nothing():
    askonce_httpx.disable_cache()


def test_a_mocking_package_in_place_of_the_transport_still_works(respx_mock, cache, chat):
    route = respx_mock.post(chat).respond(json={"choices": [{"message": {"content": "mocked"}}]})
    with wrap_client(httpx.Client(), cache) as client:
        for _ in range(2):
            assert client.post(chat, json=ASK).json()["choices"][0]["message"]["content"] == "mocked"
    assert route.call_count == 1


async def test_unwrapping_leaves_a_transport_that_the_client_was_made_with(way, provider, chat, cache):
    client = way.client(cache)
    own = client._transport
    with Cache("memory://") as other:
        assert wrap_client(client)._transport is own
        await way.post(wrap_client(client, other), chat, json=ASK)
        assert (own.cache, other.stats().misses, cache.stats().calls) == (cache, 1, 0)
        unwrap_client(client)
    assert client._transport is own
    for _ in range(2):
        await way.post(client, chat, json=ASK)
    assert provider.calls == 2
    assert cache.stats().hits == 1


async def test_unwrapping_beneath_somebody_elses_transport_switches_ours_off(way, provider, chat, cache):
    client = wrap_client(way.client(), cache)
    ours = client._transport

    class Tracer(way.package.AsyncBaseTransport if way.is_async else way.package.BaseTransport):
        def handle_request(self, request):
            return ours.handle_request(request)

        async def handle_async_request(self, request):
            return await ours.handle_async_request(request)

    client._transport = Tracer()
    for calls in (1, 1):
        await way.post(client, chat, json=ASK)
        assert provider.calls == calls
    unwrap_client(client)
    for calls in (2, 3):
        await way.post(client, chat, json=ASK)
        assert provider.calls == calls
    client._transport = ours  # closed with the client
