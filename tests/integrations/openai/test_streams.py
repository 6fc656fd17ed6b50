"""Streams: unbuffered, replayed event by event, and kept only when they were read to their end."""

# ruff: noqa: PLR0917 - fixtures are asked for by name

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import openai
import pytest
from pydantic import BaseModel

from askonce import Cache, Policy, track
from askonce.testing._provider import Fault

OLD = int(openai.__version__.partition(".")[0]) < 3
MESSAGES = [{"role": "user", "content": "hello"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
AUDIO = ("a.wav", b"RIFF" + bytes(range(256)) * 8, "audio/wav")


def chat(client, **more):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES, "stream": True} | more)


def responses(client, **more):
    return client.responses.create(**{"model": "m", "input": "hello", "stream": True} | more)


def completions(client, **more):
    return client.completions.create(**{"model": "m", "prompt": "hello", "stream": True} | more)


STREAMS = {
    "chat": chat,
    "chat usage": lambda client: chat(client, stream_options={"include_usage": True}),
    "chat n=2": lambda client: chat(client, n=2),
    "chat tools": lambda client: chat(
        client, tools=TOOLS, messages=[{"role": "user", "content": "get weather"}]
    ),
    "responses": responses,
    "completions": completions,
    "completions n=2": lambda client: completions(client, n=2),
    "transcription": lambda client: client.audio.transcriptions.create(model="t", file=AUDIO, stream=True),
    "images": lambda client: client.images.generate(
        model="gpt-image-1", prompt="fox", stream=True, partial_images=2
    ),
    "images edit": lambda client: client.images.edit(
        model="gpt-image-1", prompt="fox", stream=True, image=("a.png", b"\x89PNG" + bytes(50), "image/png")
    ),
}
THREE = {"chat": chat, "responses": responses, "completions": completions}
every_stream = pytest.mark.parametrize("ask", STREAMS.values(), ids=list(STREAMS))
three_streams = pytest.mark.parametrize("ask", THREE.values(), ids=list(THREE))


def shown(items):
    """Events as one can compare them: type, content, and which fields were set."""
    return [(type(item), item.to_dict(), item.model_fields_set) for item in items]


async def outcome_of(side, call):
    """Everything a caller sees of a stream: its events, and how it ended."""
    seen = []
    try:
        stream = await side.get(call())
        if side.is_async:
            async for item in stream:
                seen.append(item.to_dict())
        else:
            for item in stream:
                seen.append(item.to_dict())
    except Exception as error:
        told = (type(error), str(error), type(error.__cause__), getattr(error, "body", None))
        return seen, told, getattr(error, "request_id", None)
    return seen, None, None


# -- whole streams ----------------------------------------------------------------------------------


@every_stream
async def test_a_replayed_stream_equals_the_first_event_by_event(side, provider, client, enabled, ask):
    first = await side.all(ask(client))
    again = await side.all(ask(client))
    assert len(first) > 1 or ask is STREAMS["images edit"]
    assert shown(again) == shown(first)
    assert (provider.calls, enabled.stats().hits, enabled.stats().stored) == (1, 1, 1)


@every_stream
async def test_a_first_stream_equals_one_without_a_cache(side, fresh, cache, enable, ask, monkeypatch):
    bare, cached = fresh(), fresh()
    for one in (bare, cached):
        one.reply("one two three four five")
    served = side.client(cached.base_url)
    enable(cache, served)
    plain = await side.all(ask(side.client(bare.base_url)))
    miss = await side.all(ask(served))
    if ask in {STREAMS["images"], STREAMS["images edit"]}:  # drawn from the request's random boundary
        assert [item.type for item in miss] == [item.type for item in plain]
    else:
        assert shown(miss) == shown(plain)
    assert cached.calls == 1


@three_streams
async def test_changing_events_changes_no_later_replay(side, provider, client, ask):
    first = await side.all(ask(client))
    expected = shown(first)

    def spoil(model):
        for name, value in list(vars(model).items()):
            if isinstance(value, BaseModel):
                spoil(value)
            elif isinstance(value, list):
                value.clear()
            vars(model)[name] = None

    for item in first:
        spoil(item)
    hit = await side.all(ask(client))
    assert shown(hit) == expected
    for item in hit:
        spoil(item)
    assert shown(await side.all(ask(client))) == expected
    assert provider.calls == 1


