"""Figures that add up, events that say what happened, and listeners that break nothing."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from askonce import Cache, OfflineMiss, Outcome, Policy, Request, Stats, using
from askonce import events as events_module
from askonce._events import Events, warn
from askonce._stats import Counters, total_tokens
from askonce.doors import Opened
from askonce.events import AnswerDropped, AnswerStored, CallDone, CorruptEntry, StoreFailed
from askonce.stores.memory import MemoryStore
from askonce.testing import FlakyStore, ManualClock

GOOD = {
    "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
CUT = {"choices": [{"message": {"content": "hi"}, "finish_reason": "length"}], "usage": {"prompt_tokens": 1}}


class Ask:
    live, patience = False, None

    def __init__(self, question="x", *, answer=GOOD, status=200, error=None, method="POST"):
        body = json.dumps({"model": "m", "messages": question}).encode()
        self.request = Request(method, "https://h/v1/chat/completions", (), body)
        self._opened = Opened(
            status=status, headers=[(b"content-type", b"application/json")], native=object(),
            body=json.dumps(answer).encode(), framed=True,
        )  # fmt: skip
        self._error = error

    def open(self):
        if self._error is not None:
            raise self._error
        return self._opened

    again = open  # noqa: A003


def kinds(seen):
    return [type(event).__name__ for event in seen]


def test_every_call_is_counted_once_and_the_figures_add_up():
    clock = ManualClock()
    store = FlakyStore(MemoryStore(clock=clock))
    with Cache(store, policy=Policy(ttl=10, jitter=0, stale_if_error=100), clock=clock) as cache:
        cache.ask(Ask())  # miss
        cache.ask(Ask())  # hit
        cache.ask(Ask("cut", answer=CUT))  # miss, dropped
        cache.ask(Ask("sick", status=500))  # error
        with pytest.raises(ConnectionError):
            cache.ask(Ask("gone", error=ConnectionError()))
        cache.ask(Ask(method="GET"))  # bypass
        clock.advance(50)
        cache.ask(Ask(status=503))  # stale
        with using(mode="offline"), pytest.raises(OfflineMiss):
            cache.ask(Ask("never"))
        store.spoil("garbage")
        cache.ask(Ask())  # corrupt, a miss
        stats = cache.stats()
    assert (stats.hits, stats.stale, stats.misses, stats.errors, stats.bypasses) == (1, 1, 3, 3, 1)
    assert stats.calls == 9
    assert (stats.served, stats.stored, stats.corrupt) == (2, 2, 1)
    assert stats.dropped == {"truncated": 1}
    assert stats.bypassed == {"method": 1}
    assert stats.tiers == {"memory": 2}
    assert stats.usage_saved == {"prompt_tokens": 6, "completion_tokens": 8}
    assert stats.usage_spent == {"prompt_tokens": 7, "completion_tokens": 8}
    assert stats.tokens_saved == 14
    assert stats.hit_rate == pytest.approx(2 / 5)
    assert stats.seconds_saved > 0


def test_a_cache_that_did_nothing_has_figures_too():
    stats = Cache("memory://").stats()
    assert stats == Stats()
    assert (stats.calls, stats.hit_rate, stats.tokens_saved) == (0, 0.0, 0)


def test_stats_are_a_value_that_does_not_change():
    with Cache("memory://") as cache:
        cache.ask(Ask())
        stats = cache.stats()
        stats.usage_spent.clear()
        stats.tiers["x"] = 1
        with pytest.raises(AttributeError):
            stats.hits = 5
        cache.ask(Ask())
        assert stats.hits == 0
        assert cache.stats().usage_spent == {"prompt_tokens": 3, "completion_tokens": 4}
        assert cache.stats().tiers == {"memory": 1}


def test_counting_from_many_threads_loses_nothing():
    counters = Counters()

    def work():
        for _ in range(500):
            counters.outcome(Outcome(status="hit", reason="fresh", tier="memory", usage={"a": 1}, saved=0.5))
            counters.dropped("x")
            counters.spent({"a": 2})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = counters.snapshot()
    assert (stats.hits, stats.tiers, stats.dropped) == (4000, {"memory": 4000}, {"x": 4000})
    assert (stats.usage_saved, stats.usage_spent, stats.seconds_saved) == ({"a": 4000}, {"a": 8000}, 2000.0)


def test_tokens_are_those_in_and_out_and_details_are_not_counted_twice():
    assert (
        total_tokens(
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "total_tokens": 7,
                "prompt_tokens_details.cached_tokens": 2,
            }
        )
        == 7
    )
    assert total_tokens({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}) == 7
    assert total_tokens({}) == 0


# -- events ----------------------------------------------------------------------------------------


def test_tokens_from_the_providers_own_cache_are_those_of_calls_that_were_made():
    parts = (
        {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 64}},
        {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2000},
        {"input_tokens": 9, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 8}},
    )
    with Cache("memory://") as cache:
        assert "provider&#x27;s cache" not in cache.stats()._repr_html_()
        for number, usage in enumerate(parts):
            for _ in range(2):  # the second costs nothing, there or here
                cache.ask(Ask(f"{number}", answer={**GOOD, "usage": usage}))
        stats = cache.stats()
        page = cache.report()._repr_html_()
    assert stats.tokens_provider_cached == 64 + 2000 + 8
    assert "<th>Tokens read from the provider&#x27;s cache</th><td>2,072</td>" in stats._repr_html_()
    assert "Tokens read from the provider&#x27;s cache" in page


def test_what_happens_is_told_as_it_happens():
    seen = []
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        cache.subscribe(seen.append)
        cache.ask(Ask())
        cache.ask(Ask())
        cache.ask(Ask("cut", answer=CUT))
        cache.ask(Ask("sick", status=429))
        assert sorted(kinds(seen)) == sorted(
            ["CallDone", "AnswerStored", "CallDone", "CallDone", "AnswerDropped", "CallDone"]
        )
        stored = next(event for event in seen if isinstance(event, AnswerStored))
        assert stored.key == cache.explain(Ask().request).key
        assert stored.size > 50
        dropped = next(event for event in seen if isinstance(event, AnswerDropped))
        assert (dropped.reason, dropped.key) == ("truncated", cache.explain(Ask("cut").request).key)
        assert [event.outcome.status for event in seen if isinstance(event, CallDone)] == [
            "miss",
            "hit",
            "miss",
            "error",
        ]


def test_store_trouble_and_corrupt_entries_are_told():
    seen = []
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        cache.ask(Ask())
        cache.subscribe(seen.append)
        store.spoil("flipped")
        assert cache.ask(Ask()).outcome.status == "miss"
        store.recover()
        store.fail_with(OSError("MARKER"), operations=["get"], times=1)
        assert cache.ask(Ask()).outcome.status == "miss"
        corrupt = next(event for event in seen if isinstance(event, CorruptEntry))
        failed = next(event for event in seen if isinstance(event, StoreFailed))
        assert corrupt.reason == "checksum"
        assert (failed.store, failed.operation, failed.error) == ("memory", "get", "OSError")
        assert (cache.stats().corrupt, cache.stats().store_errors) == (1, {"memory": 1})


def test_a_listener_that_fails_breaks_nothing_and_hides_nothing(caplog):
    seen = []

    def failing(event):
        raise KeyError("MARKER")

    with Cache("memory://") as cache:
        cache.subscribe(failing)
        cache.subscribe(seen.append)
        with caplog.at_level(logging.WARNING, "askonce"):
            assert cache.ask(Ask()).outcome.status == "miss"
    assert "CallDone" in kinds(seen)
    assert "MARKER" not in caplog.text


def test_a_listener_can_leave_also_while_it_is_told_and_twice():
    seen = []
    with Cache("memory://") as cache:

        def once(event):
            seen.append(event)
            leave()

        leave = cache.subscribe(once)
        cache.ask(Ask())
        leave()
        cache.ask(Ask())
    assert len(seen) == 1


def test_the_same_listener_subscribed_twice_leaves_once_at_a_time():
    events, seen = Events(), []
    first = events.subscribe(seen.append)
    events.subscribe(seen.append)
    events.emit("event")
    assert len(seen) == 2
    first()
    events.emit("event")
    assert len(seen) == 3


def test_events_are_values_and_all_of_them_are_public():
    assert AnswerStored(key="k", size=1) == AnswerStored(key="k", size=1)
    with pytest.raises(AttributeError):
        AnswerStored(key="k", size=1).size = 2
    assert set(events_module.__all__) == {
        "AnswerDropped", "AnswerStored", "AnswersCompared", "BreakerChanged", "CallDone", "CorruptEntry",
        "Event", "Listener", "StoreFailed",
    }  # fmt: skip


def test_the_same_warning_is_said_once_a_minute(caplog):
    with caplog.at_level(logging.WARNING, "askonce"):
        for _ in range(50):
            warn("test", "unlikely %s", "one")
        warn("test", "unlikely %s", "two")
    assert [record.getMessage() for record in caplog.records] == ["unlikely one", "unlikely two"]
    assert {record.name for record in caplog.records} == {"askonce.test"}
