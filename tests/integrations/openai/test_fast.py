"""The short way at `create`: equal objects, made anew, and never an answer to another question."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import MethodType

import openai
import pytest
from integrations.openai.test_equal import CHAT_TOOLS, MESSAGES, ODD, mocked, picture
from openai import NOT_GIVEN

import askonce_openai
from askonce import Cache, OfflineMiss, Policy, Request, track, using
from askonce.doors import UnplannedError, plan, same
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock
from askonce.testing._provider import Fault
from askonce_openai import _fast, _learned
from askonce_openai._creators import PLACES

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
PLAIN = {"content-type": "application/json", "x-request-id": "r1"}
EVENTS = {"content-type": "text/event-stream", "x-request-id": "r1"}


async def ask(side, client, **more):
    return await side.get(client.chat.completions.create(**{"model": "m", "messages": MESSAGES, **more}))


async def learnt(side, client, **more):
    """Asked often enough that the next one takes the short way."""
    for _ in range(2):
        answer = await ask(side, client, **more)
        if more.get("stream"):
            await side.all(answer)


def recalled(cache):
    return cache.stats().recalled


# -- equal, always ------------------------------------------------------------------------------------

MESSAGE = [
    {"role": "assistant", "content": "hello"},
    {"role": "assistant", "content": "naïve 犬 🦊 \u2028 \u0000 end", "refusal": None, "annotations": []},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    },
    {
        "role": "assistant",
        "content": "x",
        "reasoning_content": "deep",
        "unknown": {"a": [1, 2.5, None, {"b": []}]},
    },
    {
        "role": "assistant",
        "content": "x",
        "audio": {"id": "a", "data": "QUJD", "expires_at": 3, "transcript": "x"},
    },
    {"role": "assistant", "content": ["a", {"wrong": "type"}]},
    ODD["choices"][0]["message"],
]
LOGPROBS = [None, ODD["choices"][0]["logprobs"]]
MORE = [
    {"usage": USAGE},
    {
        "usage": {
            **USAGE,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1},
        }
    },
    {
        "usage": None,
        "service_tier": "default",
        "system_fingerprint": "fp",
        "big": 2**80,
        "tiny": -1e-300,
        "neg": -0.0,
    },
]
ASKS = [
    {},
    {"temperature": 0, "seed": None, "stop": ["a", "b"], "user": "u"},
    {"tools": CHAT_TOOLS, "tool_choice": "auto", "extra_body": {"new": [1]}, "extra_headers": {"x-a": "b"}},
]


def chats():
    """Answers of chat and the arguments they are given for."""
    for number, (message, logprobs, more, arguments) in enumerate(
        itertools.product(MESSAGE, LOGPROBS, MORE, ASKS)
    ):
        choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
        choices = [choice, {**choice, "index": 1, "new": {"deep": [number]}}][: 1 + number % 2]
        body = {
            "id": f"c{number}",
            "object": "chat.completion",
            "created": number,
            "model": "m",
            "choices": choices,
            **more,
        }
        yield "chat.completions", {"model": "m", "messages": MESSAGES, **arguments}, body


def responses():
    parts = [
        [{"type": "output_text", "text": "hello", "annotations": []}],
        [
            {
                "type": "output_text",
                "text": "x",
                "annotations": [
                    {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
                ],
                "logprobs": [],
            }
        ],
        [
            {"type": "novel", "what": {"ever": [None]}},
            {"type": "output_text", "text": "y", "annotations": []},
        ],
    ]
    outputs = [
        lambda content: [
            {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
        ],
        lambda content: [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}]},
            {
                "type": "function_call",
                "id": "f",
                "call_id": "c",
                "name": "n",
                "arguments": "{}",
                "status": "completed",
            },
            {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content},
        ],
    ]
    arguments = [
        {"input": "hello"},
        {"input": MESSAGES, "instructions": "brief"},
        {"input": "hello", "metadata": {"a": "b"}},
    ]
    for number, (content, output, asked) in enumerate(itertools.product(parts, outputs, arguments)):
        body = {
            "id": f"r{number}",
            "object": "response",
            "created_at": number + 0.5,
            "status": "completed",
            "model": "m",
            "output": output(content),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "total_tokens": 3,
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }
        yield "responses", {"model": "m", **asked}, body


def others():
    for number in range(12):
        text = {
            "index": 0,
            "text": "x" * (number + 1),
            "finish_reason": "stop",
            "logprobs": None,
            "new": number,
        }
        body = {
            "id": "c",
            "object": "text_completion",
            "created": number,
            "model": "m",
            "choices": [text],
            "usage": USAGE,
        }
        yield "completions", {"model": "m", "prompt": "hello", "echo": bool(number % 2)}, body
        row = {"object": "embedding", "index": 0, "embedding": [0.1 * number, -0.0, 1e-300, float(number)]}
        body = {
            "object": "list",
            "model": "e",
            "data": [row],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        yield (
            "embeddings",
            {"model": "e", "input": "hello", "encoding_format": "float", "user": str(number)},
            body,
        )


CORPUS = [*chats(), *responses(), *others()]


def test_the_corpus_is_large():
    assert len(CORPUS) * 2 >= 300  # each for both kinds of client


async def test_fast_slow_and_uncached_answers_are_equal(side, enable):
    body = None

    def answer(request):
        return side.package.Response(200, content=json.dumps(body).encode(), headers=PLAIN)

    async def asked(client, resource, arguments):
        for part in resource.split("."):
            client = getattr(client, part)
        return await side.get(client.create(**arguments))

    bare = mocked(side, answer)
    caches = {"slow": Cache("memory://"), "fast": Cache("memory://")}
    clients = {name: mocked(side, answer) for name in caches}
    for name, client in clients.items():
        enable(caches[name], client, fast=name == "fast")
    for number, (resource, arguments, given) in enumerate(CORPUS):
        body = given
        with using(tags=[str(number)], sample=number):
            plain = picture(await asked(bare, resource, arguments))
            for client in clients.values():
                for _ in range(4):
                    assert picture(await asked(client, resource, arguments)) == plain, (resource, number)
    fast, slow = caches["fast"].stats(), caches["slow"].stats()
    assert (fast.recalled, fast.unequal, slow.recalled) == (2 * len(CORPUS), 0, 0)
    assert (fast.hits, fast.misses, fast.usage_saved) == (slow.hits, slow.misses, slow.usage_saved)


def streams():
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    for number, (message, more) in enumerate(itertools.product(MESSAGE[:5], MORE)):
        delta = {name: value for name, value in message.items() if name != "role"}
        pieces = [first, {"index": 0, "delta": delta, "finish_reason": None, "odd": [number]}, last]
        yield [
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": number,
                "model": "m",
                "choices": [piece],
            }
            | (more if piece is last else {})
            for piece in pieces
        ]


async def test_fast_slow_and_uncached_streams_are_equal(side, enable):
    chunks = None

    def answer(request):
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return side.package.Response(200, content=text.encode(), headers=EVENTS)

    bare, client, cache = mocked(side, answer), mocked(side, answer), Cache("memory://")
    enable(cache, client)
    for number, given in enumerate(streams()):
        chunks = given
        with using(sample=number):
            plain = picture(await side.all(await ask(side, bare, stream=True)))
            assert len(plain[1]) == len(given)
            for _ in range(4):
                stream = await ask(side, client, stream=True)
                assert type(stream) is (openai.AsyncStream if side.is_async else openai.Stream)
                assert picture(await side.all(stream)) == plain
                assert stream.response.is_closed
                assert stream.response.headers["x-request-id"] == "r1"
    assert recalled(cache) == 2 * (number + 1)


# -- objects of one's own -----------------------------------------------------------------------------


async def test_no_two_hits_share_anything_that_can_change(side, client, enabled):
    await learnt(side, client, n=2)
    one, other = await ask(side, client, n=2), await ask(side, client, n=2)
    assert recalled(enabled) == 2

    def inside(value, found):
        if isinstance(value, list | dict) or hasattr(value, "model_fields_set"):
            found.append(value)
            inner = (
                value
                if isinstance(value, list)
                else value.values()
                if isinstance(value, dict)
                else vars(value).values()
            )
            for each in inner:
                inside(each, found)
        return found

    assert not {id(each) for each in inside(one, [])} & {id(each) for each in inside(other, [])}


async def test_whatever_a_caller_does_to_an_answer_no_other_sees_it(side, client, enabled):
    await ask(side, client)
    for _ in range(4):
        answer = await ask(side, client)
        assert answer.choices[0].message.content != "spoilt"
        answer.choices[0].message.content = "spoilt"
        answer.choices.append(None)
        answer.model_extra["spoilt"] = True
        answer.model_fields_set.clear()
    assert recalled(enabled) == 3


async def test_arguments_changed_after_the_call_are_another_question(side, provider, client):
    messages = [{"role": "user", "content": "hello"}]
    await learnt(side, client, messages=messages)
    messages[0]["content"] = "other"
    await ask(side, client, messages=messages)
    assert provider.calls == 2


# -- other questions ----------------------------------------------------------------------------------

PAIRS = [
    ({"temperature": 1}, {"temperature": 1.5}),
    ({"seed": 1}, {"seed": 2}),
    ({"seed": None}, {"seed": 0}),
    ({"stop": "a"}, {"stop": "b"}),
    ({"messages": MESSAGES}, {"messages": [*MESSAGES, *MESSAGES]}),
    ({"model": "m"}, {"model": "n"}),
    ({"tools": CHAT_TOOLS}, {}),
    ({"n": 1}, {"n": 2}),
    ({"extra_body": {"top_k": 1}}, {"extra_body": {"top_k": 2}}),
    ({"extra_headers": {"openai-beta": "a"}}, {"extra_headers": {"openai-beta": "b"}}),
    ({"extra_query": {"a": "1"}}, {"extra_query": {"a": "2"}}),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda pair: "-".join(pair) or "none")
async def test_other_arguments_are_another_question(side, provider, client, one, other):
    await learnt(side, client, **one)
    await learnt(side, client, **other)
    assert provider.calls == 2
    first, second = await ask(side, client, **one), await ask(side, client, **other)
    assert first.id != second.id
    assert provider.calls == 2


def set_header(client):
    client._custom_headers = {**client._custom_headers, "openai-beta": "o"}


def change_header(client):
    client._custom_headers["openai-beta"] = "o"


CHANGES = {
    "organization": lambda client: setattr(client, "organization", "o"),
    "project": lambda client: setattr(client, "project", "p"),
    "base url": lambda client: setattr(client, "base_url", str(client.base_url).replace("/v1", "/other/v1")),
    "headers": set_header,
    "headers in place": change_header,
    "query": lambda client: client._custom_query.update(a="1"),
    "http headers": lambda client: client._client.headers.update({"openai-organization": "o"}),
    "http parameters": lambda client: setattr(client._client, "params", {"a": "1"}),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_client_changed_after_it_was_learnt_asks_another_question(side, provider, enabled, change):
    client = side.client(provider.base_url, default_headers={"x-mine": "1"}, default_query={"z": "1"})
    await learnt(side, client)
    before = await ask(side, client)
    CHANGES[change](client)
    after = await ask(side, client)
    assert (provider.calls, before.id != after.id) == (2, True)


@pytest.mark.parametrize("how", ["api_key", "copy", "cookie", "provider"])
async def test_two_people_never_share(side, provider, enable, how):
    cache = Cache("memory://", scope="credential")
    key = "one"

    def current():
        return key

    async def acurrent():
        return key

    given = (acurrent if side.is_async else current) if how == "provider" else "one"
    client = side.client(provider.base_url, api_key=given)
    enable(cache, client)
    await learnt(side, client)
    first = await ask(side, client)
    if how == "api_key":
        client.api_key = "two"
    elif how == "copy":
        client = client.with_options(api_key="two")
    elif how == "cookie":
        client._client.cookies.set("session", "two")
    else:
        key = "two"
    assert (await ask(side, client)).id != first.id
    assert provider.calls == 2


async def test_cookies_that_a_provider_sets_are_no_other_question(side, client, enabled):
    await learnt(side, client)
    for number in range(3):
        client._client.cookies.set("session", str(number))
        await ask(side, client)
    assert recalled(enabled) == 3


@pytest.mark.parametrize(
    ("options", "heeds"),
    [
        ({}, False),
        ({"scope": "credential"}, True),
        ({"scope": lambda request: "x"}, True),
        ({"policy": Policy(vary_headers={"Cookie"})}, True),
        ({"policy": Policy(cacheable=lambda request: True)}, True),
    ],
    ids=["shared", "credential", "callable", "vary", "cacheable"],
)
def test_a_cache_says_whether_cookies_matter(options, heeds):
    with Cache("memory://", **options) as cache:
        assert cache.heeds_cookies is heeds


async def test_what_the_caller_says_holds_on_the_short_way(side, provider, client, enabled):
    await learnt(side, client)
    first = await ask(side, client)
    for said in ({"mode": "refresh"}, {"sample": 1}, {"scope": "other"}, {"namespace": "n"}, {"mode": "off"}):
        before = provider.calls
        with using(**said):
            assert (await ask(side, client)).id != first.id
        assert provider.calls == before + 1
    with using(mode="offline"), pytest.raises(OfflineMiss):
        await ask(side, client, seed=5)
    with using(mode="offline"):
        await ask(side, client)


async def test_an_answer_that_expired_was_deleted_or_replaced_is_not_given(side, provider, enable):
    clock = ManualClock()
    cache = Cache(MemoryStore(clock=clock), policy=Policy(ttl=60, jitter=0.0), clock=clock)
    client = side.client(provider.base_url)
    enable(cache, client)
    await learnt(side, client)
    first = await ask(side, client)
    clock.advance(61)
    second = await ask(side, client)
    assert second.id != first.id
    await learnt(side, client)
    with using(mode="refresh"):
        third = await ask(side, client)
    assert {(await ask(side, client)).id for _ in range(4)} == {third.id}
    cache.delete(*cache.keys())
    assert (await ask(side, client)).id not in {first.id, second.id, third.id}
    await learnt(side, client)
    with using(max_age=1):
        clock.advance(5)
        calls = provider.calls
        await ask(side, client)
    assert provider.calls == calls + 1


async def test_what_is_no_number_is_refused_as_without_a_cache(side, client):
    await learnt(side, client, temperature=None)
    with pytest.raises(ValueError, match="JSON"):
        await ask(side, client, temperature=float("nan"))


@pytest.mark.parametrize("value", [1, 1.0, True, "1"])
async def test_a_value_of_another_type_is_another_call(side, provider, client, value):
    others = [other for other in (1, 1.0, True, "1") if type(other) is not type(value)]
    await learnt(side, client, extra_body={"value": value})
    sent = provider.requests[-1].json()["value"]
    assert (sent, type(sent)) == (value, type(value))
    bare_calls = provider.calls
    for other in others:
        await learnt(side, client, extra_body={"value": other})
    kinds = {json.dumps(request.json()["value"]) for request in provider.requests}
    assert len(kinds) == provider.calls - bare_calls + 1  # one call for each kind that the key tells apart


async def test_arguments_left_out_by_name_are_left_out(side, provider, client, enabled):
    await learnt(side, client)
    await learnt(side, client, temperature=NOT_GIVEN, timeout=5)
    await ask(side, client, temperature=NOT_GIVEN, timeout=7)
    assert provider.calls == 1
    assert recalled(enabled) >= 2


@pytest.fixture
def flipping():
    """Has a thread change something to and fro while the test goes on."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    over, threads = threading.Event(), []

    def flip(*changes):
        def work():
            for change in itertools.cycle(changes):
                if over.is_set():
                    break
                change()

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()

    def stop():
        over.set()
        for thread in threads:
            thread.join(10)

    flip.stop = stop
    yield flip
    stop()
    sys.setswitchinterval(before)


