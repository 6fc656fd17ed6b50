"""Bodies: equal parts exactly when two bodies ask the same thing, and never an exception."""

from __future__ import annotations

import json
import random
from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce._body import parse
from askonce._policy import IGNORED_FIELDS

SETTINGS = settings(max_examples=120, deadline=None, derandomize=True)

# -- an independent, slow reference: what the design says, without a serialiser ---------------------

SCHEMAS = {
    "tools", "functions", "response_format", "text", "format", "generationConfig", "generation_config",
    "toolConfig", "tool_config", "output_config", "output_format", "guided_json", "structured_outputs",
    "prediction", "parameters", "properties",
}  # fmt: skip
FREE_OBJECTS = {"input", "args", "arguments", "response", "output"}


DEEPEST = 250  # far beyond what anybody asks; deeper ones may be taken as exact bytes


class Unsafe(Exception):
    pass


def _pairs(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise Unsafe
    return dict(pairs)


def _int(text):
    if len(text) > 25 or not -(2**63) <= int(text) < 2**64:
        raise Unsafe
    return int(text)


def _float(text):
    value = float(text)
    try:
        if Decimal(text) != Decimal(repr(value)):
            raise Unsafe
    except InvalidOperation:
        raise Unsafe from None
    return value


def _constant(_):
    raise Unsafe


def _check_text(value, depth=0):
    if depth > DEEPEST:
        raise Unsafe
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, depth)
            _check_text(item, depth + 1)


def _typed(value, name="", *, ordered=False):
    if isinstance(value, dict):
        ordered = ordered or name in SCHEMAS or name in FREE_OBJECTS or "schema" in name.lower()
        items = [(key, _typed(item, key, ordered=ordered)) for key, item in value.items()]
        return ("object", tuple(items if ordered else sorted(items, key=lambda item: item[0])))
    if isinstance(value, list):
        inside = ordered or name in SCHEMAS or "schema" in name.lower()
        return ("array", tuple(_typed(item, ordered=inside) for item in value))
    return (type(value).__name__, repr(value))


def reference(raw, ignore=IGNORED_FIELDS):
    """What a body asks, by the rules of the design; two bodies are merged iff this is equal."""
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_pairs,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_constant,
        )
        _check_text(value)
    except (ValueError, RecursionError, Unsafe):
        return ("exact", raw)
    if not isinstance(value, dict):
        return _typed(value)
    kept = {}
    for name, item in value.items():
        if item is None or name in ignore or (name == "stream" and item is False):
            continue
        if name == "tools" and item == [] and isinstance(item, list):
            continue
        whole = isinstance(item, float) and item.is_integer() and abs(item) < 2**53
        kept[name] = int(item) if whole else item
    return _typed(kept)


def canonical(raw, content_type="application/json", ignore=IGNORED_FIELDS):
    return parse(content_type, raw).canonical(ignore)


def same(one, other):
    return canonical(one) == canonical(other)


NAMES = st.sampled_from([
    "model", "messages", "tools", "input", "text", "user", "stream", "temperature", "a", "b", "json_schema",
    "properties", "metadata", "content", "arguments", "é", "",
])  # fmt: skip
LEAVES = st.sampled_from(
    [None, True, False, 0, 1, 0.0, 1.0, -0.0, 0.5, "", "1", "true", "null", "a", "\x00", "é", "e\u0301"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=4)


def dumped(value, style=0):
    separators = ((",", ":"), (", ", ": "))[style % 2]
    return json.dumps(value, separators=separators, ensure_ascii=style >= 2).encode()


def shuffled(value, seed):
    """The same value with every object's members in another order."""
    if isinstance(value, dict):
        names = list(value)
        seed.shuffle(names)
        return {name: shuffled(value[name], seed) for name in names}
    if isinstance(value, list):
        return [shuffled(item, seed) for item in value]
    return value


def altered(value, seed):
    """The same value with one thing in it changed."""
    if isinstance(value, dict) and value and seed.random() < 0.8:
        name = seed.choice(list(value))
        rest = {key: item for key, item in value.items() if key != name}
        how = seed.randrange(4)
        if how == 0:
            return rest
        if how == 1:
            return rest | {name + "x": value[name]}
        return {key: altered(item, seed) if key == name else item for key, item in value.items()}
    if isinstance(value, list) and value and seed.random() < 0.8:
        place = seed.randrange(len(value))
        how = seed.randrange(4)
        if how == 0:
            return value[:place] + value[place + 1 :]
        if how == 1:
            return value[::-1]
        return [altered(item, seed) if index == place else item for index, item in enumerate(value)]
    return seed.choice([None, True, False, 0, 1, 0.0, 1.0, 0.5, "", "1", [], {}, [value], {"a": value}])


# -- properties ------------------------------------------------------------------------------------


@SETTINGS
@given(BODIES, BODIES)
def test_two_bodies_are_merged_exactly_when_the_reference_says_so(one, other):
    assert same(dumped(one), dumped(other)) == (reference(dumped(one)) == reference(dumped(other)))


@SETTINGS
@given(BODIES, st.integers(0, 3), st.integers(0, 2**32))
def test_a_reordered_or_reformatted_body_is_merged_exactly_when_the_reference_says_so(body, style, seed):
    one, other = dumped(body), dumped(shuffled(body, random.Random(seed)), style)
    assert same(one, other) == (reference(one) == reference(other))


@SETTINGS
@given(BODIES, st.integers(0, 2**32))
def test_a_body_with_one_change_is_merged_exactly_when_the_reference_says_so(body, seed):
    one, other = dumped(body), dumped(altered(body, random.Random(seed)))
    assert same(one, other) == (reference(one) == reference(other))


PLAIN = st.sampled_from(["model", "messages", "a", "b", "content", "logit_bias", "é", "10", "9"])


@SETTINGS
@given(
    st.dictionaries(
        PLAIN,
        st.recursive(
            LEAVES,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=4),
            max_leaves=10,
        ),
        max_size=5,
    ),
    st.integers(0, 2**32),
    st.integers(0, 3),
)
def test_object_order_and_spacing_mean_nothing_outside_schemas(body, seed, style):
    assert same(dumped(body), dumped(shuffled(body, random.Random(seed)), style))