async def test_a_stream_and_a_plain_answer_are_two_entries(side, provider, client):
    await side.all(chat(client))
    await side.get(client.chat.completions.create(model="m", messages=MESSAGES))
    await side.get(client.chat.completions.create(model="m", messages=MESSAGES, stream=False))
    assert provider.calls == 2


@pytest.mark.parametrize(
    "text",
    ["a\u2028b\u2029c\x85d", "tab\tnew\nline\r\nend", "🦊犬" * 40, " lead", "[DONE]"],
    ids=["separators", "controls", "wide", "blank", "marker"],
)
@pytest.mark.parametrize("ask", [chat, responses], ids=["chat", "responses"])
async def test_any_text_survives_the_replay(side, provider, client, enabled, ask, text):
    provider.reply(text)
    first = await side.all(ask(client))
    again = await side.all(ask(client))
    assert shown(again) == shown(first)
    assert (provider.calls, enabled.stats().stored) == (1, 1)


async def test_a_sync_stream_is_replayed_to_an_async_client(sync_side, async_side, provider, enabled):
    first = list(chat(sync_side.client(provider.base_url)))
    again = await async_side.all(chat(async_side.client(provider.base_url)))
    assert shown(again) == shown(first)
    assert provider.calls == 1


async def test_a_stream_is_replayed_from_disk(side, provider, enable, tmp_path):
    client = side.client(provider.base_url)
    with Cache(f"disk://{tmp_path}/c") as before:
        enable(before)
        first = await side.all(chat(client))
    with Cache(f"disk://{tmp_path}/c") as after:
        enable(after)
        assert shown(await side.all(chat(client))) == shown(first)
        assert after.stats().tiers == {"disk": 1}
    assert provider.calls == 1


@pytest.mark.parametrize("encoded", ["chat", "responses"])
async def test_a_gzipped_stream_is_stored_decoded_and_replayed(side, provider, client, enabled, encoded):
    provider.script(Fault(gzip=True))
    first = await side.all(THREE[encoded](client))
    again = await side.all(THREE[encoded](client))
    assert shown(again) == shown(first)
    assert (provider.calls, enabled.stats().stored) == (1, 1)


# -- the SDK's other faces --------------------------------------------------------------------------


class Answer(BaseModel):
    answer: str


async def helper_events(side, manager):
    async with side.within(manager) as stream:
        events = [event async for event in stream] if side.is_async else list(stream)
        final = getattr(stream, "get_final_completion", None) or stream.get_final_response
        return [(type(event), event.type) for event in events], (await side.get(final())).to_dict(
            warnings=False
        )


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.chat.completions.stream(model="m", messages=MESSAGES),
        lambda client: client.chat.completions.stream(model="m", messages=MESSAGES, response_format=Answer),
        lambda client: client.responses.stream(model="m", input="hello"),
        lambda client: client.responses.stream(model="m", input="hello", text_format=Answer),
    ],
    ids=["chat", "chat schema", "responses", "responses schema"],
)
async def test_the_stream_helpers_see_the_same_events(side, provider, client, ask):
    first = await helper_events(side, ask(client))
    again = await helper_events(side, ask(client))
    assert again == first
    assert len(first[0]) > 3
    assert provider.calls == 1


async def test_a_helper_asked_only_for_the_end_stores_the_answer(side, provider, client):
    ends = []
    for _ in range(2):
        async with side.within(client.chat.completions.stream(model="m", messages=MESSAGES)) as stream:
            ends.append((await side.get(stream.get_final_completion())).to_dict())
    assert ends[0] == ends[1]
    assert provider.calls == 1


async def test_a_helper_and_create_share_one_answer(side, provider, client):
    async with side.within(client.chat.completions.stream(model="m", messages=MESSAGES)) as stream:
        await side.get(stream.get_final_completion())
    await side.all(chat(client))
    assert provider.calls == 1


async def test_a_helper_left_early_stores_nothing(side, provider, client, enabled):
    provider.script(Fault(hold_after=2))
    async with side.within(client.chat.completions.stream(model="m", messages=MESSAGES)) as stream:
        await side.next(stream)
    await side.all(chat(client))
    assert (provider.calls, enabled.stats().stored) == (2, 1)


