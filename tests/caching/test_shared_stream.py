"""A running stream and those who read along: whoever leaves, pauses or breaks off hurts nobody else."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from askonce import Policy, track
from askonce._buffer import StreamBroken
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore


def lead(kit, k, cache, **options):
    """A sync leader that has its response and has read nothing."""
    reply = cache.ask(k.Ask(kit.upstream, live=True, **options))
    assert reply.outcome.status == "miss"
    return reply


async def alead(kit, k, cache, **options):
    reply = await cache.aask(k.AsyncAsk(kit.upstream, live=True, **options))
    assert reply.outcome.status == "miss"
    return reply


def follow(kit, k, cache, **options):
    reply = cache.ask(k.Ask(kit.upstream, live=True, **options))
    assert reply.outcome.status == "coalesced"
    return reply


async def afollow(kit, k, cache, **options):
    reply = await cache.aask(k.AsyncAsk(kit.upstream, live=True, **options))
    assert reply.outcome.status == "coalesced"
    return reply


def whole(k, number=1):
    return b"".join(k.events(number))


# -- reading along ----------------------------------------------------------------------------------


def test_the_first_chunk_comes_before_the_second_is_there(kit, k):
    cache = kit.cache()
    pause = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, pause, *rest]))
    leader = lead(kit, k, cache)
    assert leader.reader.read() == first
    follower = follow(kit, k, cache)
    assert follower.reader.read() == first
    pause.set()
    assert k.consume(leader) == b"".join(rest)
    assert k.consume(follower) == b"".join(rest)
    assert kit.upstream.calls == 1
    assert kit.upstream.closed == [1]


def test_a_late_follower_gets_everything_from_the_first_byte(kit, k):
    cache = kit.cache()
    chunks = k.events(1)
    leader = lead(kit, k, cache)
    for chunk in chunks[:-1]:
        assert leader.reader.read() == chunk
    late = follow(kit, k, cache)
    assert k.consume(late) == whole(k)
    assert k.consume(leader) == chunks[-1]
    assert cache.stats().stored == 1


def test_a_caller_after_the_final_event_is_a_hit_though_the_stream_is_still_open(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    for _ in k.events(1):
        leader.reader.read()
    assert kit.ask(cache, live=True).outcome.status == "hit"
    leader.reader.close()
    assert leader.outcome.stored is True


def test_nothing_is_read_ahead(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    assert kit.upstream.pulls == 0
    leader.reader.read()
    assert kit.upstream.pulls == 1
    leader.reader.close()


def test_a_leader_that_pauses_for_ever_does_not_stop_its_followers(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    followers = [follow(kit, k, cache) for _ in range(3)]
    reading = [k.Running(k.consume, follower) for follower in followers]
    assert {one.result() for one in reading} == {whole(k)}
    assert leader.outcome.stored is True
    assert kit.upstream.closed == []
    leader.reader.close()
    assert kit.upstream.closed == [1]


async def test_an_async_leader_that_pauses_for_ever_does_not_stop_its_followers(kit, k):
    cache = kit.cache()
    leader = await alead(kit, k, cache)
    await leader.reader.aread()
    other = kit.loop()
    thread = k.Running(kit.ask, cache, live=True)
    elsewhere = other.submit(kit.aask(cache, live=True))
    here = await asyncio.wait_for(kit.aask(cache, live=True), 5)
    assert here.body == whole(k)
    assert (await asyncio.wait_for(asyncio.wrap_future(elsewhere), 5)).body == whole(k)
    assert (await asyncio.to_thread(thread.result)).body == whole(k)
    assert leader.outcome.stored is True
    await leader.reader.aclose()
    assert kit.upstream.closed == [1]


def test_a_leader_that_closes_early_leaves_the_stream_to_its_followers(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    follower = follow(kit, k, cache)
    leader.reader.close()
    assert kit.upstream.closed == []
    assert k.consume(follower) == whole(k)
    assert kit.upstream.closed == [1]
    assert cache.stats().stored == 1
    assert leader.outcome.stored is True


async def test_an_async_leader_that_closes_early_leaves_the_stream_to_its_followers(kit, k):
    cache = kit.cache()
    leader = await alead(kit, k, cache)
    await leader.reader.aread()
    follower = await afollow(kit, k, cache)
    thread = k.Running(follow, kit, k, cache)
    other = await asyncio.to_thread(thread.result)
    await leader.reader.aclose()
    assert kit.upstream.closed == []
    assert await k.aconsume(follower) == whole(k)
    assert await asyncio.to_thread(k.consume, other) == whole(k)
    await k.auntil(lambda: kit.upstream.closed == [1], "the source to be closed", 1.0)
    assert cache.stats().stored == 1


def test_when_everybody_leaves_early_nothing_is_stored(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    follower = follow(kit, k, cache)
    leader.reader.close()
    follower.reader.read()
    follower.reader.close()
    follower.reader.close()
    leader.reader.close()
    assert kit.upstream.closed == [1]
    assert cache.stats().stored == 0
    assert cache.stats().dropped == {"closed early": 1}
    assert leader.outcome.stored is False
    assert leader.outcome.not_stored == "closed early"
    assert kit.ask(cache, live=True).body == whole(k, 2)


async def test_when_everybody_on_a_loop_leaves_early_nothing_is_stored(kit, k):
    cache = kit.cache()
    leader = await alead(kit, k, cache)
    await leader.reader.aread()
    follower = await afollow(kit, k, cache)
    await leader.reader.aclose()
    await follower.reader.aclose()
    await leader.reader.aclose()
    assert kit.upstream.closed == [1]
    assert leader.outcome.not_stored == "closed early"
    assert cache.stats().stored == 0
    assert len(cache._flow.flights) == 0


def test_a_leader_that_breaks_off_alone_closes_the_source_once(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    leader.reader.close()
    leader.reader.close()
    assert kit.upstream.closed == [1]
    assert cache.stats().stored == 0
    assert len(cache._flow.flights) == 0


async def test_a_leader_cancelled_while_it_waits_for_a_chunk_closes_the_source_once(kit, k):
    cache = kit.cache()
    never = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, never, *rest]))
    task = asyncio.create_task(kit.aask(cache, live=True))
    await k.auntil(lambda: kit.upstream.pulls == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert kit.upstream.closed == [1]
    assert len(cache._flow.flights) == 0
    assert cache.stats().stored == 0
    assert cache.stats().dropped == {"closed early": 1}
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("last", ["thread", "other loop"])
def test_a_last_reader_that_leaves_from_elsewhere_closes_the_source(kit, k, last):
    cache = kit.cache()
    loop = kit.loop()
    leader = loop.run(alead(kit, k, cache))
    loop.run(leader.reader.aread())
    if last == "thread":
        follower = follow(kit, k, cache)
        loop.run(leader.reader.aclose())
        follower.reader.close()
    else:
        other = kit.loop()
        follower = other.run(afollow(kit, k, cache))
        loop.run(leader.reader.aclose())
        other.run(follower.reader.aclose())
    k.until(lambda: kit.upstream.closed == [1], "the source to be closed", 1.0)
    k.until(lambda: len(cache._flow.flights) == 0, "an empty table", 1.0)
    assert leader.outcome.not_stored == "closed early"


async def test_a_cancellation_that_comes_twice_still_closes_the_source(kit, k):
    """Cancel scopes (anyio, Starlette) cancel every await of the clean-up again."""
    cache = kit.cache()
    never = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, never, *rest]))
    task = asyncio.create_task(kit.aask(cache, live=True))
    await k.auntil(lambda: kit.upstream.pulls == 2)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    await asyncio.sleep(0.02)
    assert kit.upstream.closed == [1]
    assert len(cache._flow.flights) == 0


async def test_a_cancelled_scope_still_closes_the_source(kit, k):
    anyio = pytest.importorskip("anyio")
    cache = kit.cache()
    never = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, never, *rest]))
    with anyio.move_on_after(0.02) as scope:
        await kit.aask(cache, live=True)
    assert scope.cancelled_caught
    await asyncio.sleep(0.02)
    assert kit.upstream.closed == [1]
    assert len(cache._flow.flights) == 0


async def test_a_cancelled_leader_does_not_break_the_stream_for_its_followers(kit, k):
    cache = kit.cache()
    pause = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, pause, *rest]))
    leader = asyncio.create_task(kit.aask(cache, live=True))
    await k.auntil(lambda: kit.upstream.pulls == 2)
    followers = [asyncio.create_task(kit.aask(cache, live=True)) for _ in range(5)]
    await k.auntil(lambda: len(kit.flight(cache).stream._buffer.readers) == 6)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    pause.set()
    found = await asyncio.wait_for(asyncio.gather(*followers), 5)
    assert {one.body for one in found} == {whole(k)}
    assert kit.upstream.calls == 1
    assert kit.upstream.closed == [1]


async def test_a_follower_cancelled_in_the_middle_hurts_nobody(kit, k):
    cache = kit.cache()
    pause = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, pause, *rest]))
    leader = await alead(kit, k, cache)
    follower = asyncio.create_task(kit.aask(cache, live=True))
    await k.auntil(lambda: kit.upstream.pulls == 2)  # the follower's pull is under way
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    reading = asyncio.create_task(k.aconsume(leader))
    await asyncio.sleep(0)
    pause.set()
    assert await asyncio.wait_for(reading, 5) == whole(k)
    assert leader.outcome.stored is True
    assert kit.upstream.closed == [1]


@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
async def test_a_task_cancelled_while_it_pulls_for_a_thread_stays_cancelled(kit, k, live):
    """A thread leads and leaves; the task that reads on is cancelled while a worker waits for a chunk."""
    cache = kit.cache()
    pause = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, pause, *rest]))
    leader = await asyncio.to_thread(lead, kit, k, cache)
    follower = asyncio.create_task(cache_consume(kit, k, cache, live=live))
    await k.auntil(lambda: kit.upstream.pulls == 2)
    await asyncio.to_thread(leader.reader.close)
    asyncio.get_running_loop().call_later(0.02, pause.set)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(follower, 5)
    await k.auntil(lambda: kit.upstream.closed == [1], "the source to be closed", 1.0)
    assert len(cache._flow.flights) == 0


async def cache_consume(kit, k, cache, *, live):
    ask = k.AsyncAsk(kit.upstream, stream=True, live=live)
    return await k.aconsume(await cache.aask(ask))


# -- who pulls --------------------------------------------------------------------------------------


def test_a_thread_is_not_held_up_by_a_followers_busy_worker_threads(kit, k):
    """A task that follows a thread's stream pulls on a worker thread; those may all be taken."""
    cache = kit.cache()
    loop = kit.loop()
    busy = threading.Event()

    async def occupy():
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        pool.submit(busy.wait, 10)

    loop.run(occupy())
    leader = lead(kit, k, cache)
    future = loop.submit(kit.aask(cache, live=True))
    k.until(lambda: len(leader.reader.stream._buffer.readers) == 2)
    k.until(lambda: leader.reader.stream._pulling or leader.reader.stream._wakers, "the follower's turn", 1.0)
    try:
        assert k.Running(k.consume, leader).result(2.0) == whole(k)
    finally:
        busy.set()
    assert future.result(5).body == whole(k)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_interrupted_follower_does_not_interrupt_the_leader(kit, k):
    cache = kit.cache()
    first, *_ = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, KeyboardInterrupt()]))
    leader = lead(kit, k, cache)
    leader.reader.read()
    follower = k.Running(kit.ask, cache, live=True)
    with pytest.raises(KeyboardInterrupt):
        follower.result()
    try:
        leader.reader.read()
    except BaseException as error:
        seen = error
    leader.reader.close()
    assert isinstance(seen, Exception), "somebody else's Ctrl-C"


