"""A cache beneath a real client, reporting to a real SDK."""

from __future__ import annotations

from contextlib import nullcontext

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from askonce_httpx import CacheTransport


class Metrics:
    """What an exporter would have sent."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def points(self, name):
        """(labels, point) of one metric."""
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [(dict(point.attributes), point) for metric in found for point in metric.data.data_points]

    def total(self, name, **labels):
        """The sum of the points that carry these labels, with _ for their dots."""
        return sum(
            getattr(point, "value", None) if hasattr(point, "value") else point.sum
            for have, point in self.points(name)
            if labels.items() <= {key.replace(".", "_"): value for key, value in have.items()}.items()
        )

    def everything(self):
        return self.reader.get_metrics_data().to_json()


class Spans:
    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("a program")

    def named(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def metrics():
    found = Metrics()
    yield found
    found.provider.shutdown()


@pytest.fixture
def spans():
    found = Spans()
    yield found
    found.provider.shutdown()


@pytest.fixture
def ask(provider):
    """ask(cache, question, ...): one chat call through the cache."""

    def ask(cache, question="Why is the sky blue?", *, model="gpt-4o-mini", client=None):
        with nullcontext(client) if client else httpx.Client(transport=CacheTransport(cache)) as asking:
            return asking.post(
                f"{provider.base_url}/chat/completions",
                json={"model": model, "messages": [{"role": "user", "content": question}]},
                headers={"authorization": "Bearer sk-CREDENTIALmarker"},
            )

    return ask
