"""Fingerprints and explanations: which part differs, and never what it says."""

from __future__ import annotations

import json

import pytest

from askonce import Cache, OfflineMiss, Policy, Request, using
from askonce._body import parse
from askonce._control import current_control
from askonce._decision import decide
from askonce._fingerprint import differences, fingerprint
from askonce.doors import Opened

CHAT = "https://h/v1/chat/completions"
BASE = {
    "model": "gpt-4o",
    "temperature": 0.5,
    "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
}


def request_of(body=BASE, url=CHAT, headers=(), content_type="application/json"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", url, ((b"content-type", content_type.encode()), *headers), raw)


def print_of(body=BASE, cache=None, **how):
    request = request_of(body, **how)
    parsed = parse(request.header(b"content-type"), request.body)
    settings = (cache or Cache("memory://"))._settings
    return fingerprint(request, parsed, decide(settings, request, parsed, current_control()), settings)


def told(body, **how):
    return differences(print_of(), print_of(body, **how))


class Ask:
    live, patience = False, None

    def __init__(self, request):
        self.request = request

    def open(self):
        answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
        return Opened(
            status=200, headers=[(b"content-type", b"application/json")], native=object(),
            body=json.dumps(answer).encode(), framed=True,
        )  # fmt: skip

    again = open  # noqa: A003


CHANGES = [
    ({**BASE, "temperature": 0.7}, ["temperature 0.5 -> 0.7"]),
    ({**BASE, "model": "gpt-4o-mini"}, ["model gpt-4o -> gpt-4o-mini"]),
    ({**BASE, "seed": 7}, ["seed added"]),
    ({name: value for name, value in BASE.items() if name != "temperature"}, ["temperature removed"]),
    (
        {**BASE, "messages": [BASE["messages"][0], {"role": "user", "content": "bye"}]},
        ["messages[1].content changed"],
    ),
    (
        {**BASE, "messages": [BASE["messages"][0], {"role": "tool", "content": "hello"}]},
        ["messages[1].role user -> tool"],
    ),
    ({**BASE, "messages": BASE["messages"][:1]}, ["messages[1].content removed", "messages[1].role removed"]),
    ({**BASE, "tools": [*BASE["tools"], {"type": "x"}]}, ["tools[1] added"]),
    ({**BASE, "tools": [{"type": "function", "function": {"name": "g"}}]}, ["tools[0] changed"]),
    ({**BASE, "stop": ["x"]}, ["stop added"]),
    ({**BASE, "user": "somebody"}, []),
    ({**BASE, "stream": False, "seed": None}, []),
]


@pytest.mark.parametrize(("body", "expected"), CHANGES, ids=lambda value: str(value)[-60:])
def test_what_differs_is_told_part_by_part(body, expected):
    assert sorted(told(body)) == sorted(expected)


def test_another_url_or_varying_header_is_told():
    assert told(BASE, url="https://g/v1/chat/completions") == ["url changed"]
    assert told(BASE, headers=((b"openai-beta", b"x"),)) == ["header openai-beta added"]
    assert told(BASE, headers=((b"authorization", b"x"),)) == []


SAME = {
    "key order": {name: BASE[name] for name in reversed(BASE)},
    "key order inside a message": {
        **BASE, "messages": [{"content": "be brief", "role": "system"}, {"content": "hello", "role": "user"}],
    },
    "spelling of a number": json.dumps({**BASE, "temperature": 0.5}).replace("0.5", "0.50").encode(),
    "what is dropped": {**BASE, "seed": None, "stream": False, "user": "x"},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_equal_questions_have_equal_fingerprints(name):
    assert told(SAME[name]) == []


def test_equal_questions_have_equal_fingerprints_in_the_fine_print_too():
    pairs = [
        ({"model": "m", "temperature": 0}, {"model": "m", "temperature": 0.0}),
        ({"model": "m"}, {"model": "m", "tools": []}),
        ({"model": "m", "logit_bias": {"1": 1, "2": 2}}, {"model": "m", "logit_bias": {"2": 2, "1": 1}}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            {"messages": [{"role": "user", "content": [{"text": "x", "type": "text"}]}]},
        ),
    ]
    assert [differences(print_of(one), print_of(other)) for one, other in pairs] == [[]] * len(pairs)


def test_fingerprints_hold_no_text():
    marker = "MARKER"
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "user", "content": marker},
            {"role": "user", "content": [{"type": "text", "text": marker}]},
        ],
        "instructions": marker,
        "input": marker,
        "prompt": [marker],
        "stop": marker,
        "tools": [{"type": marker, "name": marker}],
        "response_format": {"type": marker, marker: marker},
        "logit_bias": {marker: 1},
        "user": marker,
        "metadata": {"a": marker},
    }
    headers = ((b"openai-beta", marker.encode()), (b"authorization", marker.encode()))
    found = json.dumps(print_of(body, url=f"{CHAT}?a={marker}&api_key={marker}", headers=headers))
    assert marker not in found
    assert marker not in json.dumps(print_of(f'{{"a":NaN,"b":"{marker}"}}'.encode()))
    assert marker not in json.dumps(print_of([marker]))