def test_a_slow_follower_holds_nobody_up(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    slow = follow(kit, k, cache)
    assert k.consume(leader)
    assert leader.outcome.stored is True
    assert kit.ask(cache, live=True).outcome.status == "hit"
    assert k.consume(slow) == whole(k)


def test_the_same_thread_may_ask_again_while_its_own_stream_is_half_read(kit, k):
    cache = kit.cache()
    mine = lead(kit, k, cache)
    mine.reader.read()
    again = k.Running(lambda: None)
    again.result()

    def both():
        first = lead(kit, k, cache, prompt="two")
        first.reader.read()
        second = kit.ask(cache, "two", live=True)
        rest = k.consume(first)
        return second, rest

    second, rest = k.Running(both).result(5.0)
    assert second.body == whole(k, 2)
    assert rest == b"".join(k.events(2)[1:])
    mine.reader.close()


async def test_the_same_task_may_ask_again_while_its_own_stream_is_half_read(kit, k):
    cache = kit.cache()
    mine = await alead(kit, k, cache)
    await mine.reader.aread()
    again = await asyncio.wait_for(kit.aask(cache, live=True), 5)
    assert again.body == whole(k)
    assert await k.aconsume(mine) == b"".join(k.events(1)[1:])
    assert kit.upstream.calls == 1


async def test_a_sync_call_on_a_loop_asks_alone_while_a_task_of_that_loop_streams(kit, k):
    cache = kit.cache()
    mine = await alead(kit, k, cache)
    await mine.reader.aread()
    assert kit.ask(cache, live=True).body == whole(k, 2)
    assert await k.aconsume(mine) == b"".join(k.events(1)[1:])


async def test_a_task_follows_a_stream_that_its_own_thread_leads_synchronously(kit, k):
    cache = kit.cache()
    mine = lead(kit, k, cache)
    mine.reader.read()
    found = await asyncio.wait_for(kit.aask(cache, live=True), 5)
    assert found.body == whole(k)
    mine.reader.close()


def test_a_plain_caller_of_a_streamed_question_gets_the_whole_text(kit, k):
    """`with_streaming_response` and a plain call ask the same question."""
    cache = kit.cache()
    kit.upstream.always = k.Answer(body=k.chat(1), chunks=[k.chat(1)[:10], k.chat(1)[10:]])
    kit.upstream.always.content_type = "application/json"

    class Live(k.Ask):
        def __init__(self, upstream):
            super().__init__(upstream)
            self.live = True

    leader = cache.ask(Live(kit.upstream))
    assert leader.reader.read() == k.chat(1)[:10]
    plain = k.Running(kit.ask, cache).result(5.0)
    assert plain.body == k.chat(1)
    assert plain.outcome.status == "coalesced"
    leader.reader.close()
    assert kit.upstream.calls == 1


# -- streams that break -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks", "two loops", "mix"])
def test_a_stream_cut_in_the_middle_is_never_silently_partial(kit, k, kind):
    cache = kit.cache()
    first, second, *_ = k.events(1)
    cut = ConnectionResetError("cut")
    kit.upstream.script.append(k.Answer(chunks=[first, second, cut]))
    kit.upstream.hold()
    with kit.crowd(cache, kind, 20, live=True) as results:
        kit.until_waiting(cache, 19)
        kit.upstream.release()
        found = results()
    assert [one.error for one in found if isinstance(one.error, ConnectionResetError)] == [cut]
    for one in found:
        if one.error is None:
            assert one.body == whole(k, 2)
        else:
            assert isinstance(one.error, ConnectionResetError | StreamBroken)
    assert cache.stats().dropped.get("cut") == 1
    k.until(lambda: 1 in kit.upstream.closed, "the broken response to be closed", 1.0)


@pytest.mark.parametrize("kind", ["threads", "tasks", "two loops", "mix"])
def test_a_stream_that_just_ends_is_an_error_for_followers(kit, k, kind):
    """The leader sees what it would have seen alone. The others must not take half an answer for one."""
    cache = kit.cache()
    first, second, *_ = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, second]))
    kit.upstream.hold()
    with kit.crowd(cache, kind, 20, live=True) as results:
        kit.until_waiting(cache, 19)
        kit.upstream.release()
        found = results()
    partial = [one for one in found if one.body == first + second]
    assert len(partial) == 1
    assert partial[0].outcome.status == "miss"
    assert {type(one.error) for one in found if one.error} <= {StreamBroken}


