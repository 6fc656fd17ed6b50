"""Several processes ask the same at one time, over one store: one provider call among them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")

from askonce.testing import FakeProvider  # noqa: E402

PROCESSES = 4
CHILD = """
import asyncio, json, sys, time
from concurrent.futures import ThreadPoolExecutor
import openai
from askonce import Cache, track
from askonce_openai import enable_cache

store, url, kind, callers, start = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
cache = enable_cache(Cache(["memory://", store], coalesce="fleet", store_timeout=5))
ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}

def text(answer, live):
    if not live:
        return answer.choices[0].message.content
    return "".join(c.choices[0].delta.content or "" for c in answer if c.choices)

live = kind.endswith("streamed")
options = {"base_url": url, "api_key": "k", "max_retries": 0}
print("ready", flush=True)
if start:
    time.sleep(max(0.0, start - time.time()))
else:
    sys.stdin.readline()
if kind.startswith("threads"):
    client = openai.OpenAI(http_client=openai.DefaultHttpxClient(verify=False, timeout=20), **options)
    def one(_):
        return text(client.chat.completions.create(**ask, stream=live), live)
    with client, ThreadPoolExecutor(callers) as pool:
        said = list(pool.map(one, range(callers)))
else:
    async def main():
        http = openai.DefaultAsyncHttpxClient(verify=False, timeout=20)
        client = openai.AsyncOpenAI(http_client=http, **options)
        async def one():
            answer = await client.chat.completions.create(**ask, stream=live)
            if not live:
                return text(answer, live)
            return "".join([c.choices[0].delta.content or "" async for c in answer if c.choices])
        try:
            return await asyncio.gather(*[one() for _ in range(callers)])
        finally:
            await client.close()
            await cache.aclose()
    said = asyncio.run(main())
stats = cache.stats()
print(json.dumps({"said": sorted(set(said)), "misses": stats.misses, "served": stats.served}), flush=True)
cache.close()
"""


@pytest.fixture
def provider():
    with FakeProvider(delay=0.5) as provider:
        yield provider


@pytest.fixture(params=["redis", "disk"])
def store(request, tmp_path):
    if request.param == "disk":
        return f"disk://{tmp_path}/cache"
    return f"{request.getfixturevalue('valkey').url}?prefix={uuid.uuid4().hex}:"


def child(store, provider, kind="threads", callers=10, start=0.0):
    roots = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(str(roots / name) for name in ("caching", "integrations"))
    if not (roots / "caching").exists():
        path = ""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH")))),
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            CHILD,
            store,
            provider.base_url,
            kind,
            str(callers),
            str(start),
        ],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def told(process):
    try:
        out, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.parametrize("kind", ["threads", "tasks", "threads streamed", "tasks streamed"])
def test_the_callers_of_all_processes_share_one_provider_call(store, provider, kind):
    processes = [child(store, provider, kind) for _ in range(PROCESSES)]
    go(*processes)
    found = [told(process) for process in processes]
    assert provider.calls == 1
    assert {tuple(one["said"]) for one in found} == {tuple(found[0]["said"])}
    assert sum(one["misses"] for one in found) == 1
    assert sum(one["served"] for one in found) == PROCESSES * 10 - 1


def test_a_leader_that_is_killed_costs_at_most_its_lease(store, provider):
    provider._desk.delay = 30.0
    leader = child(store, provider)
    go(leader)
    end = time.monotonic() + 10
    while provider.calls == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
    provider._desk.delay = 0.0
    follower = child(store, provider, callers=2)
    go(follower)
    time.sleep(0.3)
    assert provider.calls == 1, "it waits"
    started = time.monotonic()
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    found = told(follower)
    assert found["misses"] == 1, found
    assert time.monotonic() - started < 6.0
    assert provider.calls == 2
