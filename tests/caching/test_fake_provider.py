"""The fake provider keeps its promises to the real SDK, and misbehaves exactly as told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse
from openai.types.audio import TranscriptionStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from askonce._errors import ConfigurationError
from askonce.testing._provider import FakeProvider, Fault

MESSAGES = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
RESPONSE_TOOLS = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}]


class Person(BaseModel):
    name: str
    age: int
    friends: list[Person]
    nickname: str | None


def sdk(base_url, *, kind=openai.OpenAI, max_retries=0, **options):
    """A client that does not load the machine's certificates: 90 ms, and nothing here is TLS."""
    family = openai.DefaultAsyncHttpxClient if kind is openai.AsyncOpenAI else openai.DefaultHttpxClient
    where = {"azure_endpoint": base_url} if kind is openai.AzureOpenAI else {"base_url": base_url}
    transport = family(verify=False, timeout=10)
    return kind(**where, api_key="test", max_retries=max_retries, http_client=transport, **options)


@pytest.fixture
def provider():
    with FakeProvider() as running:
        yield running


@pytest.fixture
def client(provider):
    with sdk(provider.base_url) as made:
        yield made


@pytest.fixture
def http(provider):
    with httpx.Client(base_url=provider.base_url, timeout=5, verify=False) as made:
        yield made


def ask(client, **options):
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options)


def chat_body(**fields):
    return {"model": "gpt-4o", "messages": MESSAGES, **fields}


# -- the protocol --------------------------------------------------------------------------------


def test_a_chat_answer_is_what_the_sdk_types_demand(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, n=2)
    answer = ChatCompletion.model_validate_json(raw.text)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_two_calls_for_one_prompt_get_different_answers(client):
    first, second = ask(client), ask(client)
    assert first.id != second.id
    assert first.created < second.created
    assert first._request_id != second._request_id
    assert first.choices[0].message.content != second.choices[0].message.content


def test_an_answer_does_not_repeat_the_prompt(client):
    assert "hello" not in ask(client).to_json()


def test_headers_look_like_the_real_ones(client):
    headers = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).headers
    assert headers["content-type"] == "application/json"
    for name in ("date", "x-request-id", "openai-version", "openai-organization", "openai-processing-ms"):
        assert headers[name]
    assert "x-ratelimit-remaining-requests" in headers
    assert "set-cookie" in headers


def test_a_chat_stream_has_one_chunk_per_word_and_reports_its_usage(client, provider):
    provider.reply("one two three")
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert [chunk.choices[0].delta.content for chunk in chunks[:-2]] == ["", "one ", "two ", "three"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.to_dict())


def test_a_stream_is_one_http_chunk_per_event_and_ends_with_done(http):
    with http.stream("POST", "/chat/completions", json=chat_body(stream=True)) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_when_the_prompt_names_it(client, stream):
    messages = [{"role": "user", "content": "please get weather"}]
    if stream:
        with client.chat.completions.stream(model="m", messages=messages, tools=strict(CHAT_TOOLS)) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model="m", messages=messages, tools=CHAT_TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}


def strict(tools):
    return [{**tool, "function": {**tool["function"], "strict": True}} for tool in tools]


def test_a_tool_is_not_called_after_its_result_or_without_reason(client):
    assert ask(client, tools=CHAT_TOOLS).choices[0].message.tool_calls is None
    told = [
        {"role": "user", "content": "use a tool"},
        {"role": "tool", "tool_call_id": "x", "content": "sun"},
    ]
    answer = client.chat.completions.create(model="m", messages=told, tools=CHAT_TOOLS)
    assert answer.choices[0].message.content


def test_a_demanded_tool_is_called(client):
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        answer = ask(client, tools=CHAT_TOOLS, tool_choice=choice)
        assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_structured_output_fits_the_schema_even_a_recursive_one(client):
    chat = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Person)
    assert isinstance(chat.choices[0].message.parsed, Person)
    assert isinstance(client.responses.parse(model="m", input="hi", text_format=Person).output_parsed, Person)


def test_completions_answer_each_prompt(client):
    raw = client.completions.with_raw_response.create(model="m", prompt=["a", "b"], n=2)
    assert len(Completion.model_validate_json(raw.text).choices) == 4
    streamed = "".join(
        part.choices[0].text for part in client.completions.create(model="m", prompt="a", stream=True)
    )
    assert streamed.startswith("Answer ")


