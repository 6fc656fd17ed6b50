"""Keys: equal for equal questions, different for different ones, the same on every machine, for ever."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import askonce
from askonce import Cache, ConfigurationError, Policy, Request, using
from askonce._body import parse
from askonce._control import NOTHING_SAID, current_control
from askonce._decision import decide
from askonce._key import VARY_HEADERS, digest, frame
from askonce._policy import IGNORED_FIELDS
from askonce.doors import asked

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
URL = "https://api.openai.com/v1/chat/completions"
BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    "temperature": 0.5,
    "seed": 7,
    "stop": ["a", "b"],
    "logit_bias": {"1": 2},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": {}, "b": {}}}},
}


def request_of(body=BODY, *, url=URL, headers=(), method="POST"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = tuple((name.encode(), value.encode()) for name, value in headers)
    return Request(method, url, ((b"content-type", b"application/json"), *headers), raw)


def key_of(request, cache=None, said=NOTHING_SAID):
    """The key as a cache makes it: policy, scope, namespace and secret applied."""
    settings_ = (cache or CACHE)._settings
    decision = decide(settings_, request, parse(request.header(b"content-type"), request.body), said)
    assert not decision.bypass
    return decision.key


def key(body=BODY, cache=None, said=NOTHING_SAID, **how):
    return key_of(request_of(body, **how), cache, said)


CACHE = Cache("memory://")

# -- pinned ----------------------------------------------------------------------------------------

GOLDEN = {
    "chat": (request_of(), "fc347b6f576c89d2d0e9f339ac01a1cf905b1b0edc281f43c3f4cf26c558a985"),
    "responses": (
        request_of(
            {"model": "gpt-4o", "input": "hi", "stream": True},
            url="http://LOCALHOST:8080/v1/responses?b=2&a=1",
        ),
        "757146d820f7334f4bc39a09433c8b2dcc00283cdb6f5489e86aa7cf1eb80ad5",
    ),
    "embeddings": (
        request_of(
            {
                "input": ["a", "é"],
                "model": "text-embedding-3-small",
                "encoding_format": "base64",
                "user": "u",
            },
            url="https://api.openai.com/v1/embeddings",
            headers=[("authorization", "Bearer sk-1"), ("openai-project", "p")],
        ),
        "a03964df332def90a0cedd99eb42efea6c355c276e7ffefd225921045d75c40f",
    ),
    "exact bytes": (
        request_of(b'{"model":"m","messages":[],"seed":NaN}'),
        "59b50130242d8b9761f8c017d83e44b69e01b7c6f93883cf72c1873471aff0a3",
    ),
    "form": (
        Request(
            "POST",
            "https://api.openai.com/v1/audio/transcriptions",
            ((b"content-type", b"multipart/form-data; boundary=xyz"),),
            b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
            b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\r\n--xyz--\r\n',
        ),
        "a8f2139f59330d4a24592d4a1b79e59a70a4f2bb737d2b12e92810d77f69b8fd",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_scheme_version_1_never_changes_silently(name):
    request, expected = GOLDEN[name]
    assert key_of(request) == f"default:{expected}"


def test_the_scheme_can_be_computed_by_hand():
    parts = [
        b"askonce key v1", b"default", b"", b"0",
        b"POST", b"https://api.openai.com:443", b"/v1/chat/completions", b"",
        b"0", b"json", b'{"messages":[],"model":"m","temperature":0}',
    ]  # fmt: skip
    message = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    asked_ = request_of({"temperature": 0.0, "model": "m", "messages": [], "user": "u"})
    assert key_of(asked_) == "default:" + hashlib.sha256(message).hexdigest()
    sealed = Cache("memory://", secret="0123456789abcdef")
    assert key_of(asked_, sealed) == "default:" + hmac.new(b"0123456789abcdef", message, "sha256").hexdigest()


def test_keys_are_the_same_in_every_process_whatever_the_hash_seed():
    program = (
        "import sys; from askonce._key import digest; from askonce._body import parse;"
        "from askonce import Request, Policy; p = Policy();"
        "headers = ((b'openai-beta', b'x'), (b'openai-project', b'y'));"
        "r = Request('POST', sys.argv[1], headers, sys.argv[2].encode()); body = parse('', r.body);"
        "print(digest(r, body, namespace='n', vary=p.vary, ignore=p.ignore_fields))"
    )
    where = str(Path(askonce.__file__).parents[1])
    found = {
        subprocess.run(
            [sys.executable, "-c", program, URL, json.dumps(BODY)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": where},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(found) == 1


# -- the order of things ---------------------------------------------------------------------------


def client(seen):
    """A real client whose requests end here."""
    family = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    def answer(request):
        seen.append(asked(request, request.read()))
        return family.Response(200, json={"id": "x", "choices": [], "object": "chat.completion"})

    return openai.OpenAI(
        api_key="sk-test",
        base_url="https://api.openai.com/v1",
        http_client=family.Client(transport=family.MockTransport(answer)),
    )


KEYWORDS = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 0.2,
    "max_tokens": 5,
    "stop": ["x"],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"b": {}, "a": {}}}}}
    ],
    "extra_body": {"top_k": 5, "min_p": 0.1},
    "extra_headers": {"x-trace": "1", "openai-beta": "b"},
}


def test_keyword_order_through_the_real_client_means_nothing():
    seen = []
    with client(seen) as one:
        for seed in range(8):
            names = list(KEYWORDS)
            random.Random(seed).shuffle(names)
            one.chat.completions.create(**{name: KEYWORDS[name] for name in names})
    assert len({key_of(request) for request in seen}) == 1


def test_every_keyword_through_the_real_client_counts():
    seen = []
    changes = [
        {},
        {"model": "gpt-4o-mini"},
        {"temperature": 0.3},
        {"max_tokens": 6},
        {"stop": "x"},
        {"stop": ["y"]},
        {"extra_body": {"top_k": 6, "min_p": 0.1}},
        {"extra_body": {"top_k": "5", "min_p": 0.1}},
        {"extra_body": None},
        {"extra_query": {"a": "1"}},
        {"extra_headers": {"openai-beta": "c"}},
        {"n": 2},
        {"stream": True},
        {"messages": [{"role": "user", "content": "hello "}]},
        {"messages": [{"role": "system", "content": "hello"}]},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"properties": {"a": {}, "b": {}}}},
                }
            ]
        },
    ]
    with client(seen) as one:
        for change in changes:
            one.chat.completions.create(**{**KEYWORDS, **change})
        one.with_options(base_url="https://eu.api.openai.com/v1").chat.completions.create(**KEYWORDS)
        one.with_options(organization="org").chat.completions.create(**KEYWORDS)
        one.with_options(project="proj").chat.completions.create(**KEYWORDS)
    assert len({key_of(request) for request in seen}) == len(changes) + 3


def test_another_api_key_time_out_retry_count_or_trace_header_is_the_same_question():
    seen = []
    with client(seen) as one:
        one.chat.completions.create(**KEYWORDS)
        one.with_options(api_key="sk-other", timeout=3, max_retries=7).chat.completions.create(**KEYWORDS)
        traced = {"openai-beta": "b", "traceparent": "00-1-2-01", "x-request-id": "9", "idempotency-key": "k"}
        one.chat.completions.create(**{**KEYWORDS, "extra_headers": traced, "user": "somebody"})
    assert len({key_of(request) for request in seen}) == 1


# -- every part counts -----------------------------------------------------------------------------

CHANGES = {
    "path": {"url": "https://api.openai.com/v2/chat/completions"},
    "path, doubled slash": {"url": "https://api.openai.com//v1/chat/completions"},
    "path, case": {"url": "https://api.openai.com/V1/chat/completions"},
    "path, escaped": {"url": "https://api.openai.com/v1%2Fx/chat/completions"},
    "query": {"url": URL + "?api-version=1"},
    "query value": {"url": URL + "?api-version=2"},
    "query, empty value": {"url": URL + "?api-version="},
    "query, twice": {"url": URL + "?api-version=1&api-version=2"},
    "query, twice in another order": {"url": URL + "?api-version=2&api-version=1"},
    "query, an escaped ampersand": {"url": URL + "?api-version=1%26api-version%3D2"},
    "host": {"url": "https://eu.openai.com/v1/chat/completions"},
    "host with a dot": {"url": "https://api.openai.com./v1/chat/completions"},
    "port": {"url": "https://api.openai.com:8443/v1/chat/completions"},
    "scheme": {"url": "http://api.openai.com/v1/chat/completions"},
    "scheme on the same port": {"url": "http://api.openai.com:443/v1/chat/completions"},
    "ipv6": {"url": "https://[::1]/v1/chat/completions"},
    "ipv6, another": {"url": "https://[::1:443]/v1/chat/completions"},
    "organization": {"headers": [("openai-organization", "o")]},
    "project": {"headers": [("openai-project", "o")]},
    "beta": {"headers": [("openai-beta", "o")]},
    "anthropic version": {"headers": [("anthropic-version", "o")]},
    "anthropic beta": {"headers": [("anthropic-beta", "o")]},
    "header value moved": {"headers": [("openai-beta", "oo")]},
    "header, empty": {"headers": [("openai-beta", "")]},
    "two headers": {"headers": [("openai-beta", "o"), ("openai-project", "o")]},
    "one header twice": {"headers": [("openai-beta", "o"), ("openai-beta", "o")]},
    "body kind": {"body": json.dumps(BODY).encode() + b"x"},
    "no body": {"body": b""},
    "body as a text": {"body": json.dumps(json.dumps(BODY)).encode()},
    "sample": {"said": {"sample": 1}},
    "sample 10": {"said": {"sample": 10}},
    "namespace": {"said": {"namespace": "other"}},
    "scope": {"said": {"scope": "tenant"}},
    "another scope": {"said": {"scope": "tenant2"}},
    "scope with a digit": {"said": {"scope": "tenant", "sample": 2}},
    "empty scope": {"said": {"scope": ""}},
    "credential scope": {"said": {"scope": "credential"}},
}  # fmt: skip


def changed_key(change):
    change = dict(change)
    with using(**change.pop("said", {})):
        return key(said=current_control(), **change)


def test_no_two_of_all_these_questions_share_a_key():
    keys = {name: changed_key(change).partition(":")[2] for name, change in CHANGES.items()}
    keys["as it is"] = key().partition(":")[2]
    assert len(set(keys.values())) == len(keys)


def test_the_method_is_part_of_the_key():
    body = parse("application/json", b"{}")
    keys = {digest(Request(method, URL), body, namespace="n") for method in ("POST", "PUT", "post", "POS")}
    assert len(keys) == 4


SAME_URLS = [
    "HTTPS://API.OPENAI.COM/v1/chat/completions",
    "https://api.openai.com:443/v1/chat/completions",
    URL + "?api_key=secret",
    URL + "?key=secret",
    URL + "?api-key=s&access_token=t&sig=u",
    URL + "?API_KEY=secret",
    URL + "?api%5Fkey=secret",
    URL + "#fragment",
    "https://user:password@api.openai.com/v1/chat/completions",
]


@pytest.mark.parametrize("url", SAME_URLS)
def test_spelling_and_credentials_in_the_url_are_not_part_of_the_key(url):
    assert key(url=url) == key()


def test_the_order_of_query_parameters_means_nothing():
    assert key(url=URL + "?b=2&a=1") == key(url=URL + "?a=1&b=2")


@pytest.mark.parametrize(
    "header",
    [
        "authorization",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "cookie",
        "traceparent",
        "tracestate",
        "baggage",
        "x-request-id",
        "user-agent",
        "x-stainless-retry-count",
        "accept-encoding",
        "date",
        "idempotency-key",
    ],
)
def test_credentials_and_tracing_headers_are_not_part_of_the_key(header):
    assert key(headers=[(header, "one")]) == key(headers=[(header, "two")]) == key()


def test_headers_are_compared_in_any_case_and_order():
    one = key(headers=[("OpenAI-Beta", "b"), ("openai-project", "p")])
    assert one == key(headers=[("openai-project", "p"), ("x-other", "1"), ("OPENAI-BETA", "b")])


def test_a_policy_can_make_more_headers_part_of_the_key():
    cache = Cache("memory://", policy=Policy(vary_headers={"X-Tier"}))
    assert key(cache=cache, headers=[("x-tier", "1")]) != key(cache=cache, headers=[("x-tier", "2")])
    assert key(cache=cache, headers=[("openai-beta", "1")]) != key(
        cache=cache, headers=[("openai-beta", "2")]
    )


# -- who shares ------------------------------------------------------------------------------------

CREDENTIALS = [
    {"headers": [("authorization", "Bearer a")]},
    {"headers": [("authorization", "Bearer b")]},
    {"headers": [("api-key", "Bearer a")]},
    {"headers": [("x-api-key", "Bearer a")]},
    {"headers": [("authorization", "Bearer a"), ("api-key", "b")]},
    {"headers": [("cookie", "session=1")]},
    {"url": URL + "?key=a"},
    {"url": URL + "?key=b"},
    {"url": URL + "?api_key=a"},
    {"url": "https://a:b@api.openai.com/v1/chat/completions"},
    {"url": "https://a:c@api.openai.com/v1/chat/completions"},
    {},
]


def test_with_scope_credential_no_two_credentials_share_an_answer():
    cache = Cache("memory://", scope="credential")
    assert len({key(cache=cache, **how) for how in CREDENTIALS}) == len(CREDENTIALS)


def test_with_scope_credential_the_same_credential_shares():
    cache = Cache("memory://", scope="credential")
    one = key(cache=cache, headers=[("authorization", "Bearer a"), ("traceparent", "1")])
    assert one == key(cache=cache, headers=[("Authorization", "Bearer a")])


def test_with_a_shared_scope_credentials_do_not_matter():
    assert len({key(**how) for how in CREDENTIALS}) == 1


def test_a_scope_function_names_who_shares():
    cache = Cache("memory://", scope=lambda request: request.header(b"x-tenant"))
    keys = {key(cache=cache, headers=[("x-tenant", name)]) for name in ("a", "b", "shared", "credential", "")}
    assert len(keys | {key()}) == 6


def test_a_scope_function_that_returns_no_text_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"scope.*int.*text"):
        key(cache=Cache("memory://", scope=lambda request: 5))


# -- string tricks ---------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["a", "b", ":", ",", "\x00", '"', "\\", "\n", "1", "é", "e\u0301", "\U0001f600"]),
    max_size=6,
).map("".join)


@SETTINGS
@given(st.lists(PIECES, min_size=4, max_size=4), st.lists(PIECES, min_size=4, max_size=4))
def test_text_cannot_move_between_namespace_scope_header_and_body(one, other):
    def made(texts):
        namespace, scope, header, said = texts
        request = request_of({"messages": said}, headers=[("openai-beta", header)])
        body = parse("application/json", request.body)
        return digest(request, body, namespace=namespace, scope=scope)

    assert (made(one) == made(other)) == (one == other)


@SETTINGS
@given(st.lists(st.binary(max_size=12), max_size=5), st.lists(st.binary(max_size=12), max_size=5))
def test_framing_is_unambiguous(one, other):
    assert (frame(one) == frame(other)) == (one == other)


def test_framing_survives_parts_that_look_like_framing():
    inner = frame([b"a", b"b"])
    assert (
        len({frame([inner]), frame([b"a", b"b"]), frame([b"a", b"b", b""]), frame([inner, b""]), frame([])})
        == 5
    )


TRICKS = [
    {"model": "m", "user_": "xtemperature: 0.5"},
    {"model": "m", "user_": "x", "temperature": 0.5},
    {"model": "m", "user_": 'x","temperature":0.5,"a":"'},
    {"model": "m", "stop": "1"},
    {"model": "m", "stop": 1},
    {"model": "m", "stop": ["1"]},
    {"model": "m", "stop": [1]},
    {"model": "m", "stop": [["1"]]},
    {"model": "m", "stop": '["1"]'},
    {"model": "m", "stop": True},
    {"model": "m", "stop": "true"},
    {"model": "m", "stop": "True"},
    {"model": "m", "stop": "None"},
    {"model": "m", "stop": "null"},
    {"model": "m", "stop": ""},
    {"model": "m"},
    {"model": "mm"},
    {"modelm": ""},
    {"mode": "lm"},
    {"model": "m\x00"},
    {"model": "\x00m"},
    {"model": "m", "messages": ["ab", "c"]},
    {"model": "m", "messages": ["a", "bc"]},
    {"model": "m", "messages": ["abc"]},
    {"model": "m", "messages": ["abc", ""]},
    {"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]},
    {"model": "m", "messages": [{"role": "user", "content": "y"}, {"role": "user", "content": "x"}]},
    {"model": "m", "messages": [{"role": "user", "content": "xy"}]},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "xy"}]}]},
    {"model": "m", "messages": [{"role": "user", "content": "xy", "name": None}]},
    {"model": "é"},
    {"model": "e\u0301"},
    {"model": "\u212b"},
    {"model": "\u00c5"},
    {"model": "m\u200b"},
    {"model": "m", "tools": [{"a": 1, "b": 2}]},
    {"model": "m", "tools": [{"b": 2, "a": 1}]},
    {"model": "m", "tools": [{"a": 1}, {"b": 2}]},
    {"model": "m", "tools": [{"a": {}, "b": 2}]},
]


def test_no_string_trick_makes_two_questions_one():
    assert len({key(trick) for trick in TRICKS}) == len(TRICKS)


def test_the_user_field_that_collides_at_peers_does_not_collide_here():
    cache = Cache("memory://", policy=Policy(ignore_fields=()))
    assert key({"user": "xtemperature: 0.5"}, cache) != key({"user": "x", "temperature": 0.5}, cache)


def test_escaped_and_literal_text_are_the_same_question():
    assert key('{"model":"é😀"}'.encode()) == key(rb'{"model":"\u00e9\ud83d\ude00"}')


# -- every field counts ----------------------------------------------------------------------------


def paths(value, at=()):
    """Every place in a body."""
    yield at
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*at, name))


def put(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def drop(value, path):
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = drop(value[path[0]], path[1:])
    return copy


EVERYWHERE = [path for path in paths(BODY) if path]


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: ".".join(map(str, path)))
def test_every_value_everywhere_counts(path):
    keys = [key(), key(drop(BODY, path))]
    for new in ("other", 1234, True, [], {}, {"x": None}, [None], [0], 0.25):
        changed = put(BODY, path, new)
        if changed != BODY:
            keys.append(key(changed))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("field", sorted(IGNORED_FIELDS))
def test_ignored_fields_are_ignored_at_the_top_and_nowhere_else(field):
    assert key({**BODY, field: "x"}) == key()
    assert key({**BODY, "messages": [{**BODY["messages"][0], field: "x"}]}) != key(
        {**BODY, "messages": [BODY["messages"][0]]}
    )


@pytest.mark.parametrize(
    "field", ["store", "n", "top_k", "reasoning", "verbosity", "anything", "stream_options"]
)
def test_what_nobody_has_proven_irrelevant_counts(field):
    assert key({**BODY, field: 1}) != key()


# -- secrets and form ------------------------------------------------------------------------------


def test_a_secret_changes_the_keys_and_so_does_another_secret():
    caches = [CACHE, Cache("memory://", secret=b"0" * 16), Cache("memory://", secret="1" * 16)]
    assert len({key(cache=cache) for cache in caches}) == 3
    assert key(cache=Cache("memory://", secret="0" * 16)) == key(cache=caches[1])


def test_secrets_longer_than_a_hash_block_differ_in_every_byte():
    one, other = (Cache("memory://", secret=b"s" * 100 + tail) for tail in (b"1", b"2"))
    assert key(cache=one) != key(cache=other)


@pytest.mark.parametrize("namespace", ["default", "a b", "ü", "x" * 200, "*", "../x", "%s{}"])
def test_a_key_is_the_namespace_a_colon_and_64_hex_digits(namespace):
    found = key(cache=Cache("memory://", namespace=namespace))
    assert re.fullmatch(re.escape(namespace) + ":[0-9a-f]{64}", found)


def test_namespaces_with_the_same_digest_text_do_not_share_digests():
    assert len({key(cache=Cache("memory://", namespace=name)).partition(":")[2] for name in ("a", "b")}) == 2


def test_ttl_max_age_mode_and_tags_are_never_in_the_key():
    for said in (
        {"ttl": 5},
        {"max_age": 5},
        {"mode": "refresh"},
        {"tags": ["x"]},
        {"refresh": True},
        {"store": False},
    ):
        with using(**said):
            assert key(said=current_control()) == key()
    assert key(cache=Cache("memory://", ttl="9d", mode="read_only")) == key()
    assert key(headers=[("cache-control", "max-age=5")]) == key()


def test_the_headers_that_vary_are_these():
    assert {
        b"openai-organization", b"openai-project", b"openai-beta", b"anthropic-version", b"anthropic-beta",
    } == VARY_HEADERS  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "http://h:port/v1/chat/completions",
        "http://h:99999/v1/chat/completions",
        "http://[::1/v1/chat/completions",
    ],
)
def test_a_url_that_cannot_be_read_never_raises_and_never_merges(url):
    assert repr(Request("POST", url))
    assert key(url=url) != key(url=url.replace("h:", "g:").replace("::1", "::2"))


def test_control_characters_in_a_url_are_not_dropped():
    assert key(url="https://h/a\tb/chat/completions") != key(url="https://h/ab/chat/completions")


def test_a_url_of_any_text_never_raises():
    assert key(url="https://h/\ud800/chat/completions") != key(url="https://h/\ud801/chat/completions")
