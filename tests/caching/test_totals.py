"""Figures that outlive the process, where the store can hold them."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from askonce import Cache, Request, Stats
from askonce._totals import EVERY, flat, raised
from askonce.doors import Opened
from askonce.stores import RedisStore

JSON = ((b"content-type", b"application/json"),)
ANSWER = b'{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],"usage":{"total_tokens":7}}'


class Call:
    live = False
    patience = None

    def __init__(self, words="hello"):
        body = b'{"messages":[{"role":"user","content":"%s"}],"model":"m"}' % words.encode()
        self.request = Request("POST", "http://localhost/v1/chat/completions", JSON, body)

    def open(self):
        return Opened(status=200, headers=[*JSON], native=None, body=ANSWER, framed=True)

    def again(self):
        return self.open()


@pytest.fixture(params=["redis", "disk"])
def store(request, tmp_path):
    if request.param == "disk":
        return f"disk://{tmp_path}/cache"
    return f"{request.getfixturevalue('valkey').url}?prefix={uuid.uuid4().hex}:"


def test_the_figures_of_all_processes_add_up_and_outlive_them(store):
    with Cache(store) as first:
        first.ask(Call())
        first.ask(Call())
    with Cache(store) as second:
        second.ask(Call())
        found = second.totals()
        assert (found.hits, found.misses, found.stored) == (2, 1, 1)
        assert found.tiers == {store.partition(":")[0]: 2}
        assert found.usage_spent == {"total_tokens": 7}
        assert second.stats().hits == 1
    with Cache(store) as third:
        assert third.totals().hits == 2
        assert third.totals().hits == 2, "asking adds nothing"


def test_a_namespace_has_figures_of_its_own(store):
    with Cache(store, namespace="one") as one, Cache(store, namespace="two") as two:
        one.ask(Call())
        assert one.totals().misses == 1
        assert two.totals().misses == 0


def test_a_hit_writes_nothing(valkey):
    prefix = f"{uuid.uuid4().hex}:"
    store = RedisStore(valkey.url, prefix=prefix)
    with Cache(["memory://", store]) as cache:
        cache.ask(Call())
        before = valkey.run("INFO", "stats")["total_commands_processed"]
        for _ in range(200):
            cache.ask(Call())
        after = valkey.run("INFO", "stats")["total_commands_processed"]
        assert after - before < 20  # those of the asking, and of the listener
        cache._totals.due = 0.0
        cache.ask(Call())
        assert cache._totals.due > EVERY


def test_a_program_that_just_ends_has_added_its_figures(tmp_path):
    root = Path(__file__).resolve().parents[2]
    program = f"""
import sys
sys.path[:0] = [{str(root / "caching")!r}, {str(Path(__file__).parent)!r}]
from test_totals import Call
from askonce import Cache
cache = Cache("disk://{tmp_path}/cache")
cache.ask(Call()); cache.ask(Call())
"""
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    with Cache(f"disk://{tmp_path}/cache") as cache:
        assert cache.totals().calls == 2


def test_stores_that_keep_no_figures_give_those_of_the_process():
    with Cache("memory://") as cache:
        cache.ask(Call())
        assert cache.totals() == cache.stats()


def test_a_store_that_is_away_costs_no_error_and_no_figures(tmp_path):
    folder = tmp_path / "cache"
    with Cache(f"disk://{folder}") as cache:
        cache.ask(Call())
        (folder / "tallies.json").mkdir(parents=True)
        cache._totals.add()
        (folder / "tallies.json").rmdir()
        assert cache.totals().misses == 1


def test_numbers_that_are_no_figures_of_ours_are_left_out():
    stats = Stats(hits=3, dropped={"truncated": 2}, seconds_saved=1.5, breakers={"redis": "open"})
    assert raised({**flat(stats), "unknown": 4, "unknown\x1fx": 1}) == Stats(
        hits=3, dropped={"truncated": 2}, seconds_saved=1.5
    )


async def test_the_async_face(store):
    async with Cache(store) as cache:
        assert (await cache.atotals()).calls == 0
