"""A hit is the answer that the provider gave: same types, same fields, same headers, same bytes."""

# ruff: noqa: PLR0917 - fixtures are asked for by name

from __future__ import annotations

import io
import json
import os
import sys
from datetime import timedelta
from operator import attrgetter
from types import SimpleNamespace

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from askonce import Cache, Policy, Rule

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of single endpoints

OLD = int(openai.__version__.partition(".")[0]) < 3
MESSAGES = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
RESPONSE_TOOLS = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}]
AUDIO = b"RIFF" + bytes(range(256)) * 40
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)

# What is not kept, by design: cookies, rate limits, retry hints, connection and transfer framing (a stored
# body is stored whole and decoded), and what a server says about itself rather than about the answer.
DROPPED = {
    "set-cookie", "retry-after", "retry-after-ms", "server", "connection", "keep-alive",
    "transfer-encoding", "content-length", "content-encoding",
}  # fmt: skip


class Person(BaseModel):
    name: str
    age: int
    friends: list[Person]
    nickname: str | None


class Case:
    """One call: where its method hangs, and fresh arguments for each time it is made."""

    def __init__(self, name, resource, method, **arguments):
        self.name = name
        self.resource = resource
        self.method = method
        self._arguments = arguments

    def arguments(self):
        # Open files can be sent once: they are made anew for each call.
        return {name: value() if callable(value) else value for name, value in self._arguments.items()}

    def on(self, client, view=None):
        target = client
        for part in self.resource.split("."):
            target = getattr(target, part)
        if view is not None:
            target = getattr(target, view)
        return getattr(target, self.method)

    def ask(self, client, view=None, **more):
        method = self.on(client) if view is None else self.on(client, view)
        return method(**self.arguments(), **more)


def an_object():
    return object


def chat_completion():
    return ChatCompletion


def person():
    return Person  # a class is callable: this keeps it from being made


