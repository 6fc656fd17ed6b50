"""The file of a recording: exact, readable, in a fixed order, and strict about what it reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from askonce import ConfigurationError, Entry
from askonce._entry import Meta
from askonce._replay._about import about, secrets_of, shortened
from askonce._replay._bodies import exact, readable
from askonce._replay._file import Recorded, check_is_ours, read, write
from askonce._replay._printed import printed
from askonce._request import Request
from askonce._surfaces import read_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEY = f"default:{'0' * 64}"


def entry(body=b'{"a":1}', headers=(("content-type", "application/json"),), **meta):
    known = {"created_at": 1_700_000_000.0, "expires_at": None, "stale_until": None, "model": "m"}
    return Entry(status=200, headers=headers, body=body, meta=Meta(**known | meta))


def recorded(key=KEY, about="", **more):
    return Recorded(key=key, entry=entry(**more), about=about)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
@example(b"")
@example(b"data: {}\r\n\r\ndata: [DONE]\n\n")
@example(b'{"a": 1.0, "b": 1.10, "c": 1e5}')
@example(b'{"a":1,"a":2}')
@example(b'{"a":NaN}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":"\\/"}')
@example(b"\xef\xbb\xbf{}")
@example(b'{"n":123456789012345678901234567890}')
@example(b"[" * 10_000 + b"]" * 10_000)
def test_every_body_comes_back_byte_for_byte_through_the_text_of_a_file(body):
    assert exact(json.loads(printed(readable(body)))) == body


@given(JSON, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans(), st.sampled_from([None, 2]))
def test_json_as_providers_write_it_comes_back_byte_for_byte(value, separators, ascii_only, indent):
    if indent:
        separators = None
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only, indent=indent)
    body = text.encode("utf-8", "replace")
    assert exact(json.loads(printed(readable(body)).encode())) == body


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b'{"b":1,"a":[]}', {"json": {"b": 1, "a": []}, "as": "compact"}),
        (b'{\n  "b": 1\n}\n', {"json": {"b": 1}, "as": "indented, newline"}),
        (b'{"a": "\\u00e9"}', {"json": {"a": "é"}, "as": "spaced, ascii"}),
        (b"data: 1\n\ndata: [DONE]\n\n", {"lines": ["data: 1", "", "data: [DONE]", "", ""]}),
        (b"\xff\xfe", {"base64": ["//4="]}),
    ],
)
def test_bodies_are_written_for_people(body, form):
    assert readable(body) == form


def test_a_vector_takes_one_line_and_all_else_a_line_each():
    assert printed({"a": [1, 2.5], "b": ["x"], "c": {}, "d": []}) == (
        '{\n  "a": [1, 2.5],\n  "b": [\n    "x"\n  ],\n  "c": {},\n  "d": []\n}'
    )


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "folder" / "answers.json"
    given = [
        recorded(about="é", url="http://h:80/v1", usage={"total_tokens": 3}, fingerprint={"model": "=m"}),
        recorded(key=f"other:{'1' * 64}", body=b"\xff", headers=(("x-request-id", ""), ("date", "a: b"))),
    ]
    write(path, given)
    assert sorted(read(path), key=lambda one: one.key) == sorted(given, key=lambda one: one.key)
    assert b"\r" not in path.read_bytes()


def test_the_order_of_a_file_does_not_depend_on_the_order_of_calls(tmp_path):
    given = [recorded(key=f"default:{number:064d}", about=f"{number % 3}") for number in range(9)]
    write(tmp_path / "a", given)
    write(tmp_path / "b", given[::-1])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def good(**changed):
    said = {
        "key": KEY,
        "request": {"surface": "chat", "model": "m", "url": "u", "about": "", "parts": {}},
        "answer": {
            "recorded": "2026-01-01T00:00:00+00:00",
            "seconds": 1,
            "usage": {},
            "status": 200,
            "headers": ["content-type: a"],
            "body": {"lines": [""]},
        },
    }
    for place, value in changed.items():
        *outer, name = place.split("__")
        where = said
        for one in outer:
            where = where[one]
        where[name] = value
    return said


def file_of(*recordings, version=1, note="recorded answers"):
    return json.dumps({"askonce": note, "version": version, "recordings": list(recordings)})


def test_a_file_made_by_hand_in_the_same_form_is_read(tmp_path):
    path = tmp_path / "f"
    path.write_text(file_of(good()))
    assert len(read(path)) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "something else"),
        ('{"name": "my-package"}', "something else"),
        (b"\x89PNG", "something else"),
        (file_of(good(), note="other"), "something else"),
        (file_of(good())[:-20], "damaged .line 1"),
        (file_of(good()).replace('"key"', '\n<<<<<<< HEAD\n"key"'), "damaged .line 2"),
        (file_of(good()).encode() + b"\xff", "damaged .not UTF-8"),
        (file_of(good(), version=2), "version 1"),
        ('{"askonce": "recorded answers", "version": 1, "recordings": {}}', "no list"),
        (file_of("x"), "recording 1"),
        (file_of(good(), good()), "recording 2 has the key"),
        (file_of(good(), good(key="default:0")), "recording 2"),
        (file_of(good(answer__status="200")), "status"),
        (file_of(good(answer__status=True)), "status"),
        (file_of(good(answer__headers=["no colon"])), "headers"),
        (file_of(good(answer__headers=["a: b\nset-cookie: c"])), "headers"),
        (file_of(good(answer__headers=[1])), "headers"),
        (file_of(good(answer__body={"text": "x"})), "body"),
        (file_of(good(answer__body={"lines": "x"})), "body"),
        (file_of(good(answer__body={"base64": ["%"]})), "body"),
        (file_of(good(answer__body={"json": {}, "as": "other"})), "body"),
        (file_of(good(answer__body={"json": {}, "as": []})), "body"),
        (file_of(good(answer__recorded="yesterday")), "recorded"),
        (file_of(good(answer__usage={"n": "1"})), "usage"),
        (file_of(good(request__parts={"n": 1})), "parts"),
        (file_of(good(request__model=None)), "model"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_an_error_that_names_it(tmp_path, content, said):
    path = tmp_path / "answers.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_what_stands_there_and_is_not_ours_is_not_written_over(tmp_path):
    path = tmp_path / "package.json"
    path.write_text('{"name": "my-package"}')
    with pytest.raises(ConfigurationError, match="something else"):
        check_is_ours(path)
    path.write_text(file_of(good())[:-20])
    check_is_ours(path)  # a damaged one of ours may be recorded anew
    path.write_text("")
    check_is_ours(path)
    check_is_ours(tmp_path / "nothing")


def test_no_file_has_no_recordings(tmp_path):
    assert read(tmp_path / "nothing.json") == []


def request(body, url="https://h/v1/chat/completions", headers=()):
    return Request("POST", url, ((b"content-type", b"application/json"), *headers), json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}, "two"),
        ({"messages": [{"role": "user", "content": "one"}, {"role": "tool", "content": "x"}]}, "one"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}, "part"),
        ({"input": "plain"}, "plain"),
        ({"input": ["listed"]}, "listed"),
        ({"contents": [{"role": "user", "parts": [{"text": "gemini"}]}]}, "gemini"),
        ({"prompt": "a\n  b"}, "a b"),
        ({"prompt": [1, 2]}, ""),
        ({"messages": 5}, ""),
        ({}, ""),
    ],
)
def test_a_request_is_described_by_its_latest_turn(body, said):
    assert about(read_body(request(body)), ()) == said


def test_a_description_is_one_short_line_without_secrets():
    text = shortened("say sk-secret-key\n" + "x" * 90 + "sk-secret-key", {"sk-secret-key"})
    assert text.startswith("say *** xxx")
    assert len(text) <= 100
    assert "sk-" not in text
    assert shortened("a\ud800", ()) == "a?"


@pytest.mark.parametrize(
    ("url", "headers", "found"),
    [
        ("https://h/p?key=AIza-secret", (), "AIza-secret"),
        ("https://h/p?api-key=a%2Fb-secret", (), "a/b-secret"),
        ("https://somebody:password1@h/p", (), "password1"),
        ("https://h/p", ((b"Authorization", b"Bearer sk-12345678"),), "sk-12345678"),
        ("https://h/p", ((b"x-api-key", b"sk-12345678"),), "sk-12345678"),
        ("https://h/p", ((b"cookie", b"a=1; session=abcdefgh"),), "abcdefgh"),
    ],
)
def test_credentials_are_known_wherever_they_stand(url, headers, found):
    assert found in secrets_of(request({}, url, headers))


def test_words_too_short_to_be_told_from_text_are_no_secrets():
    assert secrets_of(request({}, "https://h/p?key=test", ((b"authorization", b"Bearer"),))) == set()
