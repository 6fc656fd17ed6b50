"""A client with the cache beneath it behaves as without, only that it asks once."""

from __future__ import annotations

import asyncio
import re
import threading

import httpx
import httpx2
import pytest

from askonce import Cache, ConfigurationError, OfflineMiss, Policy, track, using
from askonce.testing._provider.faults import Fault
from askonce_httpx import AsyncCacheTransport, CacheTransport

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
HEADERS = {"authorization": "Bearer k"}
STREAM = {**ASK, "stream": True}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
async def test_a_hit_equals_the_first_answer(way, provider, chat, cache, zipped):
    provider.script(Fault(gzip=zipped))
    client = way.client(cache)
    first = await way.post(client, chat, json=ASK)
    again = await way.post(client, chat, json=ASK)
    assert provider.calls == 1
    assert again.content == first.content
    assert again.json() == first.json()
    kept = {"content-type", "date", "x-request-id"}
    assert {n: again.headers[n] for n in kept} == {n: first.headers[n] for n in kept}
    assert again.headers["cache-status"].startswith("askonce; hit; ttl=")
    assert again.headers["age"] == "0"
    assert "content-encoding" not in again.headers
    assert again.elapsed.total_seconds() >= 0
    assert again.request.url == first.request.url


@pytest.mark.parametrize("fault", [Fault(), Fault(gzip=True), Fault(close_delimited=True)], ids=str)
@pytest.mark.parametrize("body", [ASK, STREAM], ids=["plain", "stream"])
async def test_the_first_answer_is_what_it_is_without_a_cache(way, provider, chat, fault, body):
    provider.script(fault, fault)
    bare, plain_body = await way.stream(way.client(), chat, json=body)
    with Cache("memory://") as cache:
        ours, our_body = await way.stream(way.client(cache), chat, json=body)

    def counted(body):
        return re.sub(rb"[0-9.]+", b"", body)  # the provider counts its calls, also in what it says

    assert counted(our_body) == counted(plain_body)
    assert ours.headers.get("content-encoding") == bare.headers.get("content-encoding")
    assert ours.num_bytes_downloaded == pytest.approx(bare.num_bytes_downloaded, abs=64)
    assert ours.http_version == bare.http_version
    assert ours.is_closed
    assert ours.is_stream_consumed == bare.is_stream_consumed