CHAT = [
    Case("chat", "chat.completions", "create", model="m", messages=MESSAGES),
    Case(
        "chat tools", "chat.completions", "create", model="m", tools=CHAT_TOOLS,
        messages=[{"role": "user", "content": "get weather"}],
    ),
    Case("chat n=3", "chat.completions", "create", model="m", messages=MESSAGES, n=3),
    Case(
        "chat parse", "chat.completions", "parse", model="m", messages=MESSAGES, response_format=person
    ),
    Case(
        "chat parse tools", "chat.completions", "parse", model="m",
        tools=[{**CHAT_TOOLS[0], "function": {**CHAT_TOOLS[0]["function"], "strict": True}}],
        messages=[{"role": "user", "content": "get weather"}],
    ),
    Case("completions", "completions", "create", model="m", prompt="hello"),
    Case("completions list", "completions", "create", model="m", prompt=["one", "two"], n=2),
]  # fmt: skip
RESPONSES = [
    Case("responses", "responses", "create", model="m", input="hello", instructions="be brief"),
    Case(
        "responses tools", "responses", "create", model="m", input="get weather", tools=RESPONSE_TOOLS
    ),
    Case("responses parse", "responses", "parse", model="m", input="hello", text_format=person),
]  # fmt: skip
VECTORS = [
    Case("embeddings", "embeddings", "create", model="e", input="hello"),
    Case("embeddings float", "embeddings", "create", model="e", input="hello", encoding_format="float"),
    Case("embeddings base64", "embeddings", "create", model="e", input="hello", encoding_format="base64"),
    Case("embeddings dimensions", "embeddings", "create", model="e", input="hello", dimensions=8),
    Case("embeddings list", "embeddings", "create", model="e", input=["one", "two", "three"], dimensions=8),
    Case("embeddings tokens", "embeddings", "create", model="e", input=[1, 2, 3], dimensions=8),
    Case("embeddings token lists", "embeddings", "create", model="e", input=[[1, 2], [3]], dimensions=8),
    Case("moderations", "moderations", "create", input="hello"),
    Case("moderations list", "moderations", "create", input=["one", "two"], model="omni-moderation-latest"),
]
MEDIA = [
    Case("images generate", "images", "generate", model="i", prompt="a fox", n=2),
    Case("images edit", "images", "edit", model="i", prompt="a fox", image=("a.png", PNG, "image/png")),
    Case(
        "images edit several", "images", "edit", model="i", prompt="a fox",
        image=lambda: [("a.png", PNG, "image/png"), ("b.png", io.BytesIO(PNG + b"b"), "image/png")],
        mask=("m.png", PNG, "image/png"),
    ),
    Case("images variation", "images", "create_variation", model="i", image=("a.png", PNG, "image/png")),
    Case("transcription", "audio.transcriptions", "create", model="t", file=("a.wav", AUDIO, "audio/wav")),
    Case(
        "transcription file object", "audio.transcriptions", "create", model="t",
        file=lambda: ("a.wav", io.BytesIO(AUDIO), "audio/wav"),
    ),
    Case(
        "transcription text", "audio.transcriptions", "create", model="t", response_format="text",
        file=("a.wav", AUDIO, "audio/wav"),
    ),
    Case(
        "transcription verbose", "audio.transcriptions", "create", model="t",
        response_format="verbose_json", file=("a.wav", AUDIO, "audio/wav"),
        timestamp_granularities=["word", "segment"],
    ),
    Case(
        "transcription srt", "audio.transcriptions", "create", model="t", response_format="srt",
        file=("a.wav", AUDIO, "audio/wav"),
    ),
    Case("translation", "audio.translations", "create", model="t", file=("a.wav", AUDIO, "audio/wav")),
    Case(
        "translation text", "audio.translations", "create", model="t", response_format="text",
        file=("a.wav", AUDIO, "audio/wav"),
    ),
]  # fmt: skip
SPEECH = [
    Case("speech", "audio.speech", "create", model="s", voice="alloy", input="hello"),
    Case(
        "speech wav", "audio.speech", "create", model="s", voice="alloy", input="hello", response_format="wav"
    ),
]
POST = [
    Case(
        "client.post", "", "post", path="/chat/completions", cast_to=chat_completion,
        body={"model": "m", "messages": MESSAGES},
    ),
    Case(
        "client.post object", "", "post", path="/embeddings", cast_to=an_object,
        body={"model": "e", "input": "hello", "dimensions": 4},
    ),
]  # fmt: skip
for _case in POST:
    _case.on = attrgetter("post")