def test_a_list_that_a_thread_changes_during_calls_teaches_nothing_wrong(
    sync_side, provider, enabled, flipping
):
    """A call of which the request was built from other words goes wrong once, and not again and again."""
    provider.reply(lambda request: "on " + request.json()["messages"][0]["content"])
    client = sync_side.client(provider.base_url)
    shared = [{"role": "user", "content": "one"}]
    flipping(lambda: shared[0].update(content="two"), lambda: shared[0].update(content="one"))
    for _ in range(150):
        client.chat.completions.create(model="m", messages=shared)
    flipping.stop()
    for words in ("one", "two") * 3:
        shared[0]["content"] = words
        answer = client.chat.completions.create(model="m", messages=shared)
        assert answer.choices[0].message.content == f"on {words}"


@pytest.mark.parametrize(
    ("headers", "body", "learns"),
    [
        (((b"authorization", b"Bearer one"),), {"model": "m", "seed": 1, "added": True}, True),
        (((b"api-key", b"one"),), {"model": "m", "seed": 1}, True),
        (((b"authorization", b"Bearer two"),), {"model": "m", "seed": 1}, False),
        ((), {"model": "m", "seed": 1}, False),
        (((b"authorization", b"Bearer one"),), {"model": "m", "seed": 2}, False),
        (((b"authorization", b"Bearer one"),), {"model": "m"}, False),
    ],
)
def test_a_request_of_other_words_or_another_key_is_not_learnt(sync_side, headers, body, learns):
    client = sync_side.client("http://mock/v1", api_key="one")
    request = Request("POST", "http://mock/v1/chat/completions", headers, json.dumps(body).encode())
    said = json.dumps({"model": "m", "seed": 1, "extra_body": {"added": True}}).encode()
    assert _fast._is_of(request, said, client) is learns