@three_streams
async def test_a_raw_response_streams_and_replays(side, provider, client, ask):
    raws = []
    for _ in range(2):
        resource = {
            chat: client.chat.completions, responses: client.responses, completions: client.completions
        }[ask]  # fmt: skip
        raw = await side.get(
            resource.with_raw_response.create(
                model="m",
                stream=True,
                **{
                    chat: {"messages": MESSAGES},
                    responses: {"input": "hello"},
                    completions: {"prompt": "hello"},
                }[ask],
            )
        )
        raws.append((raw, shown(await side.all(raw.parse()))))
    (first, events), (again, replayed) = raws
    assert replayed == events
    assert type(again) is type(first)
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.request_id == first.request_id
    assert first.http_response.is_closed
    assert again.http_response.is_closed
    assert again.http_response.is_stream_consumed
    assert provider.calls == 1


@pytest.mark.parametrize("way", ["iter_lines", "iter_bytes", "iter_text", "parse", "read"])
async def test_a_streaming_response_reads_like_the_first(side, provider, client, way):
    seen = []
    for _ in range(2):
        manager = client.chat.completions.with_streaming_response.create(
            model="m", messages=MESSAGES, stream=True
        )
        async with side.within(manager) as response:
            if way == "parse":
                seen.append(shown(await side.all(response.parse())))
            elif way == "read":
                seen.append(await side.get(response.read()))
            else:
                parts = await side.all(getattr(response, way)())
                seen.append(parts if way == "iter_lines" else type(parts[0])().join(parts))
    assert seen[1] == seen[0]
    assert provider.calls == 1


@pytest.mark.parametrize("way", ["iter_lines", "iter_bytes"])
async def test_a_streaming_response_left_early_stores_nothing(side, provider, client, enabled, way):
    provider.script(Fault(hold_after=2))
    manager = client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES, stream=True
    )
    async with side.within(manager) as response:
        await side.next(getattr(response, way)())
    await side.all(chat(client))
    assert (provider.calls, enabled.stats().stored) == (2, 1)
    assert enabled.stats().dropped == {"closed early": 1}


async def test_a_streaming_response_never_read_stores_nothing(side, provider, client, enabled):
    for _ in range(2):
        async with side.within(
            client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES)
        ) as response:
            assert response.status_code == 200
    assert (provider.calls, enabled.stats().stored) == (2, 0)


async def test_speech_is_stored_when_read_whole_and_not_when_left_early(side, provider, client, enabled):
    def ask():
        return client.audio.speech.with_streaming_response.create(model="s", voice="alloy", input="hello")

    provider.script(Fault(hold_after=1))
    async with side.within(ask()) as response:
        await side.next(response.iter_bytes())
    assert enabled.stats().stored == 0
    bodies = []
    for _ in range(2):
        async with side.within(ask()) as response:
            bodies.append(b"".join(await side.all(response.iter_bytes())))
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) == 4096
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_speech_events_are_replayed(side, provider, client):
    seen = []
    for _ in range(2):
        manager = client.audio.speech.with_streaming_response.create(
            model="s", voice="alloy", input="hello", stream_format="sse"
        )
        async with side.within(manager) as response:
            seen.append(await side.all(response.iter_lines()))
    assert seen[0] == seen[1]
    assert any("speech.audio.done" in line for line in seen[0])
    assert provider.calls == 1


# -- as early as without a cache --------------------------------------------------------------------


@three_streams
async def test_each_event_reaches_the_caller_while_the_provider_holds_the_rest(side, provider, client, ask):
    provider.script(Fault(hold_after=2))
    stream = await side.get(ask(client))
    got = [await side.next(stream), await side.next(stream)]
    assert provider.in_flight == 1
    provider.release()
    got += await side.all(stream)
    assert shown(await side.all(ask(client))) == shown(got)
    assert provider.calls == 1


async def test_the_headers_reach_the_caller_before_the_first_event(side, provider, client):
    provider.script(Fault(hold_after=0))
    stream = await side.get(chat(client))
    assert provider.in_flight == 1
    assert stream.response.headers["cache-status"].startswith("askonce; fwd=uri-miss")
    provider.release()
    assert len(await side.all(stream)) > 2