NUMBERS = st.tuples(
    st.sampled_from(["", "-"]),
    st.sampled_from(
        ["0", "1", "10", "100", "9007199254740993", "18446744073709551615", "18446744073709551616"]
    ),
    st.sampled_from(
        ["", ".0", ".00", ".5", ".50", ".1", ".10", ".1000000000000000055", ".10000000000000001"]
    ),
    st.sampled_from(["", "e0", "E1", "e+1", "e-1", "e-2", "e15", "e400", "e-400", "e99999999999999999999"]),
).map("".join)


@SETTINGS
@given(NUMBERS, NUMBERS, st.sampled_from(['{"a":%s}', '{"a":[%s]}', "%s", '{"a":{"b":%s}}']))
def test_numbers_are_merged_only_when_they_are_the_same_number(one, other, frame):
    first, second = (frame % one).encode(), (frame % other).encode()
    assert same(first, second) == (reference(first) == reference(second))


@SETTINGS
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_raise_and_what_is_not_json_is_its_exact_bytes(raw):
    body = parse("application/json", raw)
    assert body.canonical(IGNORED_FIELDS)
    if body.kind == "raw":
        assert body.canonical(frozenset()) == [b"raw", raw]


JSONISH = st.lists(
    st.sampled_from(
        [
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b'"',
            b'"a"',
            b"1",
            b"-0",
            b"1e400",
            b"0e99999999999999999999",
            b"NaN",
            b"Infinity",
            b"null",
            b"true",
            b"\xff",
            b"\xef\xbb\xbf",
            b'"\\ud800"',
            b"\\",
            b" ",
            b"\x00",
        ]
    ),
    max_size=12,
).map(b"".join)


@SETTINGS
@given(JSONISH)
def test_nearly_json_never_raises(raw):
    assert parse("application/json", raw).canonical(frozenset())


# -- the hard cases, by name -----------------------------------------------------------------------