def test_a_responses_answer_is_what_the_sdk_types_demand(client):
    raw = client.responses.with_raw_response.create(model="m", input="hi", temperature=0.5)
    answer = Response.model_validate_json(raw.text)
    assert answer.status == "completed"
    assert answer.temperature == 0.5
    assert answer.output_text


def test_a_responses_stream_has_the_whole_sequence_of_events(client, provider):
    provider.reply("one two")
    events = list(client.responses.create(model="m", input="hi", stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert events[-1].response.output_text == "one two"
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())


def test_a_responses_stream_calls_functions(client):
    with client.responses.stream(model="m", input="use your tool", tools=RESPONSE_TOOLS) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "response.function_call_arguments.done" in {event.type for event in events}
    (call,) = final.output
    assert set(json.loads(call.arguments)) == {"city", "unit"}


def test_a_background_response_is_queued(client):
    assert client.responses.create(model="m", input="hi", background=True).status == "queued"


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_embeddings_follow_their_inputs_in_order(client, provider, encoding):
    texts = ["b", "a", "ü"]
    raw = client.embeddings.with_raw_response.create(model="m", input=texts, encoding_format=encoding)
    if encoding == "float":
        CreateEmbeddingResponse.model_validate_json(raw.text)
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str) is (encoding == "base64")
    answer = client.embeddings.create(model="m", input=texts, dimensions=16)
    assert [item.embedding for item in answer.data] == [
        provider.embedding_of(text, dimensions=16) for text in texts
    ]


def test_embeddings_accept_tokens_and_reject_nothing(client, provider):
    one = client.embeddings.create(model="m", input=[1, 2, 3])
    assert [item.embedding for item in one.data] == [provider.embedding_of([1, 2, 3])]
    two = client.embeddings.create(model="m", input=[[1, 2], [3]], dimensions=4)
    assert [item.embedding for item in two.data] == [
        provider.embedding_of(item, dimensions=4) for item in ([1, 2], [3])
    ]
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="m", input=[])


def test_moderations_judge_each_text(client):
    raw = client.moderations.with_raw_response.create(input=["a", "b"])
    answer = ModerationCreateResponse.model_validate_json(raw.text)
    assert len(answer.results) == 2
    assert not answer.results[0].flagged


def test_images_are_generated_and_edited(client):
    raw = client.images.with_raw_response.generate(prompt="a fox", model="gpt-image-1", n=2)
    answer = ImagesResponse.model_validate_json(raw.text)
    png = base64.b64decode(answer.data[0].b64_json)
    assert png.startswith(b"\x89PNG")
    edited = client.images.edit(image=[io.BytesIO(png)], prompt="red", model="gpt-image-1")
    assert base64.b64decode(edited.data[0].b64_json).startswith(b"\x89PNG")
    stream = client.images.generate(prompt="a fox", model="gpt-image-1", stream=True, partial_images=1)
    assert [event.type for event in stream] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]


def test_speech_is_binary_or_a_stream_of_events(client):
    spoken = client.audio.speech.create(model="tts", voice="alloy", input="hi", response_format="wav")
    assert spoken.response.headers["content-type"] == "audio/wav"
    assert len(spoken.read()) == 4096
    options = {"model": "tts", "voice": "alloy", "input": "hi", "stream_format": "sse"}
    with client.audio.speech.with_streaming_response.create(**options) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]).startswith(b"ID3")
    assert events[-1]["type"] == "speech.audio.done"


