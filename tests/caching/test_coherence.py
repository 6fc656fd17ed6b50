"""What one process changes in a shared Redis, no other process goes on serving from its memory."""

from __future__ import annotations

import time
import uuid

import pytest

from askonce._bridge import step
from askonce.stores import MemoryStore, RedisStore, TieredStore


class Process:
    """What a process has: its own memory, its own connection, one Redis."""

    def __init__(self, url, prefix, timeout=10.0, **options):
        self.memory = MemoryStore()
        # Whether Redis answers in time is not asked here, where the machine may be busy with other tests.
        self.redis = RedisStore(url, prefix=prefix, timeout=timeout, **options)
        self.store = TieredStore(self.memory, self.redis)

    def ready(self):
        self.store.get("nothing")
        wait_for(lambda: self.redis._listener.connected)
        return self


def wait_for(holds, seconds=10.0):
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, "it never came"
        time.sleep(0.002)
    return time.monotonic() - start


@pytest.fixture(params=["valkey", "redis8", "redis_cluster"])
def url(request):
    server = request.getfixturevalue(request.param)
    return server.url.replace("redis://", "redis+cluster://") if "cluster" in request.param else server.url


@pytest.fixture
def processes(url):
    prefix = f"{uuid.uuid4().hex}:"
    made = [Process(url, prefix).ready() for _ in range(3)]
    yield made
    for process in made:
        process.store.close()


def test_a_key_overwritten_elsewhere_leaves_every_other_memory_at_once(processes):
    writer, *others = processes
    writer.store.set("key", b"old", None)
    for other in others:
        assert other.store.get("key").value == b"old"
        wait_for(lambda other=other: other.store.get("key").tier == "memory")
    writer.store.set("key", b"new", None)
    for other in others:
        wait_for(lambda other=other: other.memory.get("key") is None)
        assert other.store.get("key").value == b"new"
    assert writer.store.get("key") == (b"new", None, "memory"), "the writer keeps what it wrote"


def test_a_key_deleted_elsewhere_leaves_every_other_memory_at_once(processes):
    first, second, third = processes
    first.store.set_many([(f"key{n}", b"value", None) for n in range(600)])
    for other in (second, third):
        assert len(other.store.get_many([f"key{n}" for n in range(600)])) == 600
    second.store.delete(*[f"key{n}" for n in range(600)])
    wait_for(lambda: len(first.memory) == 0)
    wait_for(lambda: len(third.memory) == 0)
    assert third.store.get("key7") is None


def test_keys_with_any_characters_are_announced(processes):
    writer, other, _ = processes
    for key in ("a:b\n*?[", "naïve", "snow\u2603", "lone\ud800", '"quoted"', ""):
        writer.store.set(key, b"old", None)
        assert other.store.get(key).value == b"old"
        writer.store.delete(key)
        wait_for(lambda key=key: other.memory.get(key) is None)


def test_after_a_lost_connection_nothing_older_is_served_from_memory(request):
    server = request.getfixturevalue("valkey")
    process = Process(server.url, f"{uuid.uuid4().hex}:", timeout=1.0).ready()
    process.store.set("key", b"value", None)
    server.run("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(lambda: process.memory.get("key") is None)
    wait_for(lambda: process.redis._listener.connected)
    assert process.store.get("key").tier == "redis"
    process.store.close()


def test_while_redis_is_away_a_memory_is_emptied_at_the_stated_interval(request):
    server = request.getfixturevalue("valkey")
    process = Process(server.url, f"{uuid.uuid4().hex}:", timeout=0.2, front_staleness=0.5).ready()
    server.pause()
    process.memory.set("key", b"value", None)
    waited = wait_for(lambda: process.memory.get("key") is None, 12.0)
    assert waited > 0.4
    server.resume()
    process.store.close()


def test_a_closed_cache_hears_no_more_and_its_memory_is_not_kept_alive(request):
    import gc
    import weakref

    server = request.getfixturevalue("valkey")
    redis = RedisStore(server.url, prefix=f"{uuid.uuid4().hex}:", timeout=10.0)
    memory = MemoryStore()
    gone = weakref.ref(memory)
    tiered = TieredStore(memory, redis)
    tiered.get("nothing")
    del tiered, memory
    gc.collect()
    assert gone() is None
    redis.close()


def test_a_cache_used_again_after_closing_serves_nothing_that_changed_meanwhile(valkey):
    from askonce import Cache

    prefix = f"{uuid.uuid4().hex}:"
    cache = Cache(["memory://", f"{valkey.url}?prefix={prefix}"])
    tiers = cache._backing.sync_tiers
    step(tiers.set("default:key", b"old", None))
    assert step(tiers.get("default:key")).tier == "memory"
    cache.close()
    other = RedisStore(valkey.url, prefix=prefix)
    other.set("default:key", b"new", None)
    assert step(tiers.get("default:key")).value == b"new"
    cache.close()
    other.close()


def test_a_memory_tier_can_have_a_shorter_life_of_its_own():
    from askonce.testing import ManualClock

    clock = ManualClock()
    front, back = MemoryStore(max_life="10s", clock=clock), MemoryStore(clock=clock)
    store = TieredStore(front, back)
    store.set("key", b"value", clock() + 100)
    clock.advance(9)
    assert front.get("key") is not None
    clock.advance(2)
    assert front.get("key") is None
    assert store.get("key").expires_at == clock() + 89
    assert front.get("key") is not None, "copied up again"
    clock.advance(89)
    assert store.get("key") is None
