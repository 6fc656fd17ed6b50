"""Embeddings item by item, at the OpenAI and the httpx door: each input is asked once, every answer right."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
import struct
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

openai = pytest.importorskip("openai")

from askonce import Cache, OfflineMiss, Policy, StoreError, track, using  # noqa: E402
from askonce.stores import MemoryStore  # noqa: E402
from askonce.testing import FlakyStore, ManualClock  # noqa: E402
from askonce.testing._provider import Fault  # noqa: E402
from askonce_httpx import AsyncCacheTransport, CacheTransport  # noqa: E402
from askonce_openai import disable_cache, enable_cache  # noqa: E402

SIZE = 4
PASSING = ("date", "x-request-id", "openai-processing-ms", "cache-status", "set-cookie", "cf-ray")
TEXTS = ["", "a", "b", "hello", "hello you", "é🦊", "x" * 40]
TOKENS = [[1], [2, 3], [1, 2], [7] * 9]


class Door:
    """One door and one kind of client; answers are plain JSON objects."""

    def __init__(self, provider, name):
        self.provider = provider
        self.is_async = name.endswith("async")
        self.is_openai = name.startswith("openai")
        self._open = []

    def client(self, cache):
        if self.is_openai:
            http = openai.DefaultAsyncHttpxClient if self.is_async else openai.DefaultHttpxClient
            kind = openai.AsyncOpenAI if self.is_async else openai.OpenAI
            made = kind(
                base_url=self.provider.base_url,
                api_key="k",
                max_retries=0,
                http_client=http(verify=False, timeout=20),
            )
            if cache is not None:
                enable_cache(cache, client=made)
        else:
            kind = httpx.AsyncClient if self.is_async else httpx.Client
            transport = AsyncCacheTransport if self.is_async else CacheTransport
            made = kind(
                timeout=20, verify=False, **({} if cache is None else {"transport": transport(cache)})
            )
        self._open.append((made, cache))
        return made

    async def ask(self, client, value, **more):
        """The answer as JSON."""
        asked = {"model": "e", "input": value, "dimensions": SIZE, "encoding_format": "float", **more}
        if self.is_openai:
            raw = client.embeddings.with_raw_response.create(**asked)
            raw = await raw if inspect.isawaitable(raw) else raw
            return json.loads(raw.http_response.content)
        sent = client.post(f"{self.provider.base_url}/embeddings", json=asked)
        sent = await sent if inspect.isawaitable(sent) else sent
        sent.raise_for_status()
        return sent.json()

    async def close(self):
        for client, cache in self._open:
            if self.is_openai and cache is not None:
                disable_cache(client=client)
            closed = (
                (client.aclose() if hasattr(client, "aclose") else client.close())
                if not self.is_openai
                else client.close()
            )
            if inspect.isawaitable(closed):
                await closed


@pytest.fixture(params=["openai", "openai async", "httpx", "httpx async"])
async def door(request, provider):
    made = Door(provider, request.param)
    yield made
    await made.close()


def asked_items(provider):
    """What went upstream, one list of inputs a call."""
    return [
        value if isinstance(value, list) and not isinstance(value[0], int) else [value]
        for value in (request.json()["input"] for request in provider.requests)
    ]


LISTS = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=7) | st.lists(
    st.sampled_from(TOKENS), min_size=1, max_size=5
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    asks=st.lists(LISTS | st.sampled_from([*TEXTS, *TOKENS]), min_size=1, max_size=6),
    form=st.sampled_from(["float", "base64"]),
)
def test_any_list_over_any_cached_subset_is_the_uncached_answer(running_provider, asks, form):
    """Vectors, order and usage; and no input goes upstream twice."""
    provider = running_provider
    provider.reset()
    plain, open_ = {"dimensions": SIZE, "encoding_format": form, "model": "e"}, contextlib.ExitStack()
    with open_, Cache("memory://") as cache:
        bare = open_.enter_context(httpx.Client(verify=False))
        client = open_.enter_context(
            httpx.Client(transport=CacheTransport(cache, httpx.HTTPTransport(verify=False)))
        )
        expected = [
            bare.post(f"{provider.base_url}/embeddings", json={"input": one, **plain}).json() for one in asks
        ]
        provider.reset()
        found = [
            client.post(f"{provider.base_url}/embeddings", json={"input": one, **plain}).json()
            for one in asks
        ]
        assert found == expected
        sent = [json.dumps(item) for call in asked_items(provider) for item in call]
        # A caller's own list goes up as it is when nothing of it is known, its duplicates included.
        assert len(set(sent)) == len({json.dumps(item) for one in asks for item in _items(one)})
        for number, call in enumerate(asked_items(provider)):
            earlier = {json.dumps(item) for before in asked_items(provider)[:number] for item in before}
            assert not earlier & {json.dumps(item) for item in call}


def _items(value):
    return value if isinstance(value, list) and not isinstance(value[0], int) else [value]


async def test_only_what_is_missing_goes_upstream_and_each_duplicate_once(door, provider, cache):
    client = door.client(cache)
    await door.ask(client, "b")
    with track() as tracked:
        answer = await door.ask(client, ["a", "b", "c", "a", "b"])
    assert asked_items(provider) == [["b"], ["a", "c"]]
    assert [row["index"] for row in answer["data"]] == [0, 1, 2, 3, 4]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [row["embedding"] for row in answer["data"]] == [
        provider.embedding_of(text, dimensions=SIZE) for text in "abcab"
    ]
    assert (tracked[0].status, tracked[0].reason, tracked[0].stored) == (
        "miss",
        "2 of 3 items not stored",
        True,
    )
    assert tracked[0].usage == {"prompt_tokens": 2, "total_tokens": 2}
    assert cache.stats().usage_spent == {"prompt_tokens": 3, "total_tokens": 3}


async def test_single_list_of_one_and_other_batches_share_entries(door, provider, cache):
    client = door.client(cache)
    first = await door.ask(client, ["a", "b"])
    single = await door.ask(client, "a")
    one = await door.ask(client, ["b"])
    other = await door.ask(client, ["b", "a"])
    assert provider.calls == 1
    assert single["data"] == [first["data"][0]]
    assert one["data"] == [{**first["data"][1], "index": 0}]
    assert [row["embedding"] for row in other["data"]] == [row["embedding"] for row in first["data"][::-1]]
    assert single["usage"] == {"prompt_tokens": 1, "total_tokens": 1}
    assert cache.stats().hits == 3


async def test_other_parameters_are_other_vectors(door, provider, cache):
    client = door.client(cache)
    for more in (
        {},
        {"dimensions": 3},
        {"encoding_format": "base64"},
        {"model": "f"},
        {"extra": 1} if not door.is_openai else {"extra_body": {"extra": 1}},
    ):
        await door.ask(client, ["a", "b"], **more)
        await door.ask(client, "a", **more)
    assert provider.calls == 5


async def test_base64_and_numbers_are_each_kept_to_the_byte(door, provider, cache):
    client = door.client(cache)
    await door.ask(client, ["a", "b"], encoding_format="base64")
    found = await door.ask(client, ["b", "a"], encoding_format="base64")
    vectors = [list(struct.unpack(f"<{SIZE}f", base64.b64decode(row["embedding"]))) for row in found["data"]]
    assert vectors == [provider.embedding_of(text, dimensions=SIZE) for text in "ba"]
    assert provider.calls == 1


async def test_a_list_nobody_knows_is_asked_and_answered_as_without_a_cache(door, provider, cache):
    bare = await door.ask(door.client(None), ["a", "b", "a"])
    client = door.client(cache)
    assert await door.ask(client, ["a", "b", "a"]) == bare  # the duplicate is left out, and put back
    assert await door.ask(client, ["a", "b", "a"]) == bare
    assert provider.calls == 2
    again = await door.ask(client, ["c", "d"])
    assert provider.requests[-1].json()["input"] == ["c", "d"]
    assert [row["index"] for row in again["data"]] == [0, 1]


async def test_overlapping_lists_at_one_time_ask_for_each_input_once(door, provider, cache):
    client = door.client(cache)
    lists = [["a", "b", "c"], ["b", "c", "d"], ["d", "e"], ["a", "e"], ["c"], "d"]
    provider.always(Fault(delay=0.3))
    if door.is_async:
        found = await asyncio.gather(*[door.ask(client, one) for one in lists])
    else:
        with ThreadPoolExecutor(len(lists)) as pool:
            loops = [pool.submit(lambda one=one: asyncio.run(door.ask(client, one))) for one in lists]
            found = await asyncio.to_thread(lambda: [loop.result(20) for loop in loops])
    sent = [item for call in asked_items(provider) for item in call]
    assert sorted(sent) == ["a", "b", "c", "d", "e"]
    for one, answer in zip(lists, found, strict=True):
        assert [row["embedding"] for row in answer["data"]] == [
            provider.embedding_of(text, dimensions=SIZE) for text in one
        ]


async def test_who_followed_a_failed_list_asks_for_itself(door, provider, cache):
    client = door.client(cache)
    gate = threading.Event()
    provider.script(Fault(hold=gate, status=500))

    async def leader():
        with contextlib.suppress(Exception):
            await door.ask(client, ["a", "b"])

    async def follower():
        return await door.ask(client, ["b", "c"])

    async def both(run):
        first = run(leader)
        await asyncio.to_thread(provider.wait_for_calls, 1)
        second = run(follower)
        await asyncio.to_thread(provider.wait_for_calls, 2)  # the follower's own item is asked at once
        gate.set()
        await first
        return await second

    if door.is_async:
        answer = await both(lambda work: asyncio.ensure_future(work()))
    else:
        answer = await both(
            lambda work: asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(work())))
        )
    assert asked_items(provider) == [["a", "b"], ["c"], ["b"]]
    assert [row["embedding"] for row in answer["data"]] == [
        provider.embedding_of(t, dimensions=SIZE) for t in "bc"
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429), Fault(status=500), Fault(error_body=True), Fault(garbage=True), Fault(empty=True),
        Fault(silent_end_after=30),
    ],
    ids=["429", "500", "error body", "garbage", "empty", "half"],
)  # fmt: skip
@pytest.mark.parametrize("known", [[], ["b"]], ids=["none known", "one known"])
async def test_a_bad_answer_reaches_the_caller_and_leaves_nothing(door, provider, cache, fault, known):
    client = door.client(cache)
    for one in known:
        await door.ask(client, one)
    before = cache.stats().stored
    provider.always(fault)
    bare = await _result(door, door.client(None), ["a", "b", "c"])
    calls = provider.calls
    assert await _result(door, client, ["a", "b", "c"]) == bare
    assert calls < provider.calls <= calls + 2
    assert cache.stats().stored == before
    provider.clear()
    answer = await door.ask(client, ["a", "b", "c"])
    assert [row["embedding"] for row in answer["data"]] == [
        provider.embedding_of(t, dimensions=SIZE) for t in "abc"
    ]


async def _result(door, client, value):
    try:
        return await door.ask(client, value)
    except Exception as error:
        return type(error).__name__


async def test_an_answer_with_rows_missing_or_moved_is_never_given_to_the_wrong_input(provider, cache):
    class Crooked(httpx.MockTransport):
        def __init__(self):
            super().__init__(self.answered)
            self.sent = []

        def answered(self, request):
            items = json.loads(request.content)["input"]
            items = items if isinstance(items, list) else [items]
            self.sent.append(items)
            rows = [{"index": n, "embedding": [float(len(item))]} for n, item in enumerate(items)]
            if len(items) == 2:
                rows = rows[:1]  # fewer than asked
            return httpx.Response(200, json={"data": rows[::-1], "model": "e"})

    server = Crooked()
    async with httpx.AsyncClient(transport=AsyncCacheTransport(cache, server)) as client:

        async def ask(value):
            answer = await client.post("http://h/v1/embeddings", json={"model": "e", "input": value})
            return {row["index"]: row["embedding"] for row in answer.json()["data"]}

        assert await ask("ccc") == {0: [3.0]}
        # Two are missing, the answer to them has one row: the whole list is asked, and handed on as it is.
        assert await ask(["a", "bb", "ccc"]) == {0: [1.0], 1: [2.0], 2: [3.0]}
        assert server.sent == [["ccc"], ["a", "bb"], ["a", "bb", "ccc"]]
        # Whoever answered so is asked with whole lists, until one of them is answered by item.
        for _ in range(2):
            assert await ask(["a", "bb", "ccc", "dddd"]) == {0: [1.0], 1: [2.0], 2: [3.0], 3: [4.0]}
        assert server.sent[3:] == [["a", "bb", "ccc", "dddd"], ["a", "bb", "dddd"]]
        assert await ask(["dddd", "a"]) == {0: [4.0], 1: [1.0]}
        assert len(server.sent) == 5


async def test_who_does_not_answer_by_item_is_asked_no_more_often_than_without_a_cache(cache):
    class Other(httpx.MockTransport):
        def __init__(self):
            super().__init__(self.answered)
            self.sent = []

        def answered(self, request):
            self.sent.append(json.loads(request.content)["input"])
            return httpx.Response(200, json={"vectors": [[1.0]] * len(self.sent[-1])})

    server = Other()
    async with httpx.AsyncClient(transport=AsyncCacheTransport(cache, server)) as client:
        for _ in range(3):
            await client.post("http://h/v1/embeddings", json={"model": "e", "input": ["a", "b", "a"]})
    # The duplicate is left out once, in vain; from then on the caller's own list is sent.
    assert server.sent == [["a", "b"], *[["a", "b", "a"]] * 3]


async def test_modes(door, provider):
    with Cache("memory://", mode="offline") as offline:
        client = door.client(offline)
        with pytest.raises(Exception) as caught:
            await door.ask(client, ["a", "b"])
        assert isinstance(caught.value, OfflineMiss) or isinstance(caught.value.__cause__, OfflineMiss)
        assert "2 of 2 items are not in the cache" in str(caught.value)
        assert provider.calls == 0
    with Cache("memory://") as cache:
        client = door.client(cache)
        with using(mode="read_only"):
            await door.ask(client, ["a", "b"])
        assert cache.stats().stored == 0
        await door.ask(client, ["a", "b"])
        with using(refresh=True):
            await door.ask(client, ["a", "b"])
        assert provider.calls == 3
        with using(ttl=0):
            await door.ask(client, ["a", "b"])
        assert provider.calls == 4
        with using(sample=1):
            await door.ask(client, ["a", "b"])
            await door.ask(client, ["b", "a"])
        assert provider.calls == 5
        with using(scope="somebody"):
            await door.ask(client, ["a", "b"])
        assert provider.calls == 6


async def test_each_item_has_a_life_of_its_own(door, provider):
    clock = ManualClock()
    with Cache("memory://", policy=Policy(ttl=100, jitter=0, stale_if_error=50), clock=clock) as cache:
        client = door.client(cache)
        await door.ask(client, ["a", "b"])
        clock.advance(60)
        await door.ask(client, ["a", "c"])
        clock.advance(50)
        with track() as tracked:
            await door.ask(client, ["a", "b", "c"])
        assert asked_items(provider) == [["a", "b"], ["c"], ["a", "b"]]
        assert tracked[0].reason == "2 of 3 items not stored"
        clock.advance(60)
        with track() as tracked:
            await door.ask(client, ["a", "b"])
        assert (tracked[0].status, tracked[0].age, tracked[0].ttl) == ("hit", 60, 40)
        clock.advance(50)
        provider.always(Fault(status=503))
        with track() as tracked:
            found = await door.ask(client, ["a", "b"])
        assert tracked[0].status == "stale"
        assert [row["embedding"] for row in found["data"]] == [
            provider.embedding_of(t, dimensions=SIZE) for t in "ab"
        ]


async def test_a_damaged_item_is_that_item_missing(door, provider, tmp_path):
    with Cache("memory://") as cache:
        client = door.client(cache)
        await door.ask(client, ["a", "b", "c"])
        store = cache._backing.stores[0]
        key = min(store.scan(""))
        store.set(key, b"damaged", None)
        await door.ask(client, ["a", "b", "c"])
        assert [len(call) for call in asked_items(provider)] == [3, 1]
        assert cache.stats().corrupt == 1


async def test_a_failing_store_is_never_seen(door, provider):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        client = door.client(cache)
        await door.ask(client, ["a", "b"])
        for operation in ("get_many", "set_many"):
            store.fail_with(StoreError("down"), operations=[operation])
            found = await door.ask(client, ["a", "b", operation])
            store.recover()
            vectors = [provider.embedding_of(text, dimensions=SIZE) for text in ("a", "b", operation)]
            assert [row["embedding"] for row in found["data"]] == vectors


async def test_one_read_and_one_write_for_a_whole_list(door, provider):
    store = FlakyStore(MemoryStore(), blocking=False)
    with Cache(store) as cache:
        client = door.client(cache)
        texts = [f"text {n}" for n in range(500)]
        await door.ask(client, texts)
        await door.ask(client, texts[::-1])
        assert store.calls["get_many"] == 2
        assert store.calls["set_many"] == 1
        assert store.calls["get"] == store.calls["set"] == 0
        assert provider.calls == 1


@pytest.mark.parametrize("kind", ["disk", "redis", "s3", "tiered"])
async def test_on_every_store(kind, door, provider, tmp_path, request):
    if kind == "redis":
        store = request.getfixturevalue("valkey").url
    elif kind == "s3":
        server = request.getfixturevalue("s3")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            request.getfixturevalue("monkeypatch").setenv(name, value)
        store = f"s3://{server.create_bucket()}/p?endpoint_url={server.endpoint_url}"
    else:
        store = f"disk://{tmp_path}/cache" if kind == "disk" else ["memory://", f"disk://{tmp_path}/cache"]
    namespace = uuid.uuid4().hex
    with Cache(store, namespace=namespace, store_timeout=10) as cache:
        client = door.client(cache)
        await door.ask(client, ["a", "b"])
        await door.ask(client, ["b", "c", "a"])
        found = await door.ask(client, ["c", "b"])
        single = await door.ask(client, "a")
        assert asked_items(provider) == [["a", "b"], ["c"]]
        assert [row["embedding"] for row in found["data"]] == [
            provider.embedding_of(t, dimensions=SIZE) for t in "cb"
        ]
        assert single["data"][0]["embedding"] == provider.embedding_of("a", dimensions=SIZE)
        await cache.aclose() if door.is_async else cache.close()


async def test_the_sdks_own_objects(provider, cache):
    http = openai.DefaultHttpxClient(verify=False)
    with openai.OpenAI(base_url=provider.base_url, api_key="k", http_client=http) as client:
        bare = client.embeddings.create(model="e", input=["a", "b", "c"])
        enable_cache(cache, client=client)
        client.embeddings.create(model="e", input=["c"])
        merged = client.embeddings.create(model="e", input=["a", "b", "c"])
        hit = client.embeddings.create(model="e", input=["a", "b", "c"])
        assert merged.model_dump() == hit.model_dump() == bare.model_dump()
        with client.embeddings.with_streaming_response.create(model="e", input=["x", "y"]) as streamed:
            body = streamed.read()
        assert json.loads(body)["data"][1]["index"] == 1
        disable_cache(client=client)


def test_a_response_of_the_httpx_door_is_as_unread_as_without_a_cache(provider, cache):
    """Also one whose body had to be read to take it apart: its raw bytes and headers are the provider's."""
    provider.always(Fault(gzip=True))
    ask = {"model": "e", "input": ["a", "b"], "dimensions": SIZE}
    seen = []
    for transport in (httpx.HTTPTransport(), CacheTransport(cache)):
        with (
            httpx.Client(transport=transport) as client,
            client.stream("POST", f"{provider.base_url}/embeddings", json=ask) as response,
        ):
            assert not response.is_stream_consumed
            raw = b"".join(response.iter_raw())
            headers = dict(response.headers)
            headers.pop("cache-status", None)
            for passing in (
                name for name in list(headers) if name in PASSING or name.startswith("x-ratelimit")
            ):
                headers.pop(passing, None)
            seen.append((raw, headers, response.status_code, response.num_bytes_downloaded))
    assert seen[0] == seen[1]
