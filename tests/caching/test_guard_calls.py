"""A remote store costs a call at most `store_timeout`, whatever it does; a dead one costs nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from askonce import using
from askonce.events import BreakerChanged
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore

BUDGET = 0.2
SLACK = 0.05
"""Seconds that the rest of a call may take, on a busy machine."""


def remote(kit, **options):
    return FlakyStore(MemoryStore(clock=kit.clock), **options)


def timed(work):
    """What the work gives, and the fewest seconds it took of three."""
    found = []
    for _ in range(3):
        started = time.monotonic()
        value = work()
        found.append((time.monotonic() - started, value))
    return min(found)[0], [value for _, value in found]


def pauses_are_over(cache):
    for watch in cache._backing._watches:
        watch.breaker._until = 0.0


@pytest.mark.parametrize("front", [True, False], ids=["behind memory", "alone"])
def test_a_call_before_a_hanging_store_is_answered_by_the_provider_in_time(kit, k, front):
    store = remote(kit)
    cache = kit.cache([MemoryStore(clock=kit.clock), store] if front else store, store_timeout=BUDGET)
    store.slow_down(60)
    prompts = iter("abc")
    took, results = timed(lambda: kit.ask(cache, next(prompts)))
    assert BUDGET * 0.9 < took < BUDGET + SLACK
    assert [result.body for result in results] == [k.chat(number) for number in (1, 2, 3)]
    assert cache.stats().store_errors == {"memory 2" if front else "memory": 3}


async def test_a_task_before_a_hanging_store_is_answered_by_the_provider_in_time(kit, k):
    store = remote(kit)
    cache = kit.cache([MemoryStore(clock=kit.clock), store], store_timeout=BUDGET)
    store.slow_down(60)
    took = []
    for number in (1, 2, 3):
        started = time.monotonic()
        result = await kit.aask(cache, f"question {number}")
        took.append(time.monotonic() - started)
        assert result.body == k.chat(number)
    assert min(took) < BUDGET + SLACK
    assert (await kit.aask(cache, "question 1")).outcome.status == "hit"  # from the front


def test_two_hanging_stores_take_no_longer_than_one(kit):
    stores = [remote(kit), remote(kit)]
    cache = kit.cache(stores, store_timeout=BUDGET)
    for store in stores:
        store.slow_down(60)
    prompts = iter("abc")
    took, _ = timed(lambda: kit.ask(cache, next(prompts)))
    assert took < BUDGET + SLACK
    stats = cache.stats()
    assert stats.store_errors == {"memory": 3}
    assert stats.store_skips == {"memory": 3, "memory 2": 6}


def test_reading_and_writing_share_the_budget(kit):
    store = remote(kit, delay=0.15)
    cache = kit.cache(store, store_timeout=BUDGET)
    prompts = iter("abc")
    took, _ = timed(lambda: kit.ask(cache, next(prompts)))
    assert took < BUDGET + SLACK
    assert cache.stats().store_errors == {"memory": 3}  # the writes; the reads had their answers


def test_the_providers_time_is_not_the_stores(kit):
    store = remote(kit, delay=0.02)
    cache = kit.cache(store, store_timeout=0.1)
    kit.upstream.delay = 0.3
    kit.ask(cache)
    assert kit.ask(cache).outcome.status == "hit"
    assert cache.stats().store_errors == {}


def test_a_refresh_in_the_background_has_a_budget_of_its_own(kit, k):
    store = remote(kit, delay=0.12)
    cache = kit.cache(store, store_timeout=0.2, stale_while_revalidate=50)
    store.recover()
    kit.ask(cache)
    kit.clock.advance(110)
    store.slow_down(0.12)
    assert kit.ask(cache).outcome.status == "stale"
    k.until(lambda: cache.stats().stored == 2, "the refreshed answer")
    assert cache.stats().store_errors == {}


def test_a_stream_is_stored_within_the_budget_too(kit):
    store = remote(kit)
    cache = kit.cache(store, store_timeout=BUDGET)
    store.slow_down(60, operations=["set"])
    prompts = iter("abc")
    took, results = timed(lambda: kit.ask(cache, next(prompts), live=True))
    assert took < BUDGET + SLACK
    assert all(result.body.endswith(b"[DONE]\n\n") for result in results)
    assert cache.stats().dropped == {"no store took it": 3}


def test_a_dead_store_costs_nothing_once_it_is_known_and_is_used_again_when_it_is_back(
    kit, caplog, monkeypatch
):
    monkeypatch.setattr("askonce._events._last", {})
    store = remote(kit)
    cache = kit.cache(store, store_timeout=0.02)
    seen = []
    cache.subscribe(seen.append)
    store.slow_down(60)
    with caplog.at_level(logging.INFO, "askonce"):
        for number in range(30):
            kit.ask(cache, f"question {number}")
        assert cache.stats().breakers == {"memory": "open"}
        assert store.calls["get"] == 5
        store.recover()
        kit.ask(cache, "still left alone")
        assert store.calls["get"] == 5
        pauses_are_over(cache)
        kit.ask(cache, "used again")
        assert kit.ask(cache, "used again").outcome.status == "hit"
    assert cache.stats().breakers == {"memory": "closed"}
    states = [event for event in seen if isinstance(event, BreakerChanged)]
    assert states == [
        BreakerChanged(store="memory", state=state) for state in ("open", "half-open", "closed")
    ]
    levels = [(record.levelname, "left alone" in record.message) for record in caplog.records]
    assert levels == [("WARNING", False), ("WARNING", True), ("INFO", False)]
    assert "question" not in caplog.text


def test_a_probe_that_fails_lets_the_store_rest_and_the_call_goes_on(kit, k):
    store = remote(kit)
    cache = kit.cache(store, store_timeout=0.02)
    store.fail_with(ConnectionRefusedError)
    for number in range(5):
        kit.ask(cache, f"question {number}")
    for number in range(3):
        pauses_are_over(cache)
        assert kit.ask(cache, f"again {number}").body == k.chat(6 + number)
        assert cache.stats().breakers == {"memory": "open"}


def test_local_stores_have_no_breaker_and_no_budget(kit, tmp_path):
    disk = remote(kit, remote=False)
    cache = kit.cache([MemoryStore(clock=kit.clock), disk], store_timeout=0.01)
    disk.fail_with(OSError)
    for number in range(20):
        kit.ask(cache, f"question {number}")
    stats = cache.stats()
    assert (stats.breakers, stats.store_skips) == ({}, {})
    assert disk.calls["get"] == 20
    disk.recover()
    disk.slow_down(0.05)
    kit.ask(cache, "slow")
    assert stats.store_errors == cache.stats().store_errors
    assert cache._backing.sync_guard.tiers() is cache._backing.sync_guard.tiers()


def test_stores_of_one_name_are_told_apart(kit):
    first, second = remote(kit), remote(kit)
    cache = kit.cache([first, second])
    second.fail_with(OSError)
    for number in range(5):
        kit.ask(cache, f"question {number}")
    assert cache.stats().breakers == {"memory": "closed", "memory 2": "open"}


def test_an_answer_that_no_store_took_is_not_called_stored(kit):
    store = remote(kit)
    cache = kit.cache(store)
    store.fail_with(OSError, operations=["set"])
    outcome = kit.ask(cache).outcome
    assert (outcome.stored, outcome.not_stored) == (False, "no store took it")
    assert (cache.stats().stored, cache.stats().dropped) == (0, {"no store took it": 1})


def test_operators_see_what_fails_also_while_the_breaker_is_open(kit):
    store = remote(kit)
    cache = kit.cache(store)
    store.fail_with(ConnectionRefusedError)
    for number in range(5):
        kit.ask(cache, f"question {number}")
    with pytest.raises(Exception, match="ConnectionRefused"):
        cache.delete("default:x")
    assert not cache.ping()[0].ok
    store.recover()
    assert cache.delete("default:x") is False


def test_offline_a_dead_store_gives_a_clear_miss_in_time(kit):
    from askonce import OfflineMiss

    store = remote(kit)
    cache = kit.cache(store, store_timeout=BUDGET)
    store.slow_down(60)

    def miss():
        with using(mode="offline"), pytest.raises(OfflineMiss):
            kit.ask(cache)

    took, _ = timed(miss)
    assert took < BUDGET + SLACK


async def test_a_hundred_tasks_before_a_hanging_store_wait_once_and_together(kit):
    store = remote(kit)
    cache = kit.cache(store, store_timeout=BUDGET)
    store.slow_down(60)
    started = time.monotonic()
    results = await asyncio.gather(*[kit.aask(cache, f"question {number}") for number in range(100)])
    assert time.monotonic() - started < BUDGET + 0.5
    assert {result.outcome.status for result in results} == {"miss"}
    assert cache.stats().breakers == {"memory": "open"}
    started = time.monotonic()
    await kit.aask(cache, "afterwards")
    assert time.monotonic() - started < BUDGET * 0.9
    store.recover()


async def test_cancelled_calls_before_a_hanging_store_do_not_open_its_breaker(kit):
    store = remote(kit)
    cache = kit.cache(store, store_timeout=5)
    store.slow_down(60)
    tasks = [asyncio.ensure_future(kit.aask(cache, f"question {number}")) for number in range(20)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(one, asyncio.CancelledError)
        for one in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    )
    assert cache.stats().breakers == {"memory": "closed"}
    store.recover()
    assert (await kit.aask(cache)).outcome.status == "miss"


def test_threads_before_a_dying_store_all_get_their_answers(kit):
    store = remote(kit)
    cache = kit.cache(store, store_timeout=0.05)
    store.slow_down(60)
    results = []

    def work(number):
        results.append(kit.ask(cache, f"question {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({result.body for result in results}) == 16
    assert cache.stats().breakers == {"memory": "open"}