def test_transcriptions_come_in_every_format(client, http, provider):
    provider.reply("spoken words")

    def transcribe(**options):
        return client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"), **options)

    assert transcribe().text == "spoken words"
    assert transcribe(response_format="text") == "spoken words\n"
    assert transcribe(response_format="vtt").startswith("WEBVTT")
    assert transcribe(response_format="srt").startswith("1\n00:00")
    assert transcribe(response_format="verbose_json").segments[0].text == "spoken words"
    form = {"files": {"file": ("a.wav", b"RIFF")}, "data": {"model": "whisper-1"}}
    assert http.post("/audio/translations", **form).json() == {"text": "spoken words"}
    events = list(transcribe(stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    for event in events:
        TypeAdapter(TranscriptionStreamEvent).validate_python(event.to_dict())


def test_models_are_listed_and_are_no_calls(client, provider):
    assert "gpt-4o" in {model.id for model in client.models.list()}
    assert client.models.retrieve("some-model").id == "some-model"
    assert provider.calls == 0
    assert len(provider.requests) == 2


def test_azure_paths_answer_and_name_the_deployment(provider):
    with sdk(provider.url, kind=openai.AzureOpenAI, api_version="2024-10-21") as azure:
        assert ask(azure).choices[0].message.content
        assert next(iter(ask(azure, stream=True))).choices == []
    (request, _) = provider.requests
    assert request.path == "/openai/deployments/gpt-4o/chat/completions"
    assert request.query == "api-version=2024-10-21"
    with sdk(f"{provider.url}/openai/v1") as v1:
        assert ask(v1).model == "gpt-4o"


def test_unknown_paths_wrong_methods_and_bad_bodies_are_refused(http, provider):
    assert http.post("/nothing", json={}).status_code == 404
    assert http.get("/chat/completions").status_code == 405
    assert http.post("/chat/completions", content=b"{").status_code == 400
    assert http.post("/chat/completions", json=[]).json()["error"]["type"] == "invalid_request_error"
    assert provider.calls == 2


# -- what it saw ---------------------------------------------------------------------------------


def test_calls_are_counted_per_endpoint(client, provider):
    ask(client)
    client.completions.create(model="m", prompt="a")
    client.embeddings.create(model="m", input="a")
    assert provider.calls == 3
    assert provider.calls_to("/completions") == 1
    assert provider.calls_to("/chat/completions") == 1
    assert provider.calls_to("completions") == 1
    assert provider.calls_to("embeddings") == 1


def test_requests_are_recorded_and_their_repr_shows_no_text(client, provider):
    ask(client, extra_headers={"X-Trace": "abc"}, extra_query={"key": "hidden"})
    (request,) = provider.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1/chat/completions", "key=hidden")
    assert request.endpoint == "chat/completions"
    assert request.header("X-TRACE") == "abc"
    assert request.header("nothing") is None
    assert request.json()["messages"] == MESSAGES
    assert not {"hello", "hidden", "Bearer"} & set(repr(request).replace("'", " ").split())


def test_reset_forgets_everything_but_the_numbers(client, provider):
    provider.always(Fault(status=500))
    provider.reply("set")
    first = client.chat.completions.with_raw_response
    with pytest.raises(openai.InternalServerError):
        first.create(model="m", messages=MESSAGES)
    provider.reset()
    assert (provider.calls, provider.requests, provider.max_in_flight) == (0, [], 0)
    answer = ask(client)
    assert answer.id == "chatcmpl-2"
    assert answer.choices[0].message.content != "set"


def test_connections_are_kept_alive_and_counted(client, provider):
    for _ in range(3):
        ask(client)
        list(ask(client, stream=True))
    assert provider.calls == 6
    client.close()
    provider.wait_until(lambda: provider.open_connections == 0)


def test_one_connection_serves_many_requests(http, provider):
    for _ in range(3):
        http.post("/chat/completions", json=chat_body(stream=True)).read()
        http.post("/embeddings", json={"input": "a"})
    assert (provider.connections, provider.open_connections) == (1, 1)


def test_a_chunked_request_body_is_understood(http, provider):
    content = json.dumps(chat_body()).encode()
    response = http.post("/chat/completions", content=iter([content[:10], content[10:]]))
    assert response.status_code == 200
    assert provider.requests[0].body == content


# -- what it says --------------------------------------------------------------------------------


def test_a_reply_may_be_a_function_of_the_request(client, provider):
    provider.reply(lambda request: request.json()["messages"][0]["content"].upper())
    assert ask(client).choices[0].message.content == "HELLO"
    provider.reply(None)
    assert ask(client).choices[0].message.content.startswith("Answer")


def test_a_reply_function_that_fails_is_a_server_error_that_quotes_nothing(client, provider):
    provider.reply(lambda request: request.json()["secret"])
    with pytest.raises(openai.InternalServerError, match="KeyError") as caught:
        ask(client)
    assert "secret" not in str(caught.value)


def test_a_step_may_say_one_answer(client, provider):
    provider.script(Fault(reply="first"), Fault(reply="data: [DONE]\n\n"))
    assert ask(client).choices[0].message.content == "first"
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True))
    assert streamed == "data: [DONE]\n\n"


# -- faults --------------------------------------------------------------------------------------