def test_a_large_stream_that_just_ends_is_an_error_for_followers_as_well(kit, k):
    """Too large to be recorded is no reason to pass half an answer on as a whole one."""
    cache = kit.cache(max_entry_bytes=100)
    first, second, *_ = k.events(1)
    pause = threading.Event()
    kit.upstream.script.append(k.Answer(chunks=[first[:50], pause, first[50:], second]))
    leader = lead(kit, k, cache)
    assert leader.reader.read()
    follower = follow(kit, k, cache)
    pause.set()
    k.consume(leader)
    with pytest.raises(StreamBroken):
        k.consume(follower)


def test_a_stream_that_breaks_before_its_first_byte_is_led_by_the_next(kit, k):
    cache = kit.cache()
    pause = threading.Event()
    kit.upstream.script.append(k.Answer(chunks=[pause, ConnectionResetError("cut")]))
    leader = lead(kit, k, cache)
    followers = [k.Running(kit.ask, cache, live=True) for _ in range(5)]
    k.until(lambda: len(leader.reader.stream._buffer.readers) == 6)
    pause.set()
    assert {one.result().body for one in followers} == {whole(k, 2)}
    with pytest.raises(ConnectionResetError):
        leader.reader.read()
    leader.reader.close()
    assert kit.upstream.calls == 2


