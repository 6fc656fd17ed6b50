"""Metrics and span attributes: true to what happened, told to the right caller, and never in the way."""

# ruff: noqa: PLR0917 - fixtures are asked for by name

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading

import httpx
import pytest
from opentelemetry import trace

from askonce import Cache, ConfigurationError, OfflineMiss, Policy, Rule, using
from askonce.events import CallDone
from askonce.report import Price
from askonce.stores.memory import MemoryStore
from askonce.telemetry import instrument
from askonce.testing import FlakyStore, ManualClock
from askonce.testing._provider.faults import Fault
from askonce_httpx import AsyncCacheTransport, CacheTransport

PRICES = {"gpt-*": Price(input=2_000_000, output=3_000_000)}


# -- told to the right caller ------------------------------------------------------------------------


def test_each_caller_of_a_shared_call_finds_its_own_status_on_its_own_span(
    cache, provider, ask, metrics, spans
):
    provider.hold()
    with instrument(cache, metrics.provider):

        def caller():
            with spans.tracer.start_as_current_span("caller"):
                ask(cache)

        threads = [threading.Thread(target=caller) for _ in range(4)]
        for thread in threads:
            thread.start()
        provider.wait_for_calls(1)
        provider.release()
        for thread in threads:
            thread.join()
        told = sorted(span.attributes["askonce.status"] for span in spans.named("caller"))
        assert told.count("miss") == 1
        assert set(told) <= {"miss", "coalesced", "hit"}
        assert len(told) == 4
        assert metrics.total("askonce.requests", askonce_status="miss") == provider.calls == 1
        assert metrics.total("askonce.requests") == 4


async def test_tasks_find_their_own_status_too(provider, metrics, spans):
    async with Cache("memory://") as cache:
        with instrument(cache, metrics.provider):
            async with httpx.AsyncClient(transport=AsyncCacheTransport(cache)) as client:

                async def caller(name, question):
                    with spans.tracer.start_as_current_span(name):
                        await client.post(
                            f"{provider.base_url}/chat/completions",
                            json={"model": "m", "messages": [{"role": "user", "content": question}]},
                        )

                await caller("before", "one")
                await asyncio.gather(caller("known", "one"), caller("new", "two"))
    assert spans.named("known")[0].attributes["askonce.status"] == "hit"
    assert spans.named("new")[0].attributes["askonce.status"] == "miss"


def test_a_refresh_behind_an_answer_says_nothing_on_the_callers_span(provider, ask, metrics, spans):
    clock = ManualClock()
    policy = Policy(ttl=10, stale_while_revalidate=100)
    with Cache("memory://", policy=policy, clock=clock) as cache, instrument(cache, metrics.provider):
        ask(cache)
        clock.advance(20)
        # The client stays open until the refresh, which goes through it, is done.
        with (
            httpx.Client(transport=CacheTransport(cache)) as client,
            spans.tracer.start_as_current_span("caller"),
        ):
            ask(cache, client=client)
            provider.wait_until(lambda: cache.stats().stored == 2)
        assert spans.named("caller")[0].attributes["askonce.status"] == "stale"
        assert spans.named("caller")[0].attributes["askonce.age"] == 20
        assert metrics.total("askonce.requests") == 2, "a refresh is no call of anybody's"


# -- true to what happened --------------------------------------------------------------------------


