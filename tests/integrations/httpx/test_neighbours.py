"""Others who hook into HTTP clients go on working, whoever came first: mocks, recorders, tracers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import respx
import sentry_sdk
import vcr
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import askonce_httpx
from askonce import Cache
from askonce_httpx import wrap_client

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 1},
}
URL = "https://api.openai.com/v1/chat/completions"
ROOTS = [str(Path(__file__).resolve().parents[3] / name) for name in ("caching", "integrations")]


def twice(client, url=URL):
    first, again = (client.post(url, json=ASK) for _ in range(2))
    assert first.content == again.content
    return first


# -- mocks and recorders -----------------------------------------------------------------------------


def test_respx_sees_what_goes_to_the_provider_and_nothing_else(cache):
    with respx.mock() as router, wrap_client(httpx.Client(), cache) as client:
        route = router.post(URL).respond(json=ANSWER)
        assert twice(client).json() == ANSWER
        assert route.call_count == 1


def test_respx_through_the_process_wide_hook(cache):
    askonce_httpx.enable_cache(cache, hosts=["api.openai.com"])
    try:
        with respx.mock() as router, httpx.Client() as client:
            route = router.post(URL).respond(json=ANSWER)
            twice(client)
            assert route.call_count == 1
    finally:
        askonce_httpx.disable_cache()


def test_pytest_httpx_sees_what_goes_to_the_provider_and_nothing_else(cache, httpx_mock):
    httpx_mock.add_response(url=URL, json=ANSWER)
    with wrap_client(httpx.Client(), cache) as client:
        assert twice(client).json() == ANSWER
    assert len(httpx_mock.get_requests()) == 1


async def test_pytest_httpx_async(cache, httpx_mock):
    httpx_mock.add_response(url=URL, json=ANSWER)
    async with wrap_client(httpx.AsyncClient(), cache) as client:
        answers = [(await client.post(URL, json=ASK)).json() for _ in range(2)]
    assert answers == [ANSWER, ANSWER]
    assert len(httpx_mock.get_requests()) == 1


def test_vcr_records_the_provider_and_plays_it_back_beneath_the_cache(tmp_path, provider, chat, cache):
    cassette = str(tmp_path / "cassette.yaml")
    with vcr.use_cassette(cassette) as tape, wrap_client(httpx.Client(), cache) as client:
        recorded = twice(client, chat)
        assert (provider.calls, len(tape)) == (1, 1)
    with (
        Cache("memory://") as fresh,
        vcr.use_cassette(cassette, record_mode="none") as tape,
        wrap_client(httpx.Client(), fresh) as client,
    ):
        assert twice(client, chat).content == recorded.content
        assert (provider.calls, tape.play_count) == (1, 1)


# -- tracers -----------------------------------------------------------------------------------------


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.provider = provider
    yield exporter
    provider.shutdown()


def test_opentelemetry_installed_first_sees_every_provider_call(spans, provider, chat, cache):
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    try:
        with wrap_client(httpx.Client(), cache) as client:
            twice(client, chat)
            client.get(provider.base_url + "/models")
    finally:
        instrumentor.uninstrument()
    assert [span.name for span in spans.get_finished_spans()] == ["POST", "GET"]


def test_opentelemetry_installed_later_sees_every_call_of_the_client(spans, provider, chat, cache):
    with wrap_client(httpx.Client(), cache) as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=spans.provider)
        twice(client, chat)
        assert provider.calls == 1
        assert [span.name for span in spans.get_finished_spans()] == ["POST", "POST"]
        HTTPXClientInstrumentor.uninstrument_client(client)
        twice(client, chat)
    assert len(spans.get_finished_spans()) == 2


@pytest.mark.parametrize("first", ["sentry", "askonce"])
def test_sentry_sees_every_call_whoever_came_first(first, provider, chat, cache):
    from sentry_sdk.integrations.httpx import HttpxIntegration

    def sentry():
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            traces_sample_rate=1.0,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[HttpxIntegration()],
            before_send_transaction=lambda event, _: seen.append(event),  # and nothing is sent
        )

    seen = []
    if first == "sentry":
        sentry()
    client = wrap_client(httpx.Client(), cache)
    if first == "askonce":
        sentry()
    with client, sentry_sdk.start_transaction(name="t", op="test"):
        twice(client, chat)
    sentry_sdk.get_client().close()
    assert provider.calls == 1
    assert [span["op"] for span in seen[0]["spans"]] == ["http.client", "http.client"]


OPENINFERENCE = """
import sys; sys.path[:0] = {roots!r}
import openai
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from openinference.instrumentation.openai import OpenAIInstrumentor
from askonce import Cache
from askonce_httpx import wrap_client

exporter = InMemorySpanExporter()
tracing = TracerProvider()
tracing.add_span_processor(SimpleSpanProcessor(exporter))

def trace():
    OpenAIInstrumentor().instrument(tracer_provider=tracing)

if {first!r} == "tracer":
    trace()
client = wrap_client(openai.OpenAI(base_url={url!r}, api_key="k"), Cache("memory://"))
if {first!r} == "askonce":
    trace()
for _ in range(2):
    client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "hello"}}])
print([span.attributes["output.mime_type"] for span in exporter.get_finished_spans()])
"""
DDTRACE = """
import sys; sys.path[:0] = {roots!r}
import httpx
from askonce import Cache
from askonce_httpx import wrap_client

def trace():
    import ddtrace
    ddtrace.patch(httpx=True)
    from ddtrace.trace import TraceFilter, tracer
    class Keep(TraceFilter):
        def process_trace(self, trace):
            seen.extend(span.resource for span in trace)
            return None
    tracer.configure(trace_processors=[Keep()])

seen = []
if {first!r} == "tracer":
    trace()
client = wrap_client(httpx.Client(), Cache("memory://"))
if {first!r} == "askonce":
    trace()
for _ in range(2):
    ask = {{"model": "m", "messages": [{{"role": "user", "content": "hi"}}]}}
    client.post({url!r} + "/chat/completions", json=ask)
print(["seen" for _ in seen])
"""


@pytest.mark.parametrize("first", ["tracer", "askonce"])
@pytest.mark.parametrize("program", [OPENINFERENCE, DDTRACE], ids=["openinference", "ddtrace"])
def test_tracers_that_patch_the_process_see_every_call_whoever_came_first(program, first, provider):
    pytest.importorskip("ddtrace" if program is DDTRACE else "openinference.instrumentation.openai")
    code = program.format(roots=ROOTS, first=first, url=provider.base_url)
    quiet = {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **quiet},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))) == 2
    assert provider.calls == 1