async def test_a_stream_is_replayed_whole(way, provider, chat, cache):
    client = way.client(cache)
    _, first = await way.stream(client, chat, json=STREAM)
    response, again = await way.stream(client, chat, json=STREAM)
    assert (provider.calls, again) == (1, first)
    assert again.endswith(b"data: [DONE]\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_stream_left_early_is_not_stored_and_its_connection_is_closed(way, provider, chat, cache):
    provider.hold(after=2)
    client = way.client(cache)
    await way.stream(client, chat, json=STREAM, chunks=1)
    provider.release()
    provider.wait_until(lambda: provider.hangups == 1)
    assert cache.stats().stored == 0
    assert pool_of(client) == []


@pytest.mark.parametrize("fault", [Fault(cut_after=3), Fault(disconnect=True)], ids=["cut", "no answer"])
async def test_a_broken_connection_raises_as_without_a_cache(way, provider, chat, cache, fault):
    seen = []
    for client in (way.client(), way.client(cache)):
        provider.script(fault)
        with pytest.raises(way.package.TransportError) as caught:
            await way.stream(client, chat, json=STREAM)
        seen.append((type(caught.value), pool_of(client)))
    assert seen[0] == seen[1]
    assert cache.stats().stored == 0


def pool_of(client):
    """The connections that a client keeps."""
    transport = getattr(client._transport, "inner", client._transport)
    return [str(one.info()) for one in transport._pool.connections]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_an_error_reaches_the_caller_and_is_not_stored(way, provider, chat, cache, status):
    client = way.client(cache)
    for _ in range(2):
        provider.script(Fault(status=status))
        response = await way.post(client, chat, json=ASK)
        assert response.status_code == status
        assert "error" in response.json()
    assert (provider.calls, cache.stats().stored) == (2, 0)


async def test_what_is_no_question_passes_through_unread(way, provider, chat, cache):
    client = way.client(cache)
    for method, url in (("GET", chat), ("POST", f"{provider.base_url}/files"), ("POST", f"{provider.url}/x")):
        response = await way.get(client.request(method, url, headers=HEADERS))
        assert "cache-status" not in response.headers
    assert cache.stats().calls == 0


async def test_a_body_that_can_be_sent_only_once_is_sent_and_not_looked_at(way, provider, chat, cache):
    sync_body = iter([b'{"model":"m",', b'"messages":[{"role":"user","content":"hello"}]}'])

    async def async_body():
        for piece in sync_body:
            yield piece

    body = async_body() if way.is_async else sync_body
    response = await way.post(
        way.client(cache), chat, content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 200
    assert cache.stats().bypassed == {"unread body": 1}


async def test_a_request_sent_twice_by_its_maker_is_asked_once(way, provider, chat, cache):
    client = way.client(cache)
    request = client.build_request("POST", chat, json=ASK, headers=HEADERS)
    first = await way.get(client.send(request))
    again = await way.get(client.send(request))
    assert again.json() == first.json()
    assert provider.calls == 1


async def test_both_packages_and_both_kinds_share_one_entry(provider, chat, cache):
    def ask(package):
        with package.Client(transport=CacheTransport(cache)) as client:
            return client.post(chat, json=ASK, headers=HEADERS).json()

    first = ask(httpx)
    assert ask(httpx2) == first
    for package in (httpx, httpx2):
        async with package.AsyncClient(transport=AsyncCacheTransport(cache)) as client:
            assert (await client.post(chat, json=ASK, headers=HEADERS)).json() == first
    assert provider.calls == 1


async def test_another_question_has_another_answer(way, provider, chat, cache):
    client = way.client(cache)
    bodies = [ASK, {**ASK, "model": "other"}, {**ASK, "top_k": 3}, {**ASK, "top_k": 4}, STREAM]
    answers = [(await way.post(client, chat, json=body)).content for body in bodies]
    assert len({*answers}) == provider.calls == len(bodies)


async def test_two_credentials_share_nothing_where_that_is_the_scope(way, provider, chat):
    with Cache("memory://", scope="credential") as cache:
        client = way.client(cache)
        for key in ("one", "two", "one"):
            await way.post(client, chat, json=ASK, headers={"authorization": f"Bearer {key}"})
    assert provider.calls == 2


async def test_cache_control_is_obeyed_and_reaches_the_provider_as_it_would(way, provider, chat, cache):
    client = way.client(cache)
    await way.post(client, chat, json=ASK)
    await way.post(client, chat, json=ASK, headers={"cache-control": "no-cache"})
    assert provider.calls == 2
    assert ("cache-control", "no-cache") in [
        (str(name).lower(), value) for name, value in provider.requests[-1].headers
    ]
    with using(refresh=True):
        await way.post(client, chat, json=ASK)
    assert provider.calls == 3


async def test_only_if_cached_is_a_504_on_a_miss_and_a_hit_otherwise(way, provider, chat, cache):
    client = way.client(cache)
    wants = {"cache-control": "only-if-cached"}
    assert (await way.post(client, chat, json=ASK, headers=wants)).status_code == 504
    assert provider.calls == 0
    first = await way.post(client, chat, json=ASK)
    assert (await way.post(client, chat, json=ASK, headers=wants)).json() == first.json()


async def test_offline_raises_and_never_asks(way, provider, chat):
    with Cache("memory://", mode="offline") as cache, pytest.raises(OfflineMiss, match="chat request"):
        await way.post(way.client(cache), chat, json=ASK)
    assert provider.calls == 0


@pytest.mark.parametrize("how", ["cache", "call"])
async def test_offline_never_asks_for_what_is_never_cached_either(way, provider, how):
    with Cache("memory://", mode="offline" if how == "cache" else "on") as cache:
        client = way.client(cache)
        for method, path in (("GET", "models"), ("POST", "files")):
            with pytest.raises(OfflineMiss, match="never answered"), using(mode="offline"):
                await way.get(client.request(method, f"{provider.base_url}/{path}", headers=HEADERS))
    assert provider.calls == 0


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer placeholder"}], ids=["adds", "replaces"])
async def test_who_is_known_only_to_a_transport_beneath_shares_nothing(way, chat, given):
    """Transports that sign, or put a token in, are told apart under `scope="credential"`."""
    package = way.package

    def signing(name):
        def answer(request):
            choice = {"message": {"content": f"for {name}"}, "finish_reason": "stop"}
            return package.Response(200, json={"choices": [choice]})

        return package.MockTransport(answer)

    with Cache("memory://", scope="credential") as cache:
        said = []
        for name in ("alice", "bob"):
            transport = way.transport(cache, signing(name))
            for _ in range(2):
                client = way.kind(transport=transport)
                answer = await way.get(client.post(chat, json=ASK, headers=given))
                said.append(answer.json()["choices"][0]["message"]["content"])
        assert said == ["for alice", "for alice", "for bob", "for bob"]
        assert (cache.stats().misses, cache.stats().hits) == (2, 2)


async def test_outcomes_are_told_once(way, provider, chat, cache):
    client = way.client(cache)
    with track() as outcomes:
        for _ in range(2):
            await way.post(client, chat, json=ASK)
    assert [(one.status, one.stored) for one in outcomes] == [("miss", True), ("hit", False)]


async def test_a_stale_answer_is_given_and_refreshed_behind(way, provider, chat):
    from askonce.testing import ManualClock

    clock = ManualClock()
    policy = Policy(ttl=10, jitter=0, stale_while_revalidate=100)
    with Cache("memory://", policy=policy, clock=clock) as cache:
        client = way.client(cache)
        first = await way.post(client, chat, json=ASK)
        clock.advance(20)
        stale = await way.post(client, chat, json=ASK)
        assert stale.content == first.content
        assert stale.headers["age"] == "20"
        for _ in range(500):
            if cache.stats().stored == 2:
                break
            await asyncio.sleep(0.01)
        assert (provider.calls, cache.stats().stored) == (2, 2)


async def test_redirects_are_the_clients_business(way, provider, chat, cache):
    provider.script(Fault(status=307, headers=(("location", chat),)))
    client = way.client(cache, follow_redirects=True)
    response = await way.post(client, f"{chat}?first=1", json=ASK)
    assert response.status_code == 200
    assert [one.status_code for one in response.history] == [307]
    # The client sends the body on as it is, so that nobody knows whether it can be read twice.
    assert cache.stats().bypassed == {"unread body": 1}


async def test_event_hooks_see_every_call(way, provider, chat, cache):
    seen = []

    async def anote(thing):
        seen.append(type(thing).__name__)

    def note(thing):
        seen.append(type(thing).__name__)

    hook = anote if way.is_async else note
    client = way.client(cache, event_hooks={"request": [hook], "response": [hook]})
    for _ in range(2):
        await way.post(client, chat, json=ASK)
    assert seen == ["Request", "Response"] * 2


def test_two_hundred_threads_ask_once(provider, chat, cache):
    provider.always(Fault(delay=0.3))
    answers = []
    with httpx2.Client(transport=CacheTransport(cache), timeout=20) as client:
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.post(chat, json=ASK, headers=HEADERS).content)
            )
            for _ in range(200)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (provider.calls, len(answers), len({*answers})) == (1, 200, 1)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("body", [ASK, STREAM], ids=["plain", "stream"])
