"""A server that forks its workers: the cache is made, and used, before the fork, and used after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")

from askonce.testing import FakeProvider  # noqa: E402

WORKERS = 4
PARENT = """
import asyncio, gc, json, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import openai
from askonce import Cache
from askonce.events import CallDone
from askonce.stores import MemoryStore
from askonce_openai import enable_cache

store, base_url, side, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
cache = enable_cache(Cache(["memory://", store], store_timeout=5))
troubles, tiers = [], []
def heard(event):
    if isinstance(event, CallDone):
        tiers.append(event.outcome.tier)
    elif type(event).__name__ in {"StoreFailed", "CorruptEntry"}:
        troubles.append(repr(event))
cache.subscribe(heard)
options = {"base_url": base_url, "api_key": "k", "max_retries": 0}

def asked(prompt):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]}

def check(prompt, answer):
    said = answer.choices[0].message.content
    assert said == "the answer to " + prompt, (prompt, said)

def in_threads(prompts):
    http = openai.DefaultHttpxClient(verify=False, timeout=20)
    with openai.OpenAI(http_client=http, **options) as client, ThreadPoolExecutor(5) as pool:
        def one(prompt):
            check(prompt, client.chat.completions.create(**asked(prompt)))
        list(pool.map(one, prompts))

async def in_tasks(prompts):
    http = openai.DefaultAsyncHttpxClient(verify=False, timeout=20)
    async with openai.AsyncOpenAI(http_client=http, **options) as client:
        async def one(prompt):
            check(prompt, await client.chat.completions.create(**asked(prompt)))
        for start in range(0, len(prompts), 5):
            await asyncio.gather(*[one(prompt) for prompt in prompts[start:start + 5]])

def sockets():
    # Those of the store: the door's clients are closed after each use.
    found = set()
    for one in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink("/proc/self/fd/" + one)
        except OSError:
            continue
        if link.startswith("socket:"):
            found.add(link)
    return found

def clear_front():
    cache._stores[0].delete(*cache._stores[0].scan(""))

common = [f"common {n}" for n in range(20)]
mine = [f"{os.getpid()} {n}" for n in range(10)]

def use():
    # From memory, from the store behind it, and from the provider; what is written is found again.
    for prompts in (common, mine):
        in_threads(prompts)
        asyncio.run(in_tasks(prompts))
    clear_front()
    tiers.clear()
    in_threads(common + mine)
    clear_front()
    asyncio.run(in_tasks(common + mine))
    assert set(tiers) == {store.partition(":")[0]}, set(tiers)

def worker(number, out, go, inherited):
    global mine
    mine = [f"worker {number} {n}" for n in range(10)]
    tiers.clear()
    in_threads(common)
    first = set(tiers)
    use()
    # Once more, with connections of a loop that is running while the parent looks.
    async def hold():
        clear_front()
        await in_tasks(common)
        own = sockets()
        os.write(out, (json.dumps({"number": number, "sockets": sorted(own), "inherited": sorted(inherited),
            "troubles": troubles, "first": sorted(first)}) + "\\n").encode())
        await asyncio.to_thread(os.read, go, 1)
        clear_front()
        await in_tasks(common)
        await cache.aclose()
    asyncio.run(hold())
    cache.close()

def forked():
    inherited = sockets()
    pipes, children = [], []
    for number in range(workers):
        out_read, out_write = os.pipe()
        go_read, go_write = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                worker(number, out_write, go_read, inherited)
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(out_write)
        os.close(go_read)
        pipes.append((out_read, go_write))
        children.append(child)
    return pipes, children

def finish(pipes, children):
    reports = [json.loads(os.fdopen(out).readline() or "null") for out, _ in pipes]
    print(json.dumps({"reports": reports, "parent": sorted(sockets())}), flush=True)
    sys.stdin.readline()
    for _, go in pipes:
        os.write(go, b"g")
        os.close(go)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps({"codes": codes, "troubles": troubles}), flush=True)

use()
if side == "threads":
    pipes, children = forked()
    use()  # while the children do
    in_threads(common)
    finish(pipes, children)
    use()