def test_an_error_event_reaches_everybody_and_is_not_stored(kit, k):
    cache = kit.cache()
    broken = b'data: {"error": {"message": "overloaded"}}\n\n'
    first, *_ = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, broken]))
    leader = lead(kit, k, cache)
    leader.reader.read()
    follower = follow(kit, k, cache)
    assert k.consume(follower) == first + broken
    assert k.consume(leader) == broken
    assert cache.stats().stored == 0
    assert cache.stats().dropped == {"error event": 1}


def test_the_leaders_loop_stops_in_the_middle(kit, k):
    cache = kit.cache()
    loop = kit.loop()
    leader = loop.run(alead(kit, k, cache))
    loop.run(leader.reader.aread())
    follower = follow(kit, k, cache)
    other = kit.loop()
    third = other.run(afollow(kit, k, cache))
    loop.stop()
    started = time.monotonic()
    reading = k.Running(k.consume, follower)
    with pytest.raises(StreamBroken):
        reading.result(4.0)
    with pytest.raises(StreamBroken):
        other.run(k.aconsume(third), 4.0)
    assert time.monotonic() - started < 3.0
    assert kit_fresh(kit, k, cache).body == whole(k, 2)


def test_a_loop_that_ends_while_a_stream_is_closed_leaves_no_warning(kit, k):
    cache = kit.cache()
    loop = kit.loop()
    leader = loop.run(alead(kit, k, cache))
    loop.run(leader.reader.aread())

    def close_and_stop(reader=leader.reader):
        reader.close()
        loop.loop.call_soon(loop.loop.stop)

    loop.loop.call_soon_threadsafe(close_and_stop)
    loop.thread.join(5)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loop.loop.close()
        for task in asyncio.all_tasks(loop.loop):
            task._log_destroy_pending = False
        del leader, task, close_and_stop
        gc.collect()
    assert [str(one.message) for one in seen if "never awaited" in str(one.message)] == []


