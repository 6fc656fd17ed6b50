"""Recordings through every door: what is recorded through one is replayed through any that asks the same."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import askonce
import askonce_httpx
import askonce_openai
from askonce import Cache, ConfigurationError, OfflineMiss, replay, track, using
from askonce_langchain import CachedEmbeddings, LangChainCache

KEY = "sk-a-credential-1234567890"


def question(text="Why is the sky blue?", **more):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def methods():
    kinds = [kind for package in (httpx, httpx2) for kind in (package.Client, package.AsyncClient)]
    owners = [owner for kind in (openai.OpenAI, openai.AsyncOpenAI) for owner in kind.__mro__]
    return [vars(kind)["_transport_for_url"] for kind in kinds] + [
        vars(owner).get("_send_request") for owner in owners
    ]


@pytest.fixture(autouse=True)
def _doors_are_closed_afterwards():
    before = methods()
    yield
    assert all(one is other for one, other in zip(before, methods(), strict=True))


# -- each door -----------------------------------------------------------------------------------


def test_chat_streams_and_raw_answers_of_openai_are_replayed_as_they_were(client, provider, path):
    def ask():
        raw = client.chat.completions.with_raw_response.create(**question("raw"))
        return (
            client.chat.completions.create(**question()),
            list(client.chat.completions.create(**question(), stream=True)),
            client.responses.create(model="gpt-4o", input="Hi"),
            raw.content,
            raw.headers["x-request-id"],
            client.audio.speech.create(model="tts", voice="alloy", input="Hello").content,
        )

    with replay(path):
        first = ask()
    calls = provider.calls
    with replay(path, "replay") as recording:
        assert ask() == first
    assert provider.calls == calls
    assert recording.unused == recording.not_recorded == ()


async def test_the_async_client_replays_what_the_sync_one_recorded_and_the_reverse(
    client, aclient, provider, path
):
    with replay(path):
        first = client.chat.completions.create(**question())
        other = await aclient.chat.completions.create(**question("Other?"))
    async with replay(path, "replay"):
        assert await aclient.chat.completions.create(**question()) == first
        assert client.chat.completions.create(**question("Other?")) == other
    assert provider.calls == 2


def test_what_openai_recorded_a_raw_transport_replays(client, raw, provider, path):
    """With other headers: those of another version of an SDK are no part of the question."""
    with replay(path):
        first = client.chat.completions.with_raw_response.create(**question()).content
        stream = "".join(
            client.chat.completions.with_streaming_response.create(**question(stream=True))
            .__enter__()
            .iter_text()
        )
    with replay(path, "replay"):
        assert raw.post("/v1/chat/completions", json=question()).content == first
        assert raw.post("/v1/chat/completions", json=question(stream=True)).text.strip() == stream.strip()
    assert provider.calls == 2


def test_what_a_raw_transport_recorded_openai_replays(client, raw, provider, path):
    with replay(path):
        first = raw.post("/v1/chat/completions", json=question()).json()
    with replay(path, "replay"):
        assert client.chat.completions.create(**question()).id == first["id"]
    assert provider.calls == 1


def test_a_transport_in_this_process_can_be_recorded(path):
    asked = []

    def answer(request):
        asked.append(request)
        body = {"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
        return httpx.Response(200, json=body)

    for _ in range(2):
        with httpx.Client(transport=httpx.MockTransport(answer)) as client, replay(path):
            said = client.post("http://model/v1/chat/completions", json=question()).json()
        assert said["choices"][0]["message"]["content"] == "Hi"
    assert len(asked) == 1


async def test_async_httpx_clients_are_recorded(provider, path):
    for package in (httpx, httpx2):
        async with package.AsyncClient(verify=False) as client, replay(path):
            answer = await client.post(f"{provider.base_url}/chat/completions", json=question())
            assert answer.json()["id"]
    assert provider.calls == 1


def test_embeddings_are_recorded_and_replayed_item_by_item(client, provider, path):
    def embed(*texts):
        found = client.embeddings.create(model="text-embedding-3-small", input=list(texts))
        return dict(zip(texts, (row.embedding for row in found.data), strict=True))

    with replay(path):
        first = embed("a", "b", "c")
    with replay(path, "replay"):
        assert embed("c", "a") == {"c": first["c"], "a": first["a"]}
        assert embed("b") == {"b": first["b"]}
    with pytest.raises(OfflineMiss, match=r"1 of 2 inputs.*input changed"), replay(path, "replay"):
        embed("a", "d")
    with replay(path) as recording:
        assert embed("a", "b", "c", "d")["a"] == first["a"]
    assert provider.requests[-1].json()["input"] in ("d", ["d"]), "auto asks for what is missing, and no more"
    assert (recording.new, len(recording)) == (1, 4)
    abouts = [one["request"]["about"] for one in json.loads(path.read_text())["recordings"]]
    assert abouts == ["a", "b", "c", "d"]


@pytest.mark.filterwarnings("ignore:.*recordings not used:UserWarning")
def test_a_call_that_takes_the_short_way_outside_is_recorded_and_replayed_inside(
    client, provider, path, cache
):
    askonce_openai.enable_cache(cache)
    try:
        first = [client.chat.completions.create(**question()).id for _ in range(4)]
        assert cache.stats().recalled == 2
        with replay(path, "record"):
            recorded = {client.chat.completions.create(**question()).id for _ in range(3)}
        assert (provider.calls, len(recorded), recorded & set(first)) == (2, 1, set())
        with replay(path, "replay") as recording:
            assert {client.chat.completions.create(**question()).id for _ in range(3)} == recorded
            assert recording.unused == ()
        assert client.chat.completions.create(**question()).id == first[0]
    finally:
        askonce_openai.disable_cache()
    assert (provider.calls, cache.stats().recalled) == (2, 3)


def test_langchain_over_openai_records_each_answer_once(provider, path, cache):
    set_llm_cache(LangChainCache(cache))
    try:
        for mode in ("auto", "replay"):
            model = ChatOpenAI(
                model="gpt-4o", base_url=provider.base_url, api_key=KEY, max_retries=0, http_socket_options=()
            )
            with replay(path, mode) as recording:
                said = model.invoke("Hi").content
                assert model.invoke("Hi").content == said
            assert len(recording) == 1
            assert recording.unused == ()
            model.root_client.close()
        with pytest.raises(OfflineMiss, match="langchain request"), replay(path, "replay"):
            model.invoke("Something else")
    finally:
        set_llm_cache(None)
    assert provider.calls == 1
    assert cache.keys() == []


async def test_langchain_models_without_http_are_recorded_at_their_own_door(path, cache):
    set_llm_cache(LangChainCache(cache))
    try:
        with replay(path):
            first = await FakeListChatModel(responses=["one"]).ainvoke("Hi")
        with replay(path, "replay"):
            again = FakeListChatModel(responses=["one"]).invoke("Hi")
        assert again.content == first.content == "one"
    finally:
        set_llm_cache(None)


def test_embeddings_of_langchain_are_recorded_item_by_item(path, cache):
    model = CachedEmbeddings(DeterministicFakeEmbedding(size=3), cache, model="fake")
    with replay(path):
        first = model.embed_documents(["a", "b"])
    with replay(path, "replay"):
        assert model.embed_documents(["b", "a"]) == first[::-1]
    with pytest.raises(OfflineMiss, match="kind changed"), replay(path, "replay"):
        model.embed_query("a")


def test_what_a_model_asks_on_its_way_is_recorded_with_its_answer_and_not_beside_it(provider, path, cache):
    beneath = OpenAIEmbeddings(
        base_url=provider.base_url, api_key=KEY, model="m", check_embedding_ctx_length=False, max_retries=0
    )
    model = CachedEmbeddings(beneath, cache)
    for mode in ("record", "replay"):
        with replay(path, mode) as recording:
            assert len(model.embed_documents(["a", "b"])) == 2
        assert len(recording) == 2
        assert recording.unused == ()
    assert provider.calls == 1


def test_an_sdk_that_is_imported_in_the_block_is_served_undisguised(tmp_path):
    code = f"""
