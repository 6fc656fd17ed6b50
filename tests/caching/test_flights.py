"""Single flight: of several identical asks one reaches the provider, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time

import pytest

from askonce import using
from askonce._flights import Flights, Owner

KINDS = ["threads", "tasks", "two loops", "mix"]
N = 200


def status(results):
    return sorted(str(result.outcome and result.outcome.status) for result in results)


# -- one call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_identical_callers_make_one_call(kit, k, kind, live):
    cache = kit.cache()
    kit.upstream.hold()
    with kit.crowd(cache, kind, N, live=live) as results:
        kit.until_waiting(cache, N - 1)
        kit.upstream.release()
        found = results()
    assert kit.upstream.calls == 1
    assert [result.error for result in found] == [None] * N
    assert {result.body for result in found} == {b"".join(k.events(1)) if live else k.chat(1)}
    assert status(found) == ["coalesced"] * (N - 1) + ["miss"]
    stats = cache.stats()
    assert (stats.misses, stats.coalesced, stats.stored) == (1, N - 1, 1)
    assert kit.ask(cache, live=live).outcome.status == "hit"


@pytest.mark.parametrize("kind", KINDS)
def test_callers_that_start_at_any_moment_make_one_call(kit, kind):
    """No gate: whoever comes while the answer is being stored must find it."""
    cache = kit.cache()
    kit.upstream.delay = 0.005
    with kit.crowd(cache, kind, N) as results:
        found = results()
    assert kit.upstream.calls == 1
    assert len({result.body for result in found}) == 1


def test_different_questions_do_not_wait_for_each_other(kit):
    cache = kit.cache()
    kit.upstream.hold()
    first = kit_thread(kit, cache, "one")
    kit.upstream.seen(1)
    second = kit_thread(kit, cache, "two")
    kit.upstream.seen(2)
    kit.upstream.release()
    assert first.result().body != second.result().body


def kit_thread(kit, cache, prompt="hello", **options):
    """A sync caller in a thread of its own."""
    from types import SimpleNamespace

    box = {}

    def run():
        try:
            box["value"] = kit.ask(cache, prompt, **options)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result(timeout=10.0):
        thread.join(timeout)
        assert not thread.is_alive(), f"a caller hangs after {timeout} s"
        if "error" in box:
            raise box["error"]
        return box["value"]

    return SimpleNamespace(result=result, thread=thread, box=box)


def test_coalesce_off_makes_as_many_calls_as_callers(kit):
    cache = kit.cache(coalesce="off")
    with kit.crowd(cache, "threads", 5) as results:
        kit.upstream.hold()
        kit.upstream.release()
        results()
    assert kit.upstream.calls >= 1
    cache.clear()
    kit.upstream.calls = 0
    kit.upstream.hold()
    with kit.crowd(cache, "threads", 5) as results:
        kit.upstream.seen(5)
        kit.upstream.release()
        assert {result.outcome.status for result in results()} == {"miss"}


# -- failing leaders --------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("failure", ["exception", 500, 429])
@pytest.mark.parametrize("kind", KINDS)
def test_one_failure_is_one_callers_and_the_next_leads(kit, k, kind, failure, live):
    cache = kit.cache()
    number = 40
    broken = RuntimeError("provider")
    kit.upstream.script.append(
        k.Answer(error=broken) if failure == "exception" else k.Answer(status=failure, body=b"{}")
    )
    kit.upstream.hold()
    with kit.crowd(cache, kind, number, live=live) as results:
        kit.until_waiting(cache, number - 1)
        kit.upstream.release()
        found = results()
    assert kit.upstream.calls == 2
    if failure == "exception":
        assert [result.error for result in found if result.error] == [broken]
    # Who wakes late finds the second answer in the store already.
    served = status(found)
    assert served.count("coalesced") + served.count("hit") == number - 2
    assert {result.body for result in found if result.outcome and result.outcome.status != "error"} == {
        b"".join(k.events(2)) if live else k.chat(2)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_two_failures_in_a_row_and_everybody_asks_alone(kit, k, kind):
    cache = kit.cache()
    number = 30
    kit.upstream.script += [k.Answer(status=500, body=b"{}")] * 2
    kit.upstream.hold()
    with kit.crowd(cache, kind, number) as results:
        kit.until_waiting(cache, number - 1)
        kit.upstream.release()
        found = results()
    # Two lead in vain. Of the others some may find what another one stored; nobody waits a third time.
    assert status(found).count("error") == 2
    assert not [result.error for result in found if result.error]
    assert 3 <= kit.upstream.calls <= number


@pytest.mark.parametrize("kind", KINDS)
def test_a_provider_that_is_down_costs_each_caller_three_rounds_at_most(kit, k, kind):
    cache = kit.cache()
    number = 30
    kit.upstream.always = k.Answer(error=ConnectionError("down"))
    kit.upstream.delay = 0.05
    started = time.monotonic()
    with kit.crowd(cache, kind, number) as results:
        found = results()
    took = time.monotonic() - started
    assert kit.upstream.calls == number
    assert {type(result.error) for result in found} == {ConnectionError}
    assert took < 3 * 0.05 + 1.0


# -- leaders that are cancelled ---------------------------------------------------------------------


async def test_a_cancelled_leader_hands_over(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    leader = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: kit.upstream.calls == 1)
    others = [asyncio.create_task(kit.aask(cache)) for _ in range(50)]
    await k.auntil(lambda: kit.waiting(cache) == 50)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    await k.auntil(lambda: kit.upstream.calls == 2)
    kit.upstream.release()
    found = await asyncio.wait_for(asyncio.gather(*others), 10)
    assert kit.upstream.calls == 2
    assert {result.body for result in found} == {k.chat(2)}


async def test_five_cancelled_leaders_in_a_row_do_not_count_as_failures(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    tasks = []
    for _ in range(10):
        tasks.append(asyncio.create_task(kit.aask(cache)))
        await asyncio.sleep(0)
    for number in range(1, 6):
        await k.auntil(lambda number=number: kit.upstream.calls == number)
        await k.auntil(lambda number=number: kit.waiting(cache) == 10 - number)
        tasks.pop(0).cancel()
    await k.auntil(lambda: kit.upstream.calls == 6)
    kit.upstream.release()
    found = await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert kit.upstream.calls == 6
    assert {result.body for result in found} == {k.chat(6)}


async def test_a_cancelled_async_leader_hands_over_to_a_thread(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    leader = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: kit.upstream.calls == 1)
    follower = kit_thread(kit, cache)
    await k.auntil(lambda: kit.waiting(cache) == 1)
    leader.cancel()
    await k.auntil(lambda: kit.upstream.calls == 2)
    kit.upstream.release()
    found = await asyncio.to_thread(follower.result)
    assert found.body == k.chat(2)


async def test_when_all_are_cancelled_nothing_is_left(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    tasks = [asyncio.create_task(kit.aask(cache)) for _ in range(20)]
    await k.auntil(lambda: kit.waiting(cache) == 19)
    for task in tasks:
        task.cancel()
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert {type(one) for one in found} == {asyncio.CancelledError}
    assert len(cache._flow.flights) == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_follower_hurts_nobody(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    tasks = [asyncio.create_task(kit.aask(cache)) for _ in range(20)]
    await k.auntil(lambda: kit.waiting(cache) == 19)
    for task in tasks[1:10]:
        task.cancel()
    kit.upstream.release()
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(one) for one in found[1:10]] == [asyncio.CancelledError] * 9
    assert {one.body for one in (found[0], *found[10:])} == {k.chat(1)}
    assert kit.upstream.calls == 1


async def test_a_leader_cancelled_while_storing_still_shares_its_answer(kit, k):
    from askonce.stores import MemoryStore
    from askonce.testing import FlakyStore

    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store)
    store.slow_down(5, operations=["set"])
    leader = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: store.calls["set"] == 1)
    follower = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: kit.waiting(cache) == 1)
    leader.cancel()
    found = await asyncio.wait_for(follower, 2)
    store.recover()
    assert found.body == k.chat(1)
    assert kit.upstream.calls == 1


def test_a_leader_that_is_interrupted_hands_over(kit, k):
    """KeyboardInterrupt and SystemExit are no failures of the provider."""
    cache = kit.cache()
    kit.upstream.script += [k.Answer(error=KeyboardInterrupt()), k.Answer(error=SystemExit(1))]
    kit.upstream.hold()
    callers = [kit_thread(kit, cache) for _ in range(10)]
    kit.until_waiting(cache, 9)
    kit.upstream.release()
    for caller in callers:
        caller.thread.join(10)
    assert kit.upstream.calls == 3
    assert sorted(type(caller.box.get("error")).__name__ for caller in callers) == sorted(
        ["KeyboardInterrupt", "SystemExit"] + ["NoneType"] * 8
    )


# -- leaders that are gone --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_leader_whose_loop_stopped_is_not_waited_for(kit, k, kind):
    cache = kit.cache()
    kit.upstream.hold()
    loop = kit.loop()
    lost = loop.submit(kit.aask(cache))
    kit.upstream.seen(1)
    with kit.crowd(cache, kind, 5) as results:
        kit.until_waiting(cache, 5)
        loop.stop()
        k.until(lambda: kit.upstream.calls == 2, "a new leader", 4.0)
        kit.upstream.release()
        found = results()
    assert {result.body for result in found} == {k.chat(2)}
    assert kit.upstream.calls == 2
    assert not lost.done()


def test_newcomers_do_not_join_the_flight_of_a_stopped_loop(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    loop = kit.loop()
    loop.submit(kit.aask(cache))
    kit.upstream.seen(1)
    loop.stop()
    kit.upstream.release()
    started = time.monotonic()
    assert kit_thread(kit, cache).result().body == k.chat(2)
    assert time.monotonic() - started < 0.5


def test_a_leader_whose_loop_is_closed_with_the_call_pending(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    loop = asyncio.new_event_loop()

    async def lead():
        task = asyncio.create_task(kit.aask(cache))
        await k.auntil(lambda: kit.upstream.calls == 1)
        return task

    task = loop.run_until_complete(lead())
    follower = kit_thread(kit, cache)
    loop.close()
    k.until(lambda: kit.upstream.calls == 2, "a new leader", 4.0)
    kit.upstream.release()
    assert follower.result().body == k.chat(2)
    task._log_destroy_pending = False


def test_a_forgotten_task_is_cleaned_up_even_while_the_table_is_in_use(kit, k):
    """The collector may run the leader's `finally` inside any allocation, also one under the table's lock."""
    flights = Flights()
    cache = kit.cache()
    cache._flow.flights = flights
    kit.upstream.hold()

    class CollectingKey(str):
        __slots__ = ()

        def __hash__(self):
            gc.collect()  # stands for a collection that an allocation under the lock sets off
            return super().__hash__()

    def forget():
        """A leader in a cycle, as a task of a closed loop is."""
        holder = []
        coroutine = kit.aask(cache)
        holder.append(coroutine)

        async def around():
            holder.append(around_)
            await holder[0]

        loop = asyncio.new_event_loop()
        around_ = around()
        task = loop.create_task(around_)
        holder.append(task)
        task._log_destroy_pending = False
        loop.run_until_complete(k.auntil(lambda: kit.upstream.calls == 1))
        loop.close()

    gc.disable()
    try:
        forget()
        joined = k.Running(
            flights.join, CollectingKey("another key"), Owner(threading.current_thread(), None), None
        )
        flight, leads = joined.result(3.0)
    finally:
        gc.enable()
    assert leads
    flights.fail(flight, counts=False)


# -- who must not wait ------------------------------------------------------------------------------


def test_a_call_inside_the_same_call_does_not_wait_for_itself(kit, k):
    cache = kit.cache()
    inner = []
    kit.upstream.script.append(k.Answer(before=lambda: inner.append(kit.ask(cache))))
    outer = kit_thread(kit, cache).result(5.0)
    assert inner[0].body == k.chat(2)
    assert outer.body == k.chat(1)


async def test_a_call_inside_the_same_async_call_does_not_wait_for_itself(kit, k):
    cache = kit.cache()
    inner = []

    async def before():
        inner.append(await kit.aask(cache))

    kit.upstream.script.append(k.Answer(before=before))
    outer = await asyncio.wait_for(kit.aask(cache), 3)
    assert inner[0].body == k.chat(2)
    assert outer.body == k.chat(1)


async def test_a_task_started_by_the_same_async_call_does_not_wait_for_it(kit, k):
    cache = kit.cache()
    inner = []

    async def before():
        inner.extend(await asyncio.gather(kit.aask(cache), kit.aask(cache)))

    kit.upstream.script.append(k.Answer(before=before))
    await asyncio.wait_for(kit.aask(cache), 3)
    assert len(inner) == 2


async def test_a_worker_started_inside_a_call_shares_flights_once_that_call_is_over(kit, k):
    """A task inherits the context of the call that started it, and may outlive it by days."""
    cache = kit.cache()
    over = asyncio.Event()
    started = []

    async def worker():
        await over.wait()
        kit.upstream.hold()
        pair = [asyncio.create_task(kit.aask(cache, "later")) for _ in range(2)]
        await k.auntil(lambda: kit.upstream.calls >= 2)
        await asyncio.sleep(0.01)
        kit.upstream.release()
        return await asyncio.gather(*pair)

    kit.upstream.script.append(k.Answer(before=lambda: started.append(asyncio.create_task(worker()))))
    await kit.aask(cache)
    over.set()
    await asyncio.wait_for(started[0], 5)
    assert kit.upstream.calls == 2


async def test_a_sync_call_on_the_loops_thread_does_not_wait_for_a_task_of_that_loop(kit, k):
    cache = kit.cache()
    kit.upstream.script.append(k.Answer(before=lambda: asyncio.sleep(0.05)))
    leader = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: kit.upstream.calls == 1)
    blocking = kit.ask(cache)
    assert blocking.body == k.chat(2)
    assert (await asyncio.wait_for(leader, 5)).body == k.chat(1)


async def test_a_sync_call_on_a_loop_may_wait_for_another_thread(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    leader = kit_thread(kit, cache)
    kit.upstream.seen(1)
    threading.Timer(0.02, kit.upstream.release).start()
    assert kit.ask(cache).body == k.chat(1)
    leader.result()
    assert kit.upstream.calls == 1


def test_refresh_no_store_and_max_age_calls_do_not_join(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    leader = kit_thread(kit, cache)
    kit.upstream.seen(1)
    others = []
    for number, said in enumerate(({"refresh": True}, {"store": False}, {"max_age": 5}), 2):

        def call(said=said):
            with using(**said):
                return kit.ask(cache)

        others.append(k.Running(call))
        kit.upstream.seen(number)
    kit.upstream.release()
    assert {one.result().body for one in others} == {k.chat(2), k.chat(3), k.chat(4)}
    assert leader.result().body == k.chat(1)


def test_nobody_joins_a_refresh_or_no_store_call(kit, k):
    cache = kit.cache()
    kit.upstream.hold()

    def call(**said):
        with using(**said):
            return kit.ask(cache)

    first = k.Running(call, store=False)
    kit.upstream.seen(1)
    second = k.Running(call)
    kit.upstream.seen(2)
    kit.upstream.release()
    first.result()
    second.result()
    assert kit.upstream.calls == 2


# -- uncacheable answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
def test_uncacheable_answers_do_not_queue_their_callers(kit, k, kind, live):
    cache = kit.cache()
    number = 30

    def truncated(call):
        if live:
            return k.Answer(chunks=k.events(call, finish="length"))
        return k.Answer(body=k.chat(call, finish="length"))

    kit.upstream.always = truncated
    kit.upstream.delay = 0.05
    started = time.monotonic()
    with kit.crowd(cache, kind, number, live=live) as results:
        found = results()
    assert time.monotonic() - started < 1.0
    assert not [result.error for result in found if result.error]
    if not live:
        assert kit.upstream.calls == number
        assert len({result.body for result in found}) == number
    assert cache.stats().stored == 0


def test_an_uncacheable_key_is_cached_again_after_a_while(kit, k, monkeypatch):
    import askonce._flights as flights

    now = [0.0]
    monkeypatch.setattr(flights.time, "monotonic", lambda: now[0])
    table = Flights()
    owner = Owner(threading.current_thread(), None)
    flight, leads = table.join("k", owner, None)
    assert leads
    table.release(flight)
    assert table.join("k", owner, None) == (None, False)
    now[0] += 9.9
    assert table.join("k", owner, None) == (None, False)
    now[0] += 0.2
    flight, leads = table.join("k", owner, None)
    assert leads
    assert table._passes == {}
    table.fail(flight, counts=False)


def test_remembering_uncacheable_keys_is_bounded(monkeypatch):
    table = Flights()
    owner = Owner(threading.current_thread(), None)
    for number in range(10_050):
        flight, _ = table.join(str(number), owner, None)
        table.release(flight)
    assert len(table._passes) <= 10_000
    assert len(table) == 0


# -- patience ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_whose_patience_runs_out_asks_alone(kit, k, kind):
    cache = kit.cache()
    kit.upstream.hold()
    leader = kit_thread(kit, cache)
    kit.upstream.seen(1)
    with kit.crowd(cache, kind, 3, patience=0.05) as results:
        k.until(lambda: kit.upstream.calls == 4, "three lonely callers", 3.0)
        kit.upstream.release()
        found = results()
    assert {result.outcome.status for result in found} == {"miss"}
    leader.result()


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_patience_counts_between_the_chunks_of_a_followed_stream(kit, k, kind):
    cache = kit.cache()
    pause = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, pause, *rest]))
    reply = cache.ask(k.Ask(kit.upstream, live=True))
    assert reply.reader.read() == first
    reading = k.Running(reply.reader.read)  # the leader waits for the second chunk
    with kit.crowd(cache, kind, 1, live=True, patience=0.05) as results:
        (found,) = results(5.0)
    assert isinstance(found.error, TimeoutError)
    pause.set()
    assert reading.result() == rest[0]
    assert k.consume(reply)
    assert kit.ask(cache, live=True).outcome.status == "hit"


# -- fork -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_flight_is_pending_does_not_wait(kit, k):
    cache = kit.cache()
    kit.upstream.hold()
    leader = kit_thread(kit, cache)
    kit.upstream.seen(1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kit.upstream.release()
            code = 0 if kit.ask(cache).body == k.chat(2) else 2
        finally:
            os._exit(code)
    end = time.monotonic() + 10
    while True:
        pid, waited = os.waitpid(child, os.WNOHANG)
        if pid or time.monotonic() > end:
            break
        time.sleep(0.005)
    if not pid:
        os.kill(child, 9)
        os.waitpid(child, 0)
    kit.upstream.release()
    leader.result()
    assert pid, "the child hangs"
    assert os.waitstatus_to_exitcode(waited) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_refreshes_run_can_refresh(kit, k):
    cache = kit.cache(stale_while_revalidate=100)
    prompts = [f"p{number}" for number in range(9)]
    for prompt in prompts:
        kit.ask(cache, prompt)
    kit.clock.advance(101)
    kit.upstream.hold()
    for prompt in prompts[:8]:
        assert kit.ask(cache, prompt).outcome.status == "stale"
    kit.upstream.seen(9 + 8)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kit.upstream.release()
            kit.ask(cache, prompts[8])
            end = time.monotonic() + 3
            while kit.upstream.calls < 9 + 8 + 1 and time.monotonic() < end:
                time.sleep(0.005)
            code = 0 if kit.upstream.calls == 9 + 8 + 1 else 3
        finally:
            os._exit(code)
    _, waited = os.waitpid(child, 0)
    kit.upstream.release()
    k.until(lambda: len(cache._flow.flights) == 0)
    assert os.waitstatus_to_exitcode(waited) == 0


# -- afterwards -------------------------------------------------------------------------------------


async def test_no_task_is_left_when_everybody_has_an_answer(kit):
    cache = kit.cache()
    await asyncio.wait_for(asyncio.gather(*[kit.aask(cache) for _ in range(50)]), 10)
    await asyncio.wait_for(asyncio.gather(*[kit.aask(cache, live=True) for _ in range(50)]), 10)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    assert len(cache._flow.flights) == 0


def test_two_calls_that_each_make_the_others_question_inside_do_not_lock_up(kit, k):
    """A leads "one" and asks "two" inside; B leads "two" and asks "one" inside: a ring of waiters."""
    cache = kit.cache()
    both = threading.Barrier(2, timeout=5)

    def inside(other):
        def before():
            both.wait()
            return kit.ask(cache, other)

        return lambda: (before(), None)[1]

    kit.upstream.script += [k.Answer(before=inside("two")), k.Answer(before=inside("one"))]
    first = kit_thread(kit, cache, "one")
    kit.upstream.seen(1)
    second = kit_thread(kit, cache, "two")
    first.result(4.0)
    second.result(4.0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_work_as_well(kit):
    cache = kit.cache()

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await asyncio.gather(*[kit.aask(cache, live=True) for _ in range(20)])

    asyncio.run(asyncio.wait_for(main(), 10))
    assert kit.upstream.calls == 1
