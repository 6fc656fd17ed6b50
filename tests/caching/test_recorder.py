"""The recorder: whole answers and nothing else become recordings, however the bytes arrive."""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce._recorder import Recorder
from askonce._sse import events

zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

SSE = "text/event-stream"
LIMIT = 1 << 20
CHAT = b'data: {"id":1,"text":"h\xc3\xa9"}\n\ndata: {"id":2}\n\ndata: [DONE]\n\n'
RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'
)
MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
GEMINI = b'data: {"candidates":[1]}\r\n\r\ndata: {"candidates":[2]}\r\n\r\n'
SPEECH = b'data: {"type":"speech.audio.delta"}\n\ndata: {"type":"speech.audio.done"}\n\n'
PACKERS = {"": lambda data: data, "gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


def record(chunks, content_type=SSE, encoding="", *, framed=True, limit=LIMIT, **options):
    recorder = Recorder(content_type, encoding, framed, limit, **options)
    for chunk in chunks:
        recorder.feed(chunk)
    recorder.eof()
    return recorder


def outcome(recorder):
    return recorder.state, recorder.reason, recorder.body


def cut(data, positions):
    cuts = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def singles(data):
    return [data[at : at + 1] for at in range(len(data))]


EVENTS = [
    b'data: {"id":1,"text":"h\xc3\xa9llo"}',
    b'data: {"text":"data: [DONE]"}',
    b"event: ping\ndata: {}",
    b": comment",
    b"data: [DONE]",
    b"event: message_stop\ndata: {}",
    b'data: {"type":"response.incomplete"}',
    b"event: error\ndata: {}",
    b'data: {"error":{"message":"no"}}',
    b"event: image_generation.completed\ndata: {}",
    b"event: message_stop",
    b"data: {}\ndata: [DONE]",
]


def reference(body, end, *, framed, limit, needs_final):
    """The rules for event streams, over a whole body whose lines all end alike."""
    size, closing = 0, False
    for block in body.split(end + end)[:-1]:
        size += len(block + end + end)
        for name, data in events(block + end + end):
            if name == b"error" or data.startswith(b'{"error"'):
                return "dropped", "too large" if size > limit else "error event", None
            if name == b"message_stop" or data.startswith((b"[DONE]", b'{"type":"response.incomplete"')):
                return ("dropped", "too large", None) if size > limit else ("complete", "", body[:size])
            closing = name == b"image_generation.completed"
    if len(body) > limit:
        return "dropped", "too large", None
    if size < len(body) or (needs_final and not closing):
        return "dropped", "cut", None
    return ("complete", "", body) if framed else ("dropped", "unframed", None)


@st.composite
def streams(draw):
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    made = draw(st.lists(st.sampled_from(EVENTS), max_size=6))
    tail = draw(st.sampled_from([b"", b"", b"data: half"]))
    body = b"".join([*(event + b"\n\n" for event in made), tail]).replace(b"\n", end)
    return body, end, draw(st.lists(st.integers(0, 1000), max_size=6))


@settings(max_examples=200, deadline=None)
@given(streams(), st.booleans(), st.booleans(), st.one_of(st.just(LIMIT), st.integers(0, 250)))
def test_an_event_stream_is_judged_as_if_seen_whole_wherever_it_is_cut(made, framed, needs_final, limit):
    body, end, positions = made
    expected = reference(body, end, framed=framed, limit=limit, needs_final=needs_final)
    for chunks in ([body], singles(body), cut(body, positions)):
        recorder = record(chunks, framed=framed, limit=limit, sse_needs_final=needs_final)
        assert outcome(recorder) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(PACKERS)),
    st.sampled_from([CHAT, RESPONSES, MESSAGES]),
    st.sampled_from([b"", b": trailing\n\n", b"data: more"]),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_any_split_of_a_coded_stream_gives_the_same_recording(encoding, body, behind, positions):
    packed = PACKERS[encoding](body + behind)
    for chunks in ([packed], singles(packed), cut(packed, positions)):
        assert outcome(record(chunks, encoding=encoding)) == ("complete", "", body)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("stream", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])
