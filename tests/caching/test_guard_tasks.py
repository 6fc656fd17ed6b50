"""The guard in event loops: everything is bounded, and a busy loop is not a dead store."""

from __future__ import annotations

import asyncio
import time

import pytest

from askonce._bridge import async_port
from askonce._deadline import set_deadline
from askonce._stats import Counters
from askonce.stores import MemoryStore, time_left
from askonce.stores._bounded import Bounded, Budget, Watch
from askonce.stores._breaker import Breaker
from askonce.testing import FlakyStore

BUDGET = 0.2
SLACK = 0.05
"""Seconds that the rest of a call may take, on a busy machine."""


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Native:
    """A store with an asyncio face that does what it is told."""

    name, blocking, remote = "native", True, True

    def __init__(self, work):
        self.work = work

    async def aget(self, key):
        return await self.work()

    async def aset(self, key, value, expires_at):
        await self.work()

    adelete = aget_many = aset_many = ascan = aping = aclose = aget


def bounded(work, seconds=BUDGET):
    told = []
    counters = Counters()
    watch = Watch(
        name="native",
        timeout=seconds,
        breaker=Breaker(lambda _: None, lease=2.0),
        trouble=lambda *trouble: told.append(trouble),
        skipped=counters.store_skip,
    )

    def call():
        return Bounded(async_port(Native(work)), watch, True, Budget(seconds))

    return call, watch.breaker, told


async def test_a_task_is_not_held_longer_than_the_budget_by_a_store_that_hangs():
    call, _, told = bounded(lambda: asyncio.sleep(60))
    took = []
    for _ in range(3):
        started = time.monotonic()
        assert await call().get("k") is None
        took.append(time.monotonic() - started)
    assert min(took) < BUDGET + SLACK
    assert [type(error) for *_, error in told] == [TimeoutError] * 3


async def test_a_native_store_learns_what_is_left():
    lefts = []

    async def work():
        lefts.append(time_left())

    call, *_ = bounded(work)
    await call().get("k")
    assert lefts[0] == pytest.approx(BUDGET, abs=0.02)
    assert time_left() is None


async def test_a_cancelled_task_is_cancelled_and_says_nothing_about_the_store():
    call, breaker, told = bounded(lambda: asyncio.sleep(60))
    for _ in range(4):
        breaker.failed(breaker.admit())
    task = asyncio.ensure_future(call().get("k"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (breaker.state, told) == ("closed", [])


async def test_a_cancelled_probe_does_not_leave_the_store_out_for_ever():
    call, breaker, _ = bounded(lambda: asyncio.sleep(60))
    clock = Time()
    breaker._clock = clock
    for _ in range(5):
        breaker.failed(breaker.admit())
    clock.now += 1
    task = asyncio.ensure_future(call().get("k"))
    await asyncio.sleep(0.01)
    assert breaker.state == "half-open"
    task.cancel()
    await asyncio.wait([task])
    assert breaker.admit() is not None


async def test_a_cancellation_that_nobody_asked_for_is_the_stores_failure():
    async def work():
        raise asyncio.CancelledError

    call, _, told = bounded(work)
    assert await call().get("k") is None
    assert told[0][:2] == ("native", "get")


async def test_time_that_a_busy_event_loop_took_is_not_held_against_the_store():
    async def answers_in_the_meantime():
        time.sleep(0.08)  # noqa: ASYNC251 - somebody else's code, on the same loop
        await asyncio.sleep(60)

    call, breaker, told = bounded(answers_in_the_meantime, 0.04)
    for _ in range(6):
        assert await call().get("k") is None
    assert len(told) == 6
    assert breaker.state == "closed"


async def test_answers_read_late_by_a_busy_event_loop_are_not_held_against_the_store():
    async def stalled():
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.2)
        await asyncio.sleep(0.02)

    call, breaker, told = bounded(stalled)
    for _ in range(6):
        await call().get("k")
    assert breaker.state == "closed"
    assert len(told) <= 6


async def test_a_store_that_hangs_is_found_out_also_when_the_loop_is_a_little_busy():
    async def hangs():
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.02)
        await asyncio.sleep(60)

    call, breaker, _ = bounded(hangs, 0.1)
    for _ in range(30):
        await call().get("k")
        if breaker.state == "open":
            break
    assert breaker.state == "open"


async def test_worker_threads_have_the_deadline_of_the_task_that_waits_for_them():
    lefts = []

    class Blocking(MemoryStore):
        blocking = True

        def get(self, key):
            lefts.append(time_left())

    store = Blocking()
    counters = Counters()
    watch = Watch(
        name="memory",
        timeout=BUDGET,
        breaker=Breaker(lambda _: None, lease=2.0),
        trouble=lambda *_: None,
        skipped=counters.store_skip,
    )
    port = async_port(store)
    await Bounded(port, watch, True, Budget(BUDGET)).get("k")
    await port.get("k")
    await port.close()
    assert lefts[0] == pytest.approx(BUDGET, abs=0.03)
    assert lefts[1] is None


async def test_what_waited_too_long_for_a_worker_thread_is_not_begun():
    store = FlakyStore(MemoryStore())
    port = async_port(store)
    set_deadline(time.monotonic() - 1)
    try:
        with pytest.raises(TimeoutError):
            await port.get("k")
    finally:
        set_deadline(None)
    assert store.calls["get"] == 0
    await port.close()
