"""Questions go where their beginning is known; no credential goes where it was not given for."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import time
from collections import Counter

import anthropic
import httpx
import httpx2
import openai
import pytest

from askonce import Cache, ConfigurationError
from askonce.prefix import PrefixAffinity
from askonce.stores import MemoryStore
from askonce.testing import FakeProvider, FlakyStore, ManualClock
from askonce.testing._provider.faults import Fault
from askonce_httpx import (
    AffinityTransport,
    AsyncAffinityTransport,
    AsyncCacheTransport,
    CacheTransport,
    Deployment,
)
from askonce_httpx._outcomes import pause_of

URL = "http://program.invalid/v1/chat/completions"
NAMES = ("eu", "us", "asia")
SECRETS = ("authorization", "api-key", "x-api-key", "cookie", "openai-organization", "x-gateway-token")


@pytest.fixture(scope="module")
def running():
    with FakeProvider() as eu, FakeProvider() as us, FakeProvider() as asia:
        yield dict(zip(NAMES, (eu, us, asia), strict=True))


@pytest.fixture
def fleet(running):
    for provider in running.values():
        provider.reset()
    return running


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def affinity(clock):
    with Cache(MemoryStore(clock=clock), clock=clock) as cache:
        made = PrefixAffinity(cache, NAMES)
        yield made
        assert not any(made._under_way.values()), "a call is still under way"


def root(provider):
    return provider.base_url.removesuffix("/v1")


def bearers(fleet):
    return {
        name: Deployment(provider.base_url, {"Authorization": f"Bearer {name}"})
        for name, provider in fleet.items()
    }


def talk(*turns, **more):
    said = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]
    return {"model": "m", "messages": said, **more}


def calls(fleet):
    return {name: provider.calls for name, provider in fleet.items()}


def asked(fleet):
    return [request for provider in fleet.values() for request in provider.requests]


async def home(door, client, fleet, body):
    """The deployment that a question goes to; nobody remembers being asked."""
    answer = await door.post(client, URL, body)
    for provider in fleet.values():
        provider.reset()
    return answer.extensions["askonce_deployment"]


def wait_for_a_call(fleet):
    deadline = time.monotonic() + 5
    while not any(provider.in_flight for provider in fleet.values()) and time.monotonic() < deadline:
        time.sleep(0.001)


def dead_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Door:
    """One package and one kind of client over an affinity."""

    def __init__(self, package, *, is_async):
        self.package, self.is_async = package, is_async
        self.kind = package.AsyncClient if is_async else package.Client
        self.plain = package.AsyncHTTPTransport if is_async else package.HTTPTransport
        self.made = AsyncAffinityTransport if is_async else AffinityTransport
        self.cached = AsyncCacheTransport if is_async else CacheTransport
        self.open = []

    def client(self, affinity, deployments, cache=None, **options):
        transport = self.made(affinity, deployments, self.plain(verify=False), **options)
        if cache is not None:
            transport = self.cached(cache, transport)
        client = self.kind(transport=transport, timeout=10)
        self.open.append(client)
        return client

    async def post(self, client, url, body, **options):
        answer = client.post(url, json=body, **options)
        return await answer if self.is_async else answer

    async def close(self):
        for client in self.open:
            await client.aclose() if self.is_async else client.close()


@pytest.fixture(params=["httpx", "httpx async", "httpx2", "httpx2 async"])
async def door(request):
    name, _, kind = request.param.partition(" ")
    made = Door({"httpx": httpx, "httpx2": httpx2}[name], is_async=kind == "async")
    yield made
    await made.close()


# -- credentials ------------------------------------------------------------------------------------------


OWN = {
    "authorization": "Bearer program",
    "api-key": "program",
    "x-api-key": "program",
    "cookie": "program=1",
    "openai-organization": "program",
    "x-gateway-token": "program",
    "idempotency-key": "once",
}


@pytest.mark.parametrize("has", [True, False], ids=["own key", "no key"])
async def test_the_programs_credentials_never_reach_another_origin(door, fleet, affinity, has):
    headers = {"Authorization": "Bearer theirs"} if has else {}
    there = {name: Deployment(provider.base_url, headers) for name, provider in fleet.items()}
    client = door.client(affinity, there)
    url = "http://program.invalid/v1/chat/completions?key=program&sig=program&beta=true"
    answer = await door.post(client, url, talk("hello"), headers=OWN)
    (request,) = asked(fleet)
    assert answer.status_code == 200
    found = {name: value for name in SECRETS if (value := request.header(name)) is not None}
    assert found == ({"authorization": "Bearer theirs"} if has else {})
    assert request.header("idempotency-key") == "once"
    assert request.query == "beta=true"
    assert str(answer.request.url) == url  # what the program wrote


async def test_a_deployments_credential_reaches_no_other_one_when_a_question_is_passed_on(
    door, fleet, affinity
):
    client = door.client(affinity, bearers(fleet))
    for provider in fleet.values():
        provider.script(Fault(status=500, headers=(("set-cookie", "mine=1"),)))
    for number in range(6):
        await door.post(client, URL, talk(f"{number}"))
    for name, provider in fleet.items():
        assert {request.header("authorization") for request in provider.requests} <= {f"Bearer {name}"}
        assert {request.header("cookie") for request in provider.requests} <= {None}


async def test_a_cookie_of_a_deployment_is_not_taken_for_one_of_the_programs_origin(door, fleet, affinity):
    for provider in fleet.values():
        provider.always(Fault(headers=(("set-cookie", "theirs=1"),)))
    client = door.client(affinity, bearers(fleet))
    answer = await door.post(client, URL, talk("hello"))
    assert "set-cookie" not in answer.headers
    assert dict(client.cookies) == {}


async def test_on_the_programs_origin_its_credentials_stay_unless_the_deployment_has_its_own(
    door, fleet, affinity
):
    eu = fleet["eu"]
    same = dict.fromkeys(NAMES, Deployment(eu.base_url))
    await door.post(door.client(affinity, same), f"{eu.base_url}/chat/completions", talk("a"), headers=OWN)
    own = dict.fromkeys(NAMES, Deployment(eu.base_url, {"api-key": "own"}))
    await door.post(door.client(affinity, own), f"{eu.base_url}/chat/completions", talk("b"), headers=OWN)
    kept, replaced = eu.requests
    assert kept.header("authorization") == "Bearer program"
    assert (replaced.header("authorization"), replaced.header("api-key")) == (None, "own")


async def test_same_credentials_are_sent_only_where_that_was_said(door, fleet, affinity):
    there = {name: Deployment(provider.base_url, same_credentials=True) for name, provider in fleet.items()}
    client = door.client(affinity, there)
    await door.post(client, URL, talk("a"), headers=OWN)
    assert [request.header("authorization") for request in asked(fleet)] == ["Bearer program"]


async def test_a_credential_that_changes_is_asked_for_with_each_question(door, fleet, affinity):
    tokens = iter(f"Bearer {number}" for number in range(9))
    there = {
        name: Deployment(provider.base_url, lambda: {"Authorization": next(tokens)})
        for name, provider in fleet.items()
    }
    client = door.client(affinity, there)
    for _ in range(3):
        await door.post(client, URL, talk("hello"), headers=OWN)
    sent = [request.header("authorization") for request in asked(fleet)]
    assert sent == ["Bearer 0", "Bearer 1", "Bearer 2"]
    assert {request.header("x-api-key") for request in asked(fleet)} == {None}


async def test_a_function_that_has_no_credential_fails_the_call_and_blames_no_deployment(
    door, fleet, affinity
):
    def expired():
        raise LookupError("log in again")

    client = door.client(affinity, {n: Deployment(p.base_url, expired) for n, p in fleet.items()})
    with pytest.raises(LookupError, match="log in again"):
        await door.post(client, URL, talk("hello"))
    wrong = {n: Deployment(p.base_url, lambda: "secret") for n, p in fleet.items()}
    with pytest.raises(ConfigurationError, match="allowed: a mapping") as caught:
        await door.post(door.client(affinity, wrong), URL, talk("hello"))
    assert "secret" not in str(caught.value)
    assert not asked(fleet)
    assert set(affinity._out_until.values()) == {0.0}


def test_a_repr_shows_no_credential_and_asks_for_none():
    made = Deployment("https://host/v1", lambda: pytest.fail("asked"))
    assert repr(made) == "<Deployment https://host:443/v1, headers: of a function>"
    made = Deployment("https://host/v1?sig=secret", {"x-api-key": "secret"})
    assert repr(made) == "<Deployment https://host:443/v1, headers: ['x-api-key']>"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "host/v1"},
        {"base_url": "ftp://host"},
        {"base_url": "https://me:secret@host"},
        {"base_url": "https://host:x"},
        {"base_url": "https://host", "headers": {"a": "secret\r\nb: c"}},
        {"base_url": "https://host", "headers": {"Host": "secret"}},
        {"base_url": "https://host", "headers": {"api-key": "secret"}, "same_credentials": True},
        {"base_url": "https://host", "headers": dict, "same_credentials": True},
        {"base_url": "https://host", "headers": "secret"},
        {"base_url": "https://host", "headers": {"api-key": None}},
        {"base_url": "https://host", "headers": {b"api-key": "secret"}},
    ],
    ids=str,
)
def test_a_deployment_that_cannot_work_is_an_error_that_tells_no_secret(wrong):
    with pytest.raises(ConfigurationError, match="allowed") as caught:
        Deployment(**wrong)
    assert "secret" not in str(caught.value)


def test_a_transport_that_cannot_work_is_an_error(affinity):
    there = dict.fromkeys(NAMES, Deployment("http://host"))
    for wrong in (
        ("no", there),
        (affinity, {"eu": there["eu"]}),
        (affinity, list(there.values())),
        (affinity, None),
        (affinity, {**there, 7: there["eu"]}),
        (affinity, dict.fromkeys(NAMES, "http://x")),
    ):
        with pytest.raises(ConfigurationError, match="allowed"):
            AffinityTransport(*wrong)
    with pytest.raises(ConfigurationError, match="handle_async_request"):
        AsyncAffinityTransport(affinity, there, httpx.HTTPTransport(verify=False))


# -- where questions go -----------------------------------------------------------------------------------


async def test_a_conversation_stays_where_it_is_and_its_bytes_are_not_touched(door, fleet, affinity):
    client = door.client(affinity, bearers(fleet))
    turns = ["hello"]
    for turn in range(4):
        answer = await door.post(client, URL, talk(*turns))
        assert answer.extensions["askonce_deployment"] in NAMES
        turns += [f"answer {turn}", f"question {turn}"]
    assert sorted(calls(fleet).values()) == [0, 0, 4]
    assert next(iter(asked(fleet))).json() == talk("hello")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embeddings", {"model": "m", "input": "a"}),
        ("responses", {"model": "m", "input": "a"}),  # stored by the provider
        ("responses", {"model": "m", "input": "a", "store": False, "previous_response_id": "r"}),
        (
            "responses",
            {"model": "m", "input": "a", "store": False, "include": ["reasoning.encrypted_content"]},
        ),
        ("chat/completions", talk([{"type": "file", "file": {"file_id": "f"}}])),
        ("chat/completions", talk("a", store=True)),
    ],
    ids=str,
)
async def test_what_only_one_place_can_answer_goes_where_the_program_sent_it(
    door, fleet, affinity, path, body
):
    with FakeProvider() as own:
        client = door.client(affinity, bearers(fleet))
        await door.post(client, f"{own.base_url}/{path}", body, headers=OWN)
        assert [request.header("authorization") for request in own.requests] == ["Bearer program"]
    assert asked(fleet) == []


async def test_responses_that_are_not_stored_are_routed(door, fleet, affinity):
    client = door.client(affinity, bearers(fleet))
    body = {"model": "m", "input": "a", "store": False}
    await door.post(client, "http://program.invalid/v1/responses", body)
    assert [request.json() for request in asked(fleet)] == [body]


async def test_marks_go_to_the_provider_with_the_right_length_and_not_into_the_key(door, fleet, affinity):
    with Cache("memory://") as cache:
        there = {name: Deployment(root(provider)) for name, provider in fleet.items()}
        client = door.client(affinity, there, cache, annotate=True)
        body = {**talk("ä"), "system": "word " * 2000, "max_tokens": 9}
        for _ in range(2):
            answer = await door.post(client, "http://program.invalid/v1/messages", body)
            assert answer.status_code == 200
    (request,) = asked(fleet)
    assert request.json()["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert request.json()["messages"] == body["messages"]


async def test_a_hit_picks_nobody_and_the_key_is_the_same_whoever_answered(door, fleet, affinity):
    with Cache("memory://") as cache:
        url = URL
        first = await door.post(door.client(affinity, bearers(fleet), cache), url, talk("a"))
        other = PrefixAffinity(cache, ["only"])
        alone = door.client(other, {"only": Deployment("http://127.0.0.1:9")}, cache)
        again = await door.post(alone, url, talk("a"))
    assert again.content == first.content
    assert again.headers["cache-status"].startswith("askonce; hit")
    assert len(asked(fleet)) == 1


async def test_a_store_that_fails_costs_warmth_and_no_call(door, fleet):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        affinity = PrefixAffinity(cache, NAMES)
        store.fail_with(OSError("away"))
        answer = await door.post(door.client(affinity, bearers(fleet)), URL, talk("a"))
        assert answer.status_code == 200
        store.recover()


# -- passing on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_deployment_that_is_unable_is_left_alone_and_another_asked_once(
    door, fleet, affinity, status
):
    client = door.client(affinity, bearers(fleet))
    first = await home(door, client, fleet, talk("hello"))
    fleet[first].always(Fault(status=status))
    answer = await door.post(client, URL, talk("hello"))
    assert answer.status_code == 200
    assert answer.extensions["askonce_deployment"] != first
    await door.post(client, URL, talk("hello"))
    assert fleet[first].calls == 1
    assert len(asked(fleet)) == 3


async def test_when_two_are_unable_the_program_is_told_and_nobody_else_asked(door, fleet, affinity):
    for provider in fleet.values():
        provider.always(Fault(status=503))
    client = door.client(affinity, bearers(fleet))
    answer = await door.post(client, URL, talk("hello"))
    assert (answer.status_code, len(asked(fleet))) == (503, 2)
    assert "error" in answer.json()


async def test_a_question_is_never_passed_on_to_where_it_was(door, fleet, affinity):
    client = door.client(affinity, bearers(fleet))
    first = await home(door, client, fleet, talk("hello"))
    for name in NAMES:  # all are left alone: then any may be asked, and this one knows the beginning
        while name != (pick := affinity.pick(talk(name), tried=set(NAMES) - {name})).name:
            pick.left()
        pick.failed(1000)
    for provider in fleet.values():
        provider.always(Fault(status=503))
    await door.post(client, URL, talk("hello"))
    assert fleet[first].calls == 1
    assert len(asked(fleet)) == 2


async def test_an_answer_that_is_the_programs_own_fault_is_passed_on_as_it_is(door, fleet, affinity):
    for provider in fleet.values():
        provider.always(Fault(status=400))
    client = door.client(affinity, bearers(fleet))
    answer = await door.post(client, URL, talk("hello"))
    assert (answer.status_code, len(asked(fleet))) == (400, 1)
    assert set(affinity._out_until.values()) == {0.0}


async def test_a_retry_after_is_heeded(door, fleet, affinity, clock):
    client = door.client(affinity, bearers(fleet))
    first = await home(door, client, fleet, talk("hello"))
    fleet[first].script(Fault(status=429, retry_after=60))
    await door.post(client, URL, talk("hello"))
    for seconds, there in ((59, False), (2, True)):
        clock.advance(seconds)
        names = set()
        for number in range(40):
            pick = affinity.pick(talk(f"{number}"))
            names.add(pick.name)
            pick.left()
        assert (first in names) is there


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"retry-after": "60"}, 60),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after": "Fri, 27 Nov 2026 10:01:00 GMT", "date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 60),
        ({"retry-after": "Fri, 27 Nov 2026 09:00:00 GMT", "date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 27 Nov 2099 10:00:00 GMT"}, 3600),
        ({"retry-after": "Fri, 01 Jan 1999 10:00:00 GMT"}, 0),
        ({"retry-after": "1e999"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "soon", "date": "now"}, 0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, 3600),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 -0000"}, 0),
        ({"retry-after": "Fri, 27 Nov 2026 10:01:00 +9999"}, 0),
        ({}, 0),
    ],
    ids=str,
)
def test_a_retry_after_is_seconds_or_a_date_and_at_most_an_hour(said, seconds):
    assert pause_of(httpx.Response(429, headers=said)) == seconds


async def test_a_small_error_is_told_when_the_other_deployment_is_away(door, fleet, clock):
    with Cache(MemoryStore(clock=clock), clock=clock) as cache:
        affinity = PrefixAffinity(cache, ["eu", "dead"])
        there = {
            "eu": Deployment(fleet["eu"].base_url),
            "dead": Deployment(f"http://127.0.0.1:{dead_port()}/v1"),
        }
        fleet["eu"].always(Fault(status=429))
        client = door.client(affinity, there)
        url = URL
        for number in range(8):
            clock.advance(100)
            answer = await door.post(client, url, talk(f"{number}"))
            assert (answer.status_code, "error" in answer.json()) == (429, True)
        assert not any(affinity._under_way.values())


async def test_what_has_no_answer_yet_is_asked_only_once(door, fleet, affinity):
    """The provider may be at work on it: asked elsewhere it would be paid for twice."""
    for provider in fleet.values():
        provider.always(Fault(disconnect=True))
    client = door.client(affinity, bearers(fleet))
    with pytest.raises(door.package.RemoteProtocolError):
        await door.post(client, URL, talk("hello"))
    assert len(asked(fleet)) == 1


async def test_of_eight_deployments_only_the_share_of_a_dead_one_moves(clock, fleet):
    names = [f"{number}" for number in range(8)]
    alive, dead = fleet["eu"].base_url, f"http://127.0.0.1:{dead_port()}/v1"
    url = URL

    def places(died):
        with Cache(MemoryStore(clock=clock), clock=clock) as cache:
            affinity = PrefixAffinity(cache, names, cooldown=1000)
            there = {name: Deployment(dead if name == died else alive) for name in names}
            transport = AffinityTransport(affinity, there, httpx.HTTPTransport(verify=False))
            with httpx.Client(transport=transport) as client:
                return [
                    client.post(url, json=talk(f"{number}")).extensions["askonce_deployment"]
                    for number in range(120)
                ]

    before = places(None)
    after = places("3")
    assert Counter(before)["3"] > 0
    assert "3" not in after
    assert all(one == other for one, other in zip(before, after, strict=True) if one != "3")


# -- nothing is left under way ----------------------------------------------------------------------------


STREAM = talk("hello", stream=True)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_of_calls_none_is_under_way_afterwards(door, fleet, affinity, seed):
    dice = random.Random(seed)
    client = door.client(affinity, bearers(fleet))
    faults = [Fault(), Fault(status=500), Fault(status=404), Fault(disconnect=True), Fault(cut_after=1)]
    for number in range(25):
        for provider in fleet.values():
            provider.clear()
            provider.script(dice.choice(faults))
        body = {**talk(f"{number}"), "stream": dice.random() < 0.7}
        request = client.build_request("POST", URL, json=body)
        stop = dice.choice([0, 1, None])
        try:
            answer = client.send(request, stream=True)
            answer = await answer if door.is_async else answer
            try:
                seen = 0
                if door.is_async:
                    async for _ in answer.aiter_raw():
                        seen += 1
                        if seen == stop:
                            break
                else:
                    for _ in answer.iter_raw():
                        seen += 1
                        if seen == stop:
                            break
            finally:
                await answer.aclose() if door.is_async else answer.close()
        except door.package.TransportError:
            pass
        assert not any(affinity._under_way.values()), number


def test_a_stream_is_under_way_until_it_is_closed_and_an_answer_that_was_forgotten_is_not(fleet, affinity):
    transport = AffinityTransport(affinity, bearers(fleet), httpx.HTTPTransport(verify=False))
    with httpx.Client(transport=transport) as client:
        request = client.build_request("POST", URL, json=STREAM)
        answer = client.send(request, stream=True)
        assert sum(affinity._under_way.values()) == 1
        answer.close()
        answer.close()
        assert sum(affinity._under_way.values()) == 0
        answer = client.send(request, stream=True)
        assert sum(affinity._under_way.values()) == 1
        del answer
        gc.collect()
        assert sum(affinity._under_way.values()) == 0


async def test_a_call_that_is_cancelled_is_not_under_way_and_nobody_is_blamed(fleet, affinity):
    for provider in fleet.values():
        provider.always(Fault(hang=True))
    transport = AsyncAffinityTransport(affinity, bearers(fleet), httpx.AsyncHTTPTransport(verify=False))
    async with httpx.AsyncClient(transport=transport, timeout=10) as client:
        task = asyncio.ensure_future(client.post(URL, json=talk("hello")))
        await asyncio.to_thread(wait_for_a_call, fleet)
        assert sum(affinity._under_way.values()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for provider in fleet.values():
        provider.release()
    assert sum(affinity._under_way.values()) == 0
    assert set(affinity._out_until.values()) == {0.0}


# -- the SDKs themselves ----------------------------------------------------------------------------------


AZURE = {"api_key": "program", "api_version": "2024-10-21", "azure_endpoint": "http://program.invalid"}


def sdks(fleet):
    """Each SDK's clients, how it is asked, the deployments for it, and the path they must see."""
    plain = {"api_key": "program", "base_url": "http://program.invalid/v1"}
    named = {
        name: Deployment(
            f"{root(one)}/openai/deployments/of-{name}?api-version=2025-01-01", {"api-key": name}
        )
        for name, one in fleet.items()
    }
    bare = {name: Deployment(f"{root(one)}/openai", {"api-key": name}) for name, one in fleet.items()}
    keys = {name: Deployment(root(one), {"x-api-key": name}) for name, one in fleet.items()}
    return {
        "openai": (openai.OpenAI, openai.AsyncOpenAI, plain, bearers(fleet), "/v1/chat/completions"),
        "azure, each its own": (
            openai.AzureOpenAI,
            openai.AsyncAzureOpenAI,
            AZURE,
            named,
            "/openai/deployments/of-NAME/chat/completions?api-version=2025-01-01",
        ),
        "azure, one name": (
            openai.AzureOpenAI,
            openai.AsyncAzureOpenAI,
            AZURE,
            bare,
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        ),
        "openai to azure": (
            openai.OpenAI,
            openai.AsyncOpenAI,
            plain,
            named,
            "/openai/deployments/of-NAME/chat/completions?api-version=2025-01-01",
        ),
        "azure to openai": (
            openai.AzureOpenAI,
            openai.AsyncAzureOpenAI,
            AZURE,
            bearers(fleet),
            "/v1/chat/completions",
        ),
        "anthropic": (
            anthropic.Anthropic,
            anthropic.AsyncAnthropic,
            {"api_key": "program", "base_url": "http://program.invalid"},
            keys,
            "/v1/messages",
        ),
    }


