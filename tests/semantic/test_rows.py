"""Rows in the store: what is damaged, moved or foreign is no row; and what answers say, for judges."""

from __future__ import annotations

import secrets

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askonce._entry import Entry, Meta
from askonce._seal import Seal
from askonce.semantic import Row
from askonce.semantic._answers import said
from askonce.semantic._rows import decode, encode, key_of

PARTITION = "ab" * 32
NAME = "cd" * 32
KEY = key_of("default", PARTITION, NAME)
ROW = Row(NAME, np.array([0.6, 0.8], np.float32), b"facts")
SEALS = pytest.mark.parametrize("seal", [None, Seal(b"s" * 20)], ids=["plain", "sealed"])


@SEALS
def test_a_row_comes_back_as_it_was(seal):
    name, facts, vector = decode(KEY, encode(KEY, ROW, seal), seal)
    assert (name, facts) == (NAME, b"facts")
    assert vector.tolist() == ROW.vector.tolist()


@SEALS
def test_a_row_with_one_flipped_bit_is_none(seal):
    value = encode(KEY, ROW, seal)
    for place in range(len(value)):
        for bit in (1, 128):
            flipped = value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]
            assert decode(KEY, flipped, seal) is None


@SEALS
def test_a_row_cut_short_or_moved_to_another_key_is_none(seal):
    value = encode(KEY, ROW, seal)
    for end in range(len(value)):
        assert decode(KEY, value[:end], seal) is None
    for other in (key_of("other", PARTITION, NAME), key_of("default", "00" * 32, NAME)):
        assert decode(other, value, seal) is None


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_row(value):
    assert decode(KEY, value, None) is None


def test_a_vector_that_is_not_of_length_one_is_none():
    for vector in ([0.0, 0.0], [3.0, 4.0], [float("nan"), 1.0], [float("inf"), 0.0]):
        row = ROW._replace(vector=np.array(vector, np.float32))
        assert decode(KEY, encode(KEY, row, None), None) is None


def test_a_row_shows_no_vector_and_no_facts():
    assert repr(ROW) == "<Row cdcdcdcd, 2 dimensions>"
    assert secrets.token_hex(4) not in repr(ROW)


# -- what answers say -------------------------------------------------------------------------------


def entry(body, content_type="application/json"):
    meta = Meta(created_at=0, expires_at=None, stale_until=None)
    body = body if isinstance(body, bytes) else orjson.dumps(body)
    return Entry(status=200, headers=(("content-type", content_type),), body=body, meta=meta)


def stream(*chunks, done=True):
    body = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
    return entry(body + (b"data: [DONE]\n\n" if done else b""), "text/event-stream")


CALL = {"function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"choices": [{"message": {"content": " hi "}}]}, "hi"),
        ({"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]}, 'f({"a":2,"b":1})'),
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}, "a\nb"),
        ({"choices": [{"text": "hi"}]}, "hi"),
        ({"output": [{"content": [{"type": "output_text", "text": "hi"}]}]}, "hi"),
        ({"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "f({})"),
        (
            {"content": [{"type": "text", "text": "hi"}, {"type": "tool_use", "name": "f", "input": {}}]},
            "hi\nf({})",
        ),
        ({"candidates": [{"content": {"parts": [{"text": "hi"}]}}]}, "hi"),
        ({"message": {"content": "hi"}}, "hi"),
        ({}, None),
        ([], None),
        ({"choices": "x"}, None),
        (b"{", None),
        (b"\xff", None),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}}]}, "f({)"),
    ],
)
def test_the_text_of_an_answer(answer, text):
    assert said(entry(answer)) == text


def test_the_text_of_streams():
    def delta(**said):
        return {"choices": [{"index": 0, "delta": said}]}

    assert said(stream(delta(content="he"), delta(content="llo"))) == "hello"
    pieces = [{"index": 0, "function": {"name": "f"}}, {"index": 0, "function": {"arguments": '{"a"'}}]
    pieces.append({"index": 0, "function": {"arguments": ":1}"}})
    assert said(stream(*(delta(tool_calls=[piece]) for piece in pieces))) == 'f({"a":1})'
    whole = {"output": [{"content": [{"text": "hi"}]}]}
    assert said(stream({"type": "response.completed", "response": whole}, done=False)) == "hi"
    anthropic = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f"}},
        {"type": "content_block_delta", "index": 1, "delta": {"partial_json": "{}"}},
        {"type": "message_stop"},
    ]
    assert said(stream(*anthropic, done=False)) == "hi\nf({})"
    gemini = [{"candidates": [{"content": {"parts": [{"text": part}]}}]} for part in ("he", "llo")]
    assert said(stream(*gemini, done=False)) == "hello"
    assert said(entry(b"data: {\n\n", "text/event-stream")) is None


@given(st.binary(max_size=60))
def test_whatever_an_answer_holds_reading_it_never_raises(body):
    said(entry(body))
    said(entry(b"data: " + body + b"\n\n", "text/event-stream"))