def test_a_refused_call_is_retried_by_the_sdk_after_the_time_it_names(provider):
    provider.script(Fault(status=429, retry_after=0.01), Fault(status=503, retry_after=0.01))
    with sdk(provider.base_url, max_retries=2) as client:
        assert ask(client).id == "chatcmpl-3"
    assert provider.calls == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, openai.AuthenticationError), (404, openai.NotFoundError), (429, openai.RateLimitError)],
)
def test_an_error_status_is_the_sdk_error(client, provider, status, error):
    provider.script(Fault(status=status, headers=(("x-extra", "1"),)))
    with pytest.raises(error) as caught:
        ask(client)
    assert caught.value.response.headers["x-extra"] == "1"
    assert ask(client).choices


def test_steps_are_drawn_once_each_then_the_standing_one(client, provider):
    provider.always(Fault(status=500))
    provider.script(Fault(), Fault(status=401))
    assert ask(client).choices
    with pytest.raises(openai.AuthenticationError):
        ask(client)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            ask(client)
    provider.clear()
    assert ask(client).choices


def test_a_step_may_wait_for_its_endpoint(client, provider):
    provider.script(Fault(to="embeddings", status=500))
    assert ask(client).choices
    assert provider.pending_steps == 1
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="m", input="a")
    assert provider.pending_steps == 0


def test_an_error_body_may_come_with_status_200(http, provider):
    provider.always(Fault(error_body=True))
    for stream in (False, True):
        response = http.post("/chat/completions", json=chat_body(stream=stream))
        assert response.status_code == 200
        assert response.json()["error"]["type"] == "server_error"


def test_a_cut_stream_breaks_after_exactly_its_events(http, provider):
    provider.script(Fault(cut_after=2))
    seen = []
    stream = http.stream("POST", "/chat/completions", json=chat_body(stream=True))
    with stream as response, pytest.raises(httpx.RemoteProtocolError):
        seen.extend(response.iter_bytes())
    assert b"".join(seen).count(b"\n\n") == 2
    assert provider.hangups == 0


@pytest.mark.parametrize("position", [0, 20, 10**9])
def test_a_cut_plain_answer_breaks_its_content_length(http, provider, position):
    provider.script(Fault(cut_after=position))
    if position == 10**9:
        assert http.post("/chat/completions", json=chat_body()).json()["choices"]
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            http.post("/chat/completions", json=chat_body())


def test_a_disconnect_is_an_answer_that_never_starts(client, provider):
    provider.script(Fault(disconnect=True))
    with pytest.raises(openai.APIConnectionError):
        ask(client)


def test_a_silent_end_is_well_framed(http, provider):
    provider.always(Fault(silent_end_after=2))
    text = http.post("/chat/completions", json=chat_body(stream=True)).text
    assert text.count("\n\n") == 2
    assert "[DONE]" not in text
    assert len(http.post("/chat/completions", json=chat_body()).content) == 2


def test_an_error_event_ends_the_stream_in_its_own_protocol(client, provider):
    provider.always(Fault(error_event_after=2))
    with pytest.raises(openai.APIError):
        list(ask(client, stream=True))
    # The SDK hands the newer protocol's error event on instead of raising.
    assert list(client.responses.create(model="m", input="a", stream=True))[-1].type == "error"


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_no_json_under_the_right_content_type(http, provider, stream):
    provider.script(Fault(garbage=True))
    response = http.post("/chat/completions", json=chat_body(stream=stream))
    assert response.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    with pytest.raises(ValueError):
        json.loads(response.content.split(b"\n\n")[0].removeprefix(b"data: "))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path", ["chat/completions", "responses", "embeddings", "audio/speech", "images/generations"]
)
def test_an_oversize_answer_is_at_least_that_long_and_still_an_answer(http, provider, path, stream):
    provider.script(Fault(oversize=300_000))
    response = http.post(f"/{path}", json=chat_body(stream=stream, input="a", prompt="a"))
    assert len(response.content) >= 300_000
    if response.headers["content-type"] == "application/json":
        assert response.json()


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_and_close_delimited_bodies_are_decoded_by_the_client(http, provider, stream):
    provider.reply("naïve")
    provider.script(Fault(gzip=True), Fault(close_delimited=True), Fault(gzip=True, close_delimited=True))
    for fault in ("gzip", "close", "both"):
        response = http.post("/chat/completions", json=chat_body(stream=stream))
        assert "naïve" in response.text
        assert ("content-encoding" in response.headers) is (fault != "close")
        if fault != "gzip":
            assert "content-length" not in response.headers
            assert "transfer-encoding" not in response.headers