else:
    # Forked from inside of a loop whose connections are open.
    async def main():
        await in_tasks(common)
        pipes, children = forked()
        clear_front()
        await in_tasks(common + mine)
        await asyncio.to_thread(finish, pipes, children)
        clear_front()
        await in_tasks(common + mine)
        await cache.aclose()
    asyncio.run(main())
    use()
cache.close()
print(json.dumps({"troubles": troubles}), flush=True)
"""


HEARING = """
import os, sys, time
from askonce.stores import MemoryStore, RedisStore, TieredStore

memory = MemoryStore()
store = TieredStore(memory, RedisStore(sys.argv[1]))
store.set("key", b"old", None)
end = time.monotonic() + 5
while not store.tiers[1]._listener.connected or memory.get("key") is None:
    assert time.monotonic() < end
    store.set("key", b"old", None)
    time.sleep(0.01)
changed, may = os.pipe()
child = os.fork()
if not child:
    assert store.get("key").value == b"old"
    os.read(changed, 1)
    code = 1
    end = time.monotonic() + 5
    while time.monotonic() < end:
        # From memory alone: that it has to look into Redis for another key must not be what helps.
        found = memory.get("key")
        if found is None or found.value == b"new":
            code = 0
            break
        time.sleep(0.01)
    if store.get("key").value != b"new":
        code = 2
    store.close()
    os._exit(code)
store.set("key", b"new", None)
os.write(may, b"g")
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
store.close()
sys.exit(code)
"""


@pytest.fixture
def provider():
    with FakeProvider() as provider:
        provider.reply(lambda request: "the answer to " + request.json()["messages"][-1]["content"])
        yield provider


@pytest.fixture(params=["redis", "disk"])
def store(request, tmp_path):
    if request.param == "disk":
        return f"disk://{tmp_path}/cache"
    valkey = request.getfixturevalue("valkey")
    return f"{valkey.url}?prefix={uuid.uuid4().hex}:&client_name=prefork"


def program(code, *arguments):
    roots = [Path(__file__).resolve().parents[2] / name for name in ("caching", "integrations")]
    known = [*[str(root) for root in roots if root.exists()], os.environ.get("PYTHONPATH")]
    # Forking with threads is what this is about; newer Pythons warn of it.
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            code,
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, known))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nobody tells which sockets are open")
@pytest.mark.parametrize("side", ["threads", "tasks"])
def test_a_cache_of_before_the_fork_works_in_every_worker_and_on_in_the_parent(
    store, provider, side, request
):
    with program(PARENT, store, provider.base_url, side, str(WORKERS)) as process:
        try:
            line = process.stdout.readline()
            assert line, "it ended"
            told = json.loads(line)
            reports = told["reports"]
            assert [report["number"] for report in reports] == [0, 1, 2, 3]
            assert [report["troubles"] for report in reports] == [[]] * WORKERS
            own = [set(report["sockets"]) - set(report["inherited"]) for report in reports]
            if store.startswith("redis"):
                assert all(own)
                # Nobody goes on with a socket of somebody else's.
                sockets = [*own, set(told["parent"])]
                assert sum(map(len, sockets)) == len(set().union(*sockets))
                with request.getfixturevalue("valkey").client() as client:
                    known = {one["id"] for one in client.client_list() if one["name"] == "prefork"}
                assert len(known) >= WORKERS
            process.stdin.write("\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"codes": [0] * WORKERS, "troubles": []}
            assert json.loads(process.stdout.readline()) == {"troubles": []}
            assert process.wait(20) == 0
        finally:
            process.kill()
    if store.startswith("redis"):
        with request.getfixturevalue("valkey").client() as client:
            assert [one for one in client.client_list() if one["name"] == "prefork"] == []
    # Common questions were asked once, before the fork; each worker, and the parent, asked ten of its own.
    assert provider.calls == 20 + 10 * (WORKERS + 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_worker_that_never_leaves_its_memory_hears_of_changes_all_the_same(valkey):
    with program(HEARING, f"{valkey.url}?prefix={uuid.uuid4().hex}:") as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