# -- who else wants to see calls ----------------------------------------------------------------------


def owners(side):
    module = PLACES[0].classes()
    return module[1 if side.is_async else 0], (openai.AsyncOpenAI if side.is_async else openai.OpenAI)


@pytest.mark.parametrize("where", ["request", "post", "_prepare_options", "_build_request", "_send_request"])
async def test_a_tracer_on_the_way_sees_every_call(side, client, enabled, monkeypatch, where):
    await learnt(side, client)
    _, kind = owners(side)
    original, seen = getattr(kind, where), []

    def traced(self, *args, **kwargs):
        seen.append(where)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, where, traced)
    again = side.client(str(client.base_url))
    for _ in range(3):
        await ask(side, again)
    assert len(seen) == 3
    assert recalled(enabled) == 0


async def test_a_tracer_that_was_at_create_before_us_sees_every_step(side, provider, cache, monkeypatch):
    resource, _ = owners(side)
    original, seen = vars(resource)["create"], []

    def traced(self, *args, **kwargs):
        seen.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(resource, "create", traced)
    askonce_openai.enable_cache(cache)
    try:
        client = side.client(provider.base_url)
        for _ in range(4):
            await ask(side, client)
    finally:
        askonce_openai.disable_cache()
    assert (len(seen), recalled(cache), vars(resource)["create"]) == (4, 0, traced)