PARSED = [*CHAT, *RESPONSES, *VECTORS, *MEDIA]
EVERY = [*PARSED, *SPEECH, *POST]
# One for each way of asking and of answering.
SOME = [case for case in EVERY if case.name in {
    "chat", "chat tools", "chat parse", "completions", "responses tools", "responses parse", "embeddings",
    "embeddings token lists", "moderations", "images generate", "images edit several",
    "transcription file object", "transcription text", "speech", "client.post",
}]  # fmt: skip


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def picture(value):
    """All there is to see of an answer, to any depth."""
    if isinstance(value, BaseModel):
        return {
            "type": type(value),
            "set": frozenset(value.model_fields_set),
            "extra": picture(value.model_extra),
            "fields": {name: picture(inner) for name, inner in vars(value).items()},
            "request": getattr(value, "_request_id", None),
            "json": value.model_dump_json(warnings=False),
        }
    if isinstance(value, dict):
        return {name: picture(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return (type(value), [picture(inner) for inner in value])
    if hasattr(value, "response") and hasattr(value, "content"):  # a binary answer
        return (type(value), value.content, kept(value.response.headers))
    return (type(value), value)


def kept(headers):
    """The headers that a stored answer has as well."""
    return {
        name: value
        for name, value in headers.items()
        if name not in DROPPED and not name.startswith("x-ratelimit-") and name != "cache-status"
    }


@pytest.fixture
def same_boundary(side, monkeypatch):
    """Forms are told apart by a random boundary; without the chance, two clients send the same bytes."""
    random = SimpleNamespace(**vars(os) | {"urandom": bytes})
    monkeypatch.setattr(sys.modules[f"{side.package.__name__}._multipart"], "os", random)


def fixed(headers):
    """The headers that two providers have in common: not the time."""
    passing = {"date", "openai-processing-ms", "cache-status"}
    return [(name, value) for name, value in headers.multi_items() if name not in passing]


def figures(response):
    """What an HTTP response says of itself."""
    return {
        "type": type(response),
        "status": response.status_code,
        "reason": response.reason_phrase,
        "version": response.http_version,
        "url": response.url,
        "request": (response.request.method, response.request.url, bytes(response.request.content)),
        "closed": response.is_closed,
        "consumed": response.is_stream_consumed,
        "content": response.content,
        "text": response.text,
        "read": response.read() if hasattr(response, "read") else None,
        "encoding": response.encoding,
        "downloaded": response.num_bytes_downloaded,
        "success": response.is_success,
        "history": response.history,
        "links": response.links,
        "elapsed": type(response.elapsed),
    }


# -- plain answers ----------------------------------------------------------------------------------


@by_name(EVERY)
async def test_a_hit_equals_the_first_answer(side, provider, client, enabled, case):
    first = await side.get(case.ask(client))
    again = await side.get(case.ask(client))
    assert picture(again) == picture(first)
    stored = {"embeddings list": 3, "embeddings token lists": 2}.get(
        case.name, 1
    )  # a list of inputs is stored item by item
    assert (provider.calls, enabled.stats().hits, enabled.stats().stored) == (1, 1, stored)


@by_name(SOME)
async def test_a_miss_equals_a_call_without_a_cache(side, fresh, cache, enable, case, same_boundary):
    bare, cached = fresh(), fresh()
    served = side.client(cached.base_url)
    enable(cache, served)
    plain = await side.get(case.ask(side.client(bare.base_url)))
    miss = await side.get(case.ask(served))
    if hasattr(plain, "response"):
        assert (type(miss), miss.content) == (type(plain), plain.content)
        assert fixed(miss.response.headers) == fixed(plain.response.headers)
    else:
        assert picture(miss) == picture(plain)
    assert cached.calls == 1
    assert cache.stats().misses == 1


@by_name(SOME)
async def test_the_provider_gets_the_same_bytes_as_without_a_cache(
    side, fresh, cache, enable, case, same_boundary
):
    bare, cached = fresh(), fresh()
    served = side.client(cached.base_url)
    enable(cache, served)
    await side.get(case.ask(side.client(bare.base_url)))
    await side.get(case.ask(served))

    def sent(provider):
        (request,) = provider.requests
        headers = {name: value for name, value in request.headers if name != "host"}
        return request.method, request.path, request.query, headers, request.body

    assert sent(cached) == sent(bare)


@by_name([case for case in SOME if case not in POST])
async def test_a_raw_hit_equals_the_first_raw_answer(side, provider, client, case):
    first = await side.get(case.ask(client, "with_raw_response"))
    again = await side.get(case.ask(client, "with_raw_response"))
    assert type(again) is type(first)
    assert picture(again.parse()) == picture(first.parse())
    assert kept(again.headers) == kept(first.headers)
    assert set(again.headers) - set(first.headers) <= {"content-length"}
    for name in (
        "request_id",
        "status_code",
        "text",
        "content",
        "http_version",
        "is_closed",
        "url",
        "method",
    ):
        assert getattr(again, name) == getattr(first, name), name
    assert isinstance(again.elapsed, timedelta)
    assert isinstance(first.elapsed, timedelta)
    assert again.retries_taken == first.retries_taken == 0
    assert provider.calls == 1


@by_name([case for case in SOME if case not in POST])
async def test_a_raw_miss_equals_a_raw_call_without_a_cache(side, fresh, cache, enable, case, same_boundary):
    bare, cached = fresh(), fresh()
    served = side.client(cached.base_url)
    enable(cache, served)
    plain = await side.get(case.ask(side.client(bare.base_url), "with_raw_response"))
    miss = await side.get(case.ask(served, "with_raw_response"))
    assert fixed(miss.headers) == fixed(plain.headers)
    for name in ("request_id", "status_code", "text", "content", "http_version", "is_closed", "method"):
        assert getattr(miss, name) == getattr(plain, name), name
    assert miss.http_response.num_bytes_downloaded == plain.http_response.num_bytes_downloaded
    assert miss.http_response.elapsed > timedelta(0)
    assert plain.http_response.elapsed > timedelta(0)


@by_name([CHAT[0], RESPONSES[0], VECTORS[0], MEDIA[0], MEDIA[4], MEDIA[6], SPEECH[0]])
async def test_the_http_response_of_a_hit_has_the_figures_of_the_first(side, client, case):
    first = (await side.get(case.ask(client, "with_raw_response"))).http_response
    again = (await side.get(case.ask(client, "with_raw_response"))).http_response
    assert figures(again) | {"request": 0} == figures(first) | {"request": 0}
    if first.headers["content-type"].startswith("application/json"):
        assert again.json() == first.json()


async def test_an_async_hit_can_be_read_again(async_side, provider, enabled):
    client = async_side.client(provider.base_url)
    first = (await CHAT[0].ask(client, "with_raw_response")).http_response
    again = (await CHAT[0].ask(client, "with_raw_response")).http_response
    assert await again.aread() == await first.aread() == first.content


async def test_a_hit_belongs_to_the_request_of_its_own_caller(side, client):
    await side.get(CHAT[0].ask(client))
    raw = await side.get(CHAT[0].ask(client, "with_raw_response", extra_headers={"x-trace": "mine"}))
    assert raw.http_response.request.headers["x-trace"] == "mine"
    assert raw.headers["cache-status"].startswith("askonce; hit")


async def test_a_second_answer_of_the_provider_would_differ(side, provider):
    """The counter-check: without a cache, equality is not had for nothing."""
    client = side.client(provider.base_url)
    first = await side.get(CHAT[0].ask(client))
    again = await side.get(CHAT[0].ask(client))
    assert picture(again) != picture(first)
    assert provider.calls == 2


# -- streaming responses of plain answers -----------------------------------------------------------


async def read_by(side, response, way):
    if way in {"read", "json", "text", "parse"}:
        value = await side.get(getattr(response, way)())
        return picture(value)
    iterator = getattr(response, way)()
    parts = [part async for part in iterator] if side.is_async else list(iterator)
    return parts if way == "iter_lines" else type(parts[0])().join(parts)


@pytest.mark.parametrize("way", ["read", "json", "text", "parse", "iter_bytes", "iter_text", "iter_lines"])
@by_name([CHAT[0], VECTORS[1]])
async def test_a_streaming_response_of_a_hit_reads_like_the_first(side, provider, client, case, way):
    seen = []
    for _ in range(2):
        async with side.within(case.ask(client, "with_streaming_response")) as response:
            seen.append((await read_by(side, response, way), kept(response.headers), response.status_code))
    assert seen[1] == seen[0]
    assert provider.calls == 1


async def test_speech_is_served_through_all_its_faces(side, provider, client, tmp_path):
    case = SPEECH[0]
    whole = (await side.get(case.ask(client))).content
    async with side.within(case.ask(client, "with_streaming_response")) as response:
        assert await read_by(side, response, "iter_bytes") == whole
        assert response.headers["content-type"] == "audio/mpeg"
    async with side.within(case.ask(client, "with_streaming_response")) as response:
        await side.get(response.stream_to_file(tmp_path / "a.mp3"))
    assert (tmp_path / "a.mp3").read_bytes() == whole
    raw = await side.get(case.ask(client, "with_raw_response"))
    assert raw.content == whole
    assert provider.calls == 1


async def test_speech_first_streamed_to_a_file_is_stored(side, provider, client, tmp_path):
    case = SPEECH[0]
    async with side.within(case.ask(client, "with_streaming_response")) as response:
        await side.get(response.stream_to_file(tmp_path / "a.mp3"))
    assert (await side.get(case.ask(client))).content == (tmp_path / "a.mp3").read_bytes()
    assert provider.calls == 1


async def test_plain_raw_and_streaming_views_share_one_answer(side, provider, client):
    first = await side.get(CHAT[0].ask(client))
    raw = await side.get(CHAT[0].ask(client, "with_raw_response"))
    async with side.within(CHAT[0].ask(client, "with_streaming_response")) as response:
        streamed = await side.get(response.parse())
    assert picture(raw.parse()) == picture(streamed) == picture(first)
    assert provider.calls == 1


async def test_create_and_parse_of_the_same_question_share_one_answer(side, provider, client):
    parsed = await side.get(client.chat.completions.parse(model="m", messages=MESSAGES))
    created = await side.get(client.chat.completions.create(model="m", messages=MESSAGES))
    assert created.id == parsed.id
    assert provider.calls == 1


async def test_sync_and_async_clients_share_one_answer(sync_side, async_side, provider, enabled):
    first = CHAT[0].ask(sync_side.client(provider.base_url))
    again = await CHAT[0].ask(async_side.client(provider.base_url))
    assert picture(again) == picture(first)
    assert provider.calls == 1


# -- answers with fields that no SDK knows ----------------------------------------------------------

ODD = {
    "id": "chatcmpl-odd",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "naïve 犬 🦊 \u2028 \u0000 end",
                "reasoning_content": "deep",
                "annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}],
                "audio": {"id": "a", "data": "QUJD", "expires_at": 3, "transcript": "x"},
            },
            "logprobs": {
                "content": [
                    {"token": "a", "bytes": [97], "logprob": -0.25, "top_logprobs": [
                        {"token": "a", "bytes": None, "logprob": -1e-300}
                    ]}
                ],
                "refusal": None,
            },
            "new_field": {"deep": [1, 2.5, None, True, {"er": "x"}]},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.25},
    "provider": "someone",
    "big": 2**80,
}  # fmt: skip


