"""What is remembered of earlier decisions never differs from deciding again."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from askonce import Policy, Request, Rule
from askonce._body import parse
from askonce._control import NOTHING_SAID, Control
from askonce._decider import Decider
from askonce._decision import Decision, Settings, decide

URL = "https://api.openai.com/v1/chat/completions"
JSON = (b"content-type", b"application/json")


def settings(**changes: Any) -> Settings:
    made: dict[str, Any] = {
        "policy": Policy(),
        "namespace": "default",
        "scope": "shared",
        "mode": "on",
        "secret": None,
    }
    return Settings(**{**made, **changes})


def a_request(
    body: bytes = b'{"model":"m"}', *headers: tuple[bytes, bytes], url: str = URL, principal: bytes = b""
) -> Request:
    return Request("POST", url, (JSON, *headers), body, principal)


def shown(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in Decision.__slots__}


requests = st.builds(
    Request,
    method=st.sampled_from(["POST", "GET"]),
    url=st.sampled_from([URL, URL + "?api-version=1", URL + "?key=a", URL + "?key=b", "https://other/v1/chat/completions"]),
    headers=st.lists(
        st.sampled_from([
            JSON, (b"content-type", b"text/plain"), (b"Authorization", b"Bearer a"),
            (b"authorization", b"Bearer b"), (b"cache-control", b"no-store"), (b"cache-control", b"no-cache"),
            (b"OpenAI-Beta", b"x"), (b"openai-beta", b"y"), (b"openai-project", b"p"), (b"x-trace", b"1"),
        ]),
        max_size=5,
    ).map(tuple),
    body=st.sampled_from([
        b'{"model":"m"}', b'{"model":"n"}', b'{"model": "m"}', b'{"temperature":0,"model":"m"}',
        b'{"temperature":1,"model":"m"}', b"", b"{", b'{"model":"m","background":true}',
    ]),
    principal=st.sampled_from([b"", b"somebody"]),
    unread=st.booleans(),
)  # fmt: skip
controls = st.sampled_from([
    NOTHING_SAID,
    Control(),
    Control(namespace="other"),
    Control(scope="tenant"),
    Control(sample=1),
    Control(mode="off"),
    Control(mode="offline"),
    Control(ttl=None),
    Control(ttl=0.0),
    Control(ttl=5.0, tags=("a",)),
    Control(refresh=True),
    Control(max_age=3.0),
    Control(stale_if_error=2.0),
])  # fmt: skip
kinds = st.sampled_from([
    settings(),
    settings(scope="credential"),
    settings(scope=lambda request: request.header(b"x-trace")),
    settings(secret=b"s" * 32),
    settings(policy=Policy(max_temperature=0)),
    settings(policy=Policy(vary_headers={"x-trace"})),
    settings(policy=Policy(rules=[Rule(model="n", ttl=7), Rule(namespace="other", ttl=9)])),
    settings(policy=Policy(rules=[Rule(url="https://other/*", ttl=7)])),
    settings(policy=Policy(cacheable=lambda request, entry: b"n" not in request.body)),
])  # fmt: skip


@how(deadline=None)
@given(kind=kinds, asks=st.lists(st.tuples(requests, controls), min_size=1, max_size=12))
def test_a_remembered_decision_is_the_one_that_would_be_made_again(
    kind: Settings, asks: list[tuple[Request, Control]]
) -> None:
    decider = Decider(kind)
    for request, said in [*asks, *asks]:
        decision, body = decider.decide(request, said)
        fresh = decide(kind, request, parse(request.header(b"content-type"), request.body), said)
        if fresh.bypass:  # then nothing but this is looked at, and the body need not be read
            assert (decision.bypass, decision.key, decision.offline) == (fresh.bypass, "", fresh.offline)
        else:
            assert shown(decision) == shown(fresh)
        if body is None:
            assert not decision.bypass


def test_the_same_bytes_are_read_once() -> None:
    decider = Decider(settings())
    first, body = decider.decide(a_request(), NOTHING_SAID)
    again, unread = decider.decide(a_request(), NOTHING_SAID)
    assert body is not None
    assert unread is None
    assert again is first


def test_one_changed_byte_is_another_question() -> None:
    decider = Decider(settings())
    keys = {decider.decide(a_request(b'{"model":"m%d"}' % n), NOTHING_SAID)[0].key for n in range(50)}
    assert len(keys) == 50


def test_what_is_remembered_stays_within_its_room() -> None:
    decider = Decider(settings())
    for number in range(300):
        body = b'{"model":"m","n":%d,"pad":"%s"}' % (number, b"x" * 60_000)
        decider.decide(a_request(body), NOTHING_SAID)
    held = sum(len(ticket[0]) for kept in (decider._young, decider._old) for ticket in kept)
    assert held <= 2 * (4 << 20)
    for number in range(20_000):
        decider.decide(a_request(b'{"model":"m","n":%d}' % number), NOTHING_SAID)
    assert len(decider._young) + len(decider._old) <= 2 * 4096


def test_large_bodies_are_remembered_without_being_kept_and_every_byte_of_them_counts() -> None:
    decider = Decider(settings())
    pad = b"x" * (1 << 20)
    bodies = [
        b'{"model":"m","pad":"%s%s%s"}' % (start, pad, end)
        for start, end in [(b"a", b"a"), (b"a", b"b"), (b"b", b"a")]
    ]
    decisions = [decider.decide(a_request(body), NOTHING_SAID)[0] for body in bodies]
    assert len({decision.key for decision in decisions}) == 3
    for body, before in zip(bodies, decisions, strict=True):
        again, read = decider.decide(a_request(body), NOTHING_SAID)
        assert again is before
        assert read is None, "it was read once more"
    digests = [ticket[0] for ticket in decider._young]
    assert sum(map(len, digests)) < 1000
    for digest in digests:  # who sends a digest asks something else
        assert decider.decide(a_request(digest.encode()), NOTHING_SAID)[0].key not in {
            one.key for one in decisions
        }


def test_forms_are_not_kept() -> None:
    decider = Decider(settings())
    form = Request(
        "POST",
        "https://api.openai.com/v1/audio/transcriptions",
        ((b"content-type", b"multipart/form-data; boundary=b"),),
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n',
    )
    decision, body = decider.decide(form, NOTHING_SAID)
    assert decision.key
    assert body is not None
    assert decider.decide(form, NOTHING_SAID)[1] is not None


def test_a_body_is_not_read_where_nothing_is_cached() -> None:
    decider = Decider(settings())
    decision, body = decider.decide(a_request(url="https://api.openai.com/v1/files"), NOTHING_SAID)
    assert decision.bypass == "endpoint"
    assert body is not None
    assert body.value == b""


def test_two_people_with_the_same_words_are_told_apart() -> None:
    decider = Decider(settings(scope="credential"))
    asks = [
        a_request(principal=b"one"),
        a_request(principal=b"two"),
        a_request(b'{"model":"m"}', (b"authorization", b"Bearer a")),
        a_request(b'{"model":"m"}', (b"authorization", b"Bearer b")),
        a_request(b'{"model":"m"}', (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")),
        a_request(url=URL + "?key=a"),
        a_request(url=URL + "?key=b"),
    ]
    keys = [decider.decide(ask, NOTHING_SAID)[0].key for ask in asks]
    assert len(set(keys)) == len(asks)
    assert [decider.decide(ask, NOTHING_SAID)[0].key for ask in asks] == keys


def test_lists_of_many_short_inputs_take_no_more_memory_than_long_bodies():
    """The key of an input is longer than many an input."""
    decider = Decider(settings())
    for number in range(100):
        texts = [f"{number}.{place}" for place in range(2048)]
        body = orjson.dumps({"model": "e", "input": texts})
        request = a_request(body, url="https://api.openai.com/v1/embeddings")
        assert len(decider.decide(request, NOTHING_SAID)[0].items) == 2048
    kept = [*decider._young.values(), *decider._old.values()]
    assert 0 < sum(len(decision.items) for decision in kept) * 100 < 2 * (4 << 20)


def test_a_request_asked_again_as_it_is_gets_what_this_cache_and_this_caller_would_get() -> None:
    request = a_request()
    deciders = [Decider(settings(namespace=name)) for name in ("one", "two")]
    said = Control(sample=3, mode="refresh")
    for _ in range(3):
        for decider, name in zip(deciders, ("one", "two"), strict=True):
            plain, special = decider.decide(request, NOTHING_SAID)[0], decider.decide(request, said)[0]
            assert plain.key.startswith(f"{name}:")
            assert (plain.sample, plain.read, special.sample, special.read) == (0, True, 3, False)
            assert plain.key != special.key


def test_what_was_noted_on_a_request_ends_with_what_is_remembered(monkeypatch: Any) -> None:
    request, decider = a_request(), Decider(settings())
    first = [decider.decide(request, NOTHING_SAID)[0] for _ in range(3)][-1]
    decider.forget()
    calls: list[int] = []
    monkeypatch.setattr("askonce._decider.decide", lambda *args: calls.append(1) or decide(*args))
    assert shown(decider.decide(request, NOTHING_SAID)[0]) == shown(first)
    assert calls == [1]


def test_where_a_function_of_the_users_has_a_say_it_is_asked_each_time() -> None:
    seen: list[int] = []

    def cacheable(request: Request, entry: object) -> bool:
        seen.append(1)
        return len(seen) % 2 == 1

    request, decider = a_request(), Decider(settings(policy=Policy(cacheable=cacheable)))
    found = [decider.decide(request, NOTHING_SAID)[0].bypass for _ in range(4)]
    assert found == ["", "policy", "", "policy"]