def test_no_prefix_that_lacks_the_final_blank_line_is_ever_complete(stream, end):
    body = stream.replace(b"\n", end)
    for size in range(len(body) - len(end) + 1):
        assert outcome(record([body[:size]])) == ("dropped", "cut", None)
        assert outcome(record(singles(body[:size]))) == ("dropped", "cut", None)
    assert outcome(record([body])) == ("complete", "", body)


@pytest.mark.parametrize("stream", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])
def test_a_stream_is_complete_at_its_final_blank_line_before_eof_and_even_unframed(stream):
    recorder = Recorder(SSE + "; charset=utf-8", "", framed=False, limit=LIMIT)
    recorder.feed(stream[:-1])
    assert outcome(recorder) == ("recording", "", None)
    recorder.feed(stream[-1:])
    assert outcome(recorder) == ("complete", "", stream)


def test_bytes_behind_the_final_event_are_not_part_of_the_record():
    behind = b"data: {}\n\nevent: error\ndata: {}\n\n" * 100
    for chunks in ([CHAT + behind], [CHAT, behind], singles(CHAT + behind)):
        assert record(chunks, limit=len(CHAT)).body == CHAT


@pytest.mark.parametrize("leave", [Recorder.eof, lambda recorder: recorder.abort("aborted")])
def test_a_final_blank_line_half_seen_counts_when_nothing_follows(leave):
    recorder = Recorder(SSE, "", framed=True, limit=LIMIT)
    recorder.feed(b"data: [DONE]\r\n\r")
    assert recorder.state == "recording"
    leave(recorder)
    assert outcome(recorder) == ("complete", "", b"data: [DONE]\r\n\r")


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=20),
    st.sampled_from(["data: [DONE]\n\n", "\nevent: error\n", '{"error":1}', "\r\n\r\ndata: [DONE]\r\n\r\n"]),
)
def test_what_the_model_says_neither_completes_nor_fails_a_recording(text, marker):
    said = json.dumps({"choices": [{"delta": {"content": text + marker + text}}]}).encode()
    recorder = Recorder(SSE, "", framed=True, limit=LIMIT)
    recorder.feed(b"data: " + said + b"\n\n")
    assert recorder.state == "recording"
    recorder.feed(b"data: [DONE]\n\n")
    assert recorder.state == "complete"


@pytest.mark.parametrize(
    "failure",
    [
        b'event: error\ndata: {"type":"error"}\n\n',
        b'data: {"error":{"message":"overloaded"}}\n\n',
        b'data: {"type":"response.failed"}\n\n',
        b"event: error\r\ndata: {}\r\n\r\n",
    ],
)
def test_a_failed_stream_is_dropped_whatever_follows(failure):
    for chunks in ([failure + CHAT], singles(CHAT[:-15] + b"\n\n" + failure + CHAT)):
        assert outcome(record(chunks)) == ("dropped", "error event", None)
    assert outcome(record([failure])) == ("dropped", "error event", None)


@pytest.mark.parametrize(
    ("stream", "options", "expected"),
    [
        (SPEECH, {}, ("complete", "")),
        (SPEECH + SPEECH, {}, ("complete", "")),
        (SPEECH, {"framed": False}, ("dropped", "unframed")),
        (SPEECH + b'data: {"type":"speech.audio.delta"}\n\n', {}, ("dropped", "cut")),
        (SPEECH + b"data: ha", {}, ("dropped", "cut")),
        (SPEECH[:-1], {}, ("dropped", "cut")),
        (GEMINI, {"sse_needs_final": False}, ("complete", "")),
        (GEMINI, {"sse_needs_final": False, "framed": False}, ("dropped", "unframed")),
        (GEMINI[:-9], {"sse_needs_final": False}, ("dropped", "cut")),
        (
            GEMINI + b'data: {"error":{"code":503}}\r\n\r\n',
            {"sse_needs_final": False},
            ("dropped", "error event"),
        ),
        (GEMINI, {}, ("dropped", "cut")),
        (GEMINI, {"framed": False}, ("dropped", "cut")),
        (CHAT[:-14], {}, ("dropped", "cut")),
        (b"", {}, ("dropped", "cut")),
    ],
)
def test_a_stream_without_a_final_event_needs_a_framed_end_between_events(stream, options, expected):
    for chunks in ([stream], singles(stream)):
        recorder = record(chunks, **options)
        assert outcome(recorder) == (*expected, stream if expected[0] == "complete" else None)


