"""What other caches get wrong; each test is named after what it prevents."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from askonce import Cache, Policy, track, using
from askonce.stores.memory import MemoryStore
from askonce.testing import FakeProvider, FlakyStore, ManualClock
from askonce.testing._provider import Fault
from askonce_openai import disable_cache, enable_cache

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def provider():
    with FakeProvider() as running:
        yield running


@pytest.fixture
def cached(provider):
    """Makes clients under a cache, and takes everything down again."""
    made = []

    def make(cache=None, *, kind=openai.OpenAI, api_key="sk-test", **options):
        cache = cache or Cache("memory://")
        asynchronous = issubclass(kind, openai.AsyncOpenAI)
        family = openai.DefaultAsyncHttpxClient if asynchronous else openai.DefaultHttpxClient
        where = (
            {"azure_endpoint": provider.url} if "Azure" in kind.__name__ else {"base_url": provider.base_url}
        )
        options = {"max_retries": 0} | where | options
        client = kind(api_key=api_key, http_client=family(verify=False, timeout=10), **options)
        enable_cache(cache, client=client)
        made.append((client, cache))
        return client

    yield make
    for client, cache in made:
        disable_cache(client=client)
        if isinstance(client, openai.OpenAI):
            client.close()  # async ones are closed on the loop they were used on, by `on_a_loop`
        cache.close()


def on_a_loop(client, work):
    """Run `work()` on an event loop of its own, and close the async client there."""

    async def run():
        async with client:
            return await work()

    return asyncio.run(run())


def ask(client, content="hello", **options):
    return client.chat.completions.create(
        **{"model": "gpt-4o", "messages": [{"role": "user", "content": content}]} | options
    )


def said(answer):
    return answer.choices[0].message.content


# -- the key ---------------------------------------------------------------------------------------


def test_extra_body_is_part_of_the_key(cached, provider):
    client = cached()
    for top_k in (1, 2, 1, "1"):
        ask(client, extra_body={"top_k": top_k})
    assert provider.calls == 3


def test_extra_query_and_beta_headers_are_part_of_the_key(cached, provider):
    client = cached()
    for options in (
        {},
        {"extra_query": {"v": "1"}},
        {"extra_query": {"v": "2"}},
        {"extra_headers": {"OpenAI-Beta": "x"}},
    ):
        ask(client, **options)
        ask(client, **options)
    assert provider.calls == 4


def test_base_url_is_part_of_the_key(cached, provider):
    cache = Cache("memory://")
    one = cached(cache)
    other = cached(cache, base_url=f"{provider.url}/openai/v1")
    assert said(ask(one)) != said(ask(other))
    assert provider.calls == 2


def test_order_of_keywords_and_fields_does_not_matter(cached, provider):
    client = cached()
    client.chat.completions.create(
        model="m", temperature=0, messages=[{"role": "user", "content": "x"}], logit_bias={"1": 1, "2": 2}
    )
    client.chat.completions.create(
        logit_bias={"2": 2, "1": 1}, messages=[{"content": "x", "role": "user"}], temperature=0.0, model="m"
    )
    assert provider.calls == 1


def test_fields_are_not_run_together_in_the_key(cached, provider):
    client = cached(Cache("memory://", policy=Policy(ignore_fields=())))
    ask(client, user="xtemperature: 0.5")
    ask(client, user="x", temperature=0.5)
    ask(client, stop="1")
    ask(client, extra_body={"stop": 1})
    ask(client, stop=["1"])
    assert provider.calls == 5


def test_earlier_messages_are_part_of_the_key(cached, provider):
    client = cached()
    for first in ("a", "b"):
        turns = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "last"},
        ]
        ask(client, messages=turns)
    assert provider.calls == 2


def test_two_audio_files_of_one_name_do_not_share_an_answer(cached, provider):
    client = cached()
    texts = [
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", content)).text
        for content in (b"one", b"two", b"one")
    ]
    assert texts[0] == texts[2] != texts[1]
    assert provider.calls == 2


def test_two_schemas_of_one_name_do_not_share_an_answer(cached, provider):
    client = cached()

    def model(**fields):
        return type("Answer", (BaseModel,), {"__annotations__": fields})

    one, other = model(text=str), model(number=int)
    found = [
        client.chat.completions.parse(model="m", messages=MESSAGES, response_format=kind)
        for kind in (one, other, one)
    ]
    assert provider.calls == 2
    assert isinstance(found[1].choices[0].message.parsed, other)
    assert isinstance(found[2].choices[0].message.parsed, one)


def test_seeds_beyond_64_bits_do_not_share_an_answer(cached, provider):
    client = cached()
    for seed in (2**64, 2**64 + 1):
        ask(client, seed=seed)
    assert provider.calls == 2


def test_two_samples_are_two_answers_each_kept(cached, provider):
    client, answers = cached(), []
    for sample in (0, 1, 0, 1):
        with using(sample=sample):
            answers.append(said(ask(client)))
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1]


def test_tenants_do_not_read_each_others_answers(cached, provider):
    cache = Cache("memory://", scope="credential")
    one, other = cached(cache, api_key="sk-one"), cached(cache, api_key="sk-two")
    assert said(ask(one)) != said(ask(other))
    assert said(ask(one.with_options(api_key="sk-two"))) == said(ask(other))
    assert provider.calls == 2


def test_tenants_named_by_a_block_do_not_read_each_others_answers(cached, provider):
    client, answers = cached(), []
    for tenant in ("a", "b", "a"):
        with using(scope=tenant):
            answers.append(said(ask(client)))
    assert answers[0] == answers[2] != answers[1]


def test_tenants_share_no_running_call(cached, provider):
    client = cached()

    def call(tenant):
        with using(scope=tenant):
            return said(ask(client))

    provider.hold()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, tenant) for tenant in "abab"]
        provider.wait_for_calls(2)
        time.sleep(0.05)
        provider.release()
        found = [call.result() for call in calls]
    assert found[:2] == found[2:]
    assert found[0] != found[1]
    assert provider.calls == 2


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(finish_reason="length"),
        Fault(finish_reason="content_filter"),
        Fault(refusal=True),
        Fault(empty=True),
        Fault(error_body=True),
    ],
    ids=["truncated", "filtered", "refused", "empty", "error"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_truncated_filtered_refused_empty_and_error_answers_are_not_cached(cached, provider, fault, stream):
    client = cached()
    provider.script(fault)
    for _ in range(3):
        try:
            answer = ask(client, stream=stream)
            if stream:
                list(answer)
        except openai.OpenAIError:
            pass
    assert provider.calls == 2


def test_a_429_is_never_replayed(cached, provider):
    client = cached()
    provider.script(Fault(status=429), Fault(status=500), Fault(status=401), Fault(status=400))
    for kind in (
        openai.RateLimitError,
        openai.InternalServerError,
        openai.AuthenticationError,
        openai.BadRequestError,
    ):
        with pytest.raises(kind):
            ask(client)
    assert ask(client).id == ask(client).id
    assert provider.calls == 5


def test_a_login_page_with_status_200_is_not_cached(cached, provider):
    client = cached()
    provider.script(Fault(headers=(("content-type", "text/html"),), reply="<html>Sign in</html>"))
    for _ in range(2):
        ask(client)
    assert provider.calls == 2


def test_retries_of_the_sdk_go_on_above_the_cache(cached, provider):
    client = cached(max_retries=2)
    provider.script(Fault(status=429, retry_after=0.01), Fault(status=503, retry_after=0.01))
    assert said(ask(client)) == said(ask(client))
    assert provider.calls == 3


def test_a_cut_stream_is_not_cached(cached, provider):
    client = cached()
    provider.script(Fault(cut_after=2), Fault(silent_end_after=2), Fault(error_event_after=2))
    for _ in range(5):
        try:
            list(ask(client, stream=True))
        except Exception as error:
            assert "askonce" not in type(error).__module__  # noqa: PT017
    assert provider.calls == 4


def test_a_half_read_stream_is_not_cached(cached, provider):
    client = cached()
    with ask(client, stream=True) as stream:
        next(iter(stream))
    list(ask(client, stream=True))
    list(ask(client, stream=True))
    assert provider.calls == 2


def test_a_live_stream_object_is_never_cached(cached, provider):
    client = cached()
    streams = [ask(client, stream=True) for _ in range(1)]
    texts = ["".join(chunk.choices[0].delta.content or "" for chunk in streams[0] if chunk.choices)]
    for _ in range(3):
        again = ask(client, stream=True)
        assert again is not streams[0]
        texts.append("".join(chunk.choices[0].delta.content or "" for chunk in again if chunk.choices))
    assert len(set(texts)) == 1
    assert texts[0]
    assert provider.calls == 1


def test_a_sync_stream_is_cached_although_the_sdk_stops_reading_at_done(cached, provider):
    client = cached()
    for _ in range(5):
        for _chunk in ask(client, stream=True):
            pass
    assert provider.calls == 1


def test_a_replayed_stream_does_not_dawdle(cached, provider):
    client = cached()
    provider.always(Fault(chunk_delay=0.02, reply="word " * 30))
    list(ask(client, stream=True))
    before = time.perf_counter()
    list(ask(client, stream=True))
    assert time.perf_counter() - before < 0.3


def test_long_conversations_are_cached(cached, provider):
    client = cached()
    turns = [{"role": ("user", "assistant")[turn % 2], "content": f"turn {turn}"} for turn in range(101)]
    assert said(ask(client, messages=turns)) == said(ask(client, messages=turns))
    assert provider.calls == 1


def test_tool_calls_are_kept(cached, provider):
    client = cached()
    tools = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
    first, second = (ask(client, "use a tool", tools=tools) for _ in range(2))
    assert first.choices[0].message.tool_calls
    assert first.model_dump() == second.model_dump()
    assert provider.calls == 1


def test_all_choices_are_kept(cached, provider):
    client = cached()
    first, second = (ask(client, n=3) for _ in range(2))
    assert len(second.choices) == 3
    assert first.model_dump() == second.model_dump()


def test_an_answer_with_a_detail_field_is_returned_as_the_sdk_type(cached, provider):
    client = cached()
    provider.always(Fault(reply='{"detail": "not an error"}'))
    for _ in range(2):
        answer = ask(client)
        assert type(answer) is ChatCompletion
        assert said(answer) == '{"detail": "not an error"}'
    assert provider.calls == 1


def test_changing_a_hit_changes_no_later_hit(cached, provider):
    client = cached()
    original = ask(client).model_dump()
    for _ in range(2):
        answer = ask(client)
        assert answer.model_dump() == original
        answer.choices[0].message.content = "changed"
        answer.choices.clear()
        answer.usage.prompt_tokens = 0


# -- embeddings ------------------------------------------------------------------------------------


def embed(client, texts, **options):
    return client.embeddings.create(model="text-embedding-3-small", input=texts, dimensions=8, **options)


def vectors(answer):
    return [
        pytest.approx(item.embedding, abs=1e-6) for item in sorted(answer.data, key=lambda item: item.index)
    ]


def test_sync_embeddings_after_async_ones_work(cached, provider):
    cache = Cache("memory://")
    sync, asynchronous = cached(cache), cached(cache, kind=openai.AsyncOpenAI)

    async def first():
        return await embed(asynchronous, ["a", "b"])

    one, other = on_a_loop(asynchronous, first), embed(sync, ["a", "b"])
    assert type(other) is CreateEmbeddingResponse
    assert one.model_dump() == other.model_dump()
    assert provider.calls == 1


def test_embeddings_are_the_right_vectors_in_the_right_order(cached, provider):
    client = cached()
    for texts in (["a", "b"], ["b", "a"], ["a"], ["a", "c", "b"], ["a", "b"]):
        found = embed(client, texts)
        assert [item.embedding for item in found.data] == [
            pytest.approx(provider.embedding_of(text, dimensions=8), abs=1e-6) for text in texts
        ]
    assert provider.calls == 2  # a and b, then c: each input once


def test_float_and_base64_embeddings_are_not_mixed_up(cached, provider):
    client = cached()
    expected = pytest.approx(provider.embedding_of("a", dimensions=8), abs=1e-6)
    for _ in range(2):
        assert embed(client, "a").data[0].embedding == expected
        assert embed(client, "a", encoding_format="float").data[0].embedding == expected
        raw = embed(client, "a", encoding_format="base64").data[0].embedding
        assert list(struct.unpack("<8f", base64.b64decode(raw)) if isinstance(raw, str) else raw) == expected


# -- together --------------------------------------------------------------------------------------


def test_thirty_identical_calls_are_one_upstream_call(cached, provider):
    client = cached()
    provider.always(Fault(delay=0.2))
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: said(ask(client)), range(30)))
    assert len(set(answers)) == 1
    assert provider.calls == 1


def test_thirty_identical_tasks_are_one_upstream_call(cached, provider):
    client = cached(kind=openai.AsyncOpenAI)
    provider.always(Fault(delay=0.2))

    async def together():
        return await asyncio.gather(*(ask(client) for _ in range(30)))

    assert len({said(answer) for answer in on_a_loop(client, together)}) == 1
    assert provider.calls == 1


def test_cancelling_one_waiter_cancels_nobody_else(cached, provider):
    client = cached(kind=openai.AsyncOpenAI)

    async def together():
        tasks = [asyncio.create_task(ask(client)) for _ in range(5)]
        await asyncio.sleep(0.2)
        tasks[2].cancel()
        await asyncio.sleep(0.05)
        provider.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    provider.hold()
    found = on_a_loop(client, together)
    assert isinstance(found[2], asyncio.CancelledError)
    assert len({said(answer) for place, answer in enumerate(found) if place != 2}) == 1
    assert provider.calls <= 2


def test_what_cannot_be_kept_is_not_asked_one_after_the_other(cached, provider):
    client = cached()
    provider.always(Fault(delay=0.15, finish_reason="length"))
    started = time.perf_counter()
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: ask(client), range(12)))
    assert time.perf_counter() - started < 12 * 0.15


# -- time ------------------------------------------------------------------------------------------


def seconds_left(store, key, clock):
    return store.get(key).expires_at - clock()


def test_backfill_keeps_the_remaining_life(cached, provider):
    clock = ManualClock()
    front, back = MemoryStore(clock=clock), MemoryStore(clock=clock)
    cache = Cache([front, back], policy=Policy(ttl=100, jitter=0), clock=clock)
    client = cached(cache)
    with track() as outcomes:
        ask(client)
        key = outcomes[0].key
        clock.advance(98.6)
        front.delete(key)
        ask(client)
        assert outcomes[-1].status == "hit"
        assert seconds_left(front, key, clock) == pytest.approx(1.4)
        clock.advance(1.5)
        ask(client)
    assert [outcome.status for outcome in outcomes] == ["miss", "hit", "miss"]


def test_reset_replaces_the_expiry(cached, provider):
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    client = cached(Cache(store, policy=Policy(ttl=10, jitter=0), clock=clock))
    with track() as outcomes:
        ask(client)
        with using(refresh=True, ttl=1000):
            ask(client)
        clock.advance(500)
        ask(client)
        with using(refresh=True, ttl=1):
            ask(client)
        clock.advance(2)
        ask(client)
    assert [outcome.status for outcome in outcomes] == ["miss", "miss", "hit", "miss", "miss"]


def test_a_hit_never_extends_a_life(cached, provider):
    clock = ManualClock()
    client = cached(Cache("memory://", policy=Policy(ttl=10, jitter=0), clock=clock))
    with track() as outcomes:
        for _ in range(5):
            ask(client)
            clock.advance(3)
    assert [outcome.status for outcome in outcomes] == ["miss", "hit", "hit", "hit", "miss"]


# -- housekeeping ----------------------------------------------------------------------------------


def test_delete_leaves_no_copy_in_memory(cached, provider, tmp_path):
    cache = Cache(["memory://", f"disk://{tmp_path}"])
    client = cached(cache)
    with track() as outcomes:
        ask(client)
        assert cache.delete(outcomes[0].key) is True
        assert cache.delete(outcomes[0].key) is False
        ask(client)
    assert [outcome.status for outcome in outcomes] == ["miss", "miss"]


def test_clear_leaves_other_namespaces_alone(cached, provider, tmp_path):
    store = f"disk://{tmp_path}"
    one, other, third = (Cache(["memory://", store], namespace=name) for name in ("app", "app2", "ap"))
    clients = [cached(cache) for cache in (one, other, third)]
    for client in clients:
        ask(client)
    assert one.clear() > 0
    assert list(one.entries()) == []
    assert len(list(other.entries())) == len(list(third.entries())) == 1
    for client in clients:
        ask(client)
    assert provider.calls == 4


def test_tags_models_ages_and_urls_can_be_removed(cached, provider):
    clock = ManualClock()
    cache = Cache("memory://", clock=clock)
    client = cached(cache)
    with using(tags=["a"]):
        ask(client, "1")
    clock.advance(100)
    ask(client, "2")
    ask(client, "3", model="gpt-4o-mini")
    embed(client, "x")
    assert cache.invalidate(tag="nobody's") == 0
    assert cache.invalidate(older_than=50, tag="a") == 1
    assert cache.invalidate(model="gpt-4o-*") == 1
    assert cache.invalidate(url="*/embeddings") == 1
    assert [entry.meta.model for _, entry in cache.entries()] == ["gpt-4o"]


def test_there_are_figures(cached, provider):
    cache = Cache("memory://")
    client = cached(cache)
    ask(client)
    spent = cache.stats()
    ask(client)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.hit_rate) == (1, 1, 0.5)
    assert (
        stats.tokens_saved
        == sum(spent.usage_spent.get(name, 0) for name in ("prompt_tokens", "completion_tokens"))
        > 0
    )
    assert stats.usage_spent == spent.usage_spent


def test_a_miss_can_be_explained(cached, provider):
    cache = Cache("memory://")
    client = cached(cache)
    ask(client, temperature=0)
    with using(mode="offline"), pytest.raises(openai.OpenAIError, match=r"temperature 0 -> 0.7"):
        ask(client, temperature=0.7)
    assert provider.calls == 1


# -- trouble ---------------------------------------------------------------------------------------


def test_a_denied_store_costs_nobody_an_answer_and_is_not_silent(cached, provider):
    store = FlakyStore(MemoryStore())
    store.fail_with(PermissionError("AccessDenied"), operations=["get", "set", "delete"])
    cache = Cache(store)
    client = cached(cache)
    assert said(ask(client))
    assert said(ask(client))
    assert sum(cache.stats().store_errors.values()) > 0


def test_a_changed_byte_is_a_miss_and_not_a_wrong_answer(cached, provider):
    store = FlakyStore(MemoryStore())
    cache = Cache(store)
    client = cached(cache)
    first = said(ask(client))
    for damage in ("flipped", "truncated", "garbage", "empty"):
        store.spoil(damage)
        assert said(ask(client)) != first
        store.recover()
    assert cache.stats().corrupt == 4
    assert provider.calls == 5


def test_the_first_hit_of_a_stream_needs_nothing_that_is_not_installed(cached, provider):
    client = cached()
    list(ask(client, stream=True))
    modules = set(sys.modules)
    list(ask(client, stream=True))
    assert {name.partition(".")[0] for name in set(sys.modules) - modules} <= {
        "askonce",
        "askonce_openai",
        "encodings",
        "compression",
        "backports",
    }


def test_another_process_hits_what_this_one_stored(cached, provider, tmp_path):
    client = cached(Cache(f"disk://{tmp_path}"))
    first = said(ask(client))
    program = (
        "import sys, openai, json; from askonce import Cache; from askonce_openai import enable_cache;"
        "enable_cache(Cache('disk://' + sys.argv[1]));"
        "c = openai.OpenAI(base_url=sys.argv[2], api_key='sk-other');"
        "a = c.chat.completions.create(messages=[{'content': 'hello', 'role': 'user'}], model='gpt-4o');"
        "print(json.dumps(a.choices[0].message.content))"
    )
    import askonce
    import askonce_openai

    roots = ":".join(module.__file__.rsplit("/", 2)[0] for module in (askonce, askonce_openai))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), provider.base_url],
        env={"PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == first
    assert provider.calls == 1


def test_threads_that_follow_are_never_left_waiting(cached, provider):
    client = cached()
    provider.script(*[Fault(disconnect=True, delay=0.05) for _ in range(3)])
    results = []

    def call():
        try:
            results.append(said(ask(client)))
        except openai.APIConnectionError:
            results.append(None)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(results) == 12
    assert any(results)
