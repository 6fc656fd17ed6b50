"""Multipart forms: the random boundary is nothing, everything else is part of the question."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce._body import parse
from askonce._policy import IGNORED_FIELDS

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)


def part(name, content, *, filename=None, content_type=None):
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    head = disposition if content_type is None else f"{disposition}\r\nContent-Type: {content_type}"
    return head.encode("utf-8", "surrogateescape"), content


def form(parts, boundary="b0undary"):
    body = b"".join(
        b"--" + boundary.encode() + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + b"--" + boundary.encode() + b"--\r\n"


def canonical(parts, boundary="b0undary", ignore=IGNORED_FIELDS):
    return parse(*form(parts, boundary)).canonical(ignore)


MODEL = part("model", b"whisper-1")
AUDIO = part("file", b"RIFF\x00\xff\r\n--", filename="a.wav", content_type="audio/wav")
BASE = [MODEL, AUDIO]

NAMES = st.sampled_from(["model", "file", "prompt", "include[]"])
CONTENTS = st.binary(max_size=20).filter(lambda content: b"--b" not in content and b"--q" not in content)
PARTS = st.lists(
    st.builds(part, NAMES, CONTENTS, filename=st.sampled_from([None, "a.wav", "b.wav"])),
    min_size=1,
    max_size=5,
)


@SETTINGS
@given(PARTS, st.sampled_from(["q1", "qzzzz", "q'()+_,-./:=?"]))
def test_the_random_boundary_is_not_part_of_the_key(parts, boundary):
    assert parse(*form(parts)).kind == "multipart"
    assert canonical(parts, boundary) == canonical(parts)


@SETTINGS
@given(PARTS, PARTS)
def test_two_forms_are_merged_exactly_when_each_field_has_the_same_parts_in_order(one, other):
    def by_name(parts):
        names = {head.split(b'name="')[1].split(b'"')[0] for head, _ in parts}
        return {name: [p for p in parts if b' name="' + name + b'"' in p[0]] for name in names}

    assert (canonical(one) == canonical(other)) == (by_name(one) == by_name(other))


def test_the_order_of_parts_with_different_names_means_nothing():
    assert canonical([MODEL, AUDIO]) == canonical([AUDIO, MODEL])


def test_the_order_of_parts_with_the_same_name_counts():
    first, second = part("image[]", b"1", filename="x"), part("image[]", b"2", filename="x")
    assert canonical([first, second]) != canonical([second, first])


@pytest.mark.parametrize(
    "other",
    [
        part("file", b"RIFF\x00\xfe\r\n--", filename="a.wav", content_type="audio/wav"),
        part("file", b"RIFF\x00\xff\r\n--", filename="b.wav", content_type="audio/wav"),
        part("file", b"RIFF\x00\xff\r\n--", filename="a.wav", content_type="audio/mpeg"),
        part("file", b"RIFF\x00\xff\r\n--", content_type="audio/wav"),
        part("image", b"RIFF\x00\xff\r\n--", filename="a.wav", content_type="audio/wav"),
    ],
    ids=["bytes", "file name", "type", "no file name", "field name"],
)
def test_two_different_files_never_meet(other):
    assert canonical([MODEL, AUDIO]) != canonical([MODEL, other])


def test_a_part_more_or_less_counts():
    assert canonical(BASE) != canonical([MODEL])
    assert canonical(BASE) != canonical([*BASE, part("prompt", b"")])


def test_content_cannot_move_between_parts():
    assert canonical([part("a", b"xy"), part("b", b"z")]) != canonical([part("a", b"x"), part("b", b"yz")])


def test_ignored_text_fields_are_left_out_and_files_of_that_name_are_not():
    assert canonical([*BASE, part("user", b"u1")]) == canonical(BASE)
    assert canonical([*BASE, part("user", b"u1", filename="u")]) != canonical(BASE)


def test_another_headers_name_parameter_does_not_make_a_field_ignored():
    def sneaky(content):
        head = b'Content-Type: text/plain; name="user"\r\nContent-Disposition: form-data; name="prompt"'
        return [*BASE, (head, content)]

    assert canonical(sneaky(b"one")) != canonical(sneaky(b"two"))


def test_a_file_name_that_looks_like_a_field_name_is_no_field_name():
    tricky = part("file", b"1", filename='x; name="user"')
    assert canonical([MODEL, tricky]) != canonical([MODEL, part("file", b"2", filename='x; name="user"')])


TYPE, WHOLE = form(BASE)
BROKEN = {
    "no boundary": ("multipart/form-data", WHOLE),
    "empty boundary": ('multipart/form-data; boundary=""', WHOLE),
    "another boundary": ("multipart/form-data; boundary=other", WHOLE),
    "no end": (TYPE, WHOLE[:-8]),
    "cut in a head": (TYPE, WHOLE[:30]),
    "preamble": (TYPE, b"hello\r\n" + WHOLE),
    "epilogue": (TYPE, WHOLE + b"more"),
    "a part without a head": (TYPE, b"--b0undary\r\n\r\nx\r\n--b0undary--\r\n"),
    "a part without a name": (TYPE, b"--b0undary\r\nContent-Type: text/plain\r\n\r\nx\r\n--b0undary--\r\n"),
    "junk behind a boundary": (
        TYPE,
        b'--b0undaryX\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b0undary--\r\n',
    ),
    "nothing": (TYPE, b""),
    "only garbage": (TYPE, b"\x00\xff" * 50),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form_is_its_exact_bytes(name):
    content_type, raw = BROKEN[name]
    body = parse(content_type, raw)
    assert body.kind == "raw"
    assert body.canonical(IGNORED_FIELDS) == [b"raw", raw]


@SETTINGS
@given(st.binary(max_size=80), st.text(max_size=20))
def test_no_form_raises(raw, tail):
    assert parse("multipart/form-data; boundary=" + tail, raw).canonical(frozenset())


@SETTINGS
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_form_with_one_byte_changed_is_never_merged_with_another(place, byte):
    changed = WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
    equal = parse(TYPE, changed).canonical(IGNORED_FIELDS) == parse(TYPE, WHOLE).canonical(IGNORED_FIELDS)
    blank = changed.rstrip() == WHOLE.rstrip() or changed[:-2] == WHOLE[:-2]
    assert equal == (changed == WHOLE or (blank and parse(TYPE, changed).kind == "multipart"))


def test_a_quoted_boundary_is_read():
    body = parse('multipart/form-data; charset=utf-8; boundary="b0undary"', WHOLE)
    assert body.kind == "multipart"
    assert body.canonical(IGNORED_FIELDS) == canonical(BASE)


def test_a_form_and_its_bytes_as_another_type_are_different_questions():
    assert parse(TYPE, WHOLE).canonical(frozenset()) != parse("text/plain", WHOLE).canonical(frozenset())


def test_short_text_fields_are_there_to_be_looked_at_and_files_are_not():
    body = parse(*form([MODEL, AUDIO, part("big", b"x" * 5000)]))
    assert body.fields == {"model": "whisper-1"}
