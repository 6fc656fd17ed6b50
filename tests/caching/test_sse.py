"""The SSE scanner and parser, against the standard, a plain reference, and the OpenAI SDK's own decoder."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce._sse import Scanner, events

BOM = b"\xef\xbb\xbf"
FINAL = {b"response.completed", b"response.incomplete", b"message_stop"}
FAILED = {b"error", b"response.failed"}
CLOSING = {
    b"speech.audio.done",
    b"transcript.text.done",
    b"image_generation.completed",
    b"image_edit.completed",
}

LINES = [
    b"data: [DONE]",
    b"data:[DONE]",
    b"data:  [DONE]",
    b"data: [DONE] ",
    b" data: [DONE]",
    b"xdata: [DONE]",
    b"data : [DONE]",
    b": data: [DONE]",
    b'data: {"id":1,"text":"hello"}',
    b'data: {"id":2,"text":"data: [DONE]"}',
    b'data: {"id":3,"text":"' + "é\u2028\x85\x0b\x1c".encode() + b'"}',
    b'data: {"id":4,"text":"' + b"x" * 150 + b'"}',
    b'data: {"error":{"message":"no"}}',
    b'data: { "error" : "no"}',
    b'data: {"error":null,"id":5}',
    b'data:{"error" : null}',
    b'data: {"error_code":0}',
    b'data: {"type":"response.completed","response":{}}',
    b'data: {"type": "response.output_text.delta","delta":"x"}',
    b'data: {"type" : "message_stop"}',
    b'data: {"type":"response.completed.not"}',
    b'data: {"type":"error"}',
    b'data: {"type":"speech.audio.done"}',
    b"data: {",
    b'data: "type": "response.failed"}',
    b'data: "error": {}}',
    b"data:",
    b"data: ",
    b"data",
    b"database: [DONE]",
    b"event",
    b"event:",
    b"event: message_stop",
    b"event:message_stop",
    b"event:  message_stop",
    b"event: message_stop ",
    b"event: content_block_delta",
    b"event: error",
    b"event: response.incomplete",
    b"event: response.failed",
    b"event: transcript.text.done",
    b"event: " + b"n" * 300,
    b"id: 7",
    b"retry: 10",
    b": ping",
    BOM + b"data: [DONE]",
    BOM,
    b"\x00\xff",
]

blank = st.just(b"")
line = st.one_of(st.sampled_from(LINES), st.sampled_from(LINES), blank, blank, blank)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
uniform = st.tuples(st.lists(line, max_size=10), ends).map(lambda made: made[1].join([*made[0], b""]))
mixed = st.lists(st.tuples(line, ends).map(b"".join), max_size=10).map(b"".join)
bodies = st.tuples(
    st.sampled_from([b"", b"", BOM]), st.one_of(uniform, mixed), st.one_of(blank, st.sampled_from(LINES))
).map(b"".join)


@st.composite
def split_bodies(draw, made=bodies):
    body = draw(made)
    if draw(st.booleans()):
        return body, [body[at : at + 1] for at in range(len(body))]
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(body)), max_size=8))), len(body)]
    return body, [body[start:end] for start, end in itertools.pairwise(cuts)]


def reference_events(body):
    """(name, data, offset behind the blank line) of each event: the standard, read line by line."""
    start = len(BOM) if body.startswith(BOM) else 0
    name, data = b"", None
    for match in re.compile(rb"([^\r\n]*)(\r\n|\r|\n)").finditer(body, start):
        text = match[1]
        if not text:
            if data is not None:
                yield name, data, match.end()
            name, data = b"", None
            continue
        field, _, value = text.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        if field == b"event":
            name = value


def reference_kind(name, data):
    dense = re.sub(rb"[ \t\r\n]+", b"", data)
    typed = re.match(rb'\{"type":"([^"]*)"', dense)
    words = {name, typed[1] if typed else b""}
    if words & FAILED or (dense.startswith(b'{"error":') and not dense.startswith(b'{"error":null')):
        return "failed"
    if words & FINAL or data.startswith(b"[DONE]"):
        return "final"
    return "closing" if words & CLOSING else ""


def reference_verdict(body):
    closing = False
    for name, data, end in reference_events(body):
        kind = reference_kind(name, data)
        if kind in {"final", "failed"}:
            return kind, end
        closing = kind == "closing"
    return ("closing" if closing else ""), -1


def scan(chunks):
    scanner = Scanner()
    if not any(scanner.feed(chunk) for chunk in chunks):
        scanner.settle()
    kind = "final" if scanner.final else "failed" if scanner.failed else "closing" if scanner.closing else ""
    return scanner, kind


@settings(max_examples=250, deadline=None)
@given(split_bodies())
def test_the_verdict_is_the_standards_wherever_the_chunks_are_cut(made):
    body, chunks = made
    scanner, kind = scan(chunks)
    expected, end = reference_verdict(body)
    assert kind == expected
    assert scanner.end == end


@settings(max_examples=100, deadline=None)
@given(split_bodies())
def test_the_parser_gives_the_standards_events(made):
    body, _ = made
    assert list(events(body)) == [(name, data) for name, data, _ in reference_events(body)]


@settings(max_examples=100, deadline=None)
@given(split_bodies())
def test_the_parser_agrees_with_the_openai_sdk(made):
    streaming = pytest.importorskip("openai._streaming")
    body, chunks = made
    # The SDK keeps a byte order mark, refuses bytes that are not UTF-8, and dispatches without data.
    for word in (BOM, b"\x00\xff"):
        chunks = [body.replace(word, b"")] if word in body else chunks
        body = body.replace(word, b"")
    theirs = [
        (sse.event or "", sse.data) for sse in streaming.SSEDecoder().iter_bytes(iter(chunks)) if sse.data
    ]
    assert [(name.decode(), data.decode()) for name, data in events(body) if data] == theirs


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                [
                    "data: [DONE]\n\n",
                    "\r\n\r\nevent: error\r\n",
                    '{"error":',
                    "[DONE]",
                    "event: message_stop\n\n",
                    BOM.decode(),
                ]
            ),
        ),
        max_size=6,
    ).map("".join),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.integers(1, 40),
)
def test_what_a_model_says_never_decides(text, end, ascii_only, size):
    content = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=ascii_only)
    named = json.dumps({text: text}, ensure_ascii=ascii_only)
    plain = "".join(
        f"data: {said}{end}{end}" for said in (content, content, named.replace('{"error"', '{"x"'))
    )
    body = plain.encode("utf-8", "replace")
    _, kind = scan([body[at : at + size] for at in range(0, len(body), size)])
    assert kind == ""


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (b"data: [DONE]\n\n", "final"),
        (b"data:[DONE]\r\n\r\n", "final"),
        (b"event: message_stop\ndata: {}\n\n", "final"),
        (b"data: {}\nevent: message_stop\n\n", "final"),
        (b'data: {"type":"response.completed","response":{"error":null}}\n\n', "final"),
        (b'event: message\ndata: {"type": "response.incomplete"}\n\n', "final"),
        (b"event: error\ndata: {}\n\n", "failed"),
        (b"event: error\ndata: [DONE]\n\n", "failed"),
        (b'event: response.completed\ndata: {"error":{}}\n\n', "failed"),
        (b'data: {"error":{"message":"overloaded"}}\n\ndata: [DONE]\n\n', "failed"),
        (b'data: {"type":"error","error":{}}\n\n', "failed"),
        (b"event: response.failed\ndata: {}\n\n", "failed"),
        (b"event: image_edit.completed\ndata: {}\n\n", "closing"),
        (b"event: image_edit.completed\ndata: {}\n\ndata: {}\n\n", ""),
        (b'data: {"error":null}\n\n', ""),
        (b"event: message_stop\n\n", ""),
        (b"event: message_stop\n\ndata: {}\n\n", ""),
        (b"event: message_stop\nevent: ping\ndata: {}\n\n", ""),
        (b"data: [DONE]\n", ""),
        (b"data: x\ndata: [DONE]\n\n", ""),
        (b"data: {}\r\n data: [DONE]\n\n", ""),
    ],
)
def test_each_kind_of_event_is_known_by_its_name_or_its_beginning(stream, kind):
    assert scan([stream])[1] == kind
    assert scan([b'data: {"id":1}\n\n', stream])[1] == kind


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_final_event_is_known_at_its_blank_line_and_not_before(end):
    scanner = Scanner()
    assert not scanner.feed(b"data: {}" + end + end)
    assert not scanner.feed(b"data: [DONE]" + end)
    assert scanner.feed(end)
    assert scanner.end == scanner.total


def test_a_final_blank_line_that_ends_in_cr_waits_for_an_lf_and_takes_it_in():
    for following, more in ((b"\n", 1), (b"\nx", 1), (b"data: x", 0), (b'data: {"id":1}\n\n', 0)):
        scanner = Scanner()
        assert not scanner.feed(b'data: {"id":1}\n\n')
        assert not scanner.feed(b"data: [DONE]\r\n\r")
        end = scanner.total
        assert scanner.feed(following)
        assert scanner.end == end + more


def test_a_long_line_is_not_kept():
    scanner = Scanner()
    scanner.feed(b'data: {"b64":"')
    for _ in range(1000):
        scanner.feed(b"A" * 1000)
    assert len(scanner._line) < 200
    scanner.feed(b'"}\n')
    assert len(scanner._data) < 200
    for _ in range(1000):
        scanner.feed(b"data: and many more lines of the same event\n")
    assert len(scanner._data) < 300


@pytest.mark.parametrize(
    ("stream", "unfinished"),
    [
        (b"", False),
        (b"data: {}\n\n", False),
        (b"data: {}\n\n: ping\n\n", False),
        (b"data: {}\n", True),
        (b"data", True),
        (b"event: x\n", True),
    ],
)
def test_it_knows_whether_an_event_is_under_way(stream, unfinished):
    scanner = Scanner()
    scanner.feed(stream)
    assert scanner.unfinished is unfinished