async def test_bytes_of_speech_reach_the_caller_while_the_provider_holds_the_rest(side, provider, client):
    provider.script(Fault(hold_after=1))
    manager = client.audio.speech.with_streaming_response.create(model="s", voice="alloy", input="hello")
    async with side.within(manager) as response:
        iterator = response.iter_bytes()
        head = await side.next(iterator)
        assert provider.in_flight == 1
        assert len(head) == 1024
        provider.release()
        rest = await side.all(iterator)
    assert len(head + b"".join(rest)) == 4096


async def test_an_outcome_is_complete_when_its_stream_is(side, provider, client):
    provider.script(Fault(hold_after=2))
    with track() as outcomes:
        stream = await side.get(chat(client, stream_options={"include_usage": True}))
        assert [(one.status, one.stored, one.usage) for one in outcomes] == [("miss", None, {})]
        provider.release()
        await side.all(stream)
        await side.all(chat(client, stream_options={"include_usage": True}))
    miss, hit = outcomes
    assert (miss.stored, miss.not_stored) == (True, "")
    assert miss.usage == hit.usage
    assert hit.usage["total_tokens"] > 0
    assert hit.status == "hit"


# -- left early -------------------------------------------------------------------------------------


@three_streams
@pytest.mark.parametrize("leave", ["close", "with", "exception"])
async def test_a_stream_left_early_is_not_stored_and_hangs_up(side, provider, client, enabled, ask, leave):
    provider.script(Fault(hold_after=2))
    stream = await side.get(ask(client))
    if leave == "close":
        await side.next(stream)
        await side.close(stream)
    elif leave == "with":
        async with side.within(stream):
            await side.next(stream)
    else:
        with pytest.raises(ZeroDivisionError):
            async with side.within(stream):
                if await side.next(stream):
                    raise ZeroDivisionError
    await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
    assert enabled.stats().stored == 0
    assert enabled.stats().dropped == {"closed early": 1}
    again = await side.all(ask(client))
    assert len(again) > 2
    assert (provider.calls, enabled.stats().stored) == (2, 1)