HARD = {
    "nan": (b'{"a":NaN}', b'{"a":null}'),
    "infinity": (b'{"a":Infinity}', b'{"a":-Infinity}'),
    "lone surrogate": (rb'{"a":"\ud800"}', rb'{"a":"\ud801"}'),
    "lone surrogate in a name": (rb'{"\ud800":1}', rb'{"\ud801":1}'),
    "beyond 64 bits": (b'{"seed":18446744073709551616}', b'{"seed":18446744073709551617}'),
    "below 64 bits": (b'{"seed":-9223372036854775809}', b'{"seed":-9223372036854775810}'),
    "an integer and its float": (b'{"seed":18446744073709551616}', b'{"seed":18446744073709551616.0}'),
    "5000 digits": (b'{"a":' + b"9" * 5000 + b"}", b'{"a":' + b"9" * 4999 + b"8}"),
    "1e400": (b'{"a":1e400}', b'{"a":1e401}'),
    "1e400 and infinity": (b'{"a":1e400}', b'{"a":null}'),
    "vanishing": (b'{"a":1e-400}', b'{"a":0.0}'),
    "an exponent beyond decimal": (b'{"a":1e-99999999999999999999}', b'{"a":0.0}'),
    "zero with an absurd exponent": (b'{"a":0e99999999999999999999}', b'{"a":1}'),
    "digits beyond a double": (b'{"a":0.1000000000000000001}', b'{"a":0.1}'),
    "digits beyond a double, whole": (b'{"a":[9007199254740993.0]}', b'{"a":[9007199254740992.0]}'),
    "duplicate keys": (b'{"a":1,"a":2}', b'{"a":2}'),
    "duplicate keys, equal": (b'{"a":2,"a":2}', b'{"a":2}'),
    "duplicate keys, nested": (b'{"a":[{"b":1,"b":2}]}', b'{"a":[{"b":2}]}'),
    "duplicate keys, one escaped": (rb'{"a":1,"\u0061":2}', b'{"a":2}'),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
    "invalid utf-8": (b'{"a":"\xff"}', b'{"a":"\xfe"}'),
    "overlong utf-8": (b'{"a":"\xc0\x80"}', rb'{"a":"\u0000"}'),
    "trailing garbage": (b'{"a":1}x', b'{"a":1}'),
    "two values": (b'{"a":1}{"a":1}', b'{"a":1}'),
    "trailing comma": (b'{"a":1,}', b'{"a":1}'),
    "truncated": (b'{"a":1', b'{"a":1}'),
    "comment": (b'{"a":1}//', b'{"a":1}'),
    "single quotes": (b"{'a':1}", b'{"a":1}'),
    "utf-16": ('{"a":1}'.encode("utf-16"), b'{"a":1}'),
    "empty": (b"", b"{}"),
    "empty and null": (b"", b"null"),
    "blank": (b" ", b""),
    "nested beyond reason": (b"[" * 100_000, b"[" * 99_999),
    "nested deeper than a writer goes": (b"[" * 300 + b"]" * 300, b"[" * 301 + b"]" * 301),
    "objects nested deeply": (b'{"a":' * 500 + b"1" + b"}" * 500, b'{"a":' * 500 + b"2" + b"}" * 500),
    "text and number": (b'{"a":"1"}', b'{"a":1}'),
    "true and 1": (b'{"a":true}', b'{"a":1}'),
    "false and 0": (b'{"a":false}', b'{"a":0}'),
    "text and true": (b'{"a":"true"}', b'{"a":true}'),
    "nested float and int": (b'{"a":{"b":1.0}}', b'{"a":{"b":1}}'),
    "in a list, float and int": (b'{"a":[1.0]}', b'{"a":[1]}'),
    "nested null and absent": (b'{"a":{"b":null}}', b'{"a":{}}'),
    "null in a list": (b'{"a":[null]}', b'{"a":[]}'),
    "empty list and absent": (b'{"stop":[]}', b"{}"),
    "empty text and absent": (b'{"stop":""}', b"{}"),
    "empty tools object and absent": (b'{"tools":{}}', b"{}"),
    "stream 0 and absent": (b'{"stream":0}', b"{}"),
    "stream true and absent": (b'{"stream":true}', b"{}"),
    "nested stream false": (b'{"a":{"stream":false}}', b'{"a":{}}'),
    "nested empty tools": (b'{"a":{"tools":[]}}', b'{"a":{}}'),
    "an ignored field, nested": (b'{"a":{"user":"x"}}', b'{"a":{}}'),
    "ignored field in another case": (b'{"User":"x"}', b"{}"),
    "list order": (b'{"a":[1,2]}', b'{"a":[2,1]}'),
    "list and its only item": (b'{"stop":["1"]}', b'{"stop":"1"}'),
    "a value moved between neighbours": (b'{"a":"xy","b":"z"}', b'{"a":"x","b":"yz"}'),
    "a value moved into the name": (b'{"ab":"c"}', b'{"a":"bc"}'),
    "a value that looks like fields": (rb'{"a":"x\",\"b\":\"y"}', b'{"a":"x","b":"y"}'),
    "json in a text": (rb'{"a":"{\"b\":1}"}', b'{"a":{"b":1}}'),
    "nul": (rb'{"a":"\u0000"}', b'{"a":""}'),
    "nul moved": (rb'{"a":"x\u0000y"}', rb'{"a":"xy\u0000"}'),
    "composed and decomposed": ('{"a":"é"}'.encode(), '{"a":"e\u0301"}'.encode()),
    "compatibility characters": ('{"a":"ﬁ"}'.encode(), b'{"a":"fi"}'),
    "case": (b'{"model":"GPT-4o"}', b'{"model":"gpt-4o"}'),
    "space in a text": (b'{"a":"x "}', b'{"a":"x"}'),
    "line ends in a text": (rb'{"a":"\r\n"}', rb'{"a":"\n"}'),
    "a name that is an index": (b'{"a":{"0":{"tools":{"x":1,"y":2}}}}', b'{"a":[{"tools":{"x":1,"y":2}}]}'),
    "top-level object and list": (b"{}", b"[]"),
    "top-level null and text": (b"null", b'"null"'),
    "minus zero, nested": (b'{"a":[-0.0]}', b'{"a":[0.0]}'),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_never_an_exception_and_never_a_merge(name):
    one, other = HARD[name]
    assert not same(one, other)
    assert reference(one) != reference(other)


MERGED = {
    "top-level null": (b'{"a":1,"seed":null}', b'{"a":1}'),
    "stream false": (b'{"a":1,"stream":false}', b'{"a":1}'),
    "no tools": (b'{"a":1,"tools":[]}', b'{"a":1}'),
    "0.0 and 0": (b'{"temperature":0.0}', b'{"temperature":0}'),
    "1.0 and 1": (b'{"n":1.0}', b'{"n":1}'),
    "-0.0 and 0": (b'{"temperature":-0.0}', b'{"temperature":0}'),
    "escaped and literal": (rb'{"a":"\u00e9"}', '{"a":"é"}'.encode()),
    "an escaped pair of surrogates": (rb'{"a":"\ud83d\ude00"}', '{"a":"😀"}'.encode()),
    "escaped slash": (rb'{"a":"\/"}', b'{"a":"/"}'),
    "an escaped name": (rb'{"\u0061":1}', b'{"a":1}'),
    "spacing": (b' { "a" : [ 1 , 2 ] }\n', b'{"a":[1,2]}'),
    "spellings of one float": (b'{"a":[0.10,1e-1,100e-3]}', b'{"a":[0.1,0.1,0.1]}'),
    "ignored fields": (
        json.dumps({"a": 1, "metadata": {"x": 1}} | dict.fromkeys(IGNORED_FIELDS, "x")).encode(),
        b'{"a":1}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGED)
def test_what_asks_the_same_is_merged(name):
    one, other = MERGED[name]
    assert same(one, other)
    assert reference(one) == reference(other)


AS_SENT = [
    '{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{%s}}}}]}',
    '{"tools":[{"name":"f","input_schema":{"properties":{%s}}}]}',
    '{"functions":[{"name":"f","parameters":{"properties":{%s}}}]}',
    '{"response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{%s}}}}}',
    '{"text":{"format":{"type":"json_schema","schema":{"properties":{%s}}}}}',
    '{"format":{"properties":{%s}}}',
    '{"generationConfig":{"responseSchema":{%s}}}',
    '{"guided_json":{%s}}',
    '{"my_SCHEMA_x":{%s}}',
    '{"a":[{"b":{"outputSchema":{"c":[{%s}]}}}]}',
    '{"output_schema":[[{%s}]]}',
    '{"messages":[{"content":[{"type":"tool_use","input":{%s}}]}]}',
    '{"contents":[{"parts":[{"functionCall":{"args":{%s}}}]}]}',
    '{"contents":[{"parts":[{"functionResponse":{"response":{%s}}}]}]}',
]


@pytest.mark.parametrize("frame", AS_SENT)
def test_property_order_that_steers_the_answer_is_kept(frame):
    one = (frame % '"x":{"type":"string"},"y":{"type":"number"}').encode()
    other = (frame % '"y":{"type":"number"},"x":{"type":"string"}').encode()
    assert not same(one, other)


@pytest.mark.parametrize("frame", AS_SENT)
def test_around_what_is_kept_as_sent_order_still_means_nothing(frame):
    inner = (frame % '"x":1,"y":2')[1:-1]
    assert same(f'{{"model":"m","zz":1,{inner}}}'.encode(), f'{{{inner},"zz":1,"model":"m"}}'.encode())


def test_kept_order_cannot_be_moved_to_another_place():
    frame = '{"a":{"tools":{%s}},"b":{"tools":{%s}}}'
    xy, yx = '"x":1,"y":2', '"y":2,"x":1'
    bodies = [(frame % pair).encode() for pair in ((xy, xy), (xy, yx), (yx, xy), (yx, yx))]
    assert len({tuple(canonical(body)) for body in bodies}) == 4


def test_further_fields_can_be_ignored_at_the_top_only():
    ignore = IGNORED_FIELDS | {"seed"}
    assert canonical(b'{"seed":1}', ignore=ignore) == canonical(b"{}", ignore=ignore)
    assert canonical(b'{"a":{"seed":1}}', ignore=ignore) != canonical(b'{"a":{}}', ignore=ignore)


def test_a_field_that_is_not_ignored_counts():
    assert canonical(b'{"user":"x"}', ignore=frozenset()) != canonical(b"{}", ignore=frozenset())


def test_the_fields_of_a_json_body_are_there_to_be_looked_at():
    assert parse("application/json", b'{"model":"m","n":2}').fields == {"model": "m", "n": 2}
    assert parse("application/json", b"[1]").fields == {}
    assert parse("application/json", b"nonsense").fields == {}


def test_a_hundred_thousand_token_ids_are_read():
    tokens = json.dumps({"model": "m", "input": list(range(100_000))}).encode()
    assert parse("application/json", tokens).kind == "json"