async def test_one_who_reads_the_sdks_log_reads_of_every_call(side, client, enabled, caplog):
    await learnt(side, client)
    with caplog.at_level(logging.DEBUG, "openai._base_client"):
        await ask(side, client)
    assert "Sending HTTP Request" in caplog.text
    assert recalled(enabled) == 0


async def test_a_subclass_and_a_client_with_methods_of_its_own_take_the_usual_way(side, provider, enabled):
    class Mine(side.kind):
        pass

    await learnt(side, side.client(provider.base_url, kind=Mine))
    client = side.client(provider.base_url)
    client._prepare_options = MethodType(type(client)._prepare_options, client)
    await learnt(side, client)
    await learnt(side, client)
    assert (provider.calls, recalled(enabled)) == (1, 0)


async def test_an_http_client_that_builds_requests_its_own_way_is_asked_each_time(side, client, enabled):
    await learnt(side, client)
    http, seen = client._client, []
    original = http.build_request

    def build_request(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    http.build_request = build_request
    for _ in range(3):
        await ask(side, client)
    assert (len(seen), recalled(enabled)) == (3, 0)


async def test_a_resource_that_sends_by_another_way_takes_it(side, client, enabled):
    await learnt(side, client)
    original, seen = client.chat.completions._post, []

    def post(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    client.chat.completions._post = post
    for _ in range(3):
        await ask(side, client)

    class Mine(type(client.chat.completions)):
        pass

    for _ in range(3):
        await side.get(Mine(client).create(model="m", messages=MESSAGES))
    assert (len(seen), recalled(enabled)) == (3, 0)


async def test_raw_and_streaming_views_stay_what_they_are(side, client, enabled):
    await learnt(side, client)
    for _ in range(3):
        raw = await side.get(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
        assert raw.headers["cache-status"].startswith("askonce; hit")
    assert recalled(enabled) == 0


# -- streams ------------------------------------------------------------------------------------------


async def fast_stream(side, client, enabled, **more):
    await learnt(side, client, stream=True, **more)
    before = recalled(enabled)
    stream = await ask(side, client, stream=True, **more)
    assert recalled(enabled) == before + 1
    return stream


async def test_leaving_early_closes(side, client, enabled):
    stream = await fast_stream(side, client, enabled)
    await side.next(stream)
    assert not stream.response.is_closed
    await side.close(stream)
    assert stream.response.is_closed
    async with side.within(await ask(side, client, stream=True)) as within:
        await side.next(within)
    assert within.response.is_closed


async def test_a_stream_left_half_way_is_not_learnt(side, client, enabled):
    await side.all(await ask(side, client, stream=True))
    stream = await ask(side, client, stream=True)
    await side.next(stream)
    await side.close(stream)
    del stream
    gc.collect()
    await side.all(await ask(side, client, stream=True))
    assert recalled(enabled) == 0


async def test_a_response_that_was_read_or_closed_first_does_what_it_did(side, client, enabled):
    slow, fast = side.client(str(client.base_url)), client
    ways = []
    for one in (slow, fast):
        found = []
        for first in ("close", "read"):
            stream = await (fast_stream(side, one, enabled) if one is fast else ask(side, one, stream=True))
            if first == "close":
                await side.close(stream)
            else:
                found.append(
                    await side.get(stream.response.aread() if side.is_async else stream.response.read())
                )
            try:
                found.append(picture(await side.all(stream)))
            except Exception as error:
                found.append(type(error))
        ways.append(found)
    assert ways[0] == ways[1]


async def test_a_stream_has_the_response_of_its_own_call(side, client, enabled):
    one = await fast_stream(side, client, enabled)
    other = await ask(side, client, stream=True)
    assert one.response is not other.response
    assert one.response.request is not other.response.request
    assert one.response.request.url == other.response.request.url
    assert one.response.headers["cache-status"].startswith("askonce; hit")
    events = await side.all(one)
    assert one.response.is_stream_consumed
    assert picture(await side.all(other)) == picture(events)


# -- lists of embeddings --------------------------------------------------------------------------------


async def embed(side, client, *texts, **more):
    return await side.get(client.embeddings.create(model="e", input=list(texts), dimensions=8, **more))


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
async def test_a_list_on_the_short_way_is_the_list_of_the_long_one(side, fresh, enable, form):
    caches = [Cache("memory://"), Cache("memory://")]
    answers = []
    for cache, fast in zip(caches, (True, False), strict=True):
        client = side.client(fresh().base_url)
        enable(cache, client, fast=fast)
        answers.append([picture(await embed(side, client, "a", "b", "c", "a", **form)) for _ in range(5)])
    assert answers[0] == answers[1]
    assert len({str(answer) for answer in answers[0][1:]}) == 1
    assert [recalled(cache) for cache in caches] == [3, 0]
    fast, slow = (cache.stats() for cache in caches)
    assert (fast.hits, fast.misses, fast.usage_saved) == (slow.hits, slow.misses, slow.usage_saved)


async def test_one_input_that_is_gone_is_asked_again(side, provider, client, enabled):
    for _ in range(3):
        await embed(side, client, "a", "b", "c")
    assert recalled(enabled) == 1
    first, *_ = enabled.keys()
    enabled.delete(first)
    await embed(side, client, "a", "b", "c")
    assert [len(request.json()["input"]) for request in provider.requests] == [3, 1]
    await embed(side, client, "a", "b", "d")
    assert [len(request.json()["input"]) for request in provider.requests] == [3, 1, 1]


async def test_an_answer_too_large_to_be_kept_beside_others_is_not_learnt(side, client, enabled, monkeypatch):
    monkeypatch.setattr(_learned, "_ROOM", 64)
    for _ in range(4):
        await ask(side, client)
    assert (enabled.stats().hits, recalled(enabled)) == (3, 0)


# -- the same figures, and no harm ----------------------------------------------------------------------


async def test_a_hit_is_told_and_counted_as_on_the_usual_way(side, provider, enable):
    told = []
    for fast in (True, False):
        cache = Cache("memory://", policy=Policy(jitter=0.0))
        client = side.client(provider.base_url)
        enable(cache, client, fast=fast)
        await learnt(side, client)
        with track() as outcomes, using(tags=["t"]):
            await ask(side, client)
        (outcome,) = outcomes
        stats = cache.stats()
        told.append(
            (
                outcome.status,
                outcome.reason,
                outcome.tier,
                outcome.model,
                outcome.surface,
                outcome.usage,
                outcome.stored,
                stats.hits,
                stats.misses,
                stats.stored,
                stats.usage_saved,
                recalled(cache) > 0,
            )
        )
    assert told[0][:-1] == told[1][:-1]
    assert [one[-1] for one in told] == [True, False]


async def test_fast_false_takes_the_whole_way(side, provider, cache, enable):
    client = side.client(provider.base_url)
    enable(cache, client, fast=False)
    for _ in range(4):
        await ask(side, client)
    assert (recalled(cache), cache.stats().hits) == (0, 3)


def test_disabling_puts_every_create_back():
    before = {owner: vars(owner)["create"] for place in PLACES for owner in place.classes()}
    askonce_openai.enable_cache(Cache("memory://"))
    assert all(vars(owner)["create"] is not create for owner, create in before.items())
    askonce_openai.disable_cache()
    assert all(vars(owner)["create"] is create for owner, create in before.items())


@pytest.mark.parametrize("where", ["_written", "_answer", "plan", "same", "lessons_of"])
async def test_a_fault_of_the_short_way_costs_no_answer(side, client, monkeypatch, caplog, where):
    await learnt(side, client)

    def fails(*args, **kwargs):
        raise ZeroDivisionError("a secret prompt")

    monkeypatch.setattr(_fast, where, fails)
    for number in range(3):
        assert (await ask(side, client)).choices
        assert (await ask(side, client, seed=number)).choices
    assert "secret" not in caplog.text


async def test_an_object_that_no_equal_can_be_made_of_is_counted(side, client, enabled, monkeypatch):
    monkeypatch.setattr(_fast, "_unequal", set())
    monkeypatch.setattr(_fast, "same", lambda one, other: False)
    for _ in range(4):
        await ask(side, client)
    assert (enabled.stats().unequal, recalled(enabled)) == (1, 0)


@pytest.mark.parametrize("operation", ["get", "set"])
async def test_a_failing_store_is_never_seen(side, provider, enable, operation):
    store = FlakyStore(MemoryStore())
    client = side.client(provider.base_url)
    enable(Cache(store), client)
    await learnt(side, client)
    store.fail_with(RuntimeError, operations=[operation])
    for _ in range(3):
        assert (await ask(side, client)).choices


async def test_an_error_of_the_provider_is_the_callers(side, provider, client):
    provider.always(Fault(status=400))
    for _ in range(3):
        with pytest.raises(openai.BadRequestError):
            await ask(side, client)


async def test_wrong_arguments_are_told_in_the_sdks_words(side, client):
    with pytest.raises(TypeError, match="Missing required arguments"):
        await side.get(client.chat.completions.create(model="m"))


def test_threads_on_the_short_way_get_their_own_answers(sync_side, provider, enabled):
    client = sync_side.client(provider.base_url)
    provider.reply(lambda request: "the answer to " + request.json()["messages"][-1]["content"])
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait(10)
        for turn in range(60):
            words = f"question {(number + turn) % 5}"
            said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": words}])
            assert said.choices[0].message.content == f"the answer to {words}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert provider.calls == 5
    assert recalled(enabled) > 100


def test_what_is_learnt_goes_with_its_client(sync_side, provider, enabled):
    gc.collect()
    before = len(_learned._all)
    client = sync_side.client(provider.base_url)
    for _ in range(3):
        client.chat.completions.create(model="m", messages=MESSAGES)
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert len(_learned._all) == before + 1
    del client
    gc.collect()
    assert len(_learned._all) == before


def test_a_plan_refuses_what_it_does_not_know():
    for odd in (object(), (1, 2), {1, 2}, {"a": [object()]}, [{(1,): 2}]):
        with pytest.raises(UnplannedError):
            plan(odd, "openai")


def test_a_copy_that_shares_or_lacks_something_is_no_copy():
    inner = [1]
    assert not same([inner], [inner])
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([1], [True])
    assert not same([1.0], [1])
    assert not same([[1]], [(1,)])
    assert same([[1], {"a": "b"}], [[1], {"a": "b"}])


def test_opening_the_door_loads_no_resources_of_the_sdk():
    code = (
        "import sys, openai, askonce, askonce_openai\n"
        "before = set(sys.modules)\n"
        "askonce_openai.enable_cache(askonce.Cache('memory://'))\n"
        "print(*[name for name in set(sys.modules) - before if name.startswith('openai.')])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.strip() == ""