import sys
from askonce import OfflineMiss, replay
try:
    with replay({str(tmp_path / "a.json")!r}, "replay"):
        assert "openai" not in sys.modules
        import openai
        try:
            openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k").chat.completions.create(
                model="m", messages=[{{"role": "user", "content": "Hi"}}])
        except OfflineMiss as miss:
            raise
except OfflineMiss as miss:
    assert isinstance(miss, openai.OpenAIError), "the error of the SDK's own door"
    print("served")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "served\n", done.stderr


# -- order and concurrency -----------------------------------------------------------------------

TEXTS = [f"question {number}" for number in range(6)]


@pytest.fixture(scope="module")
def recorded(running_provider, tmp_path_factory):
    """A file with an answer, a stream and a vector for each text, and what they were."""
    path = tmp_path_factory.mktemp("recorded") / "answers.json"
    client = openai.OpenAI(base_url=running_provider.base_url, api_key=KEY, max_retries=0)
    with replay(path):
        answers = {(kind, text): ASKS[kind](client, text) for text in TEXTS for kind in ASKS}
    client.close()
    return path, answers, running_provider.base_url


ASKS = {
    "chat": lambda client, text: client.chat.completions.create(**question(text)),
    "stream": lambda client, text: list(client.chat.completions.create(**question(text), stream=True)),
    "vector": lambda client, text: client.embeddings.create(model="m", input=text).data[0].embedding,
}

