"""The path of one call: what is read, what is stored, and what never is."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from askonce import ConfigurationError, OfflineMiss, Policy, Rule, StoreError, track, using
from askonce import _codec as codec
from askonce.events import AnswerDropped, AnswerStored, CallDone, CorruptEntry, StoreFailed
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore

FACES = pytest.mark.parametrize("face", ["sync", "async"])


def call(kit, face, cache, prompt="hello", **options):
    """One call through either face."""
    if face == "sync":
        return kit.ask(cache, prompt, **options)
    return asyncio.run(asyncio.wait_for(kit.aask(cache, prompt, **options), 10))


def only_key(cache):
    ((key, _),) = cache.entries()
    return key


# -- life -------------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
def test_the_second_identical_call_is_a_hit_through_either_face(kit, k, face, live):
    cache = kit.cache()
    first = kit.ask(cache, live=live)
    second = call(kit, face, cache, live=live)
    assert (first.outcome.status, second.outcome.status) == ("miss", "hit")
    assert first.body == second.body
    assert kit.upstream.calls == 1
    assert second.outcome.tier == "memory"
    assert second.outcome.usage == first.outcome.usage


@pytest.mark.parametrize("later", [0, 50, 99.5])
def test_an_answer_is_fresh_until_its_life_ends(kit, later):
    cache = kit.cache(ttl=100)
    kit.ask(cache)
    kit.clock.advance(later)
    hit = kit.ask(cache).outcome
    assert (hit.status, hit.reason) == ("hit", "fresh")
    assert hit.age == pytest.approx(later)
    assert hit.ttl == pytest.approx(100 - later)


@pytest.mark.parametrize("later", [100, 100.5, 1e6])
def test_an_answer_is_gone_at_the_very_end_of_its_life(kit, later):
    cache = kit.cache(ttl=100)
    kit.ask(cache)
    kit.clock.advance(later)
    assert kit.ask(cache).outcome.status == "miss"
    assert kit.upstream.calls == 2


def test_a_hit_never_extends_a_life(kit):
    cache = kit.cache(ttl=100)
    kit.ask(cache)
    for _ in range(9):
        kit.clock.advance(11)
        assert kit.ask(cache).outcome.status == "hit"
    kit.clock.advance(1)
    assert kit.ask(cache).outcome.status == "miss"


def test_a_backfill_never_extends_a_life(kit):
    front, back = MemoryStore(clock=kit.clock), MemoryStore(clock=kit.clock)
    cache = kit.cache([front, back], ttl=100)
    kit.ask(cache)
    kit.clock.advance(60)
    front.delete(only_key(cache))
    assert kit.ask(cache).outcome.status == "hit"
    assert front.get(only_key(cache)).expires_at == back.get(only_key(cache)).expires_at
    kit.clock.advance(40)
    assert kit.ask(cache).outcome.status == "miss"


def test_no_ttl_is_for_ever(kit):
    cache = kit.cache(ttl=None)
    kit.ask(cache)
    kit.clock.advance(1e9)
    hit = kit.ask(cache).outcome
    assert (hit.status, hit.ttl) == ("hit", None)


def test_jitter_only_shortens(kit):
    cache = kit.cache(ttl=100, jitter=0.5)
    for number in range(60):
        kit.ask(cache, f"p{number}")
    lives = [entry.meta.expires_at - entry.meta.created_at for _, entry in cache.entries()]
    assert 50 <= min(lives) < max(lives) <= 100


def test_a_clock_that_goes_back_makes_nothing_older_nor_younger_than_new(kit):
    cache = kit.cache(ttl=100)
    kit.ask(cache)
    kit.clock.advance(-50)
    hit = kit.ask(cache).outcome
    assert hit.status == "hit"
    assert hit.age == 0


def test_ttl_zero_passes_by(kit):
    cache = kit.cache(ttl=0)
    assert kit.ask(cache).outcome.status == "bypass" or kit.upstream.calls == 0
    cache = kit.cache()
    with using(ttl=0):
        assert cache.ask(ask_of(kit)).outcome.reason == "ttl 0"
    assert list(cache.entries()) == []


def ask_of(kit, prompt="hello", **options):
    from importlib import import_module  # the kit's own class, whatever pytest called its module

    return getattr(import_module(type(kit).__module__), "Ask")(kit.upstream, prompt, **options)  # noqa: B009


def test_using_ttl_wins_over_rule_and_policy(kit):
    cache = kit.cache(policy=Policy(ttl=100, jitter=0, rules=(Rule(model="m", ttl=10),)))
    kit.ask(cache, "rule")
    with using(ttl=5):
        kit.ask(cache, "call")
    with using(ttl=None):
        kit.ask(cache, "ever")
    lives = sorted(
        str(entry.meta.expires_at and entry.meta.expires_at - entry.meta.created_at)
        for _, entry in cache.entries()
    )
    assert lives == ["10.0", "5.0", "None"]


@pytest.mark.parametrize(("age", "status"), [(9, "hit"), (10, "hit"), (10.5, "miss")])
def test_max_age_bounds_the_age_of_what_is_given(kit, age, status):
    cache = kit.cache()
    kit.ask(cache)
    kit.clock.advance(age)
    with using(max_age=10):
        assert kit.ask(cache).outcome.status == status
    with using(max_age=0):
        assert kit.ask(cache).outcome.status == ("hit" if status == "miss" else "miss")


@pytest.mark.parametrize("bad", ["max-age=x", "max-age", "stale-if-error=-1"])
def test_a_bad_cache_control_is_an_error_of_the_caller(kit, bad):
    cache = kit.cache()
    with pytest.raises(ConfigurationError, match="allowed"):
        kit.ask(cache, headers=((b"cache-control", bad.encode()),))
    assert kit.upstream.calls == 0


# -- modes ------------------------------------------------------------------------------------------


@FACES
def test_refresh_asks_and_stores(kit, k, face):
    cache = kit.cache()
    kit.ask(cache)
    with using(refresh=True):
        again = call(kit, face, cache)
    assert again.body == k.chat(2)
    assert again.outcome.reason == "refresh"
    assert kit.ask(cache).body == k.chat(2)


def test_a_failed_refresh_keeps_the_old_answer(kit, k):
    cache = kit.cache(mode="refresh")
    kit.ask(cache)
    kit.upstream.script.append(k.Answer(status=500, body=b"{}"))
    assert kit.ask(cache).body == b"{}"
    with using(mode="on"):
        assert kit.ask(cache).body == k.chat(1)


def test_read_only_reads_and_never_writes(kit, k):
    cache = kit.cache()
    kit.ask(cache)
    with using(mode="read_only"):
        assert kit.ask(cache).outcome.status == "hit"
        assert kit.ask(cache, "other").outcome.status == "miss"
        assert kit.ask(cache, "other").outcome.status == "miss"
    assert len(list(cache.entries())) == 1


@FACES
def test_offline_never_asks_and_says_what_differs(kit, face):
    cache = kit.cache()
    kit.ask(cache, "hello", temperature=0.5)
    with using(mode="offline"):
        assert call(kit, face, cache, "hello", temperature=0.5).outcome.status == "hit"
        with pytest.raises(OfflineMiss) as caught:
            call(kit, face, cache, "hello", temperature=0.7)
    assert kit.upstream.calls == 1
    assert any("temperature" in difference for difference in caught.value.differences)
    assert caught.value.key
    assert "hello" not in str(caught.value)
    assert cache.stats().errors == 1


def test_offline_without_anything_stored_and_with_a_store_that_cannot_list(kit):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store, mode="offline")
    with pytest.raises(OfflineMiss):
        kit.ask(cache)
    store.fail_with(OSError("no"))
    with pytest.raises(OfflineMiss):
        kit.ask(cache)


def test_off_does_nothing_at_all(kit):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store, mode="off")
    reply = cache.ask(ask_of(kit))
    assert (reply.outcome.status, reply.outcome.reason) == ("bypass", "mode off")
    assert reply.entry is reply.reader is reply.native is None
    assert not store.calls
    assert kit.upstream.calls == 0


def test_store_false_stores_nothing_and_goes_on_reading(kit, k):
    cache = kit.cache()
    with using(store=False):
        assert kit.ask(cache).outcome.not_stored == "not asked to"
        assert kit.ask(cache).outcome.status == "miss"
    kit.ask(cache)
    with using(store=False):
        assert kit.ask(cache).outcome.status == "hit"


def test_cache_control_of_the_call_means_the_same(kit):
    cache = kit.cache()
    control = lambda text: ((b"cache-control", text),)  # noqa: E731
    kit.ask(cache, headers=control(b"no-store"))
    assert list(cache.entries()) == []
    kit.ask(cache)
    assert kit.ask(cache, headers=control(b"no-cache")).outcome.reason == "refresh"
    with pytest.raises(OfflineMiss):
        kit.ask(cache, "other", headers=control(b"only-if-cached"))
    assert kit.ask(cache, headers=control(b"unknown, only-if-cached")).outcome.status == "hit"


# -- who shares what --------------------------------------------------------------------------------


def test_namespaces_do_not_see_each_other(kit):
    store = MemoryStore(clock=kit.clock)
    one, two = kit.cache(store, namespace="one"), kit.cache(store, namespace="two")
    kit.ask(one)
    assert kit.ask(two).outcome.status == "miss"
    with using(namespace="one"):
        assert kit.ask(two).outcome.status == "hit"
    assert len(list(one.entries())) == len(list(two.entries())) == 1


def test_clear_stays_in_its_namespace(kit):
    store = MemoryStore(clock=kit.clock)
    one, longer = kit.cache(store, namespace="a"), kit.cache(store, namespace="ab")
    for number in range(5):
        kit.ask(one, f"p{number}")
        kit.ask(longer, f"p{number}")
    assert one.clear() == 5
    assert list(one.entries()) == []
    assert len(list(longer.entries())) == 5
    assert asyncio.run(longer.aclear()) == 5


@pytest.mark.parametrize("bad", ["a:b", "", "a\nb", "a\x00", 5, None])
def test_a_namespace_that_could_reach_into_another_is_refused(kit, bad):
    with pytest.raises(ConfigurationError):
        kit.cache(namespace=bad)


def test_scope_credential_keeps_api_keys_apart(kit):
    cache = kit.cache(scope="credential")
    mine = ((b"authorization", b"Bearer one"),)
    assert kit.ask(cache, headers=mine).outcome.status == "miss"
    assert kit.ask(cache, headers=mine).outcome.status == "hit"
    assert kit.ask(cache, headers=((b"Authorization", b"Bearer two"),)).outcome.status == "miss"
    assert kit.ask(cache).outcome.status == "miss"
    assert all("one" not in key.partition(":")[2] for key, _ in cache.entries())


def test_scope_callable_names_the_group(kit):
    cache = kit.cache(scope=lambda request: request.header(b"x-tenant"))
    assert kit.ask(cache, headers=((b"x-tenant", b"a"),)).outcome.status == "miss"
    assert kit.ask(cache, headers=((b"x-tenant", b"a"),)).outcome.status == "hit"
    assert kit.ask(cache, headers=((b"x-tenant", b"b"),)).outcome.status == "miss"
    with pytest.raises(ConfigurationError):
        kit.ask(kit.cache(scope=lambda _: 5))


def test_scopes_of_different_kinds_never_meet(kit):
    store = MemoryStore(clock=kit.clock)
    kit.ask(kit.cache(store))
    for name in ("", "shared", "credential"):
        assert kit.ask(kit.cache(store, scope=lambda _, name=name: name)).outcome.status == "miss"
    with using(scope="tenant"):
        assert kit.ask(kit.cache(store)).outcome.status == "miss"
        assert kit.ask(kit.cache(store, scope="credential")).outcome.status == "miss"
        assert kit.ask(kit.cache(store)).outcome.status == "hit"


def test_samples_are_independent_answers(kit):
    cache = kit.cache()
    bodies = []
    for number in (0, 1, 2):
        with using(sample=number):
            bodies.append(kit.ask(cache).body)
            assert kit.ask(cache).outcome.status == "hit"
    assert len(set(bodies)) == 3
    assert kit.ask(cache).body == bodies[0]


def test_a_followers_samples_do_not_share_a_flight(kit, k):
    cache = kit.cache()
    kit.upstream.hold()

    def sample(number):
        with using(sample=number):
            return kit.ask(cache).body

    running = [k.Running(sample, number) for number in (0, 1)]
    kit.upstream.seen(2)
    kit.upstream.release()
    assert len({one.result() for one in running}) == 2


@FACES
def test_tags_are_labels_to_invalidate_by(kit, face):
    cache = kit.cache()
    with using(tags="a"), using(tags=["b"]):
        kit.ask(cache, "both")
    with using(tags=["b"]):
        kit.ask(cache, "b")
    kit.ask(cache, "none")
    assert sorted(entry.meta.tags for _, entry in cache.entries()) == [(), ("a", "b"), ("b",)]
    if face == "sync":
        assert cache.invalidate(tag="a") == 1
        assert cache.invalidate(tag="b") == 1
        assert cache.invalidate(tag="c") == 0
    else:
        assert asyncio.run(cache.ainvalidate(tag="b")) == 2
    assert kit.ask(cache, "none").outcome.status == "hit"
    assert kit.ask(cache, "both").outcome.status == "miss"


def test_a_tag_that_no_store_can_hold_never_costs_the_caller_the_answer(kit, k):
    cache = kit.cache()
    try:
        said = using(tags=["\ud800"])
    except ConfigurationError:
        return
    with said:
        assert kit.ask(cache).body == k.chat(1)


def test_invalidate_by_model_url_and_age(kit):
    cache = kit.cache()
    kit.ask(cache, "old")
    kit.clock.advance(20)
    kit.ask(cache, "new")
    assert cache.invalidate(older_than=30) == 0
    assert cache.invalidate(older_than=10) == 1
    assert cache.invalidate(model="n*") == 0
    assert cache.invalidate(url="*/embeddings") == 0
    assert cache.invalidate(model="m*", url="*/chat/completions") == 1
    with pytest.raises(ConfigurationError):
        cache.invalidate()


def test_delete_removes_one(kit):
    cache = kit.cache()
    kit.ask(cache)
    kit.ask(cache, "other")
    key = kit.ask(cache).outcome.key
    assert cache.delete(key)
    assert not cache.delete(key)
    assert kit.ask(cache, "other").outcome.status == "hit"
    assert kit.ask(cache).outcome.status == "miss"
    assert asyncio.run(cache.adelete(key))


def test_explain_names_the_difference(kit, k):
    cache = kit.cache()
    kit.ask(cache, "hello", temperature=0.5)
    assert cache.explain(k.request("hello", temperature=0.5)).verdict == "hit"
    missed = cache.explain(k.request("hello", temperature=1))
    assert missed.verdict == "miss"
    assert missed.nearest == only_key(cache)
    assert any("temperature" in one for one in missed.differences)
    kit.clock.advance(100)
    assert cache.explain(k.request("hello", temperature=0.5)).verdict in {"expired", "miss"}
    assert cache.explain(k.request("x", background=True)).verdict == "bypass"
    assert "hello" not in str(missed)


SECRET = "a secret of some length"

# -- secret -----------------------------------------------------------------------------------------


class Spy(MemoryStore):
    """Remembers every value it was given."""

    def __init__(self, clock):
        super().__init__(clock=clock)
        self.values = []

    def set(self, key, value, expires_at):
        self.values.append((key, value))
        super().set(key, value, expires_at)


def test_with_a_secret_nothing_of_the_answer_is_in_the_store(kit, k):
    store = Spy(kit.clock)
    cache = kit.cache(store, secret=SECRET)
    kit.upstream.script.append(k.Answer(body=k.chat(1, content="needle")))
    with using(tags=["label"]):
        kit.ask(cache)
    assert kit.ask(cache).outcome.status == "hit"
    ((_, value),) = store.values
    for word in (b"needle", b"prompt_tokens", b"api.test", b"label", b"application/json"):
        assert word not in value


def test_another_secret_or_none_is_a_miss(kit):
    store = MemoryStore(clock=kit.clock)
    kit.ask(kit.cache(store, secret=SECRET))
    for secret in (SECRET[::-1], None):
        assert kit.ask(kit.cache(store, secret=secret)).outcome.status == "miss"
    assert kit.ask(kit.cache(store, secret=SECRET.encode())).outcome.status == "hit"


@pytest.mark.parametrize("written_with", [None, "another secret of ours"])
def test_an_entry_planted_under_a_sealed_key_is_a_miss(kit, k, written_with):
    store = MemoryStore(clock=kit.clock)
    sealed = kit.cache(store, secret=SECRET)
    kit.ask(sealed)
    key = only_key(sealed)
    (entry,) = [entry for _, entry in sealed.entries()]
    from askonce._seal import Seal

    forged = codec.encode(key, replace(entry, body=b"forged"), written_with and Seal(written_with.encode()))
    store.set(key, forged, None)
    again = kit.ask(sealed)
    assert again.body == k.chat(2)
    assert sealed.stats().corrupt == 1


# -- damaged entries --------------------------------------------------------------------------------


def damages():
    flips = {f"bit {place}": (lambda value, place=place: flip(value, place)) for place in range(0, 96, 5)}
    return {
        "empty": lambda value: b"",
        "short": lambda value: value[:5],
        "truncated": lambda value: value[:-1],
        "longer": lambda value: value + b"x",
        "foreign": lambda value: b"\x80\x04pickle",
        "text": lambda value: b"{}" * 100,
        **flips,
    }


def flip(value, place):
    place = place * len(value) // 100
    return value[:place] + bytes([value[place] ^ 4]) + value[place + 1 :]


@FACES
@pytest.mark.parametrize("damage", damages().values(), ids=damages().keys())
def test_a_damaged_entry_is_a_miss_counted_and_deleted(kit, k, face, damage):
    store = MemoryStore(clock=kit.clock)
    cache = kit.cache(store)
    seen = []
    cache.subscribe(seen.append)
    kit.ask(cache)
    key = only_key(cache)
    good = store.get(key)
    store.set(key, damage(good.value), good.expires_at)
    with using(mode="read_only"):
        again = call(kit, face, cache)
    assert again.body == k.chat(2)
    assert again.outcome.status == "miss"
    assert cache.stats().corrupt == 1
    assert store.get(key) is None
    assert [event.key for event in seen if isinstance(event, CorruptEntry)] == [key]


def test_an_entry_moved_to_another_key_is_a_miss(kit, k):
    store = MemoryStore(clock=kit.clock)
    cache = kit.cache(store)
    mine = kit.ask(cache, "mine").outcome.key
    other = kit.ask(cache, "other").outcome.key
    store.set(other, store.get(mine).value, None)
    assert kit.ask(cache, "other").body == k.chat(3)
    assert cache.stats().corrupt == 1


@pytest.mark.parametrize(
    "meta",
    [
        {"created_at": "yesterday"},
        {"expires_at": "tomorrow"},
        {"created_at": None},
        {"usage": [1, 2]},
        {"usage": {"total_tokens": "many"}},
        {"latency": None},
        {"tags": None},
        {"expires_at": [1]},
        {"latency": "long"},
    ],
    ids=str,
)
def test_an_entry_of_the_right_checksum_and_the_wrong_types_is_a_miss(kit, k, meta):
    """Whoever can write to the store can make a checksum."""
    store = MemoryStore(clock=kit.clock)
    cache = kit.cache(store)
    kit.ask(cache)
    ((key, entry),) = cache.entries()
    store.set(key, codec.encode(key, replace(entry, meta=replace(entry.meta, **meta))), None)
    assert kit.ask(cache).body in {k.chat(1), k.chat(2)}
    list(cache.entries())
    cache.invalidate(tag="x", older_than=5)


@pytest.mark.parametrize("parts", [{"status": "200"}, {"headers": [("a", 5)]}, {"status": None}], ids=str)
def test_an_entry_with_a_strange_head_is_a_miss(kit, k, parts):
    store = MemoryStore(clock=kit.clock)
    cache = kit.cache(store)
    kit.ask(cache)
    ((key, entry),) = cache.entries()
    store.set(key, codec.encode(key, replace(entry, **parts)), None)
    assert kit.ask(cache).body == k.chat(2)


# -- answers that are never stored ------------------------------------------------------------------


def never_stored():
    import orjson

    def text(value):
        return orjson.dumps(value)

    said = {"index": 0, "finish_reason": "stop", "message": {"content": "x"}}
    return {
        "status 500": {"status": 500, "body": b"{}"},
        "status 429": {"status": 429, "body": b"{}"},
        "status 400": {"status": 400, "body": b"{}"},
        "status 201": {"status": 201, "body": b"{}"},
        "status 204": {"status": 204, "body": b""},
        "status 301": {"status": 301, "body": b""},
        "error body": {"body": text({"error": {"message": "no"}, "choices": [said]})},
        "no body": {"body": b""},
        "no JSON": {"body": b"<html>"},
        "an array": {"body": b"[]"},
        "null": {"body": b"null"},
        "no choices": {"body": text({"choices": []})},
        "no content": {"body": text({"choices": [{**said, "message": {"content": ""}}]})},
        "one of two empty": {"body": text({"choices": [said, {**said, "message": {}}]})},
        "truncated": {"body": text({"choices": [{**said, "finish_reason": "length"}]})},
        "filtered": {"body": text({"choices": [{**said, "finish_reason": "content_filter"}]})},
        "refused": {"body": text({"choices": [{**said, "message": {"refusal": "no"}}]})},
        "too large": {"body": text({"choices": [said], "pad": "x" * 5000})},
        "cut in an unframed body": {"body": b"plain text", "content_type": "text/plain", "framed": False},
        "error as plain text": {"body": text({"error": {"message": "no"}}), "content_type": "text/plain"},
        "error without a type": {"body": text({"error": {"message": "no"}}), "content_type": ""},
        "error in capitals": {"body": text({"error": {"message": "no"}}), "content_type": "Application/JSON"},
        "truncated in capitals": {
            "body": text({"choices": [{**said, "finish_reason": "length"}]}),
            "content_type": "Application/Json; charset=UTF-8",
        },
        "html error page": {"body": b"<html>Bad gateway", "content_type": "text/html"},
    }


@FACES
@pytest.mark.parametrize("answer", never_stored().values(), ids=never_stored().keys())
def test_an_answer_that_is_no_good_is_passed_on_and_not_stored(kit, k, face, answer):
    cache = kit.cache(max_entry_bytes=4000)
    seen = []
    cache.subscribe(seen.append)
    kit.upstream.script.append(k.Answer(**answer))
    got = call(kit, face, cache)
    assert got.body == answer["body"]
    assert got.outcome.stored is False
    assert got.outcome.not_stored
    assert list(cache.entries()) == []
    assert not [event for event in seen if isinstance(event, AnswerStored)]
    assert kit.ask(cache).outcome.status == "miss"


@FACES
@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_streamed_answer_that_is_no_good_is_not_stored(kit, k, face, finish):
    cache = kit.cache()
    kit.upstream.script.append(k.Answer(chunks=k.events(1, finish=finish)))
    got = call(kit, face, cache, live=True)
    assert got.body == b"".join(k.events(1, finish=finish))
    assert got.outcome.not_stored in {"truncated", "refused"}
    assert list(cache.entries()) == []


def test_a_streamed_answer_is_judged_whatever_the_case_of_its_type(kit, k):
    cache = kit.cache()
    kit.upstream.script.append(
        k.Answer(chunks=k.events(1, finish="length"), content_type="Text/Event-Stream")
    )
    assert kit.ask(cache, live=True).outcome.not_stored == "truncated"


def test_what_the_policy_allows_is_stored(kit, k):
    cache = kit.cache(store_truncated=True, store_refusals=True)
    for prompt, finish in (("a", "length"), ("b", "content_filter")):
        kit.upstream.script.append(k.Answer(body=k.chat(1, finish=finish)))
        assert kit.ask(cache, prompt).outcome.stored is True
        assert kit.ask(cache, prompt).outcome.status == "hit"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["no", "raises"])
def test_the_policys_last_word(kit, k, when, how):
    def cacheable(request, entry):
        if (entry is None) != (when == "before"):
            return True
        if how == "raises":
            raise ZeroDivisionError
        return False

    cache = kit.cache(cacheable=cacheable)
    reply = cache.ask(k.Ask(kit.upstream))
    if when == "before":
        assert (reply.outcome.status, reply.outcome.reason) == ("bypass", "policy")
    else:
        assert (reply.outcome.status, reply.outcome.not_stored) == ("miss", "policy")
        assert reply.native == k.chat(1)
    assert list(cache.entries()) == []


@pytest.mark.parametrize("depth", [900, 1015])
def test_an_answer_of_absurd_depth_reaches_the_caller(kit, k, depth):
    cache = kit.cache()
    body = b'{"choices":[],"usage":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    kit.upstream.script.append(k.Answer(body=body))
    assert kit.ask(cache).body == body
    assert len(cache._flow.flights) == 0


def test_a_provider_error_is_the_callers_unchanged(kit, k):
    cache = kit.cache()
    broken = RuntimeError("theirs")
    kit.upstream.script.append(k.Answer(error=broken))
    with pytest.raises(RuntimeError) as caught, track() as outcomes:
        kit.ask(cache)
    assert caught.value is broken
    assert [(one.status, one.reason) for one in outcomes] == [("error", "RuntimeError")]
    assert cache.stats().errors == 1


# -- stores that fail -------------------------------------------------------------------------------

OPERATIONS = ["get", "set", "delete", "get_many", "set_many", "scan", "ping"]


@FACES
@pytest.mark.parametrize("tier", [0, 1])
@pytest.mark.parametrize("operation", [*OPERATIONS, None])
def test_a_store_that_fails_costs_nobody_an_answer(kit, k, face, tier, operation):
    stores = [FlakyStore(MemoryStore(clock=kit.clock)) for _ in range(2)]
    cache = kit.cache(stores, store_timeout=30)  # a busy machine is no failing store
    seen = []
    cache.subscribe(seen.append)
    stores[tier].fail_with(OSError("no"), operations=None if operation is None else [operation])
    first = call(kit, face, cache)
    assert first.body == k.chat(1)
    second = call(kit, face, cache)
    assert second.body == k.chat(1), "the other tier has it"
    assert second.outcome.status == "hit"
    stores[1 - tier].fail_with(OSError("no"))
    stores[tier].fail_with(OSError("no"))
    assert call(kit, face, cache).body == k.chat(2)
    assert cache.stats().store_errors
    assert {event.error for event in seen if isinstance(event, StoreFailed)} == {"OSError"}


@FACES
def test_a_corrupt_entry_that_cannot_be_deleted_is_a_miss_every_time(kit, k, face):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store)
    kit.ask(cache)
    store.spoil("flipped")
    store.fail_with(OSError("no"), operations=["delete", "set"])
    assert call(kit, face, cache).body == k.chat(2)
    assert call(kit, face, cache).body == k.chat(3)
    store.recover()
    assert call(kit, face, cache).body == k.chat(1)


@pytest.mark.parametrize("error", [StoreError("x"), TypeError("stray"), TimeoutError(), MemoryError()])
def test_whatever_a_store_raises_the_call_goes_on(kit, k, error):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    store.fail_with(error)
    cache = kit.cache(store)
    assert kit.ask(cache).body == k.chat(1)
    assert cache.stats().store_errors == {"memory": 2}


def test_a_delete_that_did_not_reach_every_tier_is_not_silent(kit):
    """An operator who deletes an answer must learn that it is still there."""
    front, back = MemoryStore(clock=kit.clock), FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache([front, back])
    key = kit.ask(cache).outcome.key
    back.fail_with(OSError("no"), operations=["delete"])
    try:
        deleted = cache.delete(key)
    except Exception:
        return
    assert not deleted or kit.ask(cache).outcome.status == "miss"


def test_removed_entries_are_counted_once_each_whatever_tier_they_are_in(kit):
    front, back = MemoryStore(clock=kit.clock), MemoryStore(clock=kit.clock)
    cache = kit.cache([front, back])
    one, two = kit.ask(cache, "one").outcome.key, kit.ask(cache, "two").outcome.key
    front.delete(one)  # evicted
    back.delete(two)  # evicted
    assert cache.clear() == 2


def test_looking_through_the_entries_does_not_fill_the_front_tier(kit):
    front, back = MemoryStore(clock=kit.clock), MemoryStore(clock=kit.clock)
    cache = kit.cache([front, back])
    keys = [kit.ask(cache, f"p{number}").outcome.key for number in range(20)]
    front.delete(*keys)
    assert len(list(cache.entries())) == 20
    assert cache.invalidate(tag="none") == 0
    assert [key for key in keys if front.get(key)] == []


# -- what is told -----------------------------------------------------------------------------------


def test_events_say_what_happened(kit, k):
    cache = kit.cache()
    seen = []
    leave = cache.subscribe(seen.append)
    cache.subscribe(lambda event: 1 / 0)
    kit.ask(cache)
    kit.ask(cache)
    kit.upstream.script.append(k.Answer(body=b'{"error": {}, "choices": []}'))
    kit.ask(cache, "other")
    assert [type(event) for event in seen] == [CallDone, AnswerStored, CallDone, CallDone, AnswerDropped]
    assert [event.outcome.status for event in seen if isinstance(event, CallDone)] == ["miss", "hit", "miss"]
    leave()
    kit.ask(cache)
    assert len(seen) == 5
    assert "hello" not in repr(seen)


def test_stats_add_up(kit, k):
    cache = kit.cache()
    kit.ask(cache)
    kit.ask(cache)
    kit.upstream.script.append(k.Answer(status=500, body=b"{}"))
    kit.ask(cache, "bad")
    kit.upstream.script.append(k.Answer(body=k.chat(3, finish="length")))
    kit.ask(cache, "long")
    kit.ask(cache, "bypass", background=True)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.errors, stats.bypasses, stats.stored) == (1, 2, 1, 1, 1)
    assert stats.calls == 5
    assert stats.hit_rate == pytest.approx(1 / 3)
    assert stats.dropped == {"truncated": 1}
    assert stats.bypassed == {"background": 1}
    assert stats.tiers == {"memory": 1}
    assert stats.tokens_saved == 7
    assert stats.usage_spent["prompt_tokens"] == 6
    assert stats.seconds_saved > 0


def test_track_counts_only_its_own_calls(kit, k):
    cache = kit.cache()
    with track() as mine:
        thread = k.Running(kit.ask, cache)
        thread.result()
        asyncio.run(kit.aask(cache))
        kit.ask(cache)
    kit.ask(cache)
    assert [one.status for one in mine] == ["miss", "hit", "hit"]


def test_what_a_caller_does_to_an_outcome_changes_no_later_one(kit):
    cache = kit.cache()
    for _ in range(3):
        outcome = kit.ask(cache).outcome
        assert outcome.usage["total_tokens"] == 7
        outcome.usage.clear()
    assert cache.stats().usage_saved["total_tokens"] == 14
    assert [entry.meta.usage["total_tokens"] for _, entry in cache.entries()] == [7]


def test_what_a_follower_does_to_its_outcome_does_not_reach_the_others(kit):
    cache = kit.cache()
    kit.upstream.hold()
    with kit.crowd(cache, "threads", 5) as results:
        kit.until_waiting(cache, 4)
        kit.upstream.release()
        found = results()
    for one in found:
        assert one.outcome.usage["total_tokens"] == 7
        one.outcome.usage.clear()


def test_using_travels_into_tasks_and_to_thread(kit):
    cache = kit.cache()

    async def main():
        with using(tags=["t"]):
            await asyncio.gather(kit.aask(cache, "task"), asyncio.to_thread(kit.ask, cache, "thread"))

    asyncio.run(main())
    assert cache.invalidate(tag="t") == 2


def test_a_bypass_is_the_doors_business(kit, k):
    cache = kit.cache()
    reply = cache.ask(k.Ask(kit.upstream, background=True))
    assert reply.entry is reply.native is reply.reader is None
    assert kit.upstream.calls == 0


def test_many_threads_and_keys_at_once_stay_apart(kit, k):
    """Nobody ever gets the answer to another question."""
    cache = kit.cache(max_entry_bytes=4000)
    wrong = []
    kit.upstream.always = None

    def answer_of(prompt):
        return k.Answer(body=k.chat(0, content=prompt))

    def work(seed):
        for number in range(40):
            prompt = f"p{(number * 7 + seed) % 13}"
            ask = k.Ask(kit.upstream, prompt)
            ask._enter = lambda prompt=prompt: (1, answer_of(prompt))
            body = k.consume(cache.ask(ask))
            if body != k.chat(0, content=prompt):
                wrong.append((prompt, body))
            if number % 10 == seed % 10:
                cache.clear()

    running = [k.Running(work, seed) for seed in range(8)]
    for one in running:
        one.result()
    assert wrong == []
    assert threading.active_count() < 100
