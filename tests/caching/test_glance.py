"""The shortest way to an answer gives what the whole way gives, and leaves behind the same."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace

import pytest

from askonce import Cache, Policy, track, using
from askonce._glance import Glance
from askonce.events import CallDone
from askonce.stores import DiskStore, MemoryStore
from askonce.testing import ManualClock

HEADERS = [(b"content-type", b"application/json")]


def plain(outcome):
    """What is not measured."""
    return replace(outcome, seconds=0.0, saved=0.0)


def begin(cache, request):
    return cache.begin(request)


def abegin(cache, request):
    return asyncio.run(cache.abegin(request))


def recall(cache, request):
    return cache.recall(request, lambda _: True)


def arecall(cache, request):
    return asyncio.run(cache.arecall(request, lambda _: True))


@pytest.fixture(params=[begin, abegin, recall, arecall], ids=lambda ask: ask.__name__)
def ask(request):
    """A door's way to ask for what may be known: the body and outcome, None where it is not known."""

    def known(cache, asked):
        found = request.param(cache, asked)
        if found is None or found.entry is None:
            return None
        return found.entry.body, plain(found.outcome)

    return known


def fill(cache, request, body):
    cache.finish(cache.begin(request, looks=False), HEADERS, body)


@pytest.fixture
def glances(monkeypatch):
    """Whether the short way had an answer, each time it was tried."""
    tried = []
    hit = Glance.hit

    def counted(self, *args):
        reply = hit(self, *args)
        tried.append(reply is not None)
        return reply

    monkeypatch.setattr(Glance, "hit", counted)
    return tried


@pytest.mark.parametrize(
    "said",
    [{}, {"max_age": 5.0}, {"refresh": True}, {"namespace": "other"}, {"mode": "off"}, {"tags": ["a"]}],
    ids=lambda said: next(iter(said), "nothing said"),
)
def test_a_known_request_is_answered_and_counted_as_by_the_whole_way(ask, k, glances, said):
    request = k.request("known", n=1)
    policy = Policy(ttl=60, jitter=0, stale_while_revalidate=1000)

    def story(*, short):
        clock = ManualClock()
        with Cache(MemoryStore(clock=clock), policy=policy, clock=clock) as cache:
            if not short:
                cache._flow.glance._front = None
            seen = []
            cache.subscribe(seen.append)
            fill(cache, request, k.chat())
            found = []
            with track() as tracked:
                for seconds in (0, 2, 4, 60):
                    clock.advance(seconds)
                    found.append(ask(cache, request))
                    with using(**said) if said else nullcontext():
                        found.append(ask(cache, request))
            told = [plain(event.outcome) for event in seen if isinstance(event, CallDone)]
            assert told[1:] == [plain(outcome) for outcome in tracked]
            return found, told, replace(cache.stats(), seconds_saved=0.0)

    assert story(short=True) == story(short=False)
    assert glances.count(True) == (2 if said else 5), "not for the first, what is said, or stale"


def test_what_was_deleted_overwritten_or_is_known_no_more_is_not_given(ask, k, glances):
    request = k.request("known")
    with Cache("memory://") as cache:
        fill(cache, request, k.chat(1))
        assert ask(cache, request)[0] == k.chat(1)
        fill(cache, request, k.chat(2))
        assert ask(cache, request)[0] == k.chat(2)
        assert glances.count(True) == 1 + (glances[0] is True), (
            "the first may have been noted when it was stored"
        )
        cache.clear()
        assert ask(cache, request) is None
        fill(cache, request, k.chat(3))
        cache.invalidate(model="m")
        assert ask(cache, request) is None


def test_a_request_that_one_cache_knows_is_nothing_to_another(ask, k, glances):
    request = k.request("known")
    with Cache("memory://", namespace="a") as cache, Cache("memory://", namespace="b") as other:
        fill(cache, request, k.chat(1))
        assert ask(cache, request)[0] == k.chat(1)
        assert ask(other, request) is None
        fill(other, request, k.chat(2))
        for _ in range(2):
            assert ask(cache, request)[0] == k.chat(1)
            assert ask(other, request)[0] == k.chat(2)
    assert not glances[2]


class Spoilt(MemoryStore):
    """Gives what its `spoil` makes of a value."""

    spoil = None

    def get(self, key):
        stored = super().get(key)
        return stored if self.spoil is None or stored is None else self.spoil(stored)


def test_a_spoilt_answer_is_a_miss_counted_once(ask, k):
    request = k.request("known")
    store = Spoilt()
    with Cache(store) as cache:
        fill(cache, request, k.chat())
        assert ask(cache, request) is not None
        store.spoil = lambda stored: stored._replace(value=stored.value[:-3])
        assert ask(cache, request) is None
        assert cache.stats().corrupt == 1


def test_a_front_store_that_fails_costs_an_answer_and_is_told_once(ask, k):
    request = k.request("known")
    store = Spoilt()

    def fails(_):
        raise OSError("broken")

    with Cache(store) as cache:
        fill(cache, request, k.chat())
        assert ask(cache, request) is not None
        store.spoil = fails
        assert ask(cache, request) is None
        assert cache.stats().store_errors == {"memory": 1}


def test_a_store_that_may_block_is_never_asked_the_short_way(ask, k, glances, tmp_path):
    request = k.request("known")
    with Cache(DiskStore(tmp_path)) as cache:
        fill(cache, request, k.chat())
        for _ in range(3):
            assert ask(cache, request)[0] == k.chat()
    assert not any(glances)
