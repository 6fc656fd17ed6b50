"""track(): every outcome of the calls inside, in order, across tasks and threads, and of no others."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from askonce import Cache, Outcome, Request, track
from askonce._track import note
from askonce.doors import Opened

ORIGINAL = threading.Thread.start


@pytest.fixture(autouse=True)
def restored():
    yield
    assert threading.Thread.start is ORIGINAL


def made(name):
    return Outcome(status="miss", reason=name)


def names(outcomes):
    return [outcome.reason for outcome in outcomes]


def in_thread(work, *args):
    thread = threading.Thread(target=work, args=args)
    thread.start()
    thread.join()


def test_outcomes_are_in_order_and_end_with_the_block():
    note(made("before"))
    with track() as outcomes:
        assert outcomes == []
        note(made("a"))
        assert names(outcomes) == ["a"]
        note(made("b"))
    note(made("after"))
    assert names(outcomes) == ["a", "b"]


def test_nested_blocks_each_see_what_is_inside_them():
    with track() as outer:
        note(made("a"))
        with track() as inner:
            note(made("b"))
        note(made("c"))
    assert (names(outer), names(inner)) == (["a", "b", "c"], ["b"])


def test_one_after_the_other_do_not_mix():
    with track() as first:
        note(made("a"))
    with track() as second:
        note(made("b"))
    assert (names(first), names(second)) == (["a"], ["b"])


def test_a_block_left_by_an_exception_ends_all_the_same():
    with pytest.raises(KeyError), track() as outcomes:
        note(made("a"))
        raise KeyError
    note(made("after"))
    assert names(outcomes) == ["a"]
    assert threading.Thread.start is ORIGINAL


def test_threads_started_inside_count_and_so_do_theirs():
    with track() as outcomes:
        in_thread(note, made("child"))
        in_thread(in_thread, note, made("grandchild"))
        assert threading.Thread.start is not ORIGINAL
    assert names(outcomes) == ["child", "grandchild"]


def test_threads_started_before_do_not_count():
    go, gone = threading.Event(), threading.Event()

    def worker():
        go.wait(5)
        note(made("foreign"))
        gone.set()

    thread = threading.Thread(target=worker)
    thread.start()
    with track() as outcomes:
        go.set()
        gone.wait(5)
    thread.join()
    assert outcomes == []


def test_a_thread_that_outlives_the_block_counts_until_its_end():
    go = threading.Event()

    def worker():
        note(made("inside"))
        inside.set()
        go.wait(5)
        note(made("outside"))

    inside = threading.Event()
    with track() as outcomes:
        thread = threading.Thread(target=worker)
        thread.start()
        inside.wait(5)
    go.set()
    thread.join()
    assert names(outcomes) == ["inside"]


def test_a_nested_block_in_a_thread_adds_to_the_outer_one():
    def worker():
        with track() as inner:
            note(made("a"))
        found.append(names(inner))

    found = []
    with track() as outer:
        in_thread(worker)
    assert (names(outer), found) == (["a"], [["a"]])


def test_a_pool_made_inside_counts():
    with track() as outcomes, ThreadPoolExecutor(4) as pool:
        list(pool.map(note, [made(str(number)) for number in range(20)]))
    assert sorted(names(outcomes), key=int) == [str(number) for number in range(20)]


def test_a_shared_pool_does_not_mix_up_requests():
    with ThreadPoolExecutor(1) as pool:
        with track() as first:
            pool.submit(note, made("first")).result()  # starts the pool's thread
            # Meanwhile, somebody who does not track, in another context, uses the same pool.
            contextvars.Context().run(lambda: pool.submit(note, made("foreign")).result())
            in_foreign_thread(lambda: pool.submit(note, made("foreign, too")).result())
        with track() as second:
            pool.submit(note, made("second")).result()
    assert (names(first), names(second)) == (["first"], ["second"])


FOREIGN = ThreadPoolExecutor(1)
FOREIGN.submit(int).result()  # a thread that was there before any block


def in_foreign_thread(work):
    """Run in the thread of another request, which was started long ago."""
    done = threading.Event()

    def run():
        try:
            work()
        finally:
            done.set()

    contextvars.Context().run(FOREIGN.submit, run)
    assert done.wait(5)


async def test_tasks_and_to_thread_count():
    async def work(name):
        await asyncio.sleep(0)
        note(made(name))
        await asyncio.to_thread(note, made(name + " thread"))

    with track() as outcomes:
        await work("a")
        await asyncio.gather(asyncio.create_task(work("b")), work("c"))
    assert sorted(names(outcomes)) == ["a", "a thread", "b", "b thread", "c", "c thread"]


async def test_run_in_executor_counts_what_is_started_inside():
    loop = asyncio.get_running_loop()
    with track() as outcomes, ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, note, made("a"))
    assert names(outcomes) == ["a"]


async def test_concurrent_requests_do_not_mix():
    async def request(number):
        with track() as outcomes:
            for step in range(5):
                note(made(f"{number}.{step}"))
                await asyncio.sleep(0)
                await asyncio.to_thread(note, made(f"{number}.{step} thread"))
        return names(outcomes)

    found = await asyncio.gather(*(request(number) for number in range(10)))
    for number, seen in enumerate(found):
        expected = [f"{number}.{step}{tail}" for step in range(5) for tail in ("", " thread")]
        assert seen == expected


async def test_a_request_that_does_not_track_is_not_counted_for_one_that_does():
    async def tracking():
        with track() as outcomes:
            await asyncio.to_thread(note, made("mine"))  # may start a thread of the loop's pool
            started.set()
            await finished.wait()
        return names(outcomes)

    async def plain():
        await started.wait()
        for _ in range(4):
            await asyncio.to_thread(note, made("foreign"))  # may reuse that thread
        finished.set()

    started, finished = asyncio.Event(), asyncio.Event()
    mine, _ = await asyncio.gather(tracking(), plain())
    assert mine == ["mine"]


def test_concurrent_threads_do_not_mix():
    def request(number):
        with track() as outcomes:
            barrier.wait(5)
            for step in range(50):
                note(made(f"{number}.{step}"))
                if step % 10 == 0:
                    in_thread(note, made(f"{number}.{step} thread"))
            barrier.wait(5)
        found[number] = names(outcomes)

    found, barrier = {}, threading.Barrier(6)
    threads = [threading.Thread(target=request, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, seen in found.items():
        assert len(seen) == 55
        assert all(name.startswith(f"{number}.") for name in seen)


def test_overlapping_blocks_of_several_threads_restore_the_original_at_the_very_end():
    first, second = threading.Event(), threading.Event()

    def worker():
        with track():
            first.set()
            second.wait(5)

    thread = threading.Thread(target=worker)
    thread.start()
    with track():
        first.wait(5)
    assert threading.Thread.start is not ORIGINAL  # the other block is still open
    second.set()
    thread.join()
    assert threading.Thread.start is ORIGINAL


def test_what_somebody_else_puts_on_top_stays_and_can_be_taken_off_again():
    calls = []
    with track() as outcomes:
        ours = threading.Thread.start

        def theirs(thread):
            calls.append(thread)
            ours(thread)

        threading.Thread.start = theirs
    try:
        assert threading.Thread.start is theirs
        in_thread(note, made("after"))
        with track() as later:
            in_thread(note, made("later"))
        assert threading.Thread.start is theirs
    finally:
        threading.Thread.start = ours  # what they found
    assert len(calls) == 2
    assert (names(outcomes), names(later)) == ([], ["later"])
    with track() as again:
        in_thread(note, made("again"))
    assert names(again) == ["again"]
    assert threading.Thread.start is ORIGINAL


def test_a_thread_subclass_with_its_own_start_works():
    class Own(threading.Thread):
        def start(self):
            super().start()

    with track() as outcomes:
        thread = Own(target=note, args=(made("own"),))
        thread.start()
        thread.join()
    assert names(outcomes) == ["own"]


def test_a_thread_that_cannot_start_says_what_it_always_said():
    thread = threading.Thread(target=int)
    with track():
        thread.start()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
        thread.join()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_child_forked_inside_a_block_can_track():
    program = """
