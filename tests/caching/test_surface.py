"""What answers say about themselves: their usage, and what is wrong with them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce._surface import EMPTY, ERROR, INCOMPLETE, REFUSED, TRUNCATED
from askonce._surfaces import _KNOWN, OTHER

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"

BY_NAME = {surface.name: surface for surface in reversed((*_KNOWN, OTHER))}


def read_answer(name, content_type, raw):
    return BY_NAME[name].read(content_type, raw)


def flaws(surface, answer, content_type=JSON):
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_answer(surface, content_type, raw).flaws


def stream(*chunks, end=b"data: [DONE]\n\n"):
    return (
        b"".join(
            b"data: " + (c if isinstance(c, bytes) else json.dumps(c).encode()) + b"\n\n" for c in chunks
        )
        + end
    )


def chat(finish="stop", **message):
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}


CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
TABLE = [
    ("chat", chat(content="hi"), set()),
    ("chat", chat("tool_calls", content=None, tool_calls=CALL), set()),
    ("chat", chat("function_call", content=None, function_call={"name": "f"}), set()),
    ("chat", chat(content=None, audio={"id": "a"}), set()),
    ("chat", chat("length", content="h"), {TRUNCATED}),
    ("chat", chat("length", content=""), {TRUNCATED, EMPTY}),
    ("chat", chat("content_filter", content="h"), {REFUSED}),
    ("chat", chat(content=None, refusal="no"), {REFUSED}),
    ("chat", chat(content=""), {EMPTY}),
    ("chat", chat(content=None), {EMPTY}),
    ("chat", chat(content=None, tool_calls=[]), {EMPTY}),
    ("chat", {"choices": []}, {EMPTY}),
    ("chat", {"choices": None}, {EMPTY}),
    ("chat", {"choices": [{"message": None}]}, {EMPTY}),
    ("chat", {}, {EMPTY}),
    (
        "chat",
        {"choices": [*chat(content="a")["choices"], *chat("length", content="b")["choices"]]},
        {TRUNCATED},
    ),
    ("chat", {"choices": [*chat(content="a")["choices"], *chat(content="")["choices"]]}, {EMPTY}),
    ("chat", {**chat(content="hi"), "error": {"message": "x"}}, {ERROR}),
    ("chat", {**chat(content="hi"), "error": None}, set()),
    ("chat", {"error": {"message": "x"}}, {ERROR, EMPTY}),
    ("chat", [], {ERROR}),
    ("chat", "text", {ERROR}),
    ("chat", b"<html>", {ERROR}),
    ("chat", b'{"choices":', {ERROR}),
    ("chat", b"", {EMPTY}),
    ("completions", {"choices": [{"text": "a", "finish_reason": "stop"}]}, set()),
    ("completions", {"choices": [{"text": "a", "finish_reason": "length"}]}, {TRUNCATED}),
    ("completions", {"choices": [{"text": "a", "finish_reason": "content_filter"}]}, {REFUSED}),
    ("completions", {"choices": [{"text": "", "finish_reason": "stop"}]}, {EMPTY}),
    ("completions", {"choices": []}, {EMPTY}),
    ("responses", {"status": "completed", "output": [{"type": "function_call"}]}, set()),
    (
        "responses",
        {
            "status": "completed",
            "error": None,
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}],
        },
        set(),
    ),
    (
        "responses",
        {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}],
        },
        {REFUSED},
    ),
    ("responses", {"status": "completed", "output": []}, {EMPTY}),
    ("responses", {"status": "completed", "output": [{"type": "message", "content": []}]}, {EMPTY}),
    (
        "responses",
        {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": ""}]}],
        },
        {EMPTY},
    ),
    ("responses", {"status": "failed", "error": {"code": "x"}, "output": []}, {INCOMPLETE, ERROR, EMPTY}),
    ("responses", {"status": "queued", "output": []}, {INCOMPLETE, EMPTY}),
    ("responses", {"status": "in_progress", "output": [{"type": "x"}]}, {INCOMPLETE}),
    ("responses", {"status": "cancelled", "output": [{"type": "x"}]}, {INCOMPLETE}),
    ("responses", {"output": [{"type": "x"}]}, {INCOMPLETE}),
    (
        "responses",
        {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [{"type": "x"}],
        },
        {TRUNCATED},
    ),
    (
        "responses",
        {
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "output": [{"type": "x"}],
        },
        {REFUSED},
    ),
    (
        "responses",
        {"status": "incomplete", "incomplete_details": None, "output": [{"type": "x"}]},
        {TRUNCATED},
    ),
    ("embeddings", {"data": [{"embedding": [1]}]}, set()),
    ("embeddings", {"data": []}, {EMPTY}),
    ("embeddings", {"data": [], "error": {"message": "x"}}, {EMPTY, ERROR}),
    ("embeddings", {}, {EMPTY}),
    ("embeddings", [[1.0]], {ERROR}),
    ("moderations", {"results": [{}]}, set()),
    ("moderations", {"results": []}, {EMPTY}),
    ("images", {"data": [{"b64_json": "x"}]}, set()),
    ("images", {"data": []}, {EMPTY}),
    ("transcription", {"text": "hi"}, set()),
    ("transcription", {"text": ""}, {EMPTY}),
    ("translation", {"text": "hi"}, set()),
    ("speech", {"error": {"message": "x"}}, {ERROR}),
    ("other", {"anything": 1}, set()),
    ("other", [1], set()),
    ("other", {"error": "x"}, {ERROR}),
    ("other", b"nonsense", {ERROR}),
]


def named(value):
    """The same name in every process, whatever the order of sets is there."""
    return str(sorted(value) if isinstance(value, set) else value)[:70]


@pytest.mark.parametrize(("surface", "answer", "expected"), TABLE, ids=named)
def test_what_is_wrong_with_a_plain_answer(surface, answer, expected):
    assert flaws(surface, answer) == expected


def delta(content=None, finish=None, index=0, **more):
    said = {} if content is None else {"content": content}
    return {"choices": [{"index": index, "delta": said | more, "finish_reason": finish}]}


def done(kind="response.completed", **response):
    return {"type": kind, "response": response}


OUT = [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]
STREAMS = [
    ("chat", stream(delta(""), delta("hi"), delta(finish="stop")), set()),
    (
        "chat",
        stream(
            {"choices": [], "prompt_filter_results": []}, delta("hi", "stop"), {"choices": [], "usage": {}}
        ),
        set(),
    ),
    ("chat", stream(delta("h"), delta(finish="length")), {TRUNCATED}),
    ("chat", stream(delta("h"), delta(finish="content_filter")), {REFUSED}),
    ("chat", stream(delta(refusal="no"), delta(finish="stop")), {REFUSED}),
    ("chat", stream(delta(tool_calls=CALL), delta(finish="tool_calls")), set()),
    ("chat", stream(delta(""), delta(finish="stop")), {EMPTY}),
    ("chat", stream(delta("h")), {INCOMPLETE}),
    ("chat", stream(delta("h", "stop"), delta("i", index=1)), {INCOMPLETE}),
    ("chat", stream(delta("h", "stop"), delta("", "stop", index=1)), {EMPTY}),
    ("chat", stream(), {EMPTY}),
    ("chat", stream(delta("h", "stop"), {"error": {"message": "x"}}), {ERROR}),
    ("chat", stream(b"nonsense"), {ERROR}),
    ("chat", stream(b'"data: [DONE]"', delta("h", "stop")), set()),
    (
        "completions",
        stream(
            {"choices": [{"index": 0, "text": "a"}]},
            {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        ),
        set(),
    ),
    ("completions", stream({"choices": [{"index": 0, "text": "a", "finish_reason": "length"}]}), {TRUNCATED}),
    ("completions", stream({"choices": [{"index": 0, "text": "a"}]}), {INCOMPLETE}),
    ("responses", stream({"type": "response.created"}, done(status="completed", output=OUT), end=b""), set()),
    ("responses", stream(done("response.incomplete", status="incomplete", output=OUT), end=b""), {TRUNCATED}),
    ("responses", stream(done("response.failed", status="failed"), end=b""), {INCOMPLETE}),
    ("responses", stream({"type": "response.created"}, end=b""), {INCOMPLETE}),
    ("responses", stream(done(status="completed", output=[]), end=b""), {EMPTY}),
    ("responses", stream({"type": "error", "message": "x"}, end=b""), {ERROR}),
    ("responses", b"event: error\ndata: {}\n\n", {ERROR}),
    (
        "speech",
        stream(
            {"type": "speech.audio.delta"},
            {"type": "speech.audio.done", "usage": {"input_tokens": 1}},
            end=b"",
        ),
        set(),
    ),
]


@pytest.mark.parametrize(("surface", "answer", "expected"), STREAMS, ids=named)
def test_what_is_wrong_with_a_stream(surface, answer, expected):
    assert flaws(surface, answer, SSE) == expected


JSON_SURFACES = ["chat", "completions", "responses", "embeddings", "moderations", "images"]


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain; charset=utf-8", "", "application/octet-stream"]
)
def test_a_page_in_place_of_an_answer_is_never_flawless(content_type):
    # A proxy's login page, a gateway's "service unavailable" with status 200.
    found = {
        name: flaws(name, b"<html>Sign in to the network</html>", content_type) for name in JSON_SURFACES
    }
    assert all(found.values()), found


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", "application/json;charset=utf-8", "APPLICATION/JSON", "text/json"]
)
def test_an_error_body_is_one_however_its_type_is_written(content_type):
    assert ERROR in flaws("chat", {"error": {"message": "x"}}, content_type)


def test_texts_sounds_and_subtitles_are_judged_by_their_being_there():
    assert flaws("transcription", b"hello", "text/plain") == set()
    assert flaws("transcription", b"1\n00:00 --> 00:01\nhello", "text/plain; charset=utf-8") == set()
    assert flaws("speech", b"ID3\x00", "audio/mpeg") == set()
    assert flaws("speech", b"", "audio/mpeg") == {EMPTY}


@pytest.mark.parametrize(
    ("surface", "usage", "expected"),
    [
        (
            "chat",
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        ),
        (
            "chat",
            {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0}},
            {"prompt_tokens": 3, "prompt_tokens_details.cached_tokens": 2},
        ),
        ("chat", {"prompt_tokens": True, "a": "b", "c": None, "d": [1], "e": 1.5}, {}),
        ("chat", None, {}),
        ("chat", [1], {}),
        ("chat", "many", {}),
    ],
)
def test_usage_is_the_numbers_of_the_provider(surface, usage, expected):
    assert (
        read_answer(surface, JSON, json.dumps({**chat(content="a"), "usage": usage}).encode()).usage
        == expected
    )
    raw = stream(delta("a", "stop"), {"choices": [], "usage": usage})
    assert read_answer(surface, SSE, raw).usage == expected


def test_usage_of_responses_embeddings_and_their_streams_is_found():
    usage = {"input_tokens": 1, "output_tokens": 2}
    plain = {"status": "completed", "output": OUT, "usage": usage}
    assert read_answer("responses", JSON, json.dumps(plain).encode()).usage == usage
    assert read_answer("responses", SSE, stream(done(**plain), end=b"")).usage == usage
    assert read_answer("embeddings", JSON, b'{"data":[1],"usage":{"prompt_tokens":5}}').usage == {
        "prompt_tokens": 5
    }


WEIRD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", "a", "stop", "length", "error", "response.completed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "index",
                    "delta",
                    "message",
                    "finish_reason",
                    "usage",
                    "error",
                    "type",
                    "response",
                    "status",
                    "output",
                    "content",
                    "data",
                    "text",
                    "incomplete_details",
                    "reason",
                    "tool_calls",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@SETTINGS
@given(
    st.sampled_from([*JSON_SURFACES, "speech", "transcription", "other"]),
    WEIRD,
    st.lists(WEIRD, max_size=3),
)
def test_no_answer_raises(surface, answer, chunks):
    assert isinstance(flaws(surface, answer), set)
    assert isinstance(flaws(surface, stream(*chunks), SSE), set)


@pytest.mark.parametrize("index", [[], {}, None, "0", 1.5, True])
def test_a_choice_with_any_index_is_read(index):
    chunk = {"choices": [{"index": index, "delta": {"content": "a"}, "text": "a", "finish_reason": "stop"}]}
    for surface in ("chat", "completions"):
        assert isinstance(flaws(surface, stream(chunk), SSE), set)


@pytest.mark.parametrize("kind", [[], {}, None, 5])
def test_an_event_with_any_type_is_read(kind):
    assert flaws("responses", stream({"type": kind}, end=b""), SSE) == {INCOMPLETE}


def test_usage_nested_beyond_reason_does_not_raise():
    raw = b'{"choices":[{"message":{"content":"a"}}],"usage":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}"
    assert isinstance(read_answer("chat", JSON, raw).flaws, set)


@SETTINGS
@given(st.binary(max_size=60), st.sampled_from([JSON, SSE, "", "audio/mpeg", "application/jsonl"]))
def test_no_bytes_raise(raw, content_type):
    for surface in ("chat", "responses", "speech", "other"):
        assert isinstance(read_answer(surface, content_type, raw).flaws, set)