def test_a_stream_broken_off_and_collected_is_not_stored(sync_side, provider, enabled):
    client = sync_side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    for _ in chat(client):
        break
    gc.collect()
    provider.wait_until(lambda: provider.hangups == 1)
    assert enabled.stats().stored == 0
    assert len(list(chat(client))) > 2
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_an_async_stream_broken_off_and_collected_is_not_stored(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    stream = await chat(client)
    async for _ in stream:
        break
    del stream
    gc.collect()
    for _ in range(20):  # the loop finalizes collected generators in tasks of its own
        await asyncio.sleep(0)
    assert enabled.stats().stored == 0
    provider.release()
    # The SDK leaves the connection open in this case; so whoever asks next may read on, or ask anew.
    events = await async_side.all(chat(client))
    assert shown(await async_side.all(chat(client))) == shown(events)
    assert len(events) > 5
    assert enabled.stats().stored == 1


async def test_a_stream_never_iterated_is_not_stored(side, provider, client, enabled):
    provider.script(Fault(hold_after=2))
    stream = await side.get(chat(client))
    await side.close(stream)
    assert enabled.stats().stored == 0
    await side.all(chat(client))
    assert provider.calls == 2


def test_a_loop_left_while_the_stream_is_kept_can_be_taken_up_again(sync_side, provider, enabled):
    client = sync_side.client(provider.base_url)
    stream = chat(client)
    got = []
    for item in stream:
        got.append(item)
        break
    assert enabled.stats().dropped == {}
    got += list(stream)
    assert shown(list(chat(client))) == shown(got)
    assert provider.calls == 1


async def test_a_consumer_that_stops_at_the_last_event_without_closing_has_it_stored(
    side, provider, client, enabled
):
    stream = await side.get(responses(client))
    while (await side.next(stream)).type != "response.completed":
        pass
    assert enabled.stats().stored == 1
    assert len(await side.all(responses(client))) > 3
    assert provider.calls == 1


async def test_a_consumer_that_stops_short_of_the_done_marker_has_it_stored_once_the_marker_came(
    side, provider, client, enabled
):
    events = len(await side.all(chat(client)))
    enabled.clear()
    provider.script(Fault(hold_after=events))  # everything but [DONE]
    stream = await side.get(chat(client))
    for _ in range(events):
        await side.next(stream)
    assert enabled.stats().stored == 1
    provider.release()
    assert await side.all(stream) == []
    assert enabled.stats().stored == 2
    await side.all(chat(client))
    assert provider.calls == 2


async def test_a_hit_left_early_stays_a_hit(side, provider, client):
    expected = shown(await side.all(chat(client)))
    stream = await side.get(chat(client))
    await side.next(stream)
    await side.close(stream)
    assert shown(await side.all(chat(client))) == expected
    assert provider.calls == 1


# -- cancelled --------------------------------------------------------------------------------------


@three_streams
async def test_a_cancelled_stream_is_not_stored_and_hangs_up(async_side, provider, enabled, ask):
    client = async_side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    seen = []
    halfway = asyncio.Event()

    async def consume():
        async for item in await ask(client):
            seen.append(item)
            if len(seen) == 2:
                halfway.set()

    task = asyncio.create_task(consume())
    await halfway.wait()
    for _ in range(5):
        await asyncio.sleep(0)  # it waits for the third event
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
    assert enabled.stats().stored == 0
    assert len(await async_side.all(ask(client))) > 2
    assert (provider.calls, enabled.stats().stored) == (2, 1)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_a_call_cancelled_before_its_answer_is_not_stored(async_side, provider, enabled, stream):
    client = async_side.client(provider.base_url)
    provider.hold()
    task = asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES, stream=stream))
    await asyncio.to_thread(provider.wait_for_calls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
    provider.release()
    answer = await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
    if stream:
        assert len(await async_side.all(answer)) > 2
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_a_stream_with_a_timeout_around_it_is_not_stored(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await async_side.all(chat(client))
    await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
    assert enabled.stats().stored == 0


# -- broken by the provider -------------------------------------------------------------------------

FAULTS = {
    "cut": Fault(cut_after=3),
    "cut before the first": Fault(cut_after=0),
    "cut and gzipped": Fault(cut_after=3, gzip=True),
    "silent end": Fault(silent_end_after=3),
    "silent end at once": Fault(silent_end_after=0),
    "closed connection": Fault(close_delimited=True, silent_end_after=3),
    "error event": Fault(error_event_after=3),
    "error event first": Fault(error_event_after=0),
    "error body": Fault(error_body=True),
    "garbage": Fault(garbage=True),
    "length": Fault(finish_reason="length"),
    "content filter": Fault(finish_reason="content_filter"),
    "empty": Fault(empty=True),
    "status 400": Fault(status=400),
    "status 404": Fault(status=404),
    "status 429": Fault(status=429),
    "status 500": Fault(status=500),
    "disconnect": Fault(disconnect=True),
}


@pytest.mark.parametrize(
    ("ask", "fault"),
    [
        *((ask, fault) for ask in (chat, responses) for fault in FAULTS.values()),
        *((completions, FAULTS[name]) for name in ("cut", "silent end", "length", "empty")),
    ],
    ids=[
        *(f"{ask} {name}" for ask in ("chat", "responses") for name in FAULTS),
        *(f"completions {name}" for name in ("cut", "silent end", "length", "empty")),
    ],
)
async def test_a_faulty_stream_is_what_it_is_without_a_cache_and_not_stored(
    side, fresh, cache, enable, ask, fault
):
    bare, cached = fresh(), fresh()
    served = side.client(cached.base_url)
    enable(cache, served)
    for one in (bare, cached):
        one.script(fault)
    plain = await outcome_of(side, lambda: ask(side.client(bare.base_url)))
    miss = await outcome_of(side, lambda: ask(served))
    assert miss == plain
    assert cached.calls == bare.calls == 1
    assert cache.stats().stored == 0
    again = await outcome_of(side, lambda: ask(served))
    assert again[1] is None
    assert len(again[0]) > 2
    assert cached.calls == 2
    assert cache.stats().stored == 1


REASONS = {
    "cut": (Fault(cut_after=3), "cut"),
    "silent end": (Fault(silent_end_after=3), "cut"),
    "error event": (Fault(error_event_after=3), "error event"),
    "length": (Fault(finish_reason="length"), "truncated"),
    "content filter": (Fault(finish_reason="content_filter"), "refused"),
    "refusal": (Fault(refusal=True), "refused"),
    "empty": (Fault(empty=True), "empty"),
    "status 429": (Fault(status=429), "status 429"),
}


@pytest.mark.parametrize(("fault", "reason"), REASONS.values(), ids=list(REASONS))
async def test_the_outcome_says_why_a_stream_was_not_stored(side, provider, client, enabled, fault, reason):
    provider.script(fault)
    with track() as outcomes:
        await outcome_of(side, lambda: chat(client))
    (outcome,) = outcomes
    assert (outcome.stored, outcome.not_stored) == (False, reason)
    if not reason.startswith("status"):
        assert enabled.stats().dropped == {reason: 1}


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
async def test_a_responses_stream_that_is_not_completed_is_not_stored(
    side, provider, client, enabled, status
):
    provider.script(Fault(response_status=status))
    await outcome_of(side, lambda: responses(client))
    await side.all(responses(client))
    assert (provider.calls, enabled.stats().stored) == (2, 1)


@pytest.mark.parametrize("ask", [chat, responses], ids=["chat", "responses"])
@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (Policy(store_truncated=True), Fault(finish_reason="length")),
        (Policy(store_refusals=True), Fault(refusal=True)),
        (Policy(store_refusals=True), Fault(finish_reason="content_filter")),
    ],
    ids=["truncated", "refusal", "filtered"],
)
async def test_a_policy_can_keep_truncated_and_refused_streams(side, provider, enable, ask, policy, fault):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=policy) as cache:
        enable(cache)
        provider.script(fault)
        first = await side.all(ask(client))
        assert shown(await side.all(ask(client))) == shown(first)
    assert provider.calls == 1