def test_a_gzipped_stream_is_readable_event_by_event(client, provider):
    provider.script(Fault(gzip=True, hold_after=2))
    stream = iter(ask(client, stream=True))
    next(stream), next(stream)
    provider.release()
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_finish_reason_truncates_chat_and_makes_responses_incomplete(client, provider, reason):
    provider.reply("0123456789")
    provider.always(Fault(finish_reason=reason))
    choice = ask(client).choices[0]
    assert (choice.finish_reason, choice.message.content) == (reason, "01234")
    assert [chunk.choices[0].finish_reason for chunk in ask(client, stream=True)][-1] == reason
    answer = client.responses.create(model="m", input="a")
    assert (answer.status, answer.output_text) == ("incomplete", "01234")
    assert list(client.responses.create(model="m", input="a", stream=True))[-1].type == "response.incomplete"


def test_a_refusal_is_one_in_both_protocols(client, provider):
    provider.always(Fault(refusal=True))
    message = ask(client).choices[0].message
    assert message.content is None
    assert message.refusal
    assert (
        "".join(chunk.choices[0].delta.refusal or "" for chunk in ask(client, stream=True)) == message.refusal
    )
    assert client.responses.create(model="m", input="a").output[0].content[0].type == "refusal"
    kinds = {event.type for event in client.responses.create(model="m", input="a", stream=True)}
    assert {"response.refusal.delta", "response.refusal.done", "response.completed"} <= kinds


def test_an_empty_answer_is_well_formed(client, http, provider):
    provider.always(Fault(empty=True))
    assert ask(client).choices[0].message.content == ""
    assert client.responses.create(model="m", input="a").output == []
    assert http.post("/embeddings", json={"input": "a"}).json()["data"] == []
    assert http.post("/audio/speech", json={"input": "a"}).content == b""


@pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled", "queued"])
def test_a_response_ends_in_the_status_it_is_told(client, provider, status):
    provider.always(Fault(response_status=status))
    raw = client.responses.with_raw_response.create(model="m", input="a")
    assert Response.model_validate_json(raw.text).status == status
    last = list(client.responses.create(model="m", input="a", stream=True))[-1]
    assert last.response.status == ("in_progress" if status == "queued" else status)


def test_a_fault_that_makes_no_sense_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="cut_after=-1"):
        Fault(cut_after=-1)
    with pytest.raises(ConfigurationError, match="status=99"):
        Fault(status=99)
    with pytest.raises(ConfigurationError, match="delay"):
        FakeProvider(delay=-1)


# -- holding, hanging, hanging up ----------------------------------------------------------------


def test_held_calls_wait_for_each_other_and_are_all_released(client, provider):
    provider.hold()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask, client) for _ in range(20)]
        provider.wait_for_calls(20)
        assert provider.in_flight == 20
        assert not any(answer.done() for answer in answers)
        provider.release()
        assert len({answer.result().id for answer in answers}) == 20
    assert (provider.in_flight, provider.max_in_flight) == (0, 20)
    assert ask(client).choices


async def test_async_calls_and_streams_are_in_flight_at_once(provider):
    provider.hold()
    async with sdk(provider.base_url, kind=openai.AsyncOpenAI) as client:
        tasks = [asyncio.create_task(ask(client, stream=index % 2 == 0)) for index in range(50)]
        await asyncio.to_thread(provider.wait_for_calls, 50)
        assert provider.max_in_flight == provider.open_connections == 50
        provider.release()
        for answer in await asyncio.gather(*tasks):
            if isinstance(answer, openai.AsyncStream):
                assert [chunk async for chunk in answer]


