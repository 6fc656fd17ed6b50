"""What callers say about their calls, and what they are told about them."""

# ruff: noqa: PLR0917 - fixtures are asked for by name

from __future__ import annotations

import asyncio
import contextlib
import threading

import openai
import pytest

from askonce import (
    AskOnceError,
    Cache,
    ConfigurationError,
    OfflineMiss,
    Policy,
    Rule,
    track,
    using,
)
from askonce.testing import ManualClock

MESSAGES = [{"role": "user", "content": "hello"}]


def ask(client, **more):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES} | more)


def raw(client, **more):
    return client.chat.completions.with_raw_response.create(**{"model": "m", "messages": MESSAGES} | more)


def control(said):
    return {"extra_headers": {"Cache-Control": said}}


# -- Cache-Control ----------------------------------------------------------------------------------


async def test_no_cache_asks_the_provider_and_stores_the_new_answer(side, provider, client):
    first = await side.get(ask(client))
    second = await side.get(ask(client, **control("no-cache")))
    third = await side.get(ask(client))
    assert first.id != second.id == third.id
    assert provider.calls == 2


async def test_no_store_reads_but_stores_nothing(side, provider, client, enabled):
    await side.get(ask(client, **control("no-store")))
    assert enabled.stats().stored == 0
    first = await side.get(ask(client))
    assert (await side.get(ask(client, **control("no-store")))).id == first.id
    assert provider.calls == 2