def mocked(side, answer, **options):
    """A client whose provider is a function, for answers that the fake provider does not give."""
    transport = side.package.MockTransport(answer)
    return side.client("http://mock/v1", http=side.http(transport=transport), **options)


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "spaced"])
async def test_unknown_fields_logprobs_and_odd_characters_come_back(side, enabled, indent):
    calls = []

    def answer(request):
        calls.append(request)
        body = json.dumps({**ODD, "call": len(calls)}, indent=indent).encode()
        headers = {"content-type": "application/json", "x-request-id": "r1"}
        return side.package.Response(200, content=body, headers=headers)

    client = mocked(side, answer)
    first = await side.get(client.chat.completions.create(model="m", messages=MESSAGES, logprobs=True))
    again = await side.get(client.chat.completions.create(model="m", messages=MESSAGES, logprobs=True))
    assert picture(again) == picture(first)
    assert again.choices[0].message.reasoning_content == "deep"
    assert again.choices[0].new_field["deep"][4] == {"er": "x"}
    assert again.big == 2**80
    assert len(calls) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain; charset=latin-1"},
        {"content-type": "text/plain; charset=utf-16"},
        {"content-type": "text/plain"},
        {},
    ],
    ids=["latin-1", "utf-16", "plain", "none"],
)
async def test_a_text_is_decoded_as_the_first_time(side, enabled, headers):
    charset = headers.get("content-type", "").partition("charset=")[2] or "utf-8"

    def answer(request):
        return side.package.Response(200, content="grüße".encode(charset), headers=headers)

    client = mocked(side, answer)
    case = MEDIA[6]
    first = await side.get(case.ask(client, "with_raw_response"))
    again = await side.get(case.ask(client, "with_raw_response"))
    assert again.text == first.text == "grüße"
    assert again.http_response.encoding == first.http_response.encoding
    assert kept(again.headers) == kept(first.headers)
    assert again.headers["cache-status"].startswith("askonce; hit")