SDKS = ["openai", "azure, each its own", "azure, one name", "openai to azure", "azure to openai", "anthropic"]


def ask_of(sdk, client):
    if sdk == "anthropic":
        return client.messages.create, {"max_tokens": 9}
    return client.chat.completions.create, {}


def family_of(sdk):
    """The package that an SDK's own clients are made of: openai changed it with version 3."""
    own = (anthropic if sdk == "anthropic" else openai).DefaultHttpxClient
    names = {kind.__module__.partition(".")[0] for kind in own.__mro__}
    return httpx2 if "httpx2" in names else httpx


def checked(fleet, there, path, sdk):
    (request,) = asked(fleet)
    (name,) = [name for name, provider in fleet.items() if provider.calls]
    seen = request.path + (f"?{request.query}" if getattr(request, "query", "") else "")
    assert seen == path.replace("NAME", name), sdk
    for header, value in there[name].headers.items():
        assert request.header(header) == value
    kept = {header: request.header(header) for header in SECRETS if request.header(header)}
    assert kept == {header.lower(): value for header, value in there[name].headers.items()}
    assert request.header("host") == fleet[name].base_url.split("/")[2]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_is_routed_under_a_cache_and_the_second_time_asks_nobody(fleet, affinity, sdk, streamed):
    kind, _, options, there, path = sdks(fleet)[sdk]
    family = family_of(sdk)
    inner = family.HTTPTransport(verify=False)
    with Cache("memory://") as cache:
        transport = CacheTransport(cache, AffinityTransport(affinity, there, inner))
        with family.Client(transport=transport) as http, kind(**options, http_client=http) as client:
            create, more = ask_of(sdk, client)
            answers = []
            for _ in range(2):
                answer = create(**talk("hello"), **more, stream=streamed)
                answers.append([one.to_dict() for one in answer] if streamed else answer.to_dict())
    assert answers[0] == answers[1]
    checked(fleet, there, path, sdk)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("sdk", SDKS)
