"""The guard of one operation: what is left of a call, and what the breaker hears."""

from __future__ import annotations

import pytest

from askonce._bridge import async_port, step, sync_port
from askonce._stats import Counters
from askonce.stores import Refused, time_left
from askonce.stores._bounded import Bounded, Budget, Watch
from askonce.stores._breaker import Breaker
from askonce.stores.protocol import Stored

BUDGET = 0.2
SLACK = 0.05
"""Seconds that the rest of a call may take, on a busy machine."""


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Scripted:
    """A store whose operations take as long as told, on a clock that is told, and end as told."""

    name, blocking, remote = "scripted", False, True

    def __init__(self, clock):
        self.clock = clock
        self.takes = 0.0
        self.raises = None
        self.calls = 0
        self.lefts = []

    def _enter(self):
        self.calls += 1
        self.lefts.append(time_left())
        self.clock.now += self.takes
        if self.raises is not None:
            raise self.raises

    def get(self, key):
        self._enter()
        return Stored(b"v", None, self.name)

    def set(self, key, value, expires_at):
        self._enter()

    def delete(self, *keys):
        self._enter()
        return len(keys)

    def get_many(self, keys):
        self._enter()
        return {key: Stored(b"v", None, self.name) for key in keys}

    def set_many(self, items):
        self._enter()

    def scan(self, prefix):
        self._enter()
        return iter([prefix])


class Bench:
    """One scripted store behind its breaker, for many calls."""

    def __init__(self):
        self.clock = Time()
        self.store = Scripted(self.clock)
        self.troubles = []
        self.counters = Counters()
        self.breaker = Breaker(lambda _: None, lease=2.0, clock=self.clock, chance=lambda: 0.0)
        self.watch = self.watched("scripted", self.breaker)

    def watched(self, name, breaker):
        return Watch(
            name=name,
            timeout=1.0,
            breaker=breaker,
            trouble=lambda *told: self.troubles.append(told),
            skipped=self.counters.store_skip,
            clock=self.clock,
        )

    def call(self, budget=None, awaits=False):
        budget = Budget(1.0) if budget is None else budget
        port = async_port(self.store) if awaits else sync_port(self.store)
        return Bounded(port, self.watch, awaits, budget)

    def fails(self, times, error=OSError):
        self.store.raises = error
        for _ in range(times):
            step(self.call().get("k"))
        self.store.raises = None

    @property
    def skips(self):
        return self.counters.snapshot().store_skips


@pytest.fixture
def bench():
    return Bench()


# -- one operation ----------------------------------------------------------------------------------


def test_what_works_is_passed_on_whole(bench):
    call = bench.call()
    assert step(call.get("k")).value == b"v"
    assert step(call.set("k", b"v", None)) is True
    assert step(call.delete("a", "b")) == 2
    assert set(step(call.get_many(["a", "b"]))) == {"a", "b"}
    assert step(call.set_many([])) is True
    assert step(call.scan("p")) == ["p"]
    assert (bench.troubles, bench.skips) == ([], {})


def test_every_failure_is_nothing_there_and_told_with_its_operation(bench):
    bench.store.raises = ValueError("no")
    call = bench.call()
    assert step(call.get("k")) is None
    assert step(call.set("k", b"v", None)) is False
    assert step(call.delete("a", "b")) == 0
    assert step(call.get_many(["a", "b"])) == {}
    bench.breaker.succeeded(bench.breaker.admit())
    assert step(call.set_many([])) is False
    assert step(call.scan("p")) == []
    told = [(store, operation, type(error)) for store, operation, error in bench.troubles]
    operations = ["get", "set", "delete", "get_many", "set_many", "scan"]
    assert told == [("scripted", operation, ValueError) for operation in operations]


def test_a_store_is_told_what_is_left_and_nothing_when_it_is_over(bench):
    call = bench.call()
    bench.store.takes = 0.25
    for _ in range(3):
        step(call.get("k"))
    assert bench.store.lefts == pytest.approx([1.0, 0.75, 0.5], abs=0.01)
    assert time_left() is None
    bench.fails(1)
    assert time_left() is None


def test_when_nothing_is_left_an_operation_is_not_begun_and_counted(bench):
    call = bench.call()
    bench.store.takes = 1.0
    step(call.get("k"))
    assert step(call.set("k", b"v", None)) is False
    assert step(call.get_many(["k"])) == {}
    assert bench.store.calls == 1
    assert bench.skips == {"scripted": 2}
    assert bench.troubles == []