@pytest.mark.parametrize("ask", [chat, responses, completions], ids=["chat", "responses", "completions"])
async def test_a_marker_inside_the_content_neither_ends_nor_completes_a_stream(
    side, provider, client, enabled, ask
):
    provider.reply('data: [DONE]\n\ndata: [DONE]\n\nevent: response.completed\n\n[DONE] {"error": 1} end')
    provider.script(Fault(silent_end_after=6))
    await outcome_of(side, lambda: ask(client))
    assert enabled.stats().stored == 0
    first = await side.all(ask(client))
    again = await side.all(ask(client))
    assert shown(again) == shown(first)
    assert (provider.calls, enabled.stats().stored) == (2, 1)


async def test_a_stream_over_the_limit_is_passed_on_and_not_stored(side, provider, enable):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(max_entry_bytes=300)) as cache:
        enable(cache)
        assert len(await side.all(chat(client))) > 5
        assert len(await side.all(chat(client))) > 5
        assert cache.stats().dropped == {"too large": 2}
    assert provider.calls == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_refused_stream_is_retried_by_the_sdk_and_then_stored(side, provider, enabled, status):
    client = side.client(provider.base_url, max_retries=2)
    provider.script(Fault(status=status, retry_after=0.001), Fault(status=status, retry_after=0.001))
    first = await side.all(chat(client))
    assert provider.calls == 3
    assert shown(await side.all(chat(client))) == shown(first)
    assert provider.calls == 3
    assert enabled.stats().errors == 2


def broken_body(side, error, chunks):
    """A response body that raises after some chunks, as a transport does when the connection is reset."""

    class Body(side.package.AsyncByteStream if side.is_async else side.package.SyncByteStream):
        closed = 0

        def __iter__(self):
            yield from chunks
            raise error("reset by peer")

        async def __aiter__(self):
            for chunk in chunks:
                yield chunk
            raise error("reset by peer")

        def close(self):
            Body.closed += 1

        async def aclose(self):
            Body.closed += 1

    return Body()


@pytest.mark.parametrize("name", ["ReadError", "ReadTimeout", "RemoteProtocolError", "StreamError"])
async def test_a_connection_that_breaks_mid_stream_raises_what_it_raises_without_a_cache(
    side, cache, enable, name
):
    error = getattr(side.package, name)
    chunk = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'
    bodies = []

    def answer(request):
        bodies.append(broken_body(side, error, [chunk, chunk]))
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        return side.package.Response(200, stream=bodies[-1], headers=headers)

    def make():
        return side.client("http://mock/v1", http=side.http(transport=side.package.MockTransport(answer)))

    served = make()
    enable(cache, served)
    plain = await outcome_of(side, lambda: chat(make()))
    miss = await outcome_of(side, lambda: chat(served))
    assert miss == plain
    assert len(plain[0]) == 2
    assert plain[1] is not None
    assert cache.stats().stored == 0
    assert cache.stats().dropped == {"cut": 1}
    assert all(type(body).closed for body in bodies)
    await outcome_of(side, lambda: chat(served))
    assert len(bodies) == 3