async def test_a_header_given_twice_stays_given_twice(side, enabled):
    def answer(request):
        pairs = [("content-type", "application/json"), ("openai-note", "a"), ("openai-note", "b")]
        return side.package.Response(200, content=json.dumps(ODD).encode(), headers=pairs)

    client = mocked(side, answer)
    first = await side.get(CHAT[0].ask(client, "with_raw_response"))
    again = await side.get(CHAT[0].ask(client, "with_raw_response"))
    assert again.headers.get_list("openai-note") == first.headers.get_list("openai-note") == ["a", "b"]


async def test_the_request_ids_of_azure_come_back(side, enabled):
    names = {"x-request-id": "1", "apim-request-id": "2", "x-ms-client-request-id": "3", "openai-model": "m"}

    def answer(request):
        return side.package.Response(200, json=ODD, headers=names)

    client = mocked(side, answer)
    await side.get(CHAT[0].ask(client, "with_raw_response"))
    again = await side.get(CHAT[0].ask(client, "with_raw_response"))
    assert {name: again.headers.get(name) for name in names} == names
    assert again.parse()._request_id == "1"


async def test_neither_cookies_nor_limits_of_one_caller_reach_another(side, client):
    first = await side.get(CHAT[0].ask(client, "with_raw_response"))
    again = await side.get(CHAT[0].ask(client, "with_raw_response"))
    assert "set-cookie" in first.headers
    assert "x-ratelimit-remaining-requests" in first.headers
    assert not [
        name for name in again.headers if name in {"set-cookie", "retry-after"} or "ratelimit" in name
    ]
    assert not again.http_response.cookies


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_encoded_answer_is_stored_decoded(side, enabled, encoding):
    import gzip
    import zlib

    body = json.dumps(ODD).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)

    def answer(request):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        return side.package.Response(200, stream=side.package.ByteStream(packed), headers=headers)

    client = mocked(side, answer)
    first = await side.get(CHAT[0].ask(client, "with_raw_response"))
    again = await side.get(CHAT[0].ask(client, "with_raw_response"))
    assert first.content == again.content == body
    assert "content-encoding" not in again.headers
    assert again.headers["cache-status"].startswith("askonce; hit")


