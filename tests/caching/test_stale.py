"""After its life an answer may still serve: at once while a new one is fetched, or instead of an error."""

from __future__ import annotations

import asyncio
import threading

import pytest

from askonce import using
from askonce._control import Control
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore

FACES = pytest.mark.parametrize("face", ["sync", "async"])


def call(kit, face, cache, prompt="hello", **options):
    if face == "sync":
        return kit.ask(cache, prompt, **options)

    async def main():
        found = await asyncio.wait_for(kit.aask(cache, prompt, **options), 10)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        return found

    return asyncio.run(main())


def settled(kit, k, cache, refreshes):
    k.until(lambda: kit.upstream.refreshes >= refreshes, "a refresh")
    k.until(lambda: len(cache._flow.flights) == 0, "the refresh to end")


# -- while it is refreshed --------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
def test_a_stale_answer_is_given_at_once_and_refreshed_behind(kit, k, face, live):
    cache = kit.cache(ttl=100, stale_while_revalidate=50)
    first = kit.ask(cache, live=live)
    kit.clock.advance(100)
    stale = call(kit, face, cache, live=live)
    assert stale.body == first.body
    assert (stale.outcome.status, stale.outcome.reason) == ("stale", "stale-while-revalidate")
    assert stale.outcome.ttl == pytest.approx(0)
    settled(kit, k, cache, 1)
    fresh = kit.ask(cache, live=live)
    assert fresh.outcome.status == "hit"
    assert fresh.body == (b"".join(k.events(2)) if live else k.chat(2))
    assert cache.stats().refreshes == 1
    assert kit.upstream.calls == 2


def test_a_stale_answer_does_not_wait_for_its_refresh(kit, k):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.hold()
    for _ in range(5):
        assert k.Running(kit.ask, cache).result(1.0).outcome.status == "stale"
    kit.upstream.release()
    settled(kit, k, cache, 1)
    assert kit.upstream.calls == 2