async def test_two_hundred_tasks_ask_once(package, provider, chat, cache, body):
    provider.always(Fault(delay=0.3))
    async with package.AsyncClient(transport=AsyncCacheTransport(cache), timeout=20) as client:
        answers = await asyncio.gather(*[client.post(chat, json=body, headers=HEADERS) for _ in range(200)])
    assert provider.calls == 1
    assert len({one.content for one in answers}) == 1


async def test_a_multipart_form_is_answered_too(way, provider, cache):
    client = way.client(cache)
    url = f"{provider.base_url}/audio/transcriptions"
    answers = []
    for _ in range(2):
        files = {"file": ("a.wav", b"RIFF....", "audio/wav")}
        answers.append((await way.post(client, url, data={"model": "whisper-1"}, files=files)).json())
    assert answers[0] == answers[1]
    assert provider.calls == 1


@pytest.mark.parametrize("kind", [CacheTransport, AsyncCacheTransport])
def test_a_transport_is_of_one_family_and_never_of_both(kind):
    base = "BaseTransport" if kind is CacheTransport else "AsyncBaseTransport"
    bases = {package: getattr(package, base) for package in (httpx, httpx2)}
    # By class, not by the name of its module: some SDKs write their own name into what they export.
    for package in bases:
        made = kind(Cache("memory://"), family=package.__name__)
        assert [other for other, base in bases.items() if isinstance(made, base)] == [package]
    assert not isinstance(kind(Cache("memory://")), tuple(bases.values()))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"family": "requests"}, "family='requests' is not allowed; allowed: 'httpx', 'httpx2'"),
        (
            {"family": "httpx2", "inner": httpx.HTTPTransport(verify=False)},
            "family='httpx2' with a transport of httpx",
        ),
        ({"inner": object()}, "inner=object is not allowed; allowed: a transport with handle_request"),
        ({"cache": "memory://"}, "cache=str is not allowed; allowed: a Cache or None"),
    ],
)
def test_a_bad_argument_says_what_is_allowed(options, told):
    with pytest.raises(ConfigurationError) as caught:
        CacheTransport(**options)
    assert told in str(caught.value)