def test_a_role_that_is_no_role_shows_no_text():
    odd = {
        "messages": [{"role": {"text": "MARKER"}, "content": "x"}, {"role": "MARKER " * 40, "content": "x"}]
    }
    assert "MARKER" not in json.dumps(print_of(odd))


def test_a_part_of_a_fingerprint_is_short():
    assert all(len(value) <= 24 for value in print_of().values())
    huge = {"messages": [{"role": "user", "content": str(number)} for number in range(1000)]}
    assert len(print_of(huge)) < 120
    changed = {"messages": [*huge["messages"][:-1], {"role": "user", "content": "other"}]}
    assert differences(print_of(huge), print_of(changed)) == ["messages[48:] changed"]


def test_with_a_secret_guesses_cannot_be_tested():
    one, other = (Cache("memory://", secret=letter * 16) for letter in "ab")
    content = "messages[1].content"
    assert len({print_of()[content], print_of(cache=one)[content], print_of(cache=other)[content]}) == 3


def test_secrets_that_differ_late_make_different_fingerprints():
    one, other = (Cache("memory://", secret="s" * 80 + letter) for letter in "ab")
    assert print_of(cache=one)["messages[1].content"] != print_of(cache=other)["messages[1].content"]


def test_every_kind_of_body_has_a_fingerprint():
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nw\r\n--x--\r\n'
    assert set(print_of(form, content_type="multipart/form-data; boundary=x")) == {"url", "model"}
    assert set(print_of(b"nonsense")) == {"url", "body"}
    assert set(print_of(b"[1]")) == {"url", "body"}
    assert set(print_of(b"{}")) <= {"url", "body"}
    assert print_of(b"nonsense", url="https://h/\ud800/chat/completions")


# -- why did this miss? ----------------------------------------------------------------------------


def recorded(**options):
    cache = Cache("memory://", **options)
    cache.ask(Ask(request_of()))
    return cache


def test_a_hit_is_explained():
    with recorded() as cache:
        found = cache.explain(request_of())
        assert (found.verdict, found.differences) == ("hit", ())
        assert str(found) == f"hit: {found.key}"


def test_a_miss_is_explained_by_its_nearest_entry():
    with recorded() as cache:
        cache.ask(Ask(request_of({**BASE, "model": "x", "temperature": 0.9, "seed": 1})))
        found = cache.explain(request_of({**BASE, "temperature": 0.7}))
        assert (found.verdict, found.differences) == ("miss", ("temperature 0.5 -> 0.7",))
        assert found.nearest == cache.explain(request_of()).key
        assert "temperature 0.5 -> 0.7" in str(found)


async def test_a_miss_is_explained_to_event_loops_too():
    async with recorded() as cache:
        found = await cache.aexplain(request_of({**BASE, "temperature": 0.7}))
        assert found.differences == ("temperature 0.5 -> 0.7",)


def test_a_bypass_and_an_empty_cache_are_explained():
    with Cache("memory://") as cache:
        assert str(cache.explain(request_of(url="https://h/v1/files"))) == "not cacheable: endpoint"
        assert str(cache.explain(request_of())) == "miss: nothing near it is stored"


@pytest.mark.parametrize("said", [{"sample": 1}, {"scope": "tenant"}])
def test_a_miss_for_another_sample_or_scope_says_so(said):
    with recorded() as cache, using(**said):
        found = cache.explain(request_of())
        assert found.verdict == "miss"
        assert any(word in str(found) for word in said), str(found)


def test_an_offline_miss_says_which_part_differs():
    with recorded() as cache, using(mode="offline"), pytest.raises(OfflineMiss) as caught:
        cache.ask(Ask(request_of({**BASE, "temperature": 0.7})))
    assert caught.value.differences == ("temperature 0.5 -> 0.7",)
    assert "temperature 0.5 -> 0.7" in str(caught.value)
    assert caught.value.key.startswith("default:")


