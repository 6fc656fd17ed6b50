"""Worker threads: bounded, fair, left behind when they hang, gone when nobody needs them."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from askonce._bridge import step
from askonce.stores._crew import Abandoned, Crew, TimedOut, give_up_if_abandoned, wait_here, wait_in_loop

PATIENCE = 10.0


@pytest.fixture
def crew():
    crew = Crew(4, "test-crew")
    yield crew
    crew.close()
    until(lambda: not threads(), "the threads to end")


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-crew")]


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def run(crew, work, items, face="sync", seconds=PATIENCE):
    batch = crew.submit(work, items)
    return step(wait_here(batch, seconds)) if face == "sync" else asyncio.run(wait_in_loop(batch, seconds))


FACES = pytest.mark.parametrize("face", ["sync", "async"])


@FACES
def test_results_come_in_the_order_of_the_items(crew, face):
    def work(number):
        time.sleep(0.002 * (number % 3))
        return number * number

    assert run(crew, work, range(50), face) == [number * number for number in range(50)]
    assert run(crew, work, (7,), face) == [49]


def test_never_more_threads_than_said_and_a_batch_leaves_some_to_others(crew):
    busy, most = 0, 0
    lock = threading.Lock()

    def work(_):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    run(crew, work, range(40))
    assert most == crew.lanes == 3
    batches = [crew.submit(work, range(20)) for _ in range(5)]
    for batch in batches:
        step(wait_here(batch, PATIENCE))
    assert most == 4
    assert len(threads()) <= 4


def test_threads_are_hired_only_when_none_is_idle(crew):
    for _ in range(20):
        run(crew, str, (1,))
        until(lambda: len(crew._desk.idle) == 1, "the thread to be idle")
    assert len(threads()) == 1


def test_a_single_call_does_not_wait_for_the_whole_of_somebodys_batch(crew):
    done = []
    batches = [
        crew.submit(lambda number: (time.sleep(0.01), done.append(number)), range(200)) for _ in range(3)
    ]
    assert run(crew, str, (1,)) == ["1"]
    assert len(done) < 300
    for batch in batches:
        batch.abandon()


@FACES
def test_the_first_failure_ends_a_batch(crew, face):
    begun = []

    def work(number):
        begun.append(number)
        if number == 5:
            raise KeyError(number)
        time.sleep(0.002)

    with pytest.raises(KeyError):
        run(crew, work, range(200), face)
    time.sleep(0.05)
    assert len(begun) < 20


@FACES
@pytest.mark.parametrize("error", [TimeoutError("the work's own"), ValueError("no")])
def test_the_works_own_errors_come_as_they_are(crew, face, error):
    def work(_):
        raise error

    with pytest.raises(type(error)) as caught:
        run(crew, work, (1,), face)
    assert caught.value is error


@FACES
def test_who_waits_too_long_goes_and_nothing_more_is_begun(crew, face):
    gate, begun, told = threading.Event(), [], []

    def work(number):
        begun.append(number)
        assert gate.wait(PATIENCE)
        try:
            give_up_if_abandoned()
        except Abandoned as gone:
            told.append(gone)
            raise

    began = time.monotonic()
    with pytest.raises(TimedOut):
        run(crew, work, range(10), face, seconds=0.05)
    assert time.monotonic() - began < 1
    gate.set()
    until(lambda: len(told) == len(begun), "the work to hear that nobody waits")
    assert len(begun) == crew.lanes
    assert run(crew, str, (1,), face) == ["1"]


def test_values_of_abandoned_work_are_not_kept_in_the_queue(crew):
    class Value:
        alive = 0

        def __init__(self):
            Value.alive += 1

        def __del__(self):
            Value.alive -= 1

    gate = threading.Event()
    stuck = [crew.submit(lambda _: gate.wait(PATIENCE), (1,)) for _ in range(4)]
    for _ in range(10):
        with pytest.raises(TimedOut):
            run(crew, lambda value: None, (Value(),), seconds=0.001)
    gc.collect()
    assert Value.alive == 0
    gate.set()
    for batch in stuck:
        step(wait_here(batch, PATIENCE))


async def test_a_cancelled_task_abandons_its_work(crew):
    gate = threading.Event()
    batch = crew.submit(lambda _: gate.wait(PATIENCE), range(9))
    task = asyncio.create_task(wait_in_loop(batch, PATIENCE))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert batch.abandoned
    gate.set()


def test_what_waits_when_it_is_closed_is_still_done_and_it_can_be_used_again(crew):
    batches = [crew.submit(lambda number: time.sleep(0.002), range(30)) for _ in range(3)]
    crew.close()
    for batch in batches:
        assert len(step(wait_here(batch, PATIENCE))) == 30
    until(lambda: not threads(), "the threads to end")
    assert run(crew, str, (1,)) == ["1"]
    crew.close()
    crew.close()


def test_the_threads_of_a_forgotten_crew_end():
    crew = Crew(4, "test-crew")
    run(crew, lambda _: time.sleep(0.01), range(8))
    assert threads()
    assert all(thread.daemon for thread in threads())
    del crew
    gc.collect()
    until(lambda: not threads(), "the threads to end")


def test_outside_of_a_crew_nothing_is_abandoned():
    give_up_if_abandoned()