shuffled = st.lists(st.tuples(st.sampled_from(list(ASKS)), st.sampled_from(TEXTS)), min_size=1, max_size=20)
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore:.*recordings not used:UserWarning")
@quick
@given(calls=shuffled, workers=st.integers(1, 8))
def test_threads_in_any_order_get_the_answers_to_their_own_asks(recorded, calls, workers):
    path, answers, base_url = recorded
    with (
        openai.OpenAI(base_url=base_url, api_key="another key", max_retries=0) as client,
        replay(path, "replay") as recording,
        ThreadPoolExecutor(workers) as pool,
    ):
        found = list(pool.map(lambda call: ASKS[call[0]](client, call[1]), calls))
        left = set(recording.unused)
    assert found == [answers[call] for call in calls]
    assert len(left) == len(answers) - len(set(calls))


@pytest.mark.filterwarnings("ignore:.*recordings not used:UserWarning")
@quick
@given(calls=shuffled)
def test_tasks_in_any_order_get_the_answers_to_their_own_asks(recorded, calls):
    path, answers, base_url = recorded

    async def ask(client, kind, text):
        if kind == "chat":
            return await client.chat.completions.create(**question(text))
        if kind == "stream":
            stream = await client.chat.completions.create(**question(text), stream=True)
            return [event async for event in stream]
        return (await client.embeddings.create(model="m", input=text)).data[0].embedding

    async def main():
        client = openai.AsyncOpenAI(base_url=base_url, api_key="another key", max_retries=0)
        async with client, replay(path, "replay"):
            return await asyncio.gather(*(ask(client, *call) for call in calls))

    assert asyncio.run(main()) == [answers[call] for call in calls]


def test_the_file_is_the_same_in_whatever_order_it_was_recorded(client, provider, tmp_path):
    """But for what the provider says anew each time."""

    def shape(path):
        said = json.loads(path.read_text())["recordings"]
        return [(one["key"], one["request"]) for one in said]

    for name, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        with replay(tmp_path / name), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda text: client.chat.completions.create(**question(text)), texts))
    assert shape(tmp_path / "a") == shape(tmp_path / "b")


def test_a_repeated_ask_has_one_answer_and_samples_have_their_own(ask, provider, path):
    def asks():
        found = [ask(), ask()]
        for number in (1, 2):
            with using(sample=number):
                found.append(ask())
        return [one["id"] for one in found]

    with replay(path):
        first = asks()
    assert first[0] == first[1]
    assert len(set(first)) == provider.calls == 3
    with replay(path, "replay"):
        assert asks() == first


def test_asks_at_one_time_are_recorded_once(client, provider, path):
    ready = threading.Barrier(8)

    def ask(_):
        ready.wait()
        return client.chat.completions.create(**question()).id

    with replay(path), ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert provider.calls == 1


# -- the block -----------------------------------------------------------------------------------


def test_auto_replays_what_is_there_and_records_what_is_missing(ask, provider, path):
    with replay(path):
        first = ask("one")
    before = path.read_bytes()
    with replay(path) as recording:
        assert ask("one") == first
    assert path.read_bytes() == before
    assert recording.new == 0
    with replay(path):
        assert ask("one") == first
        second = ask("two")
    with replay(path, "replay"):
        assert (ask("one"), ask("two")) == (first, second)
    assert provider.calls == 2


def test_unused_recordings_are_told(ask, path):
    with replay(path):
        ask("one")
        ask("two")
    told = pytest.warns(UserWarning, match=r"answers\.json: recordings not used: chat gpt-4o default:")
    with told, replay(path, "replay") as recording:
        ask("one")
    assert len(recording.unused) == 1


def test_what_the_provider_refused_is_not_recorded_and_is_told(client, provider, path):
    from askonce.testing._provider import Fault

    provider.script(Fault(status=400))
    told = pytest.warns(UserWarning, match="asks not recorded: chat gpt-4o: status 400")
    with told, replay(path), pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**question())
    assert not path.exists()


def test_a_refused_call_that_was_asked_again_is_no_trouble(provider, path):
    from askonce.testing._provider import Fault

    provider.script(Fault(status=429, retry_after=0.01))
    with openai.OpenAI(base_url=provider.base_url, api_key=KEY) as client, replay(path) as recording:
        client.chat.completions.create(**question())
    assert recording.not_recorded == ()
    assert len(recording) == 1


def test_functions_and_coroutine_functions_can_be_decorated(client, aclient, provider, path):
    @replay(path)
    def ask(text, *, more=1):
        """Says so."""
        return client.chat.completions.create(**question(text)).id

    @replay(path, mode="replay")
    async def aask(text):
        return (await aclient.chat.completions.create(**question(text))).id

    assert (ask.__name__, ask.__doc__) == ("ask", "Says so.")
    first = ask("Hi", more=2)
    assert ask("Hi") == first
    assert asyncio.iscoroutinefunction(aask)
    assert asyncio.run(aask("Hi")) == first
    assert provider.calls == 1
    with pytest.raises(OfflineMiss):
        asyncio.run(aask("Another?"))