def kit_fresh(kit, k, cache):
    return k.Running(kit.ask, cache, live=True).result(4.0)


def test_the_leaders_loop_is_closed_in_the_middle(kit, k):
    cache = kit.cache()
    loop = kit.loop()
    leader = loop.run(alead(kit, k, cache))
    loop.run(leader.reader.aread())
    follower = follow(kit, k, cache)
    loop.finish()
    reading = k.Running(k.consume, follower)
    with pytest.raises(StreamBroken):
        reading.result(2.0)
    assert kit_fresh(kit, k, cache).body == whole(k, 2)


def test_a_leader_under_asyncio_run_that_returns_half_way_leaves_no_one_hanging(kit, k):
    cache = kit.cache()
    never = threading.Event()
    first, *rest = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[first, never, *rest]))
    followers = []

    async def main():
        leader = await alead(kit, k, cache)
        await leader.reader.aread()
        followers.append(k.Running(kit.ask, cache, live=True))
        await k.auntil(lambda: kit.upstream.pulls == 2)
        return leader

    leader = asyncio.run(main())
    with pytest.raises(StreamBroken):
        followers[0].result(4.0)
    assert leader.reader


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_stream_that_was_dropped_without_closing_leaves_the_table(kit, k):
    cache = kit.cache()
    leader = lead(kit, k, cache)
    leader.reader.read()
    assert len(cache._flow.flights) == 1
    del leader
    gc.collect()
    assert len(cache._flow.flights) == 0
    assert kit.ask(cache, live=True).body == whole(k, 2)


