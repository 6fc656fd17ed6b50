"""Calls over a store that is written behind: none waits for a write, and none is forgotten silently."""

from __future__ import annotations

import asyncio
import threading
import time

from askonce.events import AnswerDropped
from askonce.stores import MemoryStore, TieredStore
from askonce.stores._behind import WriteBehind
from askonce.testing import FlakyStore


class Log(MemoryStore):
    """Notes what is written, and does what a test wants in the middle of it."""

    blocking = True
    write = "behind"

    def __init__(self, clock):
        super().__init__(clock=clock)
        self.log = []
        self.hook = None

    def _note(self, *told):
        self.log.append(told)
        if self.hook is not None:
            self.hook(*told)

    def set(self, key, value, expires_at):
        self._note("set", key, value)
        super().set(key, value, expires_at)

    def set_many(self, items):
        items = list(items)
        self._note("set_many", *(key for key, _, _ in items))
        for item in items:
            super().set(*item)

    def delete(self, *keys):
        self._note("delete", *keys)
        return super().delete(*keys)

    def get(self, key):
        self.log.append(("get", key))
        return super().get(key)


class Held:
    """A hook that stops a store in the middle of a write until it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.let = threading.Event()

    def __call__(self, operation, *_):
        if operation.startswith("set"):
            self.entered.set()
            assert self.let.wait(10)


def test_a_store_that_says_so_is_written_behind_also_inside_a_tiered_one(kit, k):
    inner = Log(kit.clock)
    cache = kit.cache(TieredStore(MemoryStore(clock=kit.clock), inner))
    held = inner.hook = Held()
    started = time.monotonic()
    assert kit.ask(cache).outcome.stored
    assert time.monotonic() - started < 1
    held.let.set()
    cache.close()
    assert len(list(inner.scan(""))) == 1
    assert isinstance(cache._stores[1], WriteBehind)


def test_a_store_that_says_nothing_is_written_through(kit):
    cache = kit.cache(FlakyStore(MemoryStore(clock=kit.clock)))
    assert not isinstance(cache._stores[0], WriteBehind)


def test_while_the_store_is_dead_answers_wait_and_are_written_when_it_is_back(kit, k):
    inner = Log(kit.clock)
    flaky = FlakyStore(inner)
    flaky.write = "behind"
    cache = kit.cache(flaky, store_timeout=0.05)
    flaky.fail_with(ConnectionError)
    for number in range(8):
        assert kit.ask(cache, f"question {number}").outcome.status == "miss"
    assert cache.stats().breakers == {"memory": "open"}
    assert kit.ask(cache, "question 3").outcome.status == "hit"  # from the queue
    flaky.recover()
    cache.close()
    assert len(list(inner.scan(""))) == 8
    assert cache.stats().dropped == {}


def test_promising_is_no_sign_of_life(kit):
    """Every call writes, also while reading fails."""
    flaky = FlakyStore(Log(kit.clock))
    flaky.write = "behind"
    cache = kit.cache(flaky)
    flaky.fail_with(ConnectionError, operations=["get"])
    for number in range(5):
        kit.ask(cache, f"question {number}")
    assert cache.stats().breakers == {"memory": "open"}
    cache._backing._watches[0].breaker._until = 0.0
    kit.ask(cache, "question 0")
    assert cache.stats().breakers == {"memory": "open"}


def test_answers_given_up_are_counted_and_told(kit, caplog, monkeypatch):
    monkeypatch.setattr("askonce._events._last", {})
    flaky = FlakyStore(Log(kit.clock))
    flaky.write = "behind"
    cache = kit.cache(flaky)
    seen = []
    cache.subscribe(seen.append)
    flaky.fail_with(ConnectionError, operations=["set", "set_many"])
    for number in range(3):
        kit.ask(cache, f"question {number}")
    cache.close()
    assert cache.stats().dropped == {"write-behind closed": 3}
    assert cache.stats().store_errors["memory"] >= 2
    dropped = [event for event in seen if isinstance(event, AnswerDropped)]
    assert [event.reason for event in dropped] == ["write-behind closed"] * 3
    assert "given up" in caplog.text
    assert "question" not in caplog.text


async def test_a_task_never_waits_for_a_write_behind(kit):
    inner = Log(kit.clock)
    cache = kit.cache(inner)
    held = inner.hook = Held()
    started = time.monotonic()
    results = await asyncio.gather(*[kit.aask(cache, f"question {number}") for number in range(30)])
    assert time.monotonic() - started < 2
    assert {result.outcome.status for result in results} == {"miss"}
    assert (await kit.aask(cache, "question 7")).outcome.status == "hit"
    held.let.set()
    await cache.aclose()
    assert len(list(inner.scan(""))) == 30