def test_the_figures_are_those_of_the_caches_own_stats(cache, provider, ask, metrics):
    with instrument(cache, metrics.provider, prices=PRICES):
        for _ in range(3):
            ask(cache)
        ask(cache, "Another?")
        with using(mode="off"):
            ask(cache)
        with using(mode="offline"), pytest.raises(OfflineMiss):
            cache.ask(_Refused(provider))
        provider.script(Fault(status=500))
        ask(cache, "A third?")
        stats = cache.stats()
        by_status = {
            "hit": stats.hits, "miss": stats.misses, "bypass": stats.bypasses, "error": stats.errors,
        }  # fmt: skip
        assert min(by_status.values()) >= 1
        for status, number in by_status.items():
            assert metrics.total("askonce.requests", askonce_status=status) == number, status
        assert metrics.total("askonce.requests") == stats.calls
        assert metrics.total("askonce.tokens.saved") == stats.tokens_saved > 0
        assert metrics.total("askonce.answers.stored") == stats.stored
        assert metrics.total("askonce.provider.saved") == pytest.approx(stats.seconds_saved)
        usage = stats.usage_saved
        dollars = usage["prompt_tokens"] * 2 + usage["completion_tokens"] * 3
        assert metrics.total("askonce.dollars.saved") == pytest.approx(dollars)
        kinds = {labels["gen_ai.token.type"] for labels, _ in metrics.points("askonce.tokens.saved")}
        assert kinds == {"input", "output"}


class _Refused:
    live, patience = False, None

    def __init__(self, provider):
        from askonce import Request

        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "not stored"}]}
        self.request = Request("POST", f"{provider.base_url}/chat/completions", (), json.dumps(body).encode())

    def open(self):
        raise AssertionError("offline")


def test_gauges_show_what_the_stores_hold(ask, metrics, tmp_path):
    with (
        Cache(["memory://", f"disk://{tmp_path}"]) as cache,
        instrument(cache, metrics.provider, health_every=0),
    ):
        ask(cache)
        ask(cache, "Another?")
        for store in ("memory", "disk"):
            assert metrics.total("askonce.entries", askonce_store=store) == 2
            assert metrics.total("askonce.size", askonce_store=store) > 500
            assert metrics.total("askonce.store.up", askonce_store=store) == 1


def test_an_exporter_that_collects_often_does_not_ask_the_stores_as_often(ask, metrics):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache, instrument(cache, metrics.provider, health_every=3600):
        for _ in range(5):
            metrics.reader.collect()
        ask(cache)
        assert metrics.total("askonce.entries") == 0, "the first look, an hour long"


def test_two_caches_are_told_apart_and_one_is_not_counted_twice(ask, metrics):
    with (
        Cache("memory://", namespace="one") as one,
        Cache("memory://", namespace="two") as two,
        instrument(one, metrics.provider, health_every=0),
        instrument(two, metrics.provider, health_every=0) as second,
    ):
        with pytest.raises(ConfigurationError, match="already"):
            instrument(one, metrics.provider)
        ask(one)
        ask(two)
        ask(two)
        assert metrics.total("askonce.requests", askonce_cache="one") == 1
        assert metrics.total("askonce.requests", askonce_cache="two") == 2
        assert {labels["askonce.cache"] for labels, _ in metrics.points("askonce.entries")} == {"one", "two"}
        second.close()
        assert {labels["askonce.cache"] for labels, _ in metrics.points("askonce.entries")} == {"one"}


def test_a_closed_handle_counts_no_more_and_may_be_made_again(cache, ask, metrics):
    handle = instrument(cache, metrics.provider)
    ask(cache)
    handle.close()
    handle.close()
    ask(cache)
    assert metrics.total("askonce.requests") == 1
    with instrument(cache, metrics.provider):
        ask(cache)
        assert metrics.total("askonce.requests") == 2
        assert len(metrics.points("askonce.entries")) == 1


def test_with_a_tracer_provider_each_call_is_a_span_as_long_as_the_call(cache, ask, metrics, spans):
    with instrument(cache, metrics.provider, spans.provider), spans.tracer.start_as_current_span("caller"):
        ask(cache)
        ask(cache)
    first, second = spans.named("askonce")
    assert [span.attributes["askonce.status"] for span in (first, second)] == ["miss", "hit"]
    assert first.attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert {span.parent.span_id for span in (first, second)} == {spans.named("caller")[0].context.span_id}
    assert 0 < second.end_time - second.start_time < 5e9


# -- bounded, and silent about what was said ------------------------------------------------------------