# -- what callers do to their answers ---------------------------------------------------------------


def spoil(value):
    """Change everything that can be changed, to any depth."""
    if isinstance(value, BaseModel):
        for name, inner in list(vars(value).items()):
            spoil(inner)
            vars(value)[name] = "spoilt"
        if value.model_extra:
            value.model_extra.clear()
        value.model_fields_set.clear()
    elif isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value.clear()
        value["spoilt"] = True
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value[:] = ["spoilt"]


@by_name([case for case in SOME if case not in SPEECH])
async def test_changing_an_answer_changes_no_later_hit(side, provider, client, case):
    first = await side.get(case.ask(client))
    expected = picture(first)
    spoil(first)
    for _ in range(2):
        hit = await side.get(case.ask(client))
        assert picture(hit) == expected
        spoil(hit)
    assert provider.calls == 1


async def test_two_hits_share_no_object(side, client):
    await side.get(CHAT[0].ask(client))
    one, two = [await side.get(CHAT[0].ask(client)) for _ in range(2)]
    assert one is not two
    assert one.choices is not two.choices
    assert one.choices[0].message is not two.choices[0].message


async def test_changing_the_headers_of_a_hit_changes_no_later_hit(side, client):
    await side.get(CHAT[0].ask(client))
    one = await side.get(CHAT[0].ask(client, "with_raw_response"))
    expected = kept(one.headers)
    one.http_response.headers["x-request-id"] = "spoilt"
    one.http_response.headers["openai-version"] = "spoilt"
    assert kept((await side.get(CHAT[0].ask(client, "with_raw_response"))).headers) == expected