async def test_max_age_zero_asks_again(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    with Cache("memory://", clock=clock) as cache:
        enable(cache)
        first = await side.get(ask(client))
        clock.advance(0.001)
        second = await side.get(ask(client, **control("max-age=0")))
        assert second.id != first.id
        assert (await side.get(ask(client))).id == second.id
    assert provider.calls == 2


async def test_max_age_bounds_the_age_of_a_hit(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    with Cache("memory://", clock=clock) as cache:
        enable(cache)
        await side.get(ask(client))
        clock.advance(30)
        await side.get(ask(client, **control("max-age=60")))
        assert provider.calls == 1
        await side.get(ask(client, **control("max-age=20")))
        assert provider.calls == 2


async def test_only_if_cached_gives_what_is_there(side, provider, client):
    first = await side.get(ask(client))
    assert (await side.get(ask(client, **control("only-if-cached")))).id == first.id
    assert provider.calls == 1


@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_only_if_cached_never_asks_and_says_what_differs(side, provider, enabled, max_retries, stream):
    client = side.client(provider.base_url, max_retries=max_retries)
    await side.all(ask(client, temperature=0, stream=True))
    await side.get(ask(client, temperature=0))
    with pytest.raises(OfflineMiss) as raised:
        await side.get(ask(client, temperature=0.7, stream=stream, **control("only-if-cached")))
    error = raised.value
    assert isinstance(error, openai.OpenAIError)
    assert isinstance(error, AskOnceError)
    assert not isinstance(error, openai.APIConnectionError)
    assert any("temperature" in part and "0.7" in part for part in error.differences)
    assert "temperature" in str(error)
    assert error.key.startswith("default:")
    assert "hello" not in str(error)
    assert provider.calls == 2


async def test_an_offline_miss_with_nothing_near_says_so(side, provider, client):
    with pytest.raises(OfflineMiss, match="nothing near") as raised:
        await side.get(ask(client, **control("only-if-cached")))
    assert raised.value.differences == ()
    assert provider.calls == 0


@pytest.mark.parametrize(
    "said",
    ["max-age=soon", "max-age", "max-age=-1", "max-age=1.5", "stale-if-error=x", "no-cache, max-age=0x10"],
)
async def test_a_bad_directive_is_a_configuration_error_and_never_sent(side, provider, enabled, said):
    client = side.client(provider.base_url, max_retries=3)
    with pytest.raises(ConfigurationError, match="Cache-Control") as raised:
        await side.get(ask(client, **control(said)))
    assert isinstance(raised.value, openai.OpenAIError)
    assert isinstance(raised.value, ValueError)
    assert "allowed" in str(raised.value)
    assert provider.calls == 0


@pytest.mark.parametrize("said", ["", "no-transform", "public, foo=bar", 'max-age="60"', "NO-TRANSFORM ,,"])
async def test_directives_that_do_not_concern_a_cache_change_nothing(side, provider, client, said):
    await side.get(ask(client, **control(said)))
    await side.get(ask(client, **control(said)))
    await side.get(ask(client))
    assert provider.calls == 1


async def test_a_default_header_controls_every_call_of_its_client(side, provider, enabled):
    client = side.client(provider.base_url, default_headers={"Cache-Control": "no-store"})
    await side.get(ask(client))
    await side.get(ask(client))
    assert (provider.calls, enabled.stats().stored) == (2, 0)


async def test_the_header_of_a_call_goes_before_the_block_around_it(side, provider, client):
    first = await side.get(ask(client))
    with using(refresh=True, mode="on"):
        assert (await side.get(ask(client, **control("only-if-cached")))).id == first.id
    assert provider.calls == 1


@pytest.mark.parametrize("by", ["header", "policy"])
async def test_stale_if_error_gives_the_old_answer_when_the_provider_fails(side, provider, enable, by):
    from askonce.testing._provider import Fault

    clock = ManualClock()
    client = side.client(provider.base_url)
    policy = Policy(ttl=60, jitter=0, stale_if_error=600)
    with Cache("memory://", policy=policy, clock=clock) as cache:
        enable(cache)
        first = await side.get(ask(client))
        clock.advance(100)
        provider.script(Fault(status=500))
        said = {} if by == "policy" else control("stale-if-error=300")
        with track() as outcomes:
            again = await side.get(raw(client, **said))
        assert again.parse().id == first.id
        assert [outcome.status for outcome in outcomes] == ["stale"]
        assert again.headers["cache-status"].startswith("askonce; hit; ttl=-40")
        provider.script(Fault(status=500))
        with pytest.raises(openai.InternalServerError):
            await side.get(ask(client, **control("stale-if-error=10")))
    assert provider.calls == 3


async def test_stale_while_revalidate_gives_the_old_answer_and_fetches_a_new_one(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    policy = Policy(ttl=60, jitter=0, stale_while_revalidate=600)
    with Cache("memory://", policy=policy, clock=clock) as cache:
        enable(cache)
        stored = asyncio.Event()
        loop = asyncio.get_running_loop()
        first = await side.get(ask(client))
        cache.subscribe(
            lambda event: loop.call_soon_threadsafe(stored.set) if hasattr(event, "size") else None
        )
        clock.advance(100)
        assert (await side.get(ask(client))).id == first.id
        await asyncio.wait_for(stored.wait(), 5)
        fresh = await side.get(ask(client))
        assert fresh.id != first.id
        assert cache.stats().refreshes == 1
    assert provider.calls == 2


# -- using() ----------------------------------------------------------------------------------------


async def test_using_ttl_gives_new_answers_another_life(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    with Cache("memory://", ttl=10, clock=clock) as cache:
        enable(cache)
        with using(ttl="1h"):
            await side.get(ask(client))
        clock.advance(3000)
        await side.get(ask(client))
        assert provider.calls == 1
        clock.advance(1000)
        await side.get(ask(client))
        assert provider.calls == 2


async def test_using_ttl_none_keeps_for_ever(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    with Cache("memory://", ttl=10, clock=clock) as cache:
        enable(cache)
        with using(ttl=None):
            await side.get(ask(client))
        clock.advance(10**9)
        response = await side.get(raw(client))
        assert "ttl" not in response.headers["cache-status"]
    assert provider.calls == 1


async def test_using_ttl_zero_stores_nothing(side, provider, client, enabled):
    with using(ttl=0):
        await side.get(ask(client))
    await side.get(ask(client))
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_using_max_age(side, provider, enable):
    clock = ManualClock()
    client = side.client(provider.base_url)
    with Cache("memory://", clock=clock) as cache:
        enable(cache)
        await side.get(ask(client))
        clock.advance(100)
        with using(max_age="1m"):
            await side.get(ask(client))
    assert provider.calls == 2


async def test_using_refresh(side, provider, client):
    first = await side.get(ask(client))
    with using(refresh=True):
        second = await side.get(ask(client))
        with using(refresh=False):
            assert (await side.get(ask(client))).id == second.id
    assert first.id != second.id
    assert provider.calls == 2


async def test_using_store_false(side, provider, client, enabled):
    with using(store=False):
        await side.get(ask(client))
        await side.get(ask(client))
    assert (provider.calls, enabled.stats().stored) == (2, 0)
    assert enabled.stats().dropped == {"not asked to": 2}


async def test_using_namespace(side, provider, client):
    first = await side.get(ask(client))
    with using(namespace="other"):
        second = await side.get(ask(client))
        assert (await side.get(ask(client))).id == second.id
    assert (await side.get(ask(client))).id == first.id
    assert provider.calls == 2


async def test_using_scope(side, provider, client):
    ids = {}
    for tenant in ("a", "b", "a", "b"):
        with using(scope=tenant):
            ids.setdefault(tenant, set()).add((await side.get(ask(client))).id)
    assert {tenant: len(found) for tenant, found in ids.items()} == {"a": 1, "b": 1}
    assert ids["a"] != ids["b"]
    assert provider.calls == 2


async def test_using_tags(side, provider, client, enabled):
    with using(tags="red"), using(tags=["blue"]):
        await side.get(ask(client))
    await side.get(ask(client, model="other"))
    assert enabled.invalidate(tag="red") == 1
    assert enabled.invalidate(tag="blue") == 0
    await side.get(ask(client, model="other"))
    await side.get(ask(client))
    assert provider.calls == 3


async def test_using_sample(side, provider, client):
    ids = []
    for sample in (0, 1, 2, 0, 1, 2):
        with using(sample=sample):
            ids.append((await side.get(ask(client))).id)
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3
    assert (await side.get(ask(client))).id == ids[0]
    assert provider.calls == 3


async def test_using_works_as_an_async_block(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    await ask(client)
    async with using(refresh=True):
        await ask(client)
    await ask(client)
    assert provider.calls == 2


async def test_using_reaches_tasks_started_inside_and_no_others(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    outside = asyncio.create_task(ask(client))
    with using(namespace="inside"):
        inside = asyncio.create_task(ask(client))
    assert (await outside).id != (await inside).id
    assert provider.calls == 2


# -- modes ------------------------------------------------------------------------------------------

MODES = {
    # mode: (calls after asking twice, calls when an answer was there, stored after asking twice)
    "on": (1, 0, 1),
    "refresh": (2, 1, 2),
    "read_only": (2, 0, 0),
    "off": (2, 1, 0),
}


@pytest.mark.parametrize("where", ["cache", "using"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("mode", MODES)
async def test_each_mode_reads_and_writes_as_it_says(side, provider, enable, mode, where, stream):
    calls, with_answer, stored = MODES[mode]
    client = side.client(provider.base_url)

    async def once(text):
        answer = await side.get(ask(client, messages=[{"role": "user", "content": text}], stream=stream))
        if stream:
            await side.all(answer)

    store = Cache("memory://")._stores[0]
    with Cache(store) as plain, Cache(store, mode=mode if where == "cache" else "on") as cache:
        enable(plain)
        await once("known")
        enable(cache)
        provider.reset()
        with using(mode=mode) if where == "using" else using():
            await once("new")
            await once("new")
            assert provider.calls == calls
            assert cache.stats().stored == stored
            await once("known")
            assert provider.calls == calls + with_answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_offline_answers_from_the_store_and_never_asks(side, provider, enable, stream):
    client = side.client(provider.base_url)
    with Cache("memory://") as cache:
        enable(cache)
        first = await side.get(ask(client, stream=stream))
        events = await side.all(first) if stream else [first]
        with using(mode="offline"):
            answer = await side.get(ask(client, stream=stream))
            found = await side.all(answer) if stream else [answer]
            assert [one.to_dict() for one in found] == [one.to_dict() for one in events]
            with pytest.raises(OfflineMiss):
                await side.get(ask(client, model="other", stream=stream))
    assert provider.calls == 1


@pytest.mark.parametrize(
    ("policy", "more"),
    [
        (Policy(), {"tools": [{"type": "web_search"}]}),
        (Policy(max_temperature=0), {"temperature": 1}),
        (Policy(rules=(Rule(model="m", ttl=0),)), {}),
        (Policy(cacheable=lambda request, entry: False), {}),
    ],
    ids=["hosted tool", "temperature", "ttl 0", "policy"],
)
async def test_offline_never_asks_even_for_what_is_not_cacheable(side, provider, enable, policy, more):
    """Offline means that the provider is not asked: a test suite that replays must not cost money."""
    client = side.client(provider.base_url)
    with Cache("memory://", mode="offline", policy=policy) as cache:
        enable(cache)
        with pytest.raises(OfflineMiss):
            await side.get(ask(client, **more))
    assert provider.calls == 0


@pytest.mark.parametrize("call", ["models", "files", "unknown path"])
async def test_offline_never_asks_other_endpoints_either(side, provider, enable, call):
    calls = {
        "models": lambda client: client.get("/models", cast_to=object),
        "files": lambda client: client.files.create(file=("a.txt", b"x"), purpose="batch"),
        "unknown path": lambda client: client.post("/rerank", cast_to=object, body={}),
    }
    client = side.client(provider.base_url)
    with Cache("memory://", mode="offline") as cache:
        enable(cache)
        with pytest.raises(OfflineMiss):
            await side.get(calls[call](client))
    assert provider.requests == []


def test_offline_never_asks_with_a_body_that_can_be_sent_once(sync_side, provider, enable):
    client = sync_side.client(provider.base_url)
    with Cache("memory://", mode="offline") as cache:
        enable(cache)
        body = iter([b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'])
        request = client._client.build_request("POST", f"{provider.base_url}/chat/completions", content=body)
        with pytest.raises(OfflineMiss):
            client._send_request(request, stream=False)
    assert provider.calls == 0


def test_offline_never_asks_under_trio(provider, enable):
    trio = pytest.importorskip("trio")

    async def main():
        async with openai.AsyncOpenAI(
            base_url=provider.base_url,
            api_key="k",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        ) as client:
            with pytest.raises(OfflineMiss):
                await ask(client)

    with Cache("memory://", mode="offline") as cache:
        enable(cache)
        trio.run(main)
    assert provider.calls == 0


# -- Cache-Status -----------------------------------------------------------------------------------


async def test_cache_status_of_a_miss_and_a_hit(side, client):
    miss = (await side.get(raw(client))).headers["cache-status"]
    hit = (await side.get(raw(client))).headers["cache-status"]
    with track() as outcomes:
        await side.get(ask(client))
    (outcome,) = outcomes
    assert miss == f'askonce; fwd=uri-miss; stored; key="{outcome.key}"'
    start, _, rest = hit.partition("; ttl=")
    ttl, _, rest = rest.partition("; ")
    assert start == "askonce; hit"
    assert 0.9 * 86400 - 5 < int(ttl) <= 86400
    assert rest == f'key="{outcome.key}"; detail="memory"'


async def test_cache_status_of_a_bypass(side, client):
    with using(mode="off"):
        response = await side.get(raw(client))
    assert response.headers["cache-status"] == 'askonce; fwd=bypass; detail="mode off"'


async def test_cache_status_of_an_answer_that_is_not_stored(side, provider, client):
    from askonce.testing._provider import Fault

    provider.script(Fault(finish_reason="length"), Fault(status=500))
    response = await side.get(raw(client))
    assert 'detail="truncated"' in response.headers["cache-status"]
    assert "stored" not in response.headers["cache-status"]
    with pytest.raises(openai.InternalServerError) as raised:
        await side.get(raw(client))
    assert 'detail="status 500"' in raised.value.response.headers["cache-status"]


async def test_cache_status_of_a_refresh(side, client):
    await side.get(ask(client))
    response = await side.get(raw(client, **control("no-cache")))
    assert response.headers["cache-status"].startswith("askonce; fwd=request; stored")


async def test_cache_status_of_a_stream(side, client):
    for expected in ("askonce; fwd=uri-miss; key=", "askonce; hit; ttl="):
        response = await side.get(raw(client, stream=True))
        assert response.headers["cache-status"].startswith(expected)
        await side.all(response.parse())


async def test_cache_status_is_added_behind_that_of_a_cache_on_the_way(side, provider, client):
    from askonce.testing._provider import Fault

    provider.script(Fault(headers=(("cache-status", "cdn; fwd=miss"),)))
    response = await side.get(raw(client))
    assert response.headers["cache-status"].startswith("cdn; fwd=miss, askonce; fwd=uri-miss")
    assert (await side.get(raw(client))).headers["cache-status"].startswith("askonce; hit")


async def test_cache_status_of_calls_that_share_one(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    provider.hold()
    calls = [asyncio.create_task(raw(client)) for _ in range(3)]
    await asyncio.to_thread(provider.wait_for_calls, 1)
    for _ in range(20):
        await asyncio.sleep(0)
    provider.release()
    said = sorted([(await call).headers["cache-status"].partition("; key=")[0] for call in calls])
    assert said == ["askonce; fwd=uri-miss; collapsed"] * 2 + ["askonce; fwd=uri-miss; stored"]
    assert (provider.calls, enabled.stats().coalesced) == (1, 2)


def test_threads_that_share_a_call_get_equal_answers(sync_side, provider, enabled):
    client = sync_side.client(provider.base_url)
    provider.hold()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(5)]
    for thread in threads:
        thread.start()
    provider.wait_for_calls(1)
    provider.release()
    for thread in threads:
        thread.join()
    assert len({answer.model_dump_json() for answer in answers}) == 1
    assert len({id(answer) for answer in answers}) == 5
    assert {answer._request_id for answer in answers} == {answers[0]._request_id}
    assert provider.calls == 1


# -- track() ----------------------------------------------------------------------------------------


async def test_track_tells_every_call_in_order_with_its_usage(side, provider, client):
    with track() as outcomes:
        first = await side.get(ask(client))
        await side.get(ask(client))
        await side.get(client.embeddings.create(model="e", input="hello"))
        with using(mode="off"):
            await side.get(ask(client))
    assert [one.status for one in outcomes] == ["miss", "hit", "miss", "bypass"]
    assert [one.surface for one in outcomes] == ["chat", "chat", "embeddings", "chat"]
    assert [one.model for one in outcomes] == ["m", "m", "e", "m"]
    miss, hit, vector, bypass = outcomes
    assert miss.usage == hit.usage
    assert hit.usage["prompt_tokens"] == first.usage.prompt_tokens
    assert hit.usage["completion_tokens"] == first.usage.completion_tokens
    assert vector.usage["total_tokens"] > 0
    assert (miss.stored, miss.reason, hit.reason, hit.tier) == (True, "not stored", "fresh", "memory")
    assert miss.key == hit.key
    assert (bypass.key, bypass.reason) == ("", "mode off")
    assert hit.age >= 0
    assert hit.ttl > 0
    assert hit.saved > 0
    assert miss.seconds > 0
    assert (miss.served, hit.served) == (False, True)


async def test_track_tells_of_errors_and_retries(side, provider, enabled):
    from askonce.testing._provider import Fault

    client = side.client(provider.base_url, max_retries=1)
    provider.script(Fault(status=500, retry_after=0.001))
    with track() as outcomes:
        await side.get(ask(client))
    assert [(one.status, one.reason) for one in outcomes] == [
        ("error", "status 500"),
        ("miss", "not stored"),
    ]


async def test_tracks_nest_and_end(side, client):
    with track() as outer:
        await side.get(ask(client))
        with track() as inner:
            await side.get(ask(client))
        await side.get(ask(client))
    await side.get(ask(client))
    assert (len(outer), len(inner)) == (3, 1)


def test_track_knows_threads_started_inside(sync_side, provider, enabled):
    client = sync_side.client(provider.base_url)
    with track() as outcomes:
        thread = threading.Thread(target=lambda: ask(client))
        thread.start()
        thread.join()
    assert [one.status for one in outcomes] == ["miss"]


async def test_stats_add_up_what_was_spent_and_saved(side, provider, client, enabled):
    usage = (await side.get(ask(client))).usage
    for _ in range(3):
        await side.get(ask(client))
    stats = enabled.stats()
    assert stats.usage_spent["prompt_tokens"] == usage.prompt_tokens
    assert stats.usage_saved["prompt_tokens"] == 3 * usage.prompt_tokens
    assert stats.tokens_saved == 3 * usage.total_tokens
    assert (stats.calls, stats.served, stats.hit_rate) == (4, 3, 0.75)
    assert stats.seconds_saved > 0


# -- what is not cached -----------------------------------------------------------------------------


async def reason_of(side, call):
    # The fake provider does not know every endpoint.
    with track() as outcomes, contextlib.suppress(openai.APIStatusError):
        await side.get(call())
    (outcome,) = outcomes
    assert outcome.status in {"bypass", "miss"}
    return outcome.reason if outcome.status == "bypass" else ""


BYPASSED = {
    "models list": (lambda client: client.get("/models", cast_to=object), "method"),
    "models retrieve": (lambda client: client.models.retrieve("m"), "method"),
    "background": (lambda c: c.responses.create(model="m", input="x", background=True), "background"),
    "conversation": (lambda c: c.responses.create(model="m", input="x", conversation="c"), "conversation"),
    "conversation object": (
        lambda c: c.responses.create(model="m", input="x", conversation={"id": "conv_1"}), "conversation"
    ),
    "unknown path": (lambda c: c.post("/rerank", cast_to=object, body={"model": "m"}), "endpoint"),
    "batches": (
        lambda c: c.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id="f"
        ),
        "endpoint",
    ),
    "files": (lambda c: c.files.create(file=("a.txt", b"x"), purpose="batch"), "endpoint"),
    "delete": (lambda c: c.delete("/chat/completions", cast_to=object), "method"),
    "web search options": (lambda c: ask(c, web_search_options={}), "hosted tool"),
    "search model": (lambda c: ask(c, model="gpt-4o-search-preview"), "hosted tool"),
    **{
        tool: (
            lambda c, tool=tool: c.responses.create(model="m", input="x", tools=[{"type": tool}]),
            "hosted tool",
        )
        for tool in (
            "web_search", "web_search_preview", "file_search", "mcp", "code_interpreter",
            "computer_use_preview",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("call", "reason"), BYPASSED.values(), ids=list(BYPASSED))
async def test_what_is_not_cacheable_passes_through_and_says_why(
    side, provider, client, enabled, call, reason
):
    for _ in range(2):
        assert await reason_of(side, lambda: call(client)) == reason
    assert enabled.stats().bypassed == {reason: 2}
    assert enabled.stats().stored == 0
    assert len(provider.requests) == 2


async def test_a_function_tool_of_a_suspicious_name_is_cached(side, provider, client):
    tool = {"type": "function", "name": "web_search", "parameters": {"type": "object", "properties": {}}}
    for _ in range(2):
        await side.get(client.responses.create(model="m", input="x", tools=[tool]))
    assert provider.calls == 1


async def test_a_bypassed_stream_streams(side, provider, client):
    for _ in range(2):
        events = await side.all(
            client.responses.create(model="m", input="x", tools=[{"type": "web_search"}], stream=True)
        )
        assert len(events) > 5
    assert provider.calls == 2


@pytest.mark.parametrize(
    ("temperature", "reason"), [(0.2, ""), (0.5, ""), (0.7, "temperature"), (None, "temperature")]
)
async def test_max_temperature_lets_only_cooler_questions_in(side, provider, enable, temperature, reason):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(max_temperature=0.5)) as cache:
        enable(cache)
        more = {} if temperature is None else {"temperature": temperature}
        assert await reason_of(side, lambda: ask(client, **more)) == reason
        assert await reason_of(side, lambda: client.embeddings.create(model="e", input="x")) == ""


async def test_a_rule_with_a_ttl_opens_a_hosted_tool(side, provider, enable):
    client = side.client(provider.base_url)
    policy = Policy(rules=(Rule(model="open-*", ttl="10m"),))
    with Cache("memory://", policy=policy) as cache:
        enable(cache)
        for model in ("open-1", "open-1", "closed", "closed"):
            await side.get(client.responses.create(model=model, input="x", tools=[{"type": "web_search"}]))
        assert cache.stats().bypassed == {"hosted tool": 2}
    assert provider.calls == 3


async def test_a_rule_of_ttl_zero_closes_a_model(side, provider, enable):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(rules=(Rule(model="gpt-*", ttl=0),))) as cache:
        enable(cache)
        for model in ("gpt-5", "gpt-5", "m", "m"):
            await side.get(ask(client, model=model))
        assert cache.stats().bypassed == {"ttl 0": 2}
    assert provider.calls == 3


async def test_a_callable_of_the_policy_has_the_last_word(side, provider, enable):
    asked = []

    def cacheable(request, entry):
        asked.append(entry is not None)
        return b"secret" not in request.body and (entry is None or entry.meta.model != "m2")

    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(cacheable=cacheable)) as cache:
        enable(cache)
        for text, model in (("secret", "m"), ("fine", "m"), ("fine", "m2"), ("fine", "m")):
            await side.get(ask(client, model=model, messages=[{"role": "user", "content": text}]))
        assert cache.stats().bypassed == {"policy": 1}
        assert cache.stats().dropped == {"policy": 1}
        assert cache.stats().hits == 1
    assert True in asked


@pytest.mark.parametrize("path", ["files", "transcription"])
async def test_an_upload_is_read_ahead_only_where_it_is_a_question(side, enabled, path):
    """A file of gigabytes on its way to /files must stream from disk as without a cache."""
    streams = []
    base = side.package.AsyncBaseTransport if side.is_async else side.package.BaseTransport

    class Transport(base):
        def handle_request(self, request):
            streams.append((type(request.stream).__name__, hasattr(request, "_content")))
            return side.package.Response(200, json={"id": "f", "text": "x"})

        async def handle_async_request(self, request):
            return self.handle_request(request)

    client = side.client("http://mock/v1", http=side.http(transport=Transport()))
    if path == "files":
        await side.get(client.files.create(file=("a.txt", b"x" * 1000), purpose="batch"))
    else:
        await side.get(client.audio.transcriptions.create(model="t", file=("a.wav", b"x" * 1000)))
    assert streams == [("MultipartStream", False) if path == "files" else ("ByteStream", True)]


async def test_a_body_that_can_be_sent_once_stays_untouched(side, enabled):
    """An iterator as the body of a known path cannot be read ahead: the call passes through."""
    sent = []

    async def answer(request):
        await request.aread()
        sent.append(request.content)
        return side.package.Response(200, json={"id": "x"})

    def sync_answer(request):
        request.read()
        sent.append(request.content)
        return side.package.Response(200, json={"id": "x"})

    transport = side.package.MockTransport(answer if side.is_async else sync_answer)
    client = side.client("http://mock/v1", http=side.http(transport=transport))

    def parts():
        yield b'{"model":"m",'
        yield b'"messages":[]}'

    async def async_parts():
        for part in parts():
            yield part

    request = client._client.build_request(
        "POST",
        "http://mock/v1/chat/completions",
        content=async_parts() if side.is_async else parts(),
        headers={"content-type": "application/json"},
    )
    response = await side.get(client._send_request(request, stream=False))
    assert response.status_code == 200
    assert sent == [b'{"model":"m","messages":[]}']