import os, threading
from askonce import track, Outcome
from askonce._track import _lineage, note
with track() as outer:
    _lineage._lock.acquire()   # another thread is just opening a block
    pid = os.fork()
    if pid == 0:
        with track() as inner:
            thread = threading.Thread(target=note, args=(Outcome(status="miss", reason="x"),))
            thread.start(); thread.join()
        os._exit(0 if len(inner) == 1 else 1)
    _lineage._lock.release()
    import time
    for _ in range(100):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: break
        time.sleep(0.05)
    else:
        os.kill(pid, 9); os.waitpid(pid, 0); status = 99
print(status)
"""
    import askonce

    where = askonce.__file__.rsplit("/", 2)[0]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


# -- with a cache ----------------------------------------------------------------------------------


class Ask:
    live, patience = False, None
    request = Request("POST", "https://h/v1/embeddings", (), b'{"model":"m","input":"x"}')

    def open(self):
        return Opened(
            status=200, headers=[(b"content-type", b"application/json")], native=object(),
            body=b'{"data":[1],"usage":{"prompt_tokens":3}}', framed=True,
        )  # fmt: skip

    again = open  # noqa: A003


def test_the_outcomes_of_calls_tell_the_whole_story():
    with Cache("memory://", ttl=60) as cache, track() as outcomes:
        cache.ask(Ask())
        cache.ask(Ask())
        in_thread(cache.ask, Ask())
    miss, hit, threaded = outcomes
    assert (miss.status, miss.reason, miss.stored, miss.served, miss.usage) == (
        "miss",
        "not stored",
        True,
        False,
        {"prompt_tokens": 3},
    )
    assert (hit.status, hit.reason, hit.tier, hit.served, hit.usage) == (
        "hit",
        "fresh",
        "memory",
        True,
        {"prompt_tokens": 3},
    )
    assert (hit.model, hit.surface, hit.key) == ("m", "embeddings", miss.key)
    assert 0 <= hit.age < 5
    assert 50 < hit.ttl <= 60
    assert hit.saved > 0 == miss.saved
    assert threaded.status == "hit"


def test_two_caches_are_told_to_the_same_block():
    with Cache("memory://") as one, Cache("memory://") as other, track() as outcomes:
        one.ask(Ask())
        other.ask(Ask())
    assert [outcome.status for outcome in outcomes] == ["miss", "miss"]


def test_an_error_is_an_outcome_too():
    class Failing(Ask):
        def open(self):
            raise ConnectionError("MARKER")

    with Cache("memory://") as cache, track() as outcomes, pytest.raises(ConnectionError):
        cache.ask(Failing())
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("error", "ConnectionError")]
