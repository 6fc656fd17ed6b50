"""When things go wrong, callers see what they would have seen without a cache."""

# ruff: noqa: PLR0917 - fixtures are asked for by name

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3

import openai
import pytest

from askonce import Cache, Policy, StoreError, track
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore
from askonce.testing._provider import Fault

OLD = int(openai.__version__.partition(".")[0]) < 3
MESSAGES = [{"role": "user", "content": "hello"}]


def chat(client, **more):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES} | more)


ENDPOINTS = {
    "chat": chat,
    "chat stream": lambda client: chat(client, stream=True),
    "chat raw": lambda client: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES),
    "responses": lambda client: client.responses.create(model="m", input="hello"),
    "embeddings": lambda client: client.embeddings.create(model="e", input="hello"),
    "speech": lambda client: client.audio.speech.create(model="s", voice="alloy", input="hello"),
    "transcription": lambda client: client.audio.transcriptions.create(
        model="t", file=("a.wav", b"x" * 100), language="en"
    ),
}
SOME = ("chat", "chat stream", "speech", "transcription")
WHOLE = [name for name in SOME if name != "chat stream"]  # broken streams have tests of their own
some_endpoints = pytest.mark.parametrize("ask", [ENDPOINTS[name] for name in SOME], ids=SOME)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    """The SDK waits half a second and more between its attempts."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.001)


PASSING = {"date", "openai-processing-ms", "cache-status"}


async def seen(side, call):
    """All that a caller sees of a failure."""
    try:
        await side.get(call())
    except Exception as error:
        told = {
            "type": type(error),
            "text": str(error),
            "cause": type(error.__cause__),
            "context": type(error.__context__),
            "body": getattr(error, "body", None),
        }
        for name in ("code", "param", "type", "status_code", "request_id", "message"):
            told[f".{name}"] = getattr(error, name, None)
        response = getattr(error, "response", None)
        if response is not None:
            told["response"] = (
                response.status_code,
                response.text,
                response.is_closed,
                [pair for pair in response.headers.multi_items() if pair[0] not in PASSING],
            )
        request = getattr(error, "request", None)
        told["request"] = None if request is None else (request.method, request.url.path)
        return told
    return None


@pytest.fixture
def pair(side, fresh, cache, enable):
    """Two equal providers, the second one with the cache under its client."""

    def make(**options):
        bare, cached = fresh(), fresh()
        served = side.client(cached.base_url, **options)
        enable(cache, served)
        return (bare, side.client(bare.base_url, **options)), (cached, served)

    return make


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        *((chat, status) for status in (400, 401, 403, 404, 409, 422, 429, 500, 503)),
        *((ask, status) for ask in ENDPOINTS.values() if ask is not chat for status in (401, 500)),
    ],
    ids=[
        *(f"chat {status}" for status in (400, 401, 403, 404, 409, 422, 429, 500, 503)),
        *(f"{name} {status}" for name in ENDPOINTS if name != "chat" for status in (401, 500)),
    ],
)
async def test_an_error_status_is_the_same_error_and_is_not_stored(side, cache, pair, ask, status):
    (bare, plain), (cached, served) = pair()
    for one in (bare, cached):
        one.script(Fault(status=status))
    expected = await seen(side, lambda: ask(plain))
    assert expected is not None
    assert await seen(side, lambda: ask(served)) == expected
    assert (cached.calls, cache.stats().stored, cache.stats().errors) == (1, 0, 1)
    assert await seen(side, lambda: ask(served)) is None
    assert cached.calls == 2


RETRIED = {
    "400": Fault(status=400),
    "401": Fault(status=401),
    "404": Fault(status=404),
    "408": Fault(status=408),
    "409": Fault(status=409),
    "429": Fault(status=429),
    "429 retry-after": Fault(status=429, retry_after=0.002),
    "500": Fault(status=500),
    "500 told not to": Fault(status=500, headers=(("x-should-retry", "false"),)),
    "400 told to": Fault(status=400, headers=(("x-should-retry", "true"),)),
    "disconnect": Fault(disconnect=True),
    "garbage": Fault(garbage=True),
    "error body": Fault(error_body=True),
}
RETRIED_STREAMS = ("429", "500", "disconnect", "garbage")


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        *((fault, False) for fault in RETRIED.values()),
        *((RETRIED[name], True) for name in RETRIED_STREAMS),
    ],
    ids=[*RETRIED, *(f"stream {name}" for name in RETRIED_STREAMS)],
)
async def test_the_sdk_retries_as_often_as_without_a_cache(side, cache, pair, fault, stream):
    (bare, plain), (cached, served) = pair(max_retries=2)

    async def consume(client):
        answer = await side.get(chat(client, stream=stream))
        if stream:
            await side.all(answer)

    for one in (bare, cached):
        one.always(fault)
    expected = await seen(side, lambda: consume(plain))
    assert await seen(side, lambda: consume(served)) == expected
    assert cached.calls == bare.calls
    assert cache.stats().stored == 0


async def test_an_answer_after_retries_is_stored(side, pair, cache):
    _, (cached, served) = pair(max_retries=3)
    cached.script(Fault(status=500), Fault(status=429), Fault(disconnect=True))
    raw = await side.get(served.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert raw.retries_taken == 3
    assert (cached.calls, cache.stats().stored) == (4, 1)
    again = await side.get(served.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert again.parse().id == raw.parse().id
    assert cached.calls == 4


@some_endpoints
async def test_a_timeout_is_the_same_error(side, cache, pair, ask):
    (bare, plain), (cached, served) = pair(timeout=0.05)
    for one in (bare, cached):
        one.script(Fault(hang=True))
    expected = await seen(side, lambda: ask(plain))
    assert expected["type"] is openai.APITimeoutError
    assert await seen(side, lambda: ask(served)) == expected
    assert (cached.calls, cache.stats().stored) == (1, 0)
    assert await seen(side, lambda: ask(served.with_options(timeout=5))) is None


async def test_a_timeout_is_retried_as_often(side, cache, pair):
    (bare, plain), (cached, served) = pair(timeout=0.05, max_retries=2)
    for one in (bare, cached):
        one.always(Fault(hang=True))
    expected = await seen(side, lambda: chat(plain))
    assert await seen(side, lambda: chat(served)) == expected
    assert cached.calls == bare.calls == 3


@some_endpoints
async def test_a_refused_connection_is_the_same_error(side, cache, enable, ask):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    served = side.client(url)
    enable(cache, served)
    expected = await seen(side, lambda: ask(side.client(url)))
    assert expected["type"] is openai.APIConnectionError
    assert await seen(side, lambda: ask(served)) == expected
    assert (cache.stats().stored, cache.stats().errors) == (0, 1)


@pytest.mark.parametrize(
    "fault", [Fault(disconnect=True), Fault(cut_after=20)], ids=["no answer", "half an answer"]
)
@pytest.mark.parametrize("ask", [ENDPOINTS[name] for name in WHOLE], ids=WHOLE)
async def test_a_broken_connection_is_the_same_error(side, cache, pair, ask, fault):
    (bare, plain), (cached, served) = pair()
    if ask is ENDPOINTS["speech"] and not fault.disconnect:
        fault = Fault(cut_after=2)  # in chunks
    for one in (bare, cached):
        one.script(fault)
    expected = await seen(side, lambda: ask(plain))
    assert expected is not None
    assert await seen(side, lambda: ask(served)) == expected
    assert cache.stats().stored == 0
    assert await seen(side, lambda: ask(served)) is None


WRONG = {
    "error body": (Fault(error_body=True), "error body"),
    "garbage": (Fault(garbage=True), None),
    "length": (Fault(finish_reason="length"), "truncated"),
    "content filter": (Fault(finish_reason="content_filter"), "refused"),
    "refusal": (Fault(refusal=True), "refused"),
    "empty": (Fault(empty=True), "empty"),
}


@pytest.mark.parametrize("ask", [ENDPOINTS["chat"], ENDPOINTS["responses"]], ids=["chat", "responses"])
@pytest.mark.parametrize(("fault", "reason"), WRONG.values(), ids=list(WRONG))
async def test_a_flawed_answer_reaches_the_caller_and_is_not_stored(side, cache, pair, ask, fault, reason):
    (bare, plain), (cached, served) = pair()
    for one in (bare, cached):
        one.script(fault)

    async def shown(client):
        answer = await side.get(ask(client))
        return answer if isinstance(answer, str) else answer.to_dict()

    try:
        expected = await shown(plain)
    except Exception as error:
        with pytest.raises(type(error)):
            await shown(served)
    else:
        with track() as outcomes:
            assert await shown(served) == expected
        if reason:
            assert [outcome.not_stored for outcome in outcomes] == [reason]
            assert cache.stats().dropped == {reason: 1}
    assert cache.stats().stored == 0
    await shown(served)
    assert (cached.calls, cache.stats().stored) == (2, 1)


@pytest.mark.parametrize("endpoint", ["embeddings", "moderations", "images", "completions", "transcription"])
@pytest.mark.parametrize("fault", [Fault(empty=True), Fault(error_body=True)], ids=["empty", "error body"])
async def test_an_answer_without_substance_is_not_stored(side, provider, client, enabled, endpoint, fault):
    calls = {
        "embeddings": lambda: client.embeddings.create(model="e", input="x", encoding_format="float"),
        "moderations": lambda: client.moderations.create(input="x"),
        "images": lambda: client.images.generate(prompt="x"),
        "completions": lambda: client.completions.create(model="m", prompt="x"),
        "transcription": lambda: client.audio.transcriptions.create(model="t", file=("a.wav", b"x")),
    }
    provider.script(fault)
    with contextlib.suppress(ValueError):  # the SDK itself wants vectors
        await side.get(calls[endpoint]())
    assert enabled.stats().stored == 0
    await side.get(calls[endpoint]())
    assert (provider.calls, enabled.stats().stored) == (2, 1)


@pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled", "queued", "in_progress"])
async def test_a_response_that_is_not_completed_is_not_stored(side, provider, client, enabled, status):
    provider.script(Fault(response_status=status))
    assert (await side.get(client.responses.create(model="m", input="x"))).status == status
    await side.get(client.responses.create(model="m", input="x"))
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_an_answer_over_the_limit_is_passed_on_and_not_stored(side, provider, enable):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(max_entry_bytes=1000)) as cache:
        enable(cache)
        provider.script(Fault(oversize=5000))
        await side.get(chat(client))
        assert cache.stats().dropped == {"too large": 1}
        await side.get(chat(client))
    assert provider.calls == 2


async def test_a_failed_call_is_not_remembered(side, provider, client):
    provider.script(Fault(status=500), Fault(status=500))
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await side.get(chat(client))
    first = await side.get(chat(client))
    assert (await side.get(chat(client))).id == first.id
    assert provider.calls == 3


# -- the store --------------------------------------------------------------------------------------

STORE_ERRORS = [
    StoreError("down"),
    OSError(28, "no space left on device"),
    PermissionError("read-only"),
    sqlite3.DatabaseError("malformed"),
    TimeoutError(),
    MemoryError(),
    RuntimeError("any"),
    KeyError("x"),
]


@pytest.mark.parametrize(
    ("error", "operations"),
    [
        *((error, ["get", "set", "delete"]) for error in STORE_ERRORS),
        (StoreError("down"), ["get"]),
        (StoreError("down"), ["set"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "+".join(value),
)
async def test_a_failing_store_never_reaches_the_caller(side, provider, enable, error, operations):
    store = FlakyStore(MemoryStore(), blocking=False)
    client = side.client(provider.base_url)
    with Cache(store) as cache:
        enable(cache)
        store.fail_with(error, operations=operations)
        for _ in range(2):
            assert (await side.get(chat(client))).choices[0].message.content
        assert len(await side.all(chat(client, stream=True))) > 5
        assert sum(cache.stats().store_errors.values()) > 0
        assert provider.calls == 3
        store.recover()
        await side.get(chat(client, model="after"))
        await side.get(chat(client, model="after"))
        assert provider.calls == 4


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "empty"])
async def test_a_spoilt_entry_is_a_miss_and_is_replaced(side, provider, enable, damage):
    store = FlakyStore(MemoryStore(), blocking=False)
    client = side.client(provider.base_url)
    with Cache(store) as cache:
        enable(cache)
        first = await side.get(chat(client))
        store.spoil(damage)
        second = await side.get(chat(client))
        assert second.id != first.id
        assert cache.stats().corrupt == 1
        store.recover()
        assert (await side.get(chat(client))).id == second.id
    assert provider.calls == 2


async def test_a_blocking_store_that_fails_never_reaches_the_caller(side, provider, enable):
    store = FlakyStore(MemoryStore(), blocking=True)
    client = side.client(provider.base_url)
    with Cache(store) as cache:
        enable(cache)
        await side.get(chat(client))
        await side.get(chat(client))
        assert provider.calls == 1
        store.fail_with(StoreError)
        await side.get(chat(client))
        assert provider.calls == 2
        store.recover()


async def test_the_other_tier_answers_when_one_fails(side, provider, enable):
    front = FlakyStore(MemoryStore(), blocking=False)
    client = side.client(provider.base_url)
    with Cache([front, MemoryStore()]) as cache:
        enable(cache)
        first = await side.get(chat(client))
        front.fail_with(StoreError, operations=["get", "set"])
        assert (await side.get(chat(client))).id == first.id
    assert provider.calls == 1


async def test_a_listener_that_fails_never_reaches_the_caller(side, provider, client, enabled):
    def fail(event):
        raise RuntimeError

    enabled.subscribe(fail)
    await side.get(chat(client))
    await side.get(chat(client))
    assert provider.calls == 1


async def test_a_closed_cache_goes_on(side, provider, client, enabled):
    await side.get(chat(client))
    enabled.close()
    await side.get(chat(client))
    assert provider.calls <= 2


# -- event loops ------------------------------------------------------------------------------------


def test_one_cache_serves_loop_after_loop(provider, cache, enable):
    enable(cache)

    async def once():
        async with openai.AsyncOpenAI(
            base_url=provider.base_url,
            api_key="k",
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        ) as client:
            plain = (await chat(client)).id
            return plain, [item.id async for item in await chat(client, stream=True)]

    assert len({str(asyncio.run(once())) for _ in range(3)}) == 1
    assert provider.calls == 2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_loop_that_dies_in_the_middle_of_a_call_holds_nobody_up(provider, cache, enable, stream):
    """The next program on the same cache leads its own flight."""
    enable(cache)

    def client():
        return openai.AsyncOpenAI(
            base_url=provider.base_url,
            api_key="k",
            max_retries=0,
            timeout=5,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        )

    async def start_and_stop():
        async with client() as one:
            task = asyncio.create_task(chat(one, stream=stream))
            await asyncio.to_thread(provider.wait_for_calls, 1)
            if stream:
                await anext(aiter(await task))
        # asyncio.run cancels what still runs

    async def whole():
        async with client() as one:
            answer = await chat(one, stream=stream)
            return [item async for item in answer] if stream else [answer]

    provider.hold(after=2 if stream else None)
    asyncio.run(start_and_stop())
    provider.release()
    assert asyncio.run(asyncio.wait_for(whole(), 4))
    assert provider.calls == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("served", [False, True], ids=["bare", "enabled"])
def test_trio_works_as_without_a_cache(provider, cache, enable, served):
    trio = pytest.importorskip("trio")
    if served:
        enable(cache)

    async def main():
        async with openai.AsyncOpenAI(
            base_url=provider.base_url,
            api_key="k",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        ) as client:
            plain = [(await chat(client)).id for _ in range(2)]
            streamed = [item async for item in await chat(client, stream=True)]
            text = await client.audio.transcriptions.create(model="t", file=("a.wav", b"x" * 50))
            provider.script(Fault(status=429))
            with pytest.raises(openai.RateLimitError):
                await chat(client)
            return plain, streamed, text

    plain, streamed, text = trio.run(main)
    assert len(set(plain)) == 2
    assert len(streamed) > 5
    assert text.text
    assert provider.calls == 5
