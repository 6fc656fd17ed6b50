"""Every index passes one suite; and what each does besides."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time

import numpy as np
import pytest
from servers.process import wait_until

from askonce import ConfigurationError
from askonce.semantic import LocalIndex, RedisIndex, Row
from askonce.stores import MemoryStore
from askonce.testing import IndexContract, ManualClock


class TestLocalIndex(IndexContract):
    @pytest.fixture
    def index(self):
        self.clock = ManualClock()
        return LocalIndex(clock=self.clock)

    def now(self):
        return self.clock()

    def pass_time(self, seconds):
        self.clock.advance(seconds)


class TestLargeIndex(TestLocalIndex):
    """With a graph from the third row on."""

    @pytest.fixture
    def index(self):
        pytest.importorskip("usearch")
        self.clock = ManualClock()
        return LocalIndex(clock=self.clock, exact_rows=2)


class TestRedisIndex(IndexContract):
    @pytest.fixture(params=["flat", "hnsw"])
    def index(self, request, redis_query):
        pytest.importorskip("redisvl")
        index = RedisIndex(redis_query.url, name=f"t-{request.param}", algorithm=request.param, timeout=5)
        yield index
        index.close()


class OnLoops:
    """The asyncio face of an index, as a loop of its own for each call sees it."""

    def __init__(self, index):
        self.inner = index

    def add(self, partition, row):
        asyncio.run(self.inner.aadd(partition, row))

    def search(self, partition, vector, limit, least=-1.0):
        return asyncio.run(self.inner.asearch(partition, vector, limit, least))

    def remove(self, partition, name):
        asyncio.run(self.inner.aremove(partition, name))

    def close(self):
        asyncio.run(self.inner.aclose())


class TestRedisIndexOnLoops(IndexContract):
    @pytest.fixture
    def index(self, redis_query):
        pytest.importorskip("redisvl")
        index = OnLoops(RedisIndex(redis_query.url, name="t-loops", timeout=5))
        yield index
        index.close()


def row(*numbers, owner="", dimensions=4, name=None):
    vector = np.zeros(dimensions, np.float32)
    vector[: len(numbers)] = numbers
    return Row(name or secrets.token_hex(32), vector / np.linalg.norm(vector), b"f", None, owner)


# -- local ------------------------------------------------------------------------------------------


def names(index, partition, count=10_000):
    return {near.name for near in index.search(partition, row(1).vector, count)}


@pytest.mark.parametrize("count", [1, 7, 1023, 1024, 1025, 3000])
def test_a_search_is_exact_whatever_the_size(count):
    rng = np.random.default_rng(count)
    index = LocalIndex()
    vectors = rng.normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Row(secrets.token_hex(32), vector, b"") for vector in vectors]
    for one in rows:
        index.add("p", one)
    for number in rng.permutation(count)[: count // 3]:
        index.remove("p", rows[number].name)
        rows[number] = None
    for asked in rng.normal(size=(5, 16)).astype(np.float32):
        vector = asked / np.linalg.norm(asked)
        expected = sorted(
            ((float(one.vector @ vector), one.name) for one in rows if one is not None), reverse=True
        )[:8]
        found = index.search("p", vector, 8)
        assert [near.name for near in found] == [name for _, name in expected]
        assert [near.similarity for near in found] == pytest.approx(
            [score for score, _ in expected], abs=1e-5
        )
    assert len(index) == sum(one is not None for one in rows)


def test_a_partition_is_bounded_and_the_oldest_rows_go():
    index = LocalIndex(max_rows_per_partition=3)
    rows = [row(1, number) for number in range(5)]
    for one in rows:
        index.add("p", one)
    assert names(index, "p") == {one.name for one in rows[2:]}
    assert len(index) == 3


def test_all_together_are_bounded_and_the_least_recently_used_partition_gives_way():
    index = LocalIndex(max_rows=3)
    a, b, c, d = (row(1) for _ in range(4))
    for partition, one in (("a", a), ("b", b), ("c", c)):
        index.add(partition, one)
    index.search("a", a.vector, 1)
    index.add("d", d)
    assert names(index, "b") == set()
    assert names(index, "a") == {a.name}
    assert len(index) == 3


def test_one_tenant_cannot_push_the_others_out():
    index = LocalIndex(max_rows=100, max_rows_per_scope=5)
    mine = row(1, owner="me")
    index.add("mine", mine)
    for number in range(50):
        index.add(f"theirs {number % 7}", row(1, number, owner="them"))
    assert names(index, "mine") == {mine.name}
    assert len(index) == 6


@pytest.mark.parametrize("exact_rows", [1, 3, 100])
@pytest.mark.parametrize("turn", range(3))
def test_sums_hold_whatever_is_added_and_removed(turn, exact_rows):
    rng = np.random.default_rng(turn)
    clock = ManualClock()
    index = LocalIndex(
        exact_rows=exact_rows, max_rows=40, max_rows_per_partition=9, max_rows_per_scope=25, clock=clock
    )
    pool = [secrets.token_hex(32) for _ in range(30)]
    for _ in range(1500):
        partition = f"p{rng.integers(8)}"
        name = pool[rng.integers(30)]
        if rng.random() < 0.7:
            one = row(
                1,
                rng.random(),
                name=name,
                owner=f"o{int(partition[1]) % 3}",
                dimensions=int(rng.choice([4, 4, 4, 5])),
            )
            index.add(partition, one._replace(expires_at=clock() + rng.integers(-1, 20)))
        elif rng.random() < 0.9:
            index.remove(partition, name)
        else:
            clock.advance(3)
        sizes = {name: rows.size for name, rows in index._partitions.items()}
        assert len(index) == sum(sizes.values()) <= 40
        assert all(0 < size <= 9 for size in sizes.values())
        owned = {}
        for rows in index._partitions.values():
            owned[rows.owner] = owned.get(rows.owner, 0) + rows.size
        assert {owner: count for owner, count in index._owned.items() if count} == owned
        assert all(count <= 25 for count in owned.values())
        if partition in index._partitions:
            near = index.search(
                partition, row(1, dimensions=index._partitions[partition].dimensions).vector, 50
            )
            assert len({one.name for one in near}) == len(near) <= sizes[partition]
        assert set(index._partitions) == {name for theirs in index._of_owner.values() for name in theirs}


def test_memory_is_little_more_than_the_vectors():
    rng = np.random.default_rng(1)
    for count in (1_000, 10_000):
        index = LocalIndex()
        vector = rng.normal(size=384).astype(np.float32)
        vector /= np.linalg.norm(vector)
        for _ in range(count):
            index.add("p", Row(secrets.token_hex(32), vector, b"x" * 92))  # a question of 12 words
        assert index.bytes <= 1.2 * count * 384 * 4


def test_a_large_partition_finds_nearly_all_and_its_memory_is_little_more_than_the_vectors():
    pytest.importorskip("usearch")
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(200, 384))
    index = LocalIndex(exact_rows=1000)
    vectors = centres[rng.integers(200, size=3000)] + 0.3 * rng.normal(size=(3000, 384))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for vector in vectors:
        index.add("p", Row(secrets.token_hex(32), vector, b"x" * 92))
    found = 0
    for vector in vectors[rng.integers(3000, size=200)]:
        found += index.search("p", vector, 8)[0].similarity > 0.999
    assert found >= 190
    assert index.bytes <= 1.25 * 3000 * 384 * 4


def test_a_thousand_partitions_of_one_row_take_little():
    index = LocalIndex()
    for number in range(1000):
        index.add(f"p{number}", row(1, dimensions=384))
    assert index.bytes <= 1.3 * 1000 * 384 * 4


@pytest.mark.parametrize("option", ["max_rows", "max_rows_per_partition", "max_rows_per_scope", "exact_rows"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5"])
def test_a_bound_that_is_none_is_refused(option, value):
    with pytest.raises(ConfigurationError, match=option):
        LocalIndex(**{option: value})


# -- redis ------------------------------------------------------------------------------------------


@pytest.fixture
def redis_index(redis_query):
    pytest.importorskip("redisvl")
    made = []

    def make(**options):
        made.append(
            RedisIndex(redis_query.url, **{"name": f"n{secrets.token_hex(4)}", "timeout": 5, **options})
        )
        return made[-1]

    yield make
    for index in made:
        index.close()


def test_an_index_with_another_schema_is_never_overwritten(redis_index, redis_query):
    name = f"n{secrets.token_hex(4)}"
    one = redis_index(name=name, algorithm="flat")
    kept = row(1)
    one.add("p" * 64, kept)
    other = redis_index(name=name, algorithm="hnsw")
    with pytest.raises(ConfigurationError, match=r"another schema.*vector.*nothing was overwritten"):
        other.create(4)
    with pytest.raises(ConfigurationError):
        other.search("p" * 64, kept.vector, 1)
    assert [near.name for near in one.search("p" * 64, kept.vector, 1)] == [kept.name]
    redis_index(name=name, algorithm="flat").create(4)


def test_a_foreign_index_of_the_name_is_never_overwritten(redis_index, redis_query):
    name = f"n{secrets.token_hex(4)}"
    redis_query.run("FT.CREATE", f"{name}-4", "ON", "HASH", "PREFIX", "1", "x", "SCHEMA", "title", "TEXT")
    with pytest.raises(ConfigurationError, match="another schema"):
        redis_index(name=name).create(4)
    assert b"title" in str(redis_query.run("FT.INFO", f"{name}-4")).encode()


def test_rows_have_an_absolute_life_of_their_own(redis_index, redis_query):
    name = f"n{secrets.token_hex(4)}"
    index = redis_index(name=name)
    expires = time.time() + 500
    index.add("p" * 64, row(1)._replace(expires_at=expires))
    (key,) = redis_query.run("KEYS", f"{name}-4:*")
    before = redis_query.run("PEXPIRETIME", key)
    assert before == int(expires * 1000)
    for _ in range(3):
        assert index.search("p" * 64, row(1).vector, 1)
    assert redis_query.run("PEXPIRETIME", key) == before


def test_an_index_that_was_dropped_is_made_again(redis_index, redis_query):
    name = f"n{secrets.token_hex(4)}"
    index = redis_index(name=name)
    index.add("p" * 64, row(1))
    redis_query.run("FT.DROPINDEX", f"{name}-4", "DD")
    with pytest.raises(Exception, match=r"(?i)index|searching"):
        index.search("p" * 64, row(1).vector, 1)
    index.add("p" * 64, one := row(1))
    assert [near.name for near in index.search("p" * 64, row(1).vector, 1)] == [one.name]


def test_two_processes_share_a_redis_index(redis_index):
    name = f"n{secrets.token_hex(4)}"
    one, two = redis_index(name=name), redis_index(name=name)
    one.add("p" * 64, kept := row(1))
    assert [near.name for near in two.search("p" * 64, kept.vector, 1)] == [kept.name]


@pytest.mark.parametrize("face", [lambda index: index, OnLoops], ids=["threads", "loops"])
def test_one_tenant_cannot_fill_a_redis_index(redis_index, redis_query, face):
    name = f"n{secrets.token_hex(4)}"
    index = face(redis_index(name=name, max_rows_per_scope=5))
    mine = row(1, owner="a" * 32)
    index.add("m" * 64, mine)
    theirs = [row(1, number, owner="b" * 32)._replace(expires_at=time.time() + 100) for number in range(12)]
    for number, one in enumerate(theirs):
        index.add("pq"[number % 2] * 64, one)
    index.add("q" * 64, theirs[-1])  # once more: it is one row
    left = {near.name for part in "pq" for near in index.search(part * 64, row(1).vector, 50)}
    assert left == {one.name for one in theirs[-5:]}
    assert names(index, "m" * 64) == {mine.name}
    assert redis_query.run("PTTL", f"~{name}-4:{'b' * 32}") > 0, "the list of a tenant's rows ends with them"


def test_a_loop_closes_its_own_connections_and_leaves_the_others(redis_index, redis_query):
    index = redis_index()

    def connections():
        lines = redis_query.run("CLIENT", "LIST").splitlines()
        return {found[1] for line in lines if (found := re.search(rb" ?id=(\d+) ", line))}

    kept = row(1)
    index.add("p" * 64, kept)
    before = connections()
    assert before

    async def asks():
        found = [await index.asearch("p" * 64, kept.vector, 1) for _ in range(3)]
        assert [one.name for near in found for one in near] == [kept.name] * 3
        opened.update(connections() - before)

    opened = set()
    for number in range(1, 4):
        asyncio.run(asks())
        assert len(opened) >= number, "a loop has none of its own"
    wait_until(lambda: not opened & connections(), "every connection of the ended loops to be closed")
    assert names(index, "p" * 64) == {kept.name}


async def test_a_search_that_is_cancelled_never_gives_its_answer_to_the_next(redis_index, redis_query):
    index = redis_index()
    rows = [row(1, number) for number in range(20)]
    for at, one in enumerate(rows):
        index.add(f"{at:064x}", one)

    async def asks(at):
        return [near.name for near in await index.asearch(f"{at:064x}", rows[at].vector, 1)]

    assert await asks(0) == [rows[0].name]
    for turn in range(200):
        at, after = turn % len(rows), (turn + 7) % len(rows)
        waits = turn % 40 == 0  # the server lets it wait, so that it is cancelled after it has asked
        if waits:
            redis_query.run("CLIENT", "PAUSE", "200", "ALL")
        task = asyncio.ensure_future(asks(at))
        await asyncio.sleep(0.05 if waits else 0)
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert await task == [rows[at].name]
        assert task.cancelled() or not waits
        assert await asks(after) == [rows[after].name]


async def test_an_event_loop_asks_a_redis_index_without_a_thread(kit, layered, redis_index, monkeypatch):
    index = redis_index()
    cache = layered(MemoryStore(), index=index, cache={"clock": time.time})
    first = await kit.aask(cache, "How do I reset my password?")
    for name in ("add", "search", "remove"):
        monkeypatch.setattr(index, name, lambda *_: pytest.fail("called by a thread"))
    again = await kit.aask(cache, "Tell me how I reset my password")
    assert (again.outcome.status, again.body) == ("semantic", first.body)
    assert not [name for name in cache.stats().layer if name.startswith("index")]


def test_a_client_of_the_users_stays_open(redis_query):
    pytest.importorskip("redisvl")
    with redis_query.client() as client:
        index = RedisIndex(client=client, name=f"n{secrets.token_hex(4)}")
        index.add("p" * 64, row(1))
        index.close()
        assert client.ping()


@pytest.mark.parametrize(
    "options",
    [{}, {"url": "http://x"}, {"url": "redis://x", "client": 1}, {"url": "redis://x", "name": "a:b"},
     {"url": "redis://x", "max_rows_per_scope": 0}, {"url": "redis://x", "max_rows_per_scope": True},
     {"url": "redis://x", "algorithm": "ivf"}, {"url": "redis://x", "timeout": "soon"}],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options):
    pytest.importorskip("redisvl")
    with pytest.raises(ConfigurationError):
        RedisIndex(**options)


def test_a_url_with_a_password_shows_in_no_error():
    with pytest.raises(ConfigurationError) as caught:
        RedisIndex("http://user:hunter2@x")
    assert "hunter2" not in str(caught.value)


def test_an_index_that_dies_costs_no_answer(kit, layered):
    pytest.importorskip("redisvl")
    from servers.binaries import query_engine
    from servers.redis import redis_server

    with redis_server("redis", "--loadmodule", str(query_engine())) as server:
        index = RedisIndex(server.url, timeout=1)
        cache = layered(MemoryStore(), index=index, cache={"clock": time.time})
        first = kit.ask(cache, "How do I reset my password?")
        again = kit.ask(cache, "Tell me how I reset my password")
        assert (again.outcome.status, again.body) == ("semantic", first.body)
        assert list(cache._backing.stores[0].scan("default~rows:")) == []  # it keeps its rows itself
        server.kill()
        for number in range(7):
            assert kit.ask(cache, f"What is {number}?").outcome.status == "miss"
        assert cache.stats().layer["index: left alone"] >= 1
        index.close()
