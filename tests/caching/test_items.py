"""Lists of inputs taken apart and put together: nothing moves, nothing is rewritten, no token is lost."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import _items
from askonce._body import parse
from askonce._request import Request

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6)
VECTORS = FLOATS.map(lambda v: json.dumps(v).encode()) | FLOATS.map(
    lambda v: b'"' + base64.b64encode(struct.pack(f"{len(v)}f", *v)) + b'"'
)
NASTY = st.sampled_from(['"embedding": [1]', "embedding", '\\"embedding":[9]', "]", '{"embedding":0}', "é🦊"])
ORDERS = st.integers(1, 8).flatmap(lambda n: st.permutations(range(n)))


def answer_of(vectors, order=None, *, model="m", blanks="", **more):
    order = range(len(vectors)) if order is None else order
    rows = b",".join(
        b'{"object":"embedding","index":%d,%b"embedding":%b%b}'
        % (i, blanks.encode(), blanks.encode(), vectors[i])
        for i in order
    )
    head = json.dumps({"object": "list", "model": model, **more}).encode()[:-1]
    return head + b',"data":[' + rows + b'],"usage":{"prompt_tokens":7,"total_tokens":7}}'


@SETTINGS
@given(
    ORDERS.flatmap(lambda o: st.tuples(st.just(o), st.lists(VECTORS, min_size=len(o), max_size=len(o)))),
    NASTY,
)
def test_each_row_is_found_by_its_index_with_its_vectors_own_text(case, nasty):
    order, vectors = case
    found = _items.take_apart(answer_of(vectors, order, model=nasty, blanks=" "))
    assert found is not None
    assert [bytes(_text(row)) for row in found.rows] == vectors
    assert found.around["model"] == nasty


def _text(row):
    import orjson

    return orjson.dumps(row["embedding"])


@SETTINGS
@given(st.lists(VECTORS, min_size=1, max_size=6), st.data())
def test_apart_and_together_again_is_the_same_answer_in_any_order(vectors, data):
    order = data.draw(st.permutations(range(len(vectors))))
    around, rows = _items.take_apart(answer_of(vectors))
    wanted = [vectors[i] for i in order]
    made = _items.put_together(around, [rows[i] for i in order], {"prompt_tokens": 1, "total_tokens": 1})
    read = json.loads(made)
    assert [row["index"] for row in read["data"]] == list(range(len(order)))
    assert _items.take_apart(made).around["usage"] == {"prompt_tokens": 1, "total_tokens": 1}
    for text in wanted:
        assert text in made
    assert [_text(row) for row in _items.take_apart(made).rows] == wanted


@SETTINGS
@given(st.integers(0, 5000), st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_shared_out_figures_add_up_exactly_and_follow_the_weights(total, weights):
    parts = _items.shares({"prompt_tokens": total}, weights)
    assert sum(part["prompt_tokens"] for part in parts) == total
    assert all(part["prompt_tokens"] >= 0 for part in parts)
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part["prompt_tokens"] - total * weight / sum(weights)) < 1 or sum(weights) == total


def test_figures_that_the_weights_explain_are_taken_for_what_they_are():
    assert _items.shares({"total_tokens": 6}, [3, 1, 2]) == [{"total_tokens": n} for n in (3, 1, 2)]


UNFIT = [
    b"",
    b"{}",
    b"[]",
    b'{"data":[]}x',
    b'{"data":{}}',
    b'{"data":[{"index":0,"embedding":{"float":[1]}}]}',
    b'{"data":[{"index":0,"embedding":[[1],[2]]}]}',
    b'{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]}',
    b'{"data":[{"index":1,"embedding":[1]}]}',
    b'{"data":[{"index":"0","embedding":[1]}]}',
    b'{"data":[{"index":0,"embedding":[1]},{"embedding":[2]}],"x":1,"index":null,"data2":[{"embedding":[3]}]}',
    b'{"data":[{"index":0,"embedding":[1],"more":{"embedding":[2]}}]}',
    b'{"data":[{"index":0,"embedding":null}]}',
    b'{"data":[{"index":0,"embedding":"a\\/b"}]}',
    b'{"data":[1],"embedding":[1]}',
    b'{"data":[null]}',
]


@pytest.mark.parametrize("body", UNFIT, ids=repr)
def test_what_is_not_made_of_rows_is_not_taken_apart(body):
    found = _items.take_apart(body)
    assert found is None or found.rows == []


@SETTINGS
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.sampled_from(["data", "embedding", "index", "x"]), s),
        max_leaves=12,
    )
)
def test_no_answer_raises(value):
    _items.take_apart(json.dumps(value).encode())


def body(value):
    return parse("application/json", json.dumps({"model": "m", "input": value}).encode())


LISTS = [
    (["a", "b"], ["a", "b"]),
    ([[1, 2], [3]], [[1, 2], [3]]),
    (["a", "a"], ["a", "a"]),
    ([1, 2], []),  # tokens: one input
    ("ab", []),
    (["a"], []),
    (["a", [1]], []),
    (["a", None], []),
    ([[1], ["a"]], []),
    ([[True], [1]], []),
    ([[], [1]], []),
    ([{"text": "a"}, {"text": "b"}], []),
    ([1.5, 2.5], []),
]


@pytest.mark.parametrize(("value", "items"), LISTS, ids=repr)
def test_only_lists_of_texts_or_of_tokens_are_asked_by_item(value, items):
    assert _items.items_of(Request("POST", "http://h/v1/embeddings"), body(value), "input") == items


@pytest.mark.parametrize(
    "header", [(b"Authorization", b"AWS4-HMAC-SHA256 x"), (b"Content-Digest", b"x"), (b"Signature", b"x")]
)
def test_a_signed_body_is_asked_whole(header):
    request = Request("POST", "http://h/v1/embeddings", (header,))
    assert _items.items_of(request, body(["a", "b"]), "input") == []


def test_a_list_of_one_is_the_one():
    assert _items.alone(body(["a"]), "input").fields == body("a").fields
    assert _items.alone(body([[1, 2]]), "input").fields == body([1, 2]).fields
    for other in ([1], "a", ["a", "b"], [None], [[]], [["a"]], []):
        assert _items.alone(body(other), "input").fields == body(other).fields


def test_inputs_that_are_read_together_are_asked_together():
    asked = {"model": "m", "input": ["a", "b"], "late_chunking": True}
    read = parse("application/json", json.dumps(asked).encode())
    assert _items.items_of(Request("POST", "http://h/v1/embeddings"), read, "input") == []
    read = parse("application/json", json.dumps({**asked, "late_chunking": False}).encode())
    assert _items.items_of(Request("POST", "http://h/v1/embeddings"), read, "input") == ["a", "b"]