def test_an_offline_miss_for_another_scope_does_not_say_that_nothing_is_near():
    with recorded() as cache, using(mode="offline", scope="tenant"), pytest.raises(OfflineMiss) as caught:
        cache.ask(Ask(request_of()))
    assert "nothing near it is stored" not in str(caught.value)


def test_a_tenant_does_not_learn_from_an_explanation_what_another_one_asked():
    with Cache("memory://", scope=lambda request: request.header(b"x-tenant")) as cache:
        cache.ask(Ask(request_of(headers=((b"x-tenant", b"a"),))))
        found = cache.explain(request_of({**BASE, "temperature": 0.7}, headers=((b"x-tenant", b"b"),)))
        assert "temperature 0.5" not in str(found)


def test_a_policy_that_ignores_a_field_leaves_it_out_of_fingerprints():
    cache = Cache("memory://", policy=Policy(ignore_fields={"seed"}))
    assert "seed" not in print_of({**BASE, "seed": 1}, cache)
    assert "user" in print_of({**BASE, "user": "x"}, cache)


# -- lists as a whole, and how far a look goes --------------------------------------------------------


def listed(*names):
    return [{"type": "function", "function": {"name": name}} for name in names]


def turns(*words):
    return [{"role": "user", "content": word} for word in words]


MOVES = [
    ({"tools": listed("a", "b")}, {"tools": listed("b", "a")}, ["tools in another order"]),
    ({"messages": turns("a", "b")}, {"messages": turns("b", "a")}, ["messages in another order"]),
    ({"messages": turns("a", "b")}, {"messages": turns("x", "a", "b")}, ["messages[0] added"]),
    ({"messages": turns("a", "b", "c", "d")}, {"messages": turns("a", "d")}, ["messages[1:3] removed"]),
    ({"tools": listed("a", "b")}, {"tools": listed("a", "c")}, ["tools[1] changed"]),
    ({"tools": listed("a", "a")}, {"tools": listed("a", "b")}, ["tools[1] changed"]),
]


@pytest.mark.parametrize(("before", "now", "expected"), MOVES)
def test_items_that_moved_are_told_as_one_difference(before, now, expected):
    assert differences(print_of({"model": "m", **before}), print_of({"model": "m", **now})) == expected


def test_a_look_is_bounded_and_says_how_far_it_went(monkeypatch):
    from askonce import _explain

    monkeypatch.setattr(_explain, "_LOOK_AT", 4)
    with Cache("memory://") as cache:
        for number in range(10):
            cache.ask(Ask(request_of({"model": "x", "messages": turns(str(number)), "seed": number})))
        found = cache.explain(request_of({"model": "y", "messages": turns("a")}))
        assert (found.looked_at, found.entries) == (4, 10)
        assert "looked at 4 of 10 entries" in str(found)
        with using(mode="offline"), pytest.raises(OfflineMiss, match="looked at 4 of 10 entries"):
            cache.ask(Ask(request_of({"model": "y", "messages": turns("a")})))


def test_a_look_ends_at_an_entry_that_differs_in_one_part():
    with recorded() as cache:
        for number in range(300):
            cache.ask(Ask(request_of({"model": "x", "messages": turns(str(number)), "seed": number})))
        found = cache.explain(request_of({**BASE, "temperature": 0.7}))
        assert found.differences == ("temperature 0.5 -> 0.7",)
        assert found.looked_at < found.entries == 301
        assert "looked at" not in str(found)


def test_an_offline_miss_says_what_an_explanation_says():
    with recorded() as cache:
        request = request_of({**BASE, "temperature": 0.7})
        told = cache.explain(request).told()
        with using(mode="offline"), pytest.raises(OfflineMiss) as caught:
            cache.ask(Ask(request))
    assert told in str(caught.value)


def test_an_answer_that_is_too_old_differs_in_nothing_else():
    with recorded() as cache, using(mode="offline", max_age=0), pytest.raises(OfflineMiss, match="age only"):
        cache.ask(Ask(request_of()))


def test_one_entry_is_looked_at_without_being_used():
    with recorded() as cache:
        key = cache.explain(request_of()).key
        before = cache.stats()
        entry = cache.entry(key)
        assert entry is not None
        assert entry.meta.model == "gpt-4o"
        assert cache.entry("default:nothing") is None
        assert cache.stats() == before


async def test_one_entry_is_looked_at_by_event_loops_too():
    async with recorded() as cache:
        assert await cache.aentry(cache.explain(request_of()).key) is not None
        assert await cache.aentry("default:nothing") is None
