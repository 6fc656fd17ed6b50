"""Which deployment to ask: where the longest prefix is warm, and never by another tenant's prompts."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Cache, ConfigurationError
from askonce.prefix import PrefixAffinity
from askonce.prefix._blocks import blocks_of, chain
from askonce.prefix._sightings import decode, encode, tag_of
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock

NAMES = [f"deployment {number}" for number in range(8)]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    with Cache(MemoryStore(clock=clock), clock=clock) as cache:
        yield cache


def talk(*turns, system="be brief", model="m", **more):
    said = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]
    return {"model": model, "messages": [{"role": "system", "content": system}, *said], **more}


def asked(affinity, body, **options):
    with affinity.pick(body, **options) as pick:
        return pick


# -- where it is warm -----------------------------------------------------------------------------------


def test_a_conversation_stays_where_it_is_and_the_longest_prefix_wins(cache, clock):
    affinity = PrefixAffinity(cache, NAMES)
    first = asked(affinity, talk("hello"))
    assert (first.known, first.blocks) == (0, 2)
    turns = ["hello"]
    for turn in range(6):
        turns += [f"answer {turn}", f"question {turn}"]
        pick = asked(affinity, talk(*turns))
        assert (pick.name, pick.known) == (first.name, len(turns) - 1)


def test_what_is_forgotten_by_the_provider_is_forgotten_here(cache, clock):
    affinity = PrefixAffinity(cache, NAMES, ttl=300)
    asked(affinity, talk("hello"))
    clock.advance(299)
    assert asked(affinity, talk("hello")).known == 2
    clock.advance(301)
    assert asked(affinity, talk("hello")).known == 0


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "hello", "instructions": "x"},
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
        {
            "model": "m",
            "system": [{"type": "text", "text": "s"}],
            "messages": [{"role": "user", "content": "a"}],
        },
        {
            "model": "m",
            "tools": [{"name": "t"}],
            "messages": [{"role": "user", "content": None, "tool_calls": [1]}],
        },
        {"model": "m", "messages": []},
        {},
    ],
)
def test_every_shape_is_routed_and_found_again(cache, body):
    affinity = PrefixAffinity(cache, NAMES)
    first, again = asked(affinity, body), asked(affinity, body)
    assert (first.name, again.known) == (again.name, first.blocks)


def test_marks_for_the_providers_cache_are_no_part_of_the_prompt(cache):
    affinity = PrefixAffinity(cache, NAMES)
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    asked(affinity, talk(parts))
    assert asked(affinity, talk([{"type": "text", "text": "a"}])).known == 2


def test_other_models_tenants_and_namespaces_know_nothing_of_each_other(cache, clock):
    affinity = PrefixAffinity(cache, NAMES)
    asked(affinity, talk("hello"), scope="one")
    assert asked(affinity, talk("hello"), scope="two").known == 0
    assert asked(affinity, talk("hello", model="n"), scope="one").known == 0
    assert asked(affinity, talk("hello"), scope="one").known == 2
    with Cache(MemoryStore(clock=clock), namespace="other", clock=clock) as other:
        assert asked(PrefixAffinity(other, NAMES), talk("hello"), scope="one").known == 0


def test_a_fleet_knows_it_together(tmp_path, clock):
    with Cache(f"disk://{tmp_path}", clock=clock) as one, Cache(f"disk://{tmp_path}", clock=clock) as other:
        first = asked(PrefixAffinity(one, NAMES), talk("hello"))
        again = asked(PrefixAffinity(other, NAMES[::-1]), talk("hello"))
    assert (again.name, again.known) == (first.name, 2)


async def test_tasks_pick_as_threads_do(cache):
    affinity = PrefixAffinity(cache, NAMES)
    async with await affinity.apick(talk("hello")) as first:
        pass
    again = await affinity.apick(talk("hello"))
    await again.adone()
    assert (again.name, again.known) == (first.name, 2)
    assert asked(affinity, talk("hello")).name == first.name


# -- cold, out, or busy -----------------------------------------------------------------------------------


def test_a_cold_prefix_goes_to_the_same_place_in_every_process_and_order():
    bodies = [talk(f"question {number}") for number in range(200)]

    def places(names):
        with Cache("memory://") as empty:
            affinity = PrefixAffinity(empty, names)
            return [asked(affinity, body).name for body in bodies]

    assert places(NAMES) == places(NAMES[::-1])
    shares = Counter(places(NAMES))
    assert set(shares) == set(NAMES)
    assert max(shares.values()) < 60


def test_a_system_prompt_that_all_share_does_not_draw_all_to_one_place(cache):
    affinity = PrefixAffinity(cache, NAMES)
    tools = [{"name": f"tool {number}"} for number in range(30)]
    picks = [asked(affinity, talk(f"question {number}", tools=tools)) for number in range(100)]
    assert len({pick.name for pick in picks}) == len(NAMES)
    assert {pick.known for pick in picks[50:]} == {31}  # by then the head is warm everywhere


def test_when_a_deployment_comes_only_its_own_share_moves():
    def places(names):
        with Cache("memory://") as cache:
            affinity = PrefixAffinity(cache, names)
            return [asked(affinity, talk(f"question {number}")).name for number in range(400)]

    before, after = places(NAMES), places([*NAMES, "new"])
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"new"}
    assert 0.05 < len(moved) / 400 < 0.2


def test_a_deployment_that_failed_is_left_alone_and_loses_only_its_share(cache, clock):
    affinity = PrefixAffinity(cache, NAMES, cooldown=10)
    bodies = [talk(f"question {number}") for number in range(80)]
    before = [asked(affinity, body).name for body in bodies]
    dead = before[0]
    with pytest.raises(OSError, match="gone"), affinity.pick(bodies[0]):
        raise OSError("gone")
    for body, place in zip(bodies, before, strict=True):
        pick = affinity.pick(body)
        affinity.left(pick)
        assert (pick.name == place) is (place != dead)
    clock.advance(11)
    assert affinity.pick(bodies[0]).name == dead


def test_when_all_have_failed_somebody_is_asked_all_the_same(cache):
    affinity = PrefixAffinity(cache, NAMES[:2])
    for _ in range(4):
        affinity.pick(talk("hello")).failed()
    assert affinity.pick(talk("hello")).name in NAMES


def test_one_who_has_too_much_passes_new_calls_on(cache):
    affinity = PrefixAffinity(cache, NAMES[:4], load=1.5)
    asked(affinity, talk("hello"))
    picks = [affinity.pick(talk("hello")) for _ in range(40)]
    shares = Counter(pick.name for pick in picks)
    assert max(shares.values()) <= 1.5 * 41 / 4 + 1
    for pick in picks:
        pick.done()
        pick.done()
    assert set(affinity._under_way.values()) == {0}


def test_a_cancelled_call_is_nobodys_failure(cache):
    affinity = PrefixAffinity(cache, NAMES)
    first = asked(affinity, talk("hello"))
    with pytest.raises(asyncio.CancelledError), affinity.pick(talk("hello")):
        raise asyncio.CancelledError
    assert affinity.pick(talk("hello")).name == first.name
    assert sum(affinity._under_way.values()) == 1


def test_threads_leave_nothing_under_way(cache):
    affinity = PrefixAffinity(cache, NAMES)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: asked(affinity, talk(f"q {number % 5}")), range(200)))
    assert set(affinity._under_way.values()) == {0}


# -- no harm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["get_many", "set_many"])
def test_a_failing_store_costs_warmth_and_no_call(clock, operation):
    store = FlakyStore(MemoryStore(clock=clock))
    with Cache(store, clock=clock) as cache:
        affinity = PrefixAffinity(cache, NAMES)
        first = asked(affinity, talk("hello"))
        store.fail_with(RuntimeError, operations=[operation])
        assert asked(affinity, talk("hello")).name == first.name


def test_no_text_and_no_name_is_stored(clock):
    seen = []

    class Spy(MemoryStore):
        def set_many(self, items):
            items = list(items)
            seen.extend(key.encode() + value for key, value, _ in items)
            super().set_many(items)

    with Cache(Spy(clock=clock), clock=clock) as cache:
        asked(PrefixAffinity(cache, ["https://key:secret@host"]), talk("a hidden prompt"))
        assert list(cache.keys()) == []
    assert seen
    assert not any(b"hidden" in one or b"secret" in one for one in seen)


def test_what_json_has_no_form_for_goes_anywhere(cache):
    affinity = PrefixAffinity(cache, NAMES)
    assert asked(affinity, talk(object())).blocks == 0


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": []}, {"candidates": "abc"}, {"candidates": ["a", "a"]}, {"candidates": [""]},
        {"ttl": 0}, {"ttl": "soon"}, {"cooldown": 0}, {"load": 0.5}, {"load": True},
    ],
    ids=str,
)  # fmt: skip
def test_bad_arguments_are_named(cache, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        PrefixAffinity(cache, options.pop("candidates", NAMES), **options)


# -- the parts ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=200, deadline=None)
def test_prefixes_are_equal_exactly_where_the_blocks_are(one, other):
    first, second = chain(one, b"s", b"k"), chain(other, b"s", b"k")
    for length in range(1, min(len(one), len(other)) + 1):
        assert (first[length - 1] == second[length - 1]) is (one[:length] == other[:length])
    assert not set(first) & set(chain(one, b"t", b"k"))
    assert not set(first) & set(chain(one, b"s", b"other"))


@given(st.dictionaries(st.text(max_size=8), st.floats(0, 1e10), max_size=12), st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_sightings_survive_and_rubbish_is_none(seen, rubbish):
    tagged = {tag_of(name): when for name, when in seen.items()}
    found = decode("name", encode("name", tagged))
    assert found.items() <= tagged.items()
    assert len(found) == min(8, len(tagged))
    assert decode("other", encode("name", tagged)) == {}
    assert decode("name", rubbish) == {} or rubbish[:2] == b"ap"


def test_two_texts_in_one_message_are_two_blocks():
    body = {"messages": [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]}
    joined = {"messages": [{"role": "user", "content": [{"text": "ab"}]}]}
    assert len(blocks_of(body).said) == 2
    assert len(blocks_of(joined).said) == 1