def test_nobody_joins_a_stream_that_was_left_alone_for_long(kit, k, monkeypatch):
    import askonce._shared as shared

    now = [1000.0]
    monkeypatch.setattr(shared.time, "monotonic", lambda: now[0])
    cache = kit.cache()
    reply = cache.ask(k.Ask(kit.upstream, live=True))
    reply.reader.read()
    now[0] += 3
    other = cache.ask(k.Ask(kit.upstream, live=True))
    assert other.outcome.status == "miss"
    assert k.consume(other) == whole(k, 2)
    reply.reader.close()


# -- what is and is not kept ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks", "mix"])
def test_a_stream_above_the_limit_reaches_everybody_and_is_not_stored(kit, k, kind):
    cache = kit.cache(max_entry_bytes=150)
    kit.upstream.always = k.Answer(chunks=k.events(1))
    kit.upstream.hold()
    with kit.crowd(cache, kind, 20, live=True) as results:
        kit.until_waiting(cache, 19)
        kit.upstream.release()
        found = results()
    assert [one.error for one in found] == [None] * 20
    assert {one.body for one in found} == {whole(k)}
    assert cache.stats().stored == 0
    assert set(cache.stats().dropped) == {"too large"}


def test_a_large_stream_does_not_stay_in_memory(kit, k):
    cache = kit.cache(max_entry_bytes=2000)
    line = b"data: " + b"x" * 992 + b"\n\n"
    kit.upstream.always = k.Answer(chunks=[line] * 500 + [k.DONE])
    leader = lead(kit, k, cache)
    stream = leader.reader.stream
    assert leader.reader.read() == line
    follower = follow(kit, k, cache)
    most = 0
    for _ in range(499):
        assert leader.reader.read() == line
        assert follower.reader.read() == line
        most = max(most, sum(map(len, stream._buffer._chunks)))
    assert most <= 5000
    assert k.consume(leader) == k.DONE
    assert k.consume(follower).endswith(k.DONE)


def test_a_large_stream_does_not_stay_in_memory_for_a_follower_that_sleeps(kit, k):
    cache = kit.cache(max_entry_bytes=2000)
    line = b"data: " + b"x" * 992 + b"\n\n"
    kit.upstream.always = k.Answer(chunks=[line] * 500 + [k.DONE])
    leader = lead(kit, k, cache)
    leader.reader.read()
    sleeping = follow(kit, k, cache)
    for _ in range(400):
        leader.reader.read()
    assert sum(map(len, leader.reader.stream._buffer._chunks)) <= 50_000
    sleeping.reader.close()
    leader.reader.close()


def test_a_leader_that_lags_behind_its_followers_is_never_given_up(kit, k):
    """It is the leader's own call: whoever reads along must not break it, however fast they are."""
    cache = kit.cache(max_entry_bytes=2000)
    line = b"data: " + b"x" * 992 + b"\n\n"
    kit.upstream.always = k.Answer(chunks=[line] * 200 + [k.DONE])
    leader = lead(kit, k, cache)
    assert leader.reader.read() == line
    follower = follow(kit, k, cache)

    def race():
        try:
            return k.consume(follower)
        except (StreamBroken, TimeoutError):
            return None  # giving up a follower is allowed

    running = k.Running(race)
    k.until(lambda: kit.upstream.pulls > 40 or running.done, "a fast follower")
    assert k.consume(leader) == line * 199 + k.DONE
    assert running.result() in {None, line * 200 + k.DONE}