def test_models_are_bounded_and_those_nobody_answered_for_take_no_place(cache, provider, ask, metrics):
    with instrument(cache, metrics.provider, max_models=2):
        provider.script(*[Fault(status=404)] * 5)
        for number in range(5):
            ask(cache, model=f"made-up-{number}")
        for number in range(4):
            ask(cache, model=f"real-{number}")
        ask(cache, model="x" * 500)
        models = {labels["gen_ai.request.model"] for labels, _ in metrics.points("askonce.requests")}
    assert models == {"real-0", "real-1", "other"}


def test_no_prompt_answer_key_or_credential_is_exported(cache, ask, metrics, spans, provider):
    seen = []
    cache.subscribe(seen.append)
    with (
        instrument(cache, metrics.provider, spans.provider),
        using(tags=["TAGmarker"]),
        spans.tracer.start_as_current_span("caller"),
    ):
        answer = ask(cache, "PROMPTmarker", model="m").json()["choices"][0]["message"]["content"]
        ask(cache, "PROMPTmarker", model="m")
    key = next(event.outcome.key for event in seen if isinstance(event, CallDone))
    digest = key.rpartition(":")[2]
    exported = metrics.everything()
    on_spans = "".join(span.to_json() for span in spans.exporter.get_finished_spans())
    for text in (exported, on_spans):
        assert "marker" not in text
        assert answer not in text
        assert digest not in text
    assert digest[:12] not in exported, "no key is a label"
    assert digest[:12] in on_spans


# -- never in the way -----------------------------------------------------------------------------------


def test_an_sdk_that_raises_costs_no_call_and_takes_nothing_else_with_it(
    cache, ask, metrics, spans, caplog, monkeypatch
):
    with instrument(cache, metrics.provider) as handle:

        def fails(*_):
            raise RuntimeError("PROMPTmarker")

        monkeypatch.setattr(handle._board.requests, "add", fails)
        with spans.tracer.start_as_current_span("caller"):
            ask(cache)
            assert ask(cache).status_code == 200
        assert metrics.total("askonce.tokens.saved") > 0
    assert spans.named("caller")[0].attributes["askonce.status"] == "hit"
    assert "OpenTelemetry raised RuntimeError" in caplog.text
    assert "PROMPTmarker" not in caplog.text
    assert {record.name for record in caplog.records if "Telemetry" in record.message} == {
        "askonce.telemetry"
    }


def test_a_span_that_has_ended_is_left_alone(cache, ask, metrics, spans, caplog):
    with instrument(cache, metrics.provider):
        span = spans.tracer.start_span("ended")
        span.end()
        with trace.use_span(span):
            ask(cache)
    assert "ended span" not in caplog.text


def test_a_store_that_is_down_shows_as_down_and_breaks_no_collection(ask, metrics):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache, instrument(cache, metrics.provider, health_every=0):
        cache.ping = lambda: 1 / 0
        ask(cache)
        assert metrics.total("askonce.requests") == 1
        assert metrics.points("askonce.entries") == []


def test_askonce_and_its_telemetry_import_no_opentelemetry():
    code = (
        "import sys, askonce, askonce.telemetry\n"
        "with askonce.Cache('memory://') as cache: cache.subscribe(print)\n"
        "sys.exit(any(name.split('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    # Its pytest plugins, and .pth files, may import anything: a bare interpreter shows what we import.
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_opentelemetry_the_error_says_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"askonce\[otel\]"):
        instrument(cache)


@pytest.mark.parametrize(
    "bad", [{"max_models": -1}, {"max_models": True}, {"health_every": -1}, {"name": ""}], ids=str
)
def test_a_bad_option_is_named(cache, metrics, bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        instrument(cache, metrics.provider, **bad)


def test_rules_that_forbid_show_as_bypasses(provider, ask, metrics):
    with (
        Cache("memory://", policy=Policy(rules=(Rule(model="private-*", ttl=0),))) as cache,
        instrument(cache, metrics.provider),
    ):
        ask(cache, model="private-1")
        ask(cache, model="private-1")
        assert provider.calls == 2
        assert metrics.total("askonce.tokens.saved") == 0