def test_a_closing_event_does_not_complete_before_eof():
    recorder = Recorder(SSE, "", framed=True, limit=LIMIT)
    recorder.feed(SPEECH)
    assert recorder.state == "recording"
    recorder.abort("aborted")
    assert outcome(recorder) == ("dropped", "aborted", None)


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson", "application/stream+json", "Application/JSONL; charset=utf-8"]
)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"message":"a","done":false}\n{"done":true}\n', ("complete", "")),
        (b'{"text":"a"}\r\n{"is_finished":true}\r\n\r\n', ("complete", "")),
        (b'{"done":true}', ("complete", "")),
        (b'{"text":"\\"error\\"","done":true}\n', ("complete", "")),
        (b'{"text":{"error":1},"done":true}\n', ("complete", "")),
        (b'{"error":null,"done":true}\n', ("complete", "")),
        (b'{"error":"out of memory"}\n{"done":true}\n', ("dropped", "error event")),
        (b'{"done":true,"error":"late"}\n', ("dropped", "error event")),
        (b'{"done":true}\n{"text":"more"}\n', ("dropped", "cut")),
        (b'{"done":true}\n{"text":', ("dropped", "cut")),
        (b'{"done":"true"}\n', ("dropped", "cut")),
        (b'{"text":"\\n{\\"done\\":true}"}\n', ("dropped", "cut")),
        (b"[true]\n", ("dropped", "cut")),
        (b"\n\n", ("dropped", "cut")),
        (b"", ("dropped", "cut")),
    ],
)
def test_ndjson_is_whole_when_its_last_line_says_so(content_type, body, expected):
    for chunks in ([body], singles(body)):
        recorder = record(chunks, content_type)
        assert outcome(recorder) == (*expected, body if expected[0] == "complete" else None)
    assert outcome(record([body], content_type, framed=False)) == ("dropped", "unframed", None)


@pytest.mark.parametrize("content_type", ["application/json", "audio/mpeg", "", "text/event-streams"])
@pytest.mark.parametrize("encoding", sorted(PACKERS))
def test_any_other_body_is_complete_at_framed_eof_only(content_type, encoding):
    body = b'{"error":1}\ndata: [DONE]\n\n\x00\xff'
    packed = PACKERS[encoding](body)
    recorder = Recorder(content_type, encoding, framed=True, limit=LIMIT)
    for chunk in singles(packed):
        recorder.feed(chunk)
        assert recorder.state == "recording"
    recorder.eof()
    assert outcome(recorder) == ("complete", "", body)
    assert outcome(record([packed], content_type, encoding, framed=False)) == ("dropped", "unframed", None)


@pytest.mark.parametrize("encoding", sorted(set(PACKERS) - {""}))
@pytest.mark.parametrize("content_type", ["application/json", SSE])
def test_a_truncated_coding_never_completes(encoding, content_type):
    body = b'{"text":"' + b"one two " * 40 + b'"}' if content_type != SSE else CHAT[:-14]
    packed = PACKERS[encoding](body)
    for size in range(1, len(packed)):
        recorder = record([packed[:size]], content_type, encoding, sse_needs_final=False)
        assert outcome(recorder) == ("dropped", "cut", None)