def test_four_hundred_connections_are_held_and_answered(provider):
    provider.hold()
    body = json.dumps(chat_body()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    address = ("127.0.0.1", int(provider.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(400)]
        for raw in clients:
            raw.sendall(head + body)
        provider.wait_for_calls(400, timeout=20)
        assert provider.max_in_flight == 400
        provider.release()
        assert {raw.recv(65536)[:15] for raw in clients} == {b"HTTP/1.1 200 OK"}


def test_a_stream_is_held_after_the_events_it_is_told(client, provider):
    provider.hold(after=3)
    stream = iter(ask(client, stream=True))
    seen = [next(stream) for _ in range(3)]
    assert provider.in_flight == 1
    provider.release()
    assert len(seen) + len(list(stream)) > 10


def test_a_stream_is_held_until_an_event_is_set(client, provider):
    go_on = threading.Event()
    provider.script(Fault(hold_after=1, hold=go_on))
    stream = iter(ask(client, stream=True))
    next(stream)
    provider.release()
    assert provider.in_flight == 1
    go_on.set()
    assert list(stream)
    assert provider.in_flight == 0


def test_a_position_beyond_the_end_holds_the_end_of_the_body(http, provider):
    provider.script(Fault(hold_after=10**6))
    with http.stream("POST", "/chat/completions", json=chat_body(stream=True)) as response:
        lines = response.iter_lines()
        while next(lines) != "data: [DONE]":
            pass
        assert provider.in_flight == 1
        provider.release()
        assert not any(lines)


def test_a_hanging_call_is_answered_when_released(client, provider):
    provider.script(Fault(hang=True))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, client)
        provider.wait_for_calls(1)
        # Released at once, however far the call got: it must not wait for the next release.
        provider.release()
        assert answer.result(5).choices


def test_a_client_that_times_out_is_a_hangup(client, provider):
    provider.script(Fault(hang=True))
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.05)
    provider.wait_until(lambda: provider.hangups == 1)
    assert provider.in_flight == 0


@pytest.mark.parametrize(
    "fault", [Fault(hold_after=2), Fault(chunk_delay=0.02), Fault(hold_after=2, hold=threading.Event())]
)
def test_a_client_that_leaves_mid_stream_is_a_hangup(client, provider, fault):
    provider.script(fault)
    stream = ask(client, stream=True)
    next(iter(stream))
    stream.close()
    provider.wait_until(lambda: provider.hangups == 1)


def test_a_client_that_leaves_at_the_terminal_event_is_no_hangup(client, provider):
    for _ in range(20):
        for _chunk in ask(client, stream=True):
            pass
    client.close()
    provider.wait_until(lambda: provider.open_connections == 0)
    assert provider.hangups == 0


async def test_a_cancelled_async_call_is_a_hangup(provider):
    provider.hold()
    async with sdk(provider.base_url, kind=openai.AsyncOpenAI) as client:
        task = asyncio.create_task(ask(client))
        await asyncio.to_thread(provider.wait_for_calls, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)


def test_waiting_for_what_does_not_come_is_a_timeout_with_figures(provider):
    with pytest.raises(TimeoutError, match="calls=0"):
        provider.wait_for_calls(1, timeout=0.01)


def test_delays_are_kept(provider):
    with (
        FakeProvider(delay=0.05, chunk_delay=0.01) as slow,
        httpx.Client(base_url=slow.base_url, verify=False) as http,
    ):
        slow.reply("a b c")
        elapsed = http.post("/chat/completions", json=chat_body(stream=True)).elapsed.total_seconds()
    assert 0.1 <= elapsed < 1


# -- life ----------------------------------------------------------------------------------------


def test_closing_ends_held_calls_idle_connections_and_every_thread(client):
    before = set(threading.enumerate())
    provider = FakeProvider().start()
    provider.script(Fault(hang=True), Fault(delay=60), Fault(hold=threading.Event()))
    with (
        sdk(provider.base_url) as other,
        ThreadPoolExecutor(3) as pool,
    ):
        calls = [pool.submit(ask, other) for _ in range(3)]
        provider.wait_for_calls(3)
        provider.close()
        assert all(isinstance(call.exception(5), openai.APIConnectionError) for call in calls)
    provider.close()
    assert set(threading.enumerate()) <= before
    assert provider.open_connections == provider.in_flight == provider.hangups == 0


def test_a_closed_provider_refuses_and_comes_back_on_its_port(provider, client):
    url = provider.base_url
    ask(client)
    provider.close()
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert provider.start().base_url == url
    assert ask(client).id == "chatcmpl-2"


def test_a_provider_that_never_started_has_no_address():
    with pytest.raises(RuntimeError, match="start"):
        _ = FakeProvider().url


def test_clients_that_talk_nonsense_harm_nobody(provider, client, capfd):
    for talk in (b"", b"\x16\x03\x01", b"POST /v1/x HTTP/1.1\r\ncontent-length: many\r\n\r\n", b"GET"):
        with socket.create_connection(("127.0.0.1", int(provider.url.rpartition(":")[2]))) as raw:
            raw.sendall(talk)
    assert ask(client).choices
    assert "".join(capfd.readouterr()) == ""


def test_it_runs_as_a_process(client):
    command = [sys.executable, "-m", "askonce.testing._provider", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        base_url = process.stdout.readline().strip()
        with sdk(base_url) as other:
            assert ask(other).choices
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