async def test_changing_the_arguments_after_the_call_changes_no_entry(side, provider, client):
    messages = [{"role": "user", "content": "hello"}]
    first = await side.get(client.chat.completions.create(model="m", messages=messages))
    messages[0]["content"] = "other"
    other = await side.get(client.chat.completions.create(model="m", messages=messages))
    again = await side.get(CHAT[0].ask(client))
    assert again.id == first.id != other.id
    assert provider.calls == 2


# -- across caches and stores -----------------------------------------------------------------------


@by_name([case for case in SOME if case.name in {"chat", "responses tools", "embeddings", "speech"}])
async def test_a_hit_from_disk_equals_the_first_answer(side, provider, enable, tmp_path, case):
    client = side.client(provider.base_url)
    with Cache(f"disk://{tmp_path}/cache") as before:
        enable(before)
        first = picture(await side.get(case.ask(client)))
    with Cache(f"disk://{tmp_path}/cache") as after:
        enable(after)
        assert picture(await side.get(case.ask(client))) == first
        assert after.stats().tiers == {"disk": 1}
    assert provider.calls == 1


async def test_a_sealed_hit_equals_the_first_answer(side, provider, enable):
    pytest.importorskip("cryptography")
    client = side.client(provider.base_url)
    with Cache("memory://", secret="a secret of some length") as cache:
        enable(cache)
        first = await side.get(CHAT[0].ask(client))
        assert picture(await side.get(CHAT[0].ask(client))) == picture(first)
    assert provider.calls == 1


async def test_an_opened_endpoint_is_served_like_a_known_one(side, enable):
    calls = []

    def answer(request):
        calls.append(request)
        return side.package.Response(200, json={"results": [{"index": 0, "score": 0.5}], "n": len(calls)})

    with Cache("memory://", policy=Policy(rules=(Rule(url="*/rerank", ttl="1h"),))) as cache:
        enable(cache)
        client = mocked(side, answer)
        answers = [
            await side.get(client.post("/rerank", cast_to=object, body={"query": "q"})) for _ in range(2)
        ]
    assert answers[0] == answers[1] == {"results": [{"index": 0, "score": 0.5}], "n": 1}
    assert len(calls) == 1


# -- forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        (("a.wav", AUDIO), ("a.wav", AUDIO), 1),
        (("a.wav", AUDIO), ("a.wav", AUDIO + b"."), 2),
        (("a.wav", AUDIO), ("a.mp3", AUDIO), 2),
    ],
    ids=["the same file", "another content", "another name"],
)
async def test_a_transcription_is_keyed_by_its_file(side, provider, client, first, second, calls):
    texts = [
        (await side.get(client.audio.transcriptions.create(model="t", file=file))).text
        for file in (first, second)
    ]
    assert (texts[0] == texts[1]) is (calls == 1)
    assert provider.calls == calls


async def test_images_by_link_are_not_stored_because_the_links_expire(side, provider, client, enabled):
    for _ in range(2):
        await side.get(client.images.generate(model="i", prompt="a fox", response_format="url"))
    assert (provider.calls, enabled.stats().stored) == (2, 0)


async def test_an_open_file_is_sent_whole_and_found_again(side, provider, client, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(AUDIO)
    texts = []
    for _ in range(2):
        with path.open("rb") as file:
            texts.append((await side.get(client.audio.transcriptions.create(model="t", file=file))).text)
    texts.append((await side.get(client.audio.transcriptions.create(model="t", file=path))).text)
    assert len(set(texts)) == 1
    assert provider.calls == 1
    assert AUDIO in provider.requests[0].body


async def test_another_prompt_for_the_same_file_is_another_question(side, provider, client):
    for prompt in ("one", "two", "one"):
        await side.get(
            client.audio.transcriptions.create(model="t", file=("a.wav", AUDIO), prompt=prompt, temperature=0)
        )
    assert provider.calls == 2


def test_the_suite_runs_against_the_family_it_claims():
    assert ("httpx2" in sys.modules) or OLD
