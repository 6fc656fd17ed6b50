"""What Prometheus really scrapes, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from askonce import Cache
from askonce.events import AnswersCompared
from askonce.report import Price
from askonce.semantic import FunctionEmbedder, SemanticLayer
from askonce.stores.memory import MemoryStore
from askonce.stores.redis import RedisStore
from askonce.telemetry import instrument
from askonce.testing._provider.faults import Fault

DASHBOARD = Path(__file__).parents[3] / "notebooks" / "grafana.json"
WORDS = {
    "sum", "rate", "increase", "by", "clamp_min", "histogram_quantile", "max", "topk", "vector", "or", "le",
    "on", "time", "min", "avg", "without",
}  # fmt: skip


@pytest.fixture
def scrape():
    """scrape(): what a Prometheus on this machine would read over HTTP."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    server, thread = start_http_server(0, "127.0.0.1", REGISTRY)

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as response:
            return list(text_string_to_metric_families(response.read().decode()))

    scrape.provider = provider
    yield scrape
    provider.shutdown()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def lived(scrape, ask, provider):
    """The samples of ours after a life in which everything happened."""
    compared = threading.Event()
    same = FunctionEmbedder(lambda texts: np.ones((len(texts), 3)), name="all the same")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        away = RedisStore(f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
        store = MemoryStore()
        with (
            Cache([store, away], semantic=SemanticLayer(same, threshold=0.9, shadow=1.0)) as cache,
            instrument(cache, scrape.provider, prices={"*": Price(input=1, output=1)}, health_every=0),
        ):
            cache.subscribe(lambda event: compared.set() if isinstance(event, AnswersCompared) else None)
            ask(cache)
            ask(cache)
            ask(cache, "And why is the sky blue?")
            assert compared.wait(10)
            provider.script(Fault(status=500), Fault(finish_reason="length"))
            ask(cache, "Another?")
            ask(cache, "A longer one?")
            (key, *_) = store.scan("default:")
            store.set(key, b"no entry", None)
            ask(cache)
            for number in range(5):
                ask(cache, f"Number {number}?")
            assert cache.stats().breakers == {"redis": "open"}
            return [
                sample
                for family in scrape()
                for sample in family.samples
                if sample.name.startswith("askonce_") and not sample.name.endswith("_created")
            ]


def expressions():
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def test_prometheus_scrapes_every_metric_under_these_names(lived):
    assert {sample.name for sample in lived} == {
        "askonce_answers_dropped_total",
        "askonce_answers_stored_size_bytes_total",
        "askonce_answers_stored_total",
        "askonce_dollars_saved_total",
        "askonce_entries",
        "askonce_entries_corrupt_total",
        "askonce_provider_saved_seconds_bucket",
        "askonce_provider_saved_seconds_count",
        "askonce_provider_saved_seconds_sum",
        "askonce_request_duration_seconds_bucket",
        "askonce_request_duration_seconds_count",
        "askonce_request_duration_seconds_sum",
        "askonce_requests_total",
        "askonce_semantic_compared_total",
        "askonce_size_bytes",
        "askonce_store_breaker",
        "askonce_store_errors_total",
        "askonce_store_latency_seconds",
        "askonce_store_up",
        "askonce_tokens_saved_total",
    }
    hits = [
        sample
        for sample in lived
        if sample.name == "askonce_requests_total" and sample.labels["askonce_status"] == "hit"
    ]
    assert [(sample.value, sample.labels["gen_ai_request_model"]) for sample in hits] == [
        (1.0, "gpt-4o-mini")
    ]


def test_the_dashboard_asks_only_for_what_is_exported(lived):
    names = {sample.name for sample in lived}
    labels: dict[str, set[str]] = {}
    for sample in lived:
        labels.setdefault(sample.name, set()).update(sample.labels)
    everything = set().union(*labels.values())
    asked = set()
    for title, expression in expressions():
        plain = re.sub(r'"[^"]*"', '""', expression)
        words = set(re.findall(r"(?<![\w$])[a-zA-Z_][a-zA-Z_0-9]*(?![\w])", re.sub(r"\[[^]]*\]", "", plain)))
        metrics = {word for word in words if word.startswith("askonce_")} & names
        assert metrics, f"{title} asks for no metric of ours"
        unknown = words - metrics - everything - WORDS - {"label_values"}
        assert not unknown, f"{title} asks for {unknown}"
        for metric, within in re.findall(r"(askonce_\w+)\{([^}]*)\}", plain):
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", within)) <= labels[metric], title
        asked |= metrics
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
    assert families == {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}, "a metric nobody sees"


def test_the_dashboard_is_what_its_source_makes():
    import runpy

    source = DASHBOARD.parent / "sources" / "grafana.py"
    assert runpy.run_path(str(source))["dashboard"]() == json.loads(DASHBOARD.read_text("utf-8"))


def test_labels_are_few_and_no_key_is_one(lived):
    for sample in lived:
        ours = {name for name in sample.labels if not name.startswith("otel_")} - {"le"}
        assert ours <= {
            "askonce_cache", "askonce_status", "askonce_surface", "askonce_store", "askonce_reason",
            "askonce_operation", "askonce_right", "gen_ai_request_model", "gen_ai_token_type",
        }  # fmt: skip