def test_generators_cannot_be_decorated(path):
    def numbers():
        yield 1

    async def anumbers():
        yield 1

    for function in (numbers, anumbers):
        with pytest.raises(ConfigurationError, match="inside the generator"):
            replay(path)(function)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("a.json", "offline"), "mode='offline'.*'auto', 'record', 'replay'"), (("",), "path"), ((5,), "path")],
)
def test_a_bad_argument_is_an_error_at_once(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        replay(*arguments)


def test_a_block_is_entered_once_at_a_time(path):
    block = replay(path)
    with block, pytest.raises(ConfigurationError, match="open already"), block:
        pass
    with block:
        pass


def test_a_damaged_file_opens_nothing(path, client):
    path.write_text("{}")
    before = methods()
    with pytest.raises(ConfigurationError, match=r"answers\.json"), replay(path):
        pytest.fail("entered")
    assert all(one is other for one, other in zip(before, methods(), strict=True))


def test_a_block_that_asks_nothing_writes_nothing(path):
    for mode in ("auto", "record", "replay"):
        with replay(path, mode):
            pass
    assert not path.exists()


def test_enabling_and_disabling_inside_a_block_keeps_the_block(client, provider, path):
    with Cache("memory://") as cache, replay(path) as recording:
        askonce_openai.enable_cache(cache)
        askonce_httpx.enable_cache(cache, hosts=["127.0.0.1"])
        client.chat.completions.create(**question())
        askonce_openai.disable_cache()
        askonce_httpx.disable_cache()
        client.chat.completions.create(**question("Two?"))
        assert cache.keys() == []
    assert len(recording) == 2


def test_outcomes_of_a_block_are_told_to_trackers_around_it(client, path):
    with track() as outcomes, replay(path):
        client.chat.completions.create(**question())
        client.chat.completions.create(**question())
    assert [(one.status, one.tier) for one in outcomes] == [("miss", ""), ("hit", "recording")]


# -- secrets -------------------------------------------------------------------------------------


def test_no_credential_is_in_any_file(provider, tmp_path):
    """Of headers, queries and cookies; also where a prompt or an answer repeats it."""
    gemini = {"contents": [{"role": "user", "parts": [{"text": f"My key is {KEY}"}]}]}
    with httpx.Client(verify=False, base_url=provider.url) as raw, replay(tmp_path / "a.json") as recording:
        raw.post("/v1/chat/completions", json=question("one"), headers={"authorization": f"Bearer {KEY}"})
        raw.post("/v1/chat/completions", json=question("two"), headers={"x-api-key": KEY})
        raw.post("/v1/chat/completions", json=question("three"), headers={"cookie": f"session={KEY}"})
        raw.post(f"/v1/chat/completions?api-key={KEY}", json=question("four"))
        raw.post(f"/v1beta/models/gemini-pro:generateContent?key={KEY}", json=gemini)
    assert len(recording) == 5
    content = (tmp_path / "a.json").read_text()
    assert KEY not in content
    assert "My key is ***" in content
    assert "cookie" not in content.lower()


@pytest.mark.parametrize("where", ["body", "header"])
def test_an_answer_that_repeats_the_credential_is_not_recorded(path, where):
    said = {"choices": [{"message": {"content": KEY if where == "body" else "x"}, "finish_reason": "stop"}]}
    headers = {"openai-organization": KEY} if where == "header" else {}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=said, headers=headers))
    client = httpx.Client(transport=transport, headers={"authorization": f"Bearer {KEY}"})
    told = pytest.warns(UserWarning, match="holds the caller's credential")
    with client, told, replay(path):
        client.post("http://model/v1/chat/completions", json=question())
    assert not path.exists() or KEY not in path.read_text()


def test_cookies_and_limits_of_answers_are_not_recorded(path):
    said = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    headers = {"set-cookie": "a=b", "x-ratelimit-remaining": "1", "retry-after": "1", "x-request-id": "r"}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=said, headers=headers))
    with httpx.Client(transport=transport) as client, replay(path):
        client.post("http://model/v1/chat/completions", json=question())
    content = path.read_text()
    assert "x-request-id: r" in content
    assert not any(word in content for word in ("set-cookie", "ratelimit", "retry-after"))


def test_nobodys_text_is_in_a_repr(ask, path):
    with replay(path) as recording:
        ask("a private question")
    assert repr(recording) == f"<Recording {path}, auto, 1 answers>"
    assert askonce.replay is replay
