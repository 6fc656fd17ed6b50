"""The short form of `soak.py`: four processes with five threads and some tasks each, for six seconds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytest.importorskip("redis")

soak = runpy.run_path(str(Path(__file__).with_name("soak.py")))

SIZE = {"seconds": 6.0, "processes": 4, "threads": 5}


def check(found):
    nothing = ("wrong", "expired", "stale", "lost", "error_count")
    assert {name: found[name] for name in nothing} == dict.fromkeys(nothing, 0), found
    assert found["handles_left"] == []
    assert found["threads_left"] == []
    assert found["connections_left"] == 0
    assert found["codes"] == [0]
    # It was no idle race: readers found values, and all kinds of writes were among them.
    count = found["count"]
    assert min(count["values"], count["set"], count["delete"], count["nothing"]) > 100, found


def test_processes_over_one_redis_with_memory_in_front_are_never_wrong_and_behind_for_moments_only(valkey):
    # 0.1 s is what is promised of a machine that is not overloaded; this one is, and by this test.
    found = soak["redis_soak"](valkey, bound=1.0, **SIZE)
    check(found)
    # In each process: threads, tasks, what is on its way, and who listens.
    assert 0 < found["most_connections"] <= SIZE["processes"] * (SIZE["threads"] + 2 + 16 + 1)


def test_processes_over_one_disk_see_at_once_what_others_have_done(tmp_path):
    check(soak["soak"](f"disk://{tmp_path}/cache", bound=0.0, **SIZE))
