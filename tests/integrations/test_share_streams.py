"""One answer in other shapes, where the Policy allows it: streamed, plain, with fewer choices; none lossy."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Cache, ConfigurationError, Policy, _pace, _shapes, track, using
from askonce.testing._provider import Fault
from askonce_httpx import AsyncCacheTransport, CacheTransport, wrap_client

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
USE = {"model": "m", "messages": [{"role": "user", "content": "use the tool get_weather"}], "tools": [TOOL]}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CLAUDE = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hello"}]}
CLAUDE_TOOL = {"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}
CLAUDE_USE = {**CLAUDE, "messages": USE["messages"], "tools": [CLAUDE_TOOL]}
THINK = {**CLAUDE, "thinking": {"type": "enabled", "budget_tokens": 1024}}


@pytest.fixture
def cache():
    with Cache("memory://", policy=Policy(share_streams=True)) as cache:
        yield cache


@pytest.fixture
def chat(provider, cache):
    with openai.OpenAI(
        base_url=provider.base_url,
        api_key="k",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=False),
    ) as client:
        yield wrap_client(client, cache)


@pytest.fixture
def claude(provider, cache):
    with anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield wrap_client(client, cache)


def said(completion):
    """All that a completion says, in the words that a stream has for it."""
    found = completion.model_dump(exclude={"choices": {"__all__": {"message": {"parsed"}}}})
    for choice in found["choices"]:
        for name in ("annotations", "audio", "function_call"):
            choice["message"].pop(name, None)
        for call in choice["message"].get("tool_calls") or []:
            call["function"].pop("parsed_arguments", None)
            call.pop("index", None)  # the accumulator leaves it there
        if not choice["message"].get("tool_calls"):
            choice["message"].pop("tool_calls", None)
    return found


# -- a stream answers the plain question ----------------------------------------------------------------


@pytest.mark.parametrize("ask", [ASK, USE, {**ASK, "n": 3}], ids=["text", "tool", "three"])
def test_a_chat_stream_answers_plainly_what_the_sdks_own_accumulator_says(provider, chat, ask):
    with chat.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        gathered = stream.get_final_completion()
    with track() as tracked:
        plain = chat.chat.completions.create(**ask)
    assert said(plain) == said(gathered)
    assert (provider.calls, tracked[0].status, tracked[0].reason) == (1, "hit", "from a stream")
    assert plain.usage == gathered.usage


def test_a_chat_stream_without_usage_answers_no_plain_question(provider, chat):
    list(chat.chat.completions.create(**ASK, stream=True))
    assert chat.chat.completions.create(**ASK).usage is not None
    assert provider.calls == 2


def test_a_responses_stream_answers_plainly_and_loses_nothing(provider, chat):
    with chat.responses.stream(model="m", input="hello") as stream:
        gathered = stream.get_final_response()
    plain = chat.responses.create(model="m", input="hello")
    assert plain.model_dump() == gathered.model_dump(
        exclude={"output": {"__all__": {"content": {"__all__": {"parsed"}}}}}
    )
    assert provider.calls == 1
    list(chat.responses.create(model="m", input="other", stream=True))
    chat.responses.create(model="m", input="other")
    assert provider.calls == 2


def test_a_plain_response_answers_no_stream(provider, chat):
    chat.responses.create(model="m", input="hello")
    list(chat.responses.create(model="m", input="hello", stream=True))
    assert provider.calls == 2


@pytest.mark.parametrize("ask", [CLAUDE, THINK, CLAUDE_USE], ids=["text", "thinking", "tool"])
def test_a_message_stream_answers_plainly_what_the_sdks_own_accumulator_says(provider, claude, ask):
    with claude.messages.stream(**ask) as stream:
        gathered = stream.get_final_message()
    plain = claude.messages.create(**ask)
    left_out = {"content": {"__all__": {"parsed_output"}}}
    assert plain.model_dump(exclude=left_out) == gathered.model_dump(exclude=left_out)
    assert provider.calls == 1


# -- a plain answer answers the streamed question -------------------------------------------------------


@pytest.mark.parametrize("ask", [ASK, USE, {**ASK, "n": 3}], ids=["text", "tool", "three"])
@pytest.mark.parametrize("usage", [True, False])
def test_a_plain_chat_answer_streams_to_the_same_completion(provider, chat, ask, usage):
    plain = chat.chat.completions.create(**ask)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    with track() as tracked, chat.chat.completions.stream(**ask, **options) as stream:
        gathered = stream.get_final_completion()
    expected = said(plain)
    if not usage:
        expected["usage"] = None
    assert said(gathered) == expected
    assert (provider.calls, tracked[0].reason) == (1, "from a plain answer")
    chunks = list(chat.chat.completions.create(**ask, stream=True, **options))
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert (chunks[-1].usage is not None) == usage
    assert provider.calls == 1


@pytest.mark.parametrize("ask", [CLAUDE, THINK, CLAUDE_USE], ids=["text", "thinking", "tool"])
def test_a_plain_message_streams_to_the_same_message(provider, claude, ask):
    plain = claude.messages.create(**ask)
    with claude.messages.stream(**ask) as stream:
        gathered = stream.get_final_message()
    left_out = {"content": {"__all__": {"parsed_output"}}}
    assert gathered.model_dump(exclude=left_out) == plain.model_dump(exclude=left_out)
    assert provider.calls == 1


async def test_async_too(provider, cache):
    async with wrap_client(
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0), cache
    ) as client:
        plain = await client.chat.completions.create(**ASK)
        stream = await client.chat.completions.create(**ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == plain.choices[0].message.content
    assert provider.calls == 1


# -- when not -------------------------------------------------------------------------------------------


def test_off_unless_asked_for(provider):
    with Cache("memory://") as cache, httpx.Client(transport=CacheTransport(cache)) as client:
        url = f"{provider.base_url}/chat/completions"
        for more in ({}, WITH_USAGE, {"n": 3}, {"n": 1}):
            client.post(url, json={**ASK, **more})
    assert provider.calls == 4


def test_what_may_not_be_read_is_not_read_in_another_shape_either(provider, chat, cache):
    list(chat.chat.completions.create(**ASK, **WITH_USAGE))
    with using(refresh=True):
        chat.chat.completions.create(**ASK)
    assert provider.calls == 2
    with using(scope="somebody"):
        chat.chat.completions.create(**ASK)
    assert provider.calls == 3
    with using(namespace="other"):
        chat.chat.completions.create(**ASK)
    assert provider.calls == 4
    with using(sample=1):
        chat.chat.completions.create(**ASK)
    assert provider.calls == 5


def test_an_expired_stream_answers_nothing(provider):
    from askonce.testing import ManualClock

    clock = ManualClock()
    policy = Policy(share_streams=True, ttl=10, jitter=0, stale_while_revalidate=100)
    with (
        Cache("memory://", policy=policy, clock=clock) as cache,
        httpx.Client(transport=CacheTransport(cache)) as client,
    ):
        url = f"{provider.base_url}/chat/completions"
        client.post(url, json={**ASK, **WITH_USAGE})
        clock.advance(11)
        client.post(url, json=ASK)
    assert provider.calls == 2


def test_a_truncated_stream_was_never_stored_and_answers_nothing(provider, chat):
    provider.script(Fault(finish_reason="length"))
    list(chat.chat.completions.create(**ASK, **WITH_USAGE))
    chat.chat.completions.create(**ASK)
    assert provider.calls == 2


def chunk(delta=None, finish=None, **more):
    choice = {
        "index": 0,
        "delta": {} if delta is None else delta,
        "finish_reason": finish,
        **more.pop("choice", {}),
    }
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


END = [chunk(finish="stop"), {**chunk(), "choices": [], "usage": {"total_tokens": 1}}]
LOSSY_STREAMS = {
    "an unknown field of the chunk": [chunk({"content": "a"}, news="x"), *END],
    "an unknown field of the delta": [chunk({"content": "a", "audio": {"id": "x"}}), *END],
    "an unknown field of the choice": [chunk({"content": "a"}, choice={"news": "x"}), *END],
    "two answers in one": [chunk({"content": "a"}), {**chunk({"content": "b"}), "id": "d"}, *END],
    "no reason": [chunk({"content": "a"}), END[1]],
    "no usage": [chunk({"content": "a"}), END[0]],
    "a tool call out of turn": [chunk({"tool_calls": [{"index": 1, "id": "x", "function": {}}]}), *END],
    "a tool call without a name": [chunk({"tool_calls": [{"index": 0, "id": "x", "function": {}}]}), *END],
    "a custom tool": [chunk({"tool_calls": [{"index": 0, "id": "x", "type": "custom"}]}), *END],
    "a second choice alone": [chunk({"content": "a"}, choice={"index": 1}), *END],
}


@pytest.mark.parametrize("name", LOSSY_STREAMS)
def test_a_stream_that_would_lose_something_is_refused(name):
    body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in LOSSY_STREAMS[name])
    with pytest.raises(_shapes.LossyError):
        _shapes.plain_from_stream(body + b"data: [DONE]\n\n")


def plain(message, **more):
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "logprobs": None,
        "message": {"role": "assistant", **message},
    }
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}


LOSSY_ANSWERS = {
    "annotations": plain({"content": "a", "annotations": [{"type": "url_citation"}]}),
    "audio": plain({"content": None, "audio": {"id": "x"}}),
    "a function call of old": plain({"content": None, "function_call": {"name": "f", "arguments": ""}}),
    "a custom tool": plain({"tool_calls": [{"id": "x", "type": "custom", "custom": {}}]}),
    "unknown": plain({"content": "a"}, prompt_filter_results=[{"a": 1}]),
    "no choices": {**plain({}), "choices": []},
}


@pytest.mark.parametrize("name", LOSSY_ANSWERS)
def test_an_answer_that_would_lose_something_is_refused(name):
    with pytest.raises(_shapes.LossyError):
        _shapes.stream_from_plain(json.dumps(LOSSY_ANSWERS[name]).encode(), with_usage=False)


TEXT = st.text(max_size=30)
CALLS = st.lists(
    st.fixed_dictionaries({
        "id": st.uuids().map(str), "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "arguments": TEXT}),
    }),
    max_size=3,
)  # fmt: skip
LOGPROBS = st.none() | st.just(
    {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}
)


@st.composite
def answers(draw):
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message = {
            "role": "assistant",
            "content": draw(TEXT.filter(bool) | st.none()),
            "refusal": draw(st.none() | TEXT.filter(bool)),
        }
        calls = draw(CALLS)
        if calls:
            message["tool_calls"] = calls
        logprobs = draw(LOGPROBS) if message["content"] else None
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
        "usage": {"total_tokens": 3}, "service_tier": "default", "system_fingerprint": None,
    }  # fmt: skip


@SETTINGS
@given(answers())
def test_plain_to_stream_and_back_is_the_same_answer(answer):
    streamed = _shapes.stream_from_plain(json.dumps(answer).encode(), with_usage=True)
    back = json.loads(_shapes.plain_from_stream(streamed))
    for choice in answer["choices"]:
        if not choice["message"]["content"]:
            choice["message"]["content"] = None
    for choice in back["choices"]:
        choice["message"]["content"] = choice["message"]["content"] or None
    assert back == answer


BLOCKS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
    | st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT})
    | st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXT})
    | st.fixed_dictionaries({
        "type": st.just("tool_use"), "id": st.just("t"), "name": st.just("f"),
        "input": st.dictionaries(TEXT, st.integers() | TEXT | st.lists(st.integers()), max_size=3),
    }),
    min_size=1, max_size=5,
)  # fmt: skip


@SETTINGS
@given(BLOCKS)
def test_a_message_to_a_stream_and_back_is_the_same_message(blocks):
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": blocks,
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 9},
    }  # fmt: skip
    streamed = _shapes.stream_from_message(json.dumps(message).encode())
    assert json.loads(_shapes.message_from_stream(streamed)) == message


# -- fewer choices --------------------------------------------------------------------------------------


def test_fewer_choices_come_from_more(provider):
    policy = Policy(share_choices=True)
    with Cache("memory://", policy=policy) as cache, httpx.Client(transport=CacheTransport(cache)) as client:
        url = f"{provider.base_url}/chat/completions"

        def ask(**more):
            return client.post(url, json={**ASK, **more}).json()

        five = ask(n=5)
        with track() as tracked:
            two, one, none = ask(n=2), ask(n=1), ask()
        assert [two["choices"], one["choices"], none["choices"]] == [five["choices"][:n] for n in (2, 1, 1)]
        assert {outcome.reason for outcome in tracked} == {"from more choices"}
        assert provider.calls == 1
        ask(n=6)
        assert provider.calls == 2
        ask(n=5, temperature=1)
        assert provider.calls == 3


def test_one_choice_said_or_not_is_the_same_question(provider):
    with (
        Cache("memory://", policy=Policy(share_choices=True)) as cache,
        httpx.Client(transport=CacheTransport(cache)) as client,
    ):
        url = f"{provider.base_url}/chat/completions"
        answers = [client.post(url, json={**ASK, **more}).json() for more in ({}, {"n": 1})]
        assert answers[0] == answers[1]
        assert provider.calls == 1


# -- the pace -------------------------------------------------------------------------------------------


@SETTINGS
@given(
    st.lists(st.sampled_from([b"data: a\n\n", b"event: x\r\ndata: {}\r\n\r\n", b": c\n\n", b"data: b\r\r"])),
    st.sampled_from([b"", b"data: torn"]),
)
def test_a_stream_in_parts_is_the_whole_stream(events, end):
    body = b"".join(events) + end
    found = _pace.parts(body, lines=False)
    assert b"".join(found) == body
    assert len(found) == len(events) + bool(end)


async def test_a_stored_stream_comes_at_the_pace_that_was_asked_for(provider, monkeypatch):
    slept = []
    monkeypatch.setattr(_pace.time, "sleep", slept.append)
    original = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await original(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    url = f"{provider.base_url}/chat/completions"
    with Cache("memory://", policy=Policy(replay_rate=50)) as cache:
        bodies = []
        async with httpx.AsyncClient(transport=AsyncCacheTransport(cache)) as client:
            for _ in range(2):
                bodies.append((await client.post(url, json={**ASK, "stream": True})).content)
            events = bodies[0].count(b"\n\n")
            assert slept == [1 / 50] * (events - 1)
            del slept[:]
            async with client.stream("POST", url, json={**ASK, "stream": True}) as response:
                async for _ in response.aiter_bytes():
                    break
        assert slept == []
        with httpx.Client(transport=CacheTransport(cache)) as client:
            bodies.append(
                await asyncio.to_thread(lambda: client.post(url, json={**ASK, "stream": True}).content)
            )
        assert slept == [1 / 50] * (events - 1)
    assert len(set(bodies)) == 1
    assert provider.calls == 1


@pytest.mark.parametrize("rate", [0, -1, "fast", True, float("inf"), float("nan")])
def test_a_pace_that_cannot_be_is_named(rate):
    with pytest.raises(ConfigurationError, match="replay_rate"):
        Policy(replay_rate=rate)
