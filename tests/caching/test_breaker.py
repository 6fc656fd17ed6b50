"""The breaker: opens after five failures, lets one probe through, believes only what is about now."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from askonce.stores._breaker import Breaker

LEASE = 2.0


class Time:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def told():
    return []


@pytest.fixture
def breaker(clock, told):
    return Breaker(told.append, lease=LEASE, clock=clock, chance=lambda: 0.0)


def fail(breaker, times=1):
    for _ in range(times):
        breaker.failed(breaker.admit())


def opened(breaker):
    fail(breaker, 5)
    assert breaker.state == "open"


def test_it_is_closed_at_first_and_lets_everybody_in(breaker, told):
    tickets = [breaker.admit() for _ in range(50)]
    assert None not in tickets
    assert (breaker.state, told) == ("closed", [])


def test_five_failures_in_a_row_open_it(breaker, told):
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert told == ["open"]


def test_a_success_in_between_starts_the_count_again(breaker):
    for _ in range(3):
        fail(breaker, 4)
        breaker.succeeded(breaker.admit())
    assert breaker.state == "closed"


def test_after_a_pause_exactly_one_probe_is_let_in(breaker, clock, told):
    opened(breaker)
    clock.now += 0.999
    assert breaker.admit() is None
    clock.now += 0.001
    assert [breaker.admit() is None for _ in range(5)] == [False, True, True, True, True]
    assert breaker.state == "half-open"
    assert told == ["open", "half-open"]


def test_a_probe_that_succeeds_closes_it(breaker, clock, told):
    opened(breaker)
    clock.now += 1
    breaker.succeeded(breaker.admit())
    assert (breaker.state, told) == ("closed", ["open", "half-open", "closed"])
    fail(breaker, 4)
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_pause_up_to_half_a_minute(breaker, clock):
    opened(breaker)
    for pause in (1, 2, 4, 8, 16, 30, 30, 30):
        clock.now += pause - 0.001
        assert breaker.admit() is None
        clock.now += 0.001
        fail(breaker)
        assert breaker.state == "open"


def test_the_pause_is_short_again_after_it_was_closed(breaker, clock):
    opened(breaker)
    for pause in (1, 2, 4):
        clock.now += pause
        fail(breaker)
    clock.now += 8
    breaker.succeeded(breaker.admit())
    opened(breaker)
    clock.now += 1
    assert breaker.admit() is not None


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_chance_shortens_a_pause_by_a_quarter_at_most(clock, chance):
    breaker = Breaker(lambda _: None, lease=LEASE, clock=clock, chance=lambda: chance)
    opened(breaker)
    clock.now += 0.74
    assert breaker.admit() is None
    clock.now += 0.01 + (0.25 * (1 - chance))
    assert breaker.admit() is not None


def test_chance_is_left_to_chance_where_nobody_says_otherwise(clock):
    ends = set()
    for _ in range(5):
        breaker = Breaker(lambda _: None, lease=LEASE, clock=clock)
        opened(breaker)
        ends.add(breaker._until)
    assert len(ends) > 1
    assert all(1000.75 <= end <= 1001.0 for end in ends)


def test_a_late_success_from_before_it_opened_does_not_close_it(breaker, clock):
    late = breaker.admit()
    opened(breaker)
    breaker.succeeded(late)
    assert breaker.state == "open"
    clock.now += 1
    probe = breaker.admit()
    breaker.succeeded(late)
    assert breaker.state == "half-open"
    breaker.failed(probe)
    assert breaker.state == "open"


def test_a_late_failure_does_not_open_it_again(breaker, clock):
    late = [breaker.admit() for _ in range(20)]
    opened(breaker)
    clock.now += 1
    breaker.succeeded(breaker.admit())
    for ticket in late:
        breaker.failed(ticket)
    assert breaker.state == "closed"


def test_late_failures_do_not_lengthen_the_pause(breaker, clock):
    late = [breaker.admit() for _ in range(20)]
    opened(breaker)
    for ticket in late:
        breaker.failed(ticket)
    clock.now += 1
    assert breaker.admit() is not None


def test_a_probe_that_was_cancelled_hands_its_turn_on_at_once(breaker, clock):
    opened(breaker)
    clock.now += 1
    breaker.gave_up(breaker.admit())
    assert breaker.state != "half-open"
    probe = breaker.admit()
    assert probe is not None
    breaker.succeeded(probe)
    assert breaker.state == "closed"


def test_a_cancelled_operation_of_a_closed_one_says_nothing(breaker):
    for _ in range(10):
        breaker.gave_up(breaker.admit())
    fail(breaker, 4)
    breaker.gave_up(breaker.admit())
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"


def test_a_late_cancellation_does_not_free_the_turn_of_another(breaker, clock):
    opened(breaker)
    clock.now += 1
    first = breaker.admit()
    breaker.gave_up(first)
    second = breaker.admit()
    breaker.gave_up(first)
    assert breaker.state == "half-open"
    assert breaker.admit() is None
    breaker.succeeded(second)
    assert breaker.state == "closed"


def test_a_probe_that_never_ends_loses_its_turn_and_counts_as_failed(breaker, clock):
    opened(breaker)
    clock.now += 1
    lost = breaker.admit()
    clock.now += LEASE
    assert breaker.admit() is None
    assert breaker.state == "open"
    clock.now += 2
    probe = breaker.admit()
    breaker.succeeded(lost)
    assert breaker.state == "half-open"
    breaker.succeeded(probe)
    assert breaker.state == "closed"


def test_threads_that_race_for_the_probe_get_one_between_them(breaker, clock):
    opened(breaker)
    clock.now += 1
    gate = threading.Barrier(8)
    tickets = []

    def race():
        gate.wait(10)
        tickets.append(breaker.admit())

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(ticket is not None for ticket in tickets) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_its_own_probe_and_no_held_lock(breaker, clock):
    opened(breaker)
    clock.now += 1
    assert breaker.admit() is not None
    breaker._lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            breaker.succeeded(breaker.admit())
            code = 0 if breaker.state == "closed" else 2
        finally:
            os._exit(code)
    breaker._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert breaker.state == "half-open"


class Model(RuleBasedStateMachine):
    """Any order of admissions, reports and pauses, against what the words promise."""

    def __init__(self):
        super().__init__()
        self.clock = Time()
        self.told = []
        self.breaker = Breaker(self.told.append, lease=LEASE, clock=self.clock, chance=lambda: 0.0)
        self.out = []  # (ticket, number of state changes when it was given)
        self.row = 0
        self.pause = 1.0
        self.since = self.clock.now

    def current(self, ticket):
        return ticket[1] == len(self.told)

    @rule()
    def enter(self):
        before = self.breaker.state
        ticket = self.breaker.admit()
        now = self.clock.now
        if before == "closed":
            assert ticket is not None
        elif before == "open":
            assert (ticket is not None) == (now >= self.since + self.pause)
            if ticket is not None:
                assert self.breaker.state == "half-open"
                self.since = now
        else:
            assert ticket is None
            if now >= self.since + LEASE:
                assert self.breaker.state == "open"
                self.since, self.pause = now, min(30.0, 2 * self.pause)
            else:
                assert self.breaker.state == "half-open"
        if ticket is not None:
            self.out.append((ticket, len(self.told)))

    @precondition(lambda self: self.out)
    @rule(place=st.integers(0, 1000), how=st.sampled_from(["succeeded", "failed", "failed", "gave_up"]))
    def report(self, place, how):
        ticket = self.out.pop(place % len(self.out))
        before, current = self.breaker.state, self.current(ticket)
        getattr(self.breaker, how)(ticket[0])
        after = self.breaker.state
        if not current or before == "open":
            assert after == before
        elif before == "closed":
            self.row = {"succeeded": 0, "failed": self.row + 1, "gave_up": self.row}[how]
            assert after == ("open" if self.row == 5 else "closed")
            if after == "open":
                self.row, self.pause, self.since = 0, 1.0, self.clock.now
        elif how == "succeeded":
            assert after == "closed"
            self.row = 0
        else:
            assert after == "open"
            self.since = self.clock.now
            if how == "failed":
                self.pause = min(30.0, 2 * self.pause)
            else:
                self.since -= self.pause  # a probe may be at once

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, LEASE, 4.0, 30.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def recover(self):
        """Whatever came before: a store that works is used again within a lease and a pause."""
        for _ in range(2):
            self.clock.now += 30.0
            ticket = self.breaker.admit()
            if ticket is not None:
                self.breaker.succeeded(ticket)
        assert self.breaker.state == "closed"
        self.row = 0

    @invariant()
    def every_change_is_told_once(self):
        assert self.breaker.state == (self.told[-1] if self.told else "closed")
        assert all(one != other for one, other in zip(self.told, self.told[1:], strict=False))


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