async def test_an_async_sdk_is_routed_under_a_cache_and_the_second_time_asks_nobody(
    fleet, affinity, sdk, streamed
):
    _, kind, options, there, path = sdks(fleet)[sdk]
    family = family_of(sdk)
    inner = family.AsyncHTTPTransport(verify=False)
    with Cache("memory://") as cache:
        transport = AsyncCacheTransport(cache, AsyncAffinityTransport(affinity, there, inner))
        async with (
            family.AsyncClient(transport=transport) as http,
            kind(**options, http_client=http) as client,
        ):
            create, more = ask_of(sdk, client)
            answers = []
            for _ in range(2):
                answer = await create(**talk("hello"), **more, stream=streamed)
                answers.append([one.to_dict() async for one in answer] if streamed else answer.to_dict())
    assert answers[0] == answers[1]
    checked(fleet, there, path, sdk)


def test_time_outs_go_with_a_request_and_the_body_is_the_same_bytes(fleet, affinity):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json={})

    there = {name: Deployment("https://elsewhere/v1") for name in NAMES}
    transport = AffinityTransport(affinity, there, httpx.MockTransport(answer))
    body = json.dumps(talk("ä"), indent=3).encode()
    with httpx.Client(transport=transport, timeout=httpx.Timeout(7, connect=3)) as client:
        extensions = {"sni_hostname": "program.invalid"}
        client.post(
            URL,
            content=body,
            headers={"content-type": "application/json"},
            extensions=extensions,
        )
    (request,) = seen
    assert request.content == body
    assert request.extensions["timeout"] == {"connect": 3, "read": 7, "write": 7, "pool": 7}
    assert "sni_hostname" not in request.extensions
    assert request.headers["host"] == "elsewhere"