def test_one_budget_is_for_all_stores_of_a_call(bench):
    other = Bench()
    other.clock = other.watch.clock = other.store.clock = bench.clock
    budget = Budget(1.0)
    here, there = bench.call(budget), other.call(budget)
    bench.store.takes, other.store.takes = 0.7, 0.2
    step(here.get("k"))
    step(there.get("k"))
    step(here.set("k", b"v", None))
    step(there.set("k", b"v", None))
    assert other.store.lefts == pytest.approx([0.3], abs=0.01)
    assert bench.store.calls == 2
    assert other.skips == {"scripted": 1}


# -- what the breaker hears --------------------------------------------------------------------------


def test_after_five_failures_the_store_is_not_asked_any_more_until_a_probe_works(bench):
    bench.fails(9)
    assert (bench.store.calls, bench.skips) == (5, {"scripted": 4})
    bench.clock.now += 1
    assert step(bench.call().get("k")).value == b"v"
    assert bench.breaker.state == "closed"
    assert step(bench.call().get("k")).value == b"v"


def test_answers_that_come_too_late_count_as_failures(bench):
    bench.store.takes = 0.81
    for _ in range(5):
        assert step(bench.call().get("k")) is not None
    assert bench.breaker.state == "open"


def test_answers_that_take_long_but_not_too_long_do_not(bench):
    bench.store.takes = 0.79
    for _ in range(20):
        step(bench.call().get("k"))
    assert bench.breaker.state == "closed"


def test_a_slow_probe_is_a_failed_probe(bench):
    bench.fails(5)
    bench.clock.now += 1
    bench.store.takes = 0.9
    step(bench.call().get("k"))
    assert bench.breaker.state == "open"


def test_a_refusal_is_counted_and_a_sign_of_life(bench):
    for _ in range(3):
        bench.fails(4)
        bench.fails(1, Refused("full"))
    assert bench.breaker.state == "closed"
    assert [type(error) for *_, error in bench.troubles].count(Refused) == 3


def test_a_refused_probe_closes_the_breaker(bench):
    bench.fails(5)
    bench.clock.now += 1
    bench.fails(1, Refused("read-only"))
    assert bench.breaker.state == "closed"


def test_a_store_is_not_blamed_for_the_time_that_others_took(bench):
    bench.store.takes, bench.store.raises = 0.1, TimeoutError
    for _ in range(10):
        step(bench.call(Budget(0.1)).get("k"))
    assert bench.breaker.state == "closed"
    assert len(bench.troubles) == 10


def test_a_store_that_fails_at_once_is_to_blame_however_little_time_was_left(bench):
    bench.store.raises = ConnectionRefusedError
    for _ in range(5):
        step(bench.call(Budget(0.1)).get("k"))
    assert bench.breaker.state == "open"


def test_a_store_that_had_the_time_itself_is_to_blame_for_the_rest(bench):
    call = bench.call()
    bench.store.takes = 0.7
    step(call.get("k"))
    for _ in range(4):
        bench.breaker.failed(bench.breaker.admit())
    bench.store.takes, bench.store.raises = 0.3, TimeoutError
    step(call.set("k", b"v", None))
    assert bench.breaker.state == "open"


def test_listing_a_large_store_in_vain_does_not_make_it_a_dead_one(bench):
    """An offline miss is explained by a scan, as far as time allows."""
    bench.store.takes, bench.store.raises = 1.0, TimeoutError
    for _ in range(20):
        assert step(bench.call().scan("p")) == []
    assert bench.breaker.state == "closed"
    bench.store.takes, bench.store.raises = 0.0, ConnectionError
    for _ in range(5):
        step(bench.call().scan("p"))
    assert bench.breaker.state == "open"


def test_an_interrupt_passes_and_says_nothing_about_the_store(bench):
    bench.fails(4)
    bench.store.raises = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        step(bench.call().get("k"))
    assert bench.breaker.state == "closed"
    bench.fails(1)
    bench.clock.now += 1
    bench.store.raises = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        step(bench.call().get("k"))
    bench.store.raises = None
    assert step(bench.call().get("k")) is not None
    assert bench.breaker.state == "closed"