def test_outcomes_of_streams_are_complete_when_they_end(kit, k):
    cache = kit.cache()
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}\n\n'
    *chunks, done = k.events(1)
    kit.upstream.script.append(k.Answer(chunks=[*chunks, usage, done]))
    with track() as outcomes:
        leader = lead(kit, k, cache)
        assert outcomes[0].stored is None
        k.consume(leader)
    assert outcomes[0].stored is True
    assert outcomes[0].usage["total_tokens"] == 5
    assert cache.stats().usage_spent["total_tokens"] == 5
    hit = kit.ask(cache, live=True)
    assert hit.outcome.usage["total_tokens"] == 5


@pytest.mark.parametrize(
    "chunk",
    [
        b'data: {"choices":[{"index":[],"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"index":{},"delta":{"content":"x"},"finish_reason":{}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":["stop"]}]}\n\n',
        b'data: {"choices":{"index":0},"usage":[]}\n\n',
        b'data: {"usage":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}\n\n",
        b"data: " + b"[" * 2000 + b"\n\n",
        b'data: "text"\n\n',
    ],
    ids=["index-list", "index-object", "reason-list", "choices-object", "deep-usage", "deep", "text"],
)
def test_a_stream_of_strange_events_reaches_the_caller_all_the_same(kit, k, chunk):
    cache = kit.cache()
    kit.upstream.script.append(k.Answer(chunks=[chunk, k.DONE]))
    leader = lead(kit, k, cache)
    assert k.consume(leader) == chunk + k.DONE
    assert len(cache._flow.flights) == 0


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_close_that_fails_reaches_the_caller_and_nobody_hangs(kit, k, face):
    cache = kit.cache()
    kit.upstream.script.append(k.Answer(close_error=OSError("close")))
    if face == "sync":
        leader = lead(kit, k, cache)
        leader.reader.read()
        with pytest.raises(OSError, match="close"):
            leader.reader.close()
    else:

        async def main():
            leader = await alead(kit, k, cache)
            await leader.reader.aread()
            with pytest.raises(OSError, match="close"):
                await leader.reader.aclose()

        asyncio.run(asyncio.wait_for(main(), 5))
    assert len(cache._flow.flights) == 0


def test_a_stream_whose_store_fails_is_whole_all_the_same(kit, k):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    store.fail_with(OSError("full"), operations=["set"])
    cache = kit.cache(store)
    leader = lead(kit, k, cache)
    follower = None
    leader.reader.read()
    follower = follow(kit, k, cache)
    assert k.consume(leader)
    assert k.consume(follower) == whole(k)


def test_a_store_that_hangs_does_not_hold_up_the_chunks(kit, k):
    """The last chunk is the caller's; storing is ours. (Sync callers store themselves, after the chunk.)"""
    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store)

    async def main():
        leader = await alead(kit, k, cache)
        store.slow_down(5, operations=["set"])
        started = time.monotonic()
        while await leader.reader.aread() != k.DONE:
            pass
        took = time.monotonic() - started
        store.recover()
        while await leader.reader.aread() is not None:
            pass
        await leader.reader.aclose()
        return took

    async def guarded():
        # Half a second is the store's; the test ends in any case.
        asyncio.get_running_loop().call_later(1.0, store.recover)
        return await asyncio.wait_for(main(), 5)

    assert asyncio.run(guarded()) < 0.9
    assert cache.stats().stored == 1


def test_a_stream_completed_by_a_follower_after_the_leader_left_counts_as_stored_once(kit, k):
    cache = kit.cache(policy=Policy(jitter=0))
    leader = lead(kit, k, cache)
    leader.reader.read()
    followers = [follow(kit, k, cache) for _ in range(3)]
    leader.reader.close()
    for one in followers:
        assert k.consume(one) == whole(k)
    stats = cache.stats()
    assert (stats.stored, stats.misses, stats.coalesced) == (1, 1, 3)
    assert kit.upstream.closed == [1]