def test_a_flushed_coded_stream_completes_before_its_trailer():
    packer = zlib.compressobj(wbits=31)
    recorder = Recorder(SSE, "gzip", framed=False, limit=LIMIT)
    recorder.feed(packer.compress(CHAT) + packer.flush(zlib.Z_SYNC_FLUSH))
    assert recorder.body == CHAT


def test_a_coding_that_cannot_be_undone_is_dropped_from_the_start():
    recorder = Recorder(SSE, "compress", framed=True, limit=LIMIT)
    assert outcome(recorder) == ("dropped", "content-encoding", None)
    recorder.feed(CHAT)
    recorder.eof()
    assert outcome(recorder) == ("dropped", "content-encoding", None)


def test_a_damaged_coding_is_dropped_without_an_exception():
    assert outcome(record([b"not gzip at all"], encoding="gzip")) == ("dropped", "content-encoding", None)


@pytest.mark.parametrize("encoding", sorted(PACKERS))
@pytest.mark.parametrize(
    ("content_type", "body"),
    [(SSE, CHAT), ("application/json", b"x" * 300), ("application/jsonl", b'{"done":true}\n'), (SSE, SPEECH)],
)
def test_the_limit_is_exact_and_counts_decoded_bytes(encoding, content_type, body):
    packed = PACKERS[encoding](body)
    for chunks in ([packed], singles(packed)):
        assert record(chunks, content_type, encoding, limit=len(body)).body == body
        over = record(chunks, content_type, encoding, limit=len(body) - 1)
        assert outcome(over) == ("dropped", "too large", None)


def test_dropping_frees_the_chunks_at_once():
    chunk = b"x" * 1000
    before = sys.getrefcount(chunk)
    for drop in (lambda recorder: recorder.feed(b"y"), lambda recorder: recorder.abort("aborted")):
        recorder = Recorder("application/json", "", framed=True, limit=1000)
        recorder.feed(chunk)
        assert sys.getrefcount(chunk) == before + 1
        drop(recorder)
        assert sys.getrefcount(chunk) == before


def test_a_body_of_one_chunk_is_that_chunk():
    chunk = b"x" * 1000
    assert record([chunk], "application/json").body is chunk


def test_a_decided_state_is_kept():
    complete, dropped = record([CHAT]), record([CHAT[:5]])
    for recorder in (complete, dropped):
        before = outcome(recorder)
        recorder.feed(b"event: error\ndata: {}\n\n")
        recorder.eof()
        recorder.abort("late")
        assert outcome(recorder) == before


def test_an_aborted_recording_says_why():
    recorder = Recorder("application/json", "gzip", framed=True, limit=LIMIT)
    recorder.abort("read timeout")
    assert outcome(recorder) == ("dropped", "read timeout", None)


def test_empty_chunks_change_nothing():
    assert record([b"", CHAT[:20], b"", b"", CHAT[20:], b""]).body == CHAT
    assert record([b"", b""], "application/json").body == b""


def test_reprs_tell_the_state_and_no_content():
    recorder = Recorder(SSE, "", framed=True, limit=LIMIT)
    recorder.feed(b"data: a secret\n\n")
    assert repr(recorder) == "<Recorder recording, 16 bytes>"
    recorder.abort("aborted")
    assert repr(recorder) == "<Recorder dropped (aborted), 16 bytes>"
    assert "secret" not in repr(record([b"data: a secret\n\n" + CHAT]))


def test_a_recording_replays_as_the_same_events_through_the_openai_sdk():
    streaming = pytest.importorskip("openai._streaming")

    def decoded(chunks):
        found = [(sse.event, sse.data) for sse in streaming.SSEDecoder().iter_bytes(iter(chunks))]
        return found[: found.index((None, "[DONE]")) + 1]

    for end in (b"\n", b"\r\n", b"\r"):
        live = singles((CHAT + b"data: behind\n\n").replace(b"\n", end))
        assert decoded([record(live).body]) == decoded(live)