async def test_a_stalled_stream_times_out_as_without_a_cache(side, fresh, cache, enable):
    bare, cached = fresh(), fresh()
    served = side.client(cached.base_url, timeout=0.1)
    enable(cache, served)
    for one in (bare, cached):
        one.script(Fault(hold_after=2))
    plain = await outcome_of(side, lambda: chat(side.client(bare.base_url, timeout=0.1)))
    miss = await outcome_of(side, lambda: chat(served))
    assert miss == plain
    assert plain[1] is not None
    assert cache.stats().stored == 0


# -- two at once ------------------------------------------------------------------------------------


@three_streams
async def test_two_identical_streams_opened_by_one_caller_share_a_call(side, provider, client, enabled, ask):
    provider.script(Fault(hold_after=2))
    one = await side.get(ask(client))
    head = [await side.next(one)]
    two = await side.get(ask(client))
    other = [await side.next(two)]
    provider.release()
    other += await side.all(two)
    head += await side.all(one)
    assert shown(other) == shown(head)
    assert (provider.calls, enabled.stats().coalesced, enabled.stats().stored) == (1, 1, 1)


async def test_a_follower_has_the_whole_stream_when_the_leader_leaves(side, provider, client, enabled):
    provider.script(Fault(hold_after=2))
    one = await side.get(chat(client))
    await side.next(one)
    two = await side.get(chat(client))
    await side.close(one)
    provider.release()
    events = await side.all(two)
    assert shown(await side.all(chat(client))) == shown(events)
    assert (provider.calls, enabled.stats().stored) == (1, 1)


async def test_a_follower_of_a_cut_stream_gets_an_error_not_a_short_answer(side, provider, client, enabled):
    provider.script(Fault(hold_after=2, cut_after=3))
    one = await side.get(chat(client))
    await side.next(one)
    two = await side.get(chat(client))
    await side.next(two)
    provider.release()
    leader = await outcome_of(side, lambda: one)
    follower = await outcome_of(side, lambda: two)
    assert leader[1] is not None
    assert follower[1] is not None
    assert follower[1][0] is leader[1][0]
    assert enabled.stats().stored == 0


async def test_a_follower_sees_the_headers_of_the_leader(side, provider, client):
    provider.script(Fault(hold_after=2))

    def ask():
        return client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True)

    one, two = await side.get(ask()), await side.get(ask())
    assert two.headers["x-request-id"] == one.headers["x-request-id"]
    assert two.headers["content-type"] == one.headers["content-type"]
    assert "set-cookie" not in two.headers
    assert two.headers["cache-status"].startswith("askonce; fwd=uri-miss; collapsed")
    provider.release()
    assert shown(await side.all(two.parse())) == shown(await side.all(one.parse()))


@pytest.mark.parametrize("which", ["flights", "counters"])
def test_a_stream_collected_at_an_awkward_moment_does_not_lock_up(sync_side, provider, enabled, which):
    """The collector may run at any allocation, also under a lock, and close a forgotten stream."""
    client = sync_side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    gc.disable()
    gc.freeze()  # what is there already need not be looked at again and again
    try:
        stream = chat(client)
        next(stream)
        knot = [stream]
        knot.append(knot)
        del stream, knot
        holder = enabled._flow.flights if which == "flights" else enabled._counters
        lock = holder._lock

        class Collecting:
            def __enter__(self):
                lock.acquire()
                gc.collect()

            def __getattr__(self, name):
                return getattr(lock, name)

            def __exit__(self, *_):
                with contextlib.suppress(RuntimeError):
                    lock.release()

        holder._lock = Collecting()
        work = threading.Thread(
            target=(lambda: list(completions(client))) if which == "flights" else enabled.stats, daemon=True
        )
        work.start()
        work.join(20)
        holder._lock = lock
        stuck = work.is_alive()
        if stuck:
            with contextlib.suppress(RuntimeError):
                lock.release()  # let the thread go, for the sake of the tests to come
            work.join(5)
    finally:
        gc.unfreeze()
        gc.enable()
    assert not stuck