@pytest.mark.parametrize(("later", "status"), [(149.5, "stale"), (150, "miss"), (151, "miss")])
def test_the_window_ends_where_it_ends(kit, k, later, status):
    cache = kit.cache(ttl=100, stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(later)
    assert kit.ask(cache).outcome.status == status
    k.until(lambda: len(cache._flow.flights) == 0)


def test_a_crowd_of_stale_readers_refreshes_once(kit, k):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.hold()
    with kit.crowd(cache, "mix", 100) as results:
        found = results()
    assert {one.outcome.status for one in found} == {"stale"}
    kit.upstream.release()
    settled(kit, k, cache, 1)
    assert kit.upstream.refreshes == 1
    assert cache.stats().refreshes == 1, "refreshes *started*: the others found one under way"


def test_a_reader_that_comes_late_does_not_refresh_what_was_just_refreshed(kit, k):
    """It read the stale entry before the refresh was stored, and spawns after."""

    class Late(MemoryStore):
        reading = threading.Event()
        go_on = threading.Event()

        def get(self, key):
            found = super().get(key)
            if threading.current_thread().name == "late":
                self.reading.set()
                assert self.go_on.wait(5)
            return found

    store = Late(clock=kit.clock)
    cache = kit.cache(store, stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    results = []

    def late():
        threading.current_thread().name = "late"
        results.append(kit.ask(cache).outcome.status)

    running = k.Running(late)
    assert store.reading.wait(5)
    assert kit.ask(cache).outcome.status == "stale"
    settled(kit, k, cache, 1)
    store.go_on.set()
    running.result()
    assert results == ["stale"]
    k.until(lambda: not [one for one in threading.enumerate() if one.name == "askonce-refresh"])
    assert kit.upstream.calls == 2


@FACES
@pytest.mark.parametrize("failure", ["exception", 500, "truncated"])
def test_a_refresh_that_fails_is_nobodys_failure(kit, k, face, failure):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    answers = {
        "exception": k.Answer(error=OSError("no")),
        500: k.Answer(status=500, body=b"{}"),
        "truncated": k.Answer(body=k.chat(2, finish="length")),
    }
    kit.upstream.script.append(answers[failure])
    assert call(kit, face, cache).body == k.chat(1)
    settled(kit, k, cache, 1)
    assert kit.ask(cache).body == k.chat(1)
    assert cache.stats().errors == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_no_thread_can_be_started_the_stale_answer_is_given_all_the_same(kit, k, monkeypatch):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(10):
            assert kit.ask(cache).body == k.chat(1)
    assert kit.ask(cache).outcome.status == "stale"
    settled(kit, k, cache, 1)


def test_loops_that_end_during_a_refresh_do_not_use_up_the_refreshes(kit, k):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    for _ in range(9):
        loop = asyncio.new_event_loop()
        kit.upstream.hold()
        found = loop.run_until_complete(kit.aask(cache))
        assert found.outcome.status == "stale"
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()  # with the refresh pending
        kit.upstream.release()
    before = kit.upstream.refreshes
    assert call(kit, "async", cache).outcome.status == "stale"
    cache._async._tasks.clear()
    assert kit.upstream.refreshes > before


def test_read_only_gives_the_stale_answer_and_does_not_refresh(kit, k):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    with using(mode="read_only"):
        assert kit.ask(cache).outcome.status == "stale"
    with using(store=False):
        assert kit.ask(cache).outcome.status == "stale"
    assert kit.upstream.calls == 1


def test_max_age_forbids_a_stale_answer_that_is_older(kit):
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    with using(max_age=105):
        assert kit.ask(cache).outcome.status == "miss"


async def test_a_refresh_that_is_cancelled_leaves_nothing(kit, k):
    cache = kit.cache(stale_while_revalidate=50)
    await kit.aask(cache)
    kit.clock.advance(110)
    kit.upstream.hold()
    assert (await kit.aask(cache)).outcome.status == "stale"
    await k.auntil(lambda: kit.upstream.refreshes == 1)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert len(cache._flow.flights) == 0
    assert not cache._async._tasks


async def test_a_refresh_cancelled_before_its_first_step_does_not_block_the_key(kit, k):
    """Its coroutine never ran, so no `finally` of its own did either."""
    cache = kit.cache(stale_while_revalidate=50)
    await kit.aask(cache)
    kit.clock.advance(110)
    assert (await kit.aask(cache)).outcome.status == "stale"
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(cache._flow.flights) == 0
    kit.clock.advance(50)  # past the window: this one has to ask, and must not wait for a ghost
    assert (await asyncio.wait_for(kit.aask(cache), 2)).outcome.status == "miss"


async def test_a_burst_of_refreshes_is_not_the_last_one(kit, k):
    """More refreshes than may run at once, and then another one."""
    cache = kit.cache(stale_while_revalidate=1000)
    for number in range(12):
        await kit.aask(cache, f"p{number}")
    kit.clock.advance(110)
    kit.upstream.hold()
    for number in range(12):
        assert (await kit.aask(cache, f"p{number}")).outcome.status == "stale"
    kit.upstream.release()
    await k.auntil(lambda: len(cache._flow.flights) == 0)
    before = kit.upstream.refreshes
    assert before >= 1
    kit.clock.advance(110)
    assert (await kit.aask(cache, "p0")).outcome.status == "stale"
    await k.auntil(lambda: kit.upstream.refreshes == before + 1, "a refresh after the burst", 1.0)
    await k.auntil(lambda: len(cache._flow.flights) == 0)


def test_an_expired_caller_shares_the_refresh_under_way(kit, k):
    """One caller accepts the stale answer, another one must not: they make one call."""
    cache = kit.cache(stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.hold()
    assert kit.ask(cache).outcome.status == "stale"
    kit.upstream.seen(2)
    strict = k.Running(kit.ask, cache, headers=((b"cache-control", b"stale-while-revalidate=0"),))
    kit.until_waiting(cache, 1)
    kit.upstream.release()
    assert strict.result().body == k.chat(2)
    assert kit.upstream.calls == 2


# -- instead of an error ----------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("failure", ["exception", 500, 502, 503, 504, 429])
def test_a_stale_answer_stands_in_for_a_failure(kit, k, face, failure, live):
    cache = kit.cache(ttl=100, stale_if_error=50)
    first = kit.ask(cache, live=live)
    kit.clock.advance(100)
    kit.upstream.script.append(
        k.Answer(error=OSError("down")) if failure == "exception" else k.Answer(status=failure, body=b"{}")
    )
    stale = call(kit, face, cache, live=live)
    assert stale.body == first.body
    assert (stale.outcome.status, stale.outcome.reason) == ("stale", "stale-if-error")
    assert cache.stats().errors == 0
    assert call(kit, face, cache, live=live).body != first.body


@FACES
@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refused_question_is_not_papered_over(kit, k, face, status):
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.script.append(k.Answer(status=status, body=b"bad"))
    found = call(kit, face, cache)
    assert found.body == b"bad"
    assert found.outcome.status == "error"


@pytest.mark.parametrize(("later", "served"), [(149.5, True), (150, False)])
def test_the_error_window_ends_where_it_ends(kit, k, later, served):
    cache = kit.cache(ttl=100, stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(later)
    kit.upstream.script.append(k.Answer(error=OSError("down")))
    if served:
        assert kit.ask(cache).body == k.chat(1)
    else:
        with pytest.raises(OSError, match="down"):
            kit.ask(cache)


def test_a_fresh_answer_is_still_asked_for_inside_the_error_window(kit, k):
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(110)
    found = kit.ask(cache)
    assert found.body == k.chat(2)
    assert found.outcome.reason == "expired"


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_a_signal_is_not_answered_with_a_stale_answer(kit, k, signal):
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.script.append(k.Answer(error=signal()))
    running = k.Running(kit.ask, cache)
    with pytest.raises(signal):
        running.result()


async def test_a_cancelled_call_is_not_answered_with_a_stale_answer(kit, k):
    cache = kit.cache(stale_if_error=50)
    await kit.aask(cache)
    kit.clock.advance(110)
    kit.upstream.hold()
    task = asyncio.create_task(kit.aask(cache))
    await k.auntil(lambda: kit.upstream.calls == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert len(cache._flow.flights) == 0


def test_a_crowd_gets_the_stale_answer_when_the_provider_is_down(kit, k):
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.always = k.Answer(error=OSError("down"))
    with kit.crowd(cache, "mix", 60) as results:
        found = results()
    assert {one.body for one in found} == {k.chat(1)}
    assert {one.outcome.status for one in found} == {"stale"}


def test_both_windows_are_counted_from_the_end_of_life(kit, k):
    cache = kit.cache(ttl=100, stale_while_revalidate=10, stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(120)
    kit.upstream.script.append(k.Answer(error=OSError("down")))
    assert kit.ask(cache).outcome.reason == "stale-if-error"
    kit.clock.advance(29.5)
    kit.upstream.script.append(k.Answer(error=OSError("down")))
    assert kit.ask(cache).outcome.reason == "stale-if-error"


def test_the_live_answer_of_a_failed_stream_is_closed(kit, k):
    """A door may hand over an error response unread."""
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache, live=True)
    kit.clock.advance(110)
    closed = []

    class Unread(k.Ask):
        def open(self):
            opened = super().open()
            opened.close = lambda: closed.append(1)
            return opened

    kit.upstream.script.append(k.Answer(status=503, body=b"{}"))
    assert cache.ask(Unread(kit.upstream, live=True)).outcome.status == "stale"
    assert closed == [1]


def test_cache_control_of_the_call_sets_the_windows(kit, k):
    cache = kit.cache(stale_if_error=50)
    kit.ask(cache)
    kit.clock.advance(110)
    kit.upstream.script.append(k.Answer(error=OSError("down")))
    with pytest.raises(OSError, match="down"):
        kit.ask(cache, headers=((b"cache-control", b"stale-if-error=5"),))
    kit.upstream.script.append(k.Answer(error=OSError("down")))
    assert kit.ask(cache, headers=((b"cache-control", b"stale-if-error=20"),)).body == k.chat(1)


def test_a_store_that_fails_during_the_refresh_is_nobodys_failure(kit, k):
    store = FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache(store, stale_while_revalidate=50)
    kit.ask(cache)
    kit.clock.advance(110)
    store.fail_with(OSError("full"), operations=["set"])
    assert kit.ask(cache).body == k.chat(1)
    settled(kit, k, cache, 1)
    assert kit.ask(cache).body == k.chat(1)
    k.until(lambda: len(cache._flow.flights) == 0)


def test_control_says_nothing_by_default():
    assert Control().stale_if_error is None
