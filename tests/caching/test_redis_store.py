"""What the Redis store promises beside the contract: ways in, deadlines, no leaks, others left alone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio

from askonce import Cache, ConfigurationError, StoreError
from askonce._deadline import set_deadline
from askonce.stores import RedisStore, Refused
from askonce.stores._redis_address import read_address
from askonce.testing import ManualClock

HIDDEN = "s3cr3t-pass"


@pytest.fixture
def prefix():
    return f"{uuid.uuid4().hex}:"


@pytest.fixture
def within():
    """Bounds the operations of a block, as the guard does."""

    def bound(seconds):
        set_deadline(time.monotonic() + seconds)

    yield bound
    set_deadline(None)


def works(store):
    store.set("key", b"value", None)
    assert store.get("key").value == b"value"
    assert store.ping().ok

    async def tasks():
        assert (await store.aget("key")).value == b"value"
        assert (await store.aping()).ok
        await store.aclose()

    asyncio.run(tasks())
    store.close()


# -- ways in ------------------------------------------------------------------------------------


def test_a_unix_socket(prefix):
    from servers.redis import redis_server

    with redis_server("valkey", unix_socket=True) as server:
        works(RedisStore(server.unix_url.replace("unix://", "redis+unix://"), prefix=prefix))


def test_a_password_and_an_acl_user_with_no_more_rights_than_stated(prefix):
    from servers.redis import redis_server

    rules = (
        f"on >{HIDDEN} resetchannels ~{prefix}* ~lease!{prefix}* &{prefix}changes -@all +get +mget +set "
        "+unlink +getrange +scan +publish +subscribe +ping +info +time +eval +pexpire +del"
    )
    with redis_server("redis", password="admin", users={"app": rules}) as server:
        url = f"redis://app:{HIDDEN}@{server.host}:{server.port}"
        works(RedisStore(url, prefix=prefix))
        store = RedisStore(url, prefix=prefix)
        assert store.acquire("key", "token", 5.0)
        assert not store.acquire("key", "other", 5.0)
        assert store.renew("key", "token", 5.0)
        store.release("key", "other")
        assert not store.acquire("key", "other", 5.0)
        store.release("key", "token")
        assert store.acquire("key", "other", 5.0)
        store.close()
        wrong = RedisStore(f"redis://app:nope@{server.host}:{server.port}", prefix=prefix)
        with pytest.raises(redis.AuthenticationError):
            wrong.get("key")
        health = wrong.ping()
        assert not health.ok
        assert "password" in health.warnings[0]
        wrong.close()


def test_a_credential_provider_is_asked_for_each_connection(prefix):
    from servers.redis import redis_server

    class Provider(redis.CredentialProvider):
        asked = 0

        def get_credentials(self):
            self.asked += 1
            return ("app", HIDDEN)

    with redis_server("valkey", password="admin", users={"app": f"on >{HIDDEN} ~* &* +@all"}) as server:
        provider = Provider()
        works(RedisStore(f"redis://{server.host}:{server.port}", prefix=prefix, credential_provider=provider))
        assert provider.asked >= 2


def test_tls_with_a_private_authority_and_a_client_certificate(prefix, valkey):
    from servers.tls import TLSRelay

    with TLSRelay(valkey.host, valkey.port, client_certificate=True) as relay:
        url = f"rediss://{relay.host}:{relay.port}/0?ssl_ca_certs={relay.ca_file}"
        shown = f"&ssl_certfile={relay.client_cert_file}&ssl_keyfile={relay.client_key_file}"
        works(RedisStore(url + shown, prefix=prefix))


@pytest.mark.parametrize("side", ["threads", "tasks"])
def test_many_first_tls_connections_read_the_authorities_once(side, prefix, valkey, monkeypatch):
    import ssl

    from servers.tls import TLSRelay

    async def tasks(store):
        await asyncio.gather(*[store.aset(f"key{number}", b"value", None) for number in range(10)])
        await store.aclose()

    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **options: made.append(1) or make())
    with TLSRelay(valkey.host, valkey.port) as tls:
        store = RedisStore(f"rediss://127.0.0.1:{tls.port}?ssl_ca_certs={tls.ca_file}", prefix=prefix)
        if side == "tasks":
            asyncio.run(tasks(store))
        else:
            with ThreadPoolExecutor(10) as pool:
                list(pool.map(lambda number: store.set(f"key{number}", b"value", None), range(10)))
            store.close()
        assert tls.connections > 1
    assert len(made) <= 1  # for event loops, redis-py makes none by this function


def test_tls_connections_are_closed_with_the_store_also_when_the_server_is_silent(prefix, valkey):
    from servers.chaos import ChaosProxy
    from servers.tls import TLSRelay

    async def tasks():
        store = RedisStore(f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={tls.ca_file}", prefix=prefix)
        await store.aset("key", b"value", None)
        await store.aset("key", b"value", None)
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await store.aget("key")
        await store.aclose()

    with TLSRelay(valkey.host, valkey.port) as tls, ChaosProxy(*tls.address) as proxy:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(tasks())
            gc.collect()
        assert [str(one.message) for one in caught] == []


def test_sentinel_with_passwords_of_its_own_and_a_failover(prefix):
    from servers.sentinel import sentinel

    with sentinel("valkey", password="pp", sentinel_password=HIDDEN) as group:
        hosts = ",".join(f"{host}:{port}" for host, port in group.addresses)
        url = f"redis+sentinel://:pp@{hosts}/{group.service}?sentinel_password={HIDDEN}&timeout=3s"
        works(RedisStore(url, prefix=prefix))
        store = RedisStore(url, prefix=prefix)
        store.set("before", b"value", None)
        group.failover()
        end = time.monotonic() + 10
        while True:
            try:
                store.set("after", b"value", None)
                break
            except (redis.RedisError, StoreError, TimeoutError):
                assert time.monotonic() < end, "it never found the new master"
                time.sleep(0.05)
        assert store.get("after").value == b"value"
        store.close()


@pytest.mark.parametrize("change", ["a slot moves", "a master fails"])
def test_a_cluster_that_changes_is_followed(change, prefix, redis_cluster):
    nodes = ",".join(f"{host}:{port}" for host, port in redis_cluster.addresses)
    url = f"redis+cluster://{nodes}?prefix={prefix}&timeout=4s"
    keys = [f"k{number}" for number in range(40)]

    def change_it():
        if change == "a slot moves":
            name = f"{prefix}k0"
            store.delete("k0")  # only an empty slot can be moved here
            home = redis_cluster.master_of(name)
            redis_cluster.move_slot(name, next(node for node in redis_cluster.masters if node is not home))
        else:
            redis_cluster.failover()

    def insists(work):
        end = time.monotonic() + 15
        while True:
            try:
                return work()
            except (redis.RedisError, StoreError, TimeoutError):
                assert time.monotonic() < end, "it never found its way"
                time.sleep(0.05)

    store = RedisStore(url)
    store.set_many([(key, b"old", None) for key in keys])

    async def tasks(value):
        for key in keys:
            await store.aset(key, value, None)
        assert set(await store.aget_many(keys)) == set(keys)
        await store.aclose()

    asyncio.run(tasks(b"old"))
    change_it()
    insists(lambda: store.set_many([(key, b"new", None) for key in keys]))
    found = insists(lambda: store.get_many(keys))
    assert [found[key].value for key in keys] == [b"new"] * 40
    assert sorted(insists(lambda: list(store.scan("")))) == sorted(keys)
    insists(lambda: asyncio.run(tasks(b"newer")))
    assert insists(lambda: store.get("k0")).value == b"newer"
    assert insists(lambda: store.delete(*keys)) == 40
    store.close()


def test_clients_and_pools_of_the_callers_are_used_and_never_closed(prefix, valkey):
    pool = redis.ConnectionPool.from_url(valkey.url)
    store = RedisStore(client=pool, prefix=prefix)
    store.set("key", b"value", None)
    store.close()
    assert store.get("key").value == b"value"
    with redis.Redis(connection_pool=pool) as client:
        assert client.exists(f"{prefix}key")
    store.close()
    pool.disconnect()

    async def tasks():
        client = redis.asyncio.Redis.from_url(valkey.url)
        store = RedisStore(async_client=client, prefix=prefix)
        assert (await store.aget("key")).value == b"value"
        await store.aclose()
        assert await client.ping()
        await client.aclose()
        with pytest.raises(StoreError, match="client="):
            store.get("key")

    asyncio.run(tasks())


@pytest.mark.parametrize("kind", ["decoding", "no client"])
def test_a_client_that_cannot_work_is_refused_at_once(kind, valkey):
    client = redis.Redis.from_url(valkey.url, decode_responses=True) if kind == "decoding" else object()
    with pytest.raises(ConfigurationError):
        RedisStore(client=client)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h/0?nope=1", "nope"),
        ("redis://h/x", "db"),
        ("redis://h/0?db=1", "db twice"),
        ("redis://h?timeout=soon", "timeout"),
        ("redis://h?max_connections=many", "max_connections"),
        ("redis://h?write=later", "write"),
        ("redis://h?ssl_ca_certs=x", "ssl_ca_certs"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("redis://a,b", "2 hosts"),
        ("redis+sentinel://h", "service"),
        ("redis+unix://", "socket"),
        ("redis+cluster://h?db=3", "db=3"),
        ("redis://h:port", "host"),
        ("redis://h?timeout=1&timeout=2", "twice"),
        ("redis://h#x", "#"),
        ("redis+carrier-pigeon://h", "redis+sentinel://"),
    ],
)
def test_a_wrong_url_is_refused_at_once_and_says_what_is_allowed(url, named):
    url = url.replace("://h", f"://user:{HIDDEN}@h")
    with pytest.raises(ConfigurationError) as caught:
        Cache(url)
    assert named in str(caught.value)
    assert HIDDEN not in str(caught.value)


def test_an_address_reads_every_part():
    address = read_address(
        "rediss+sentinel://u%40x:p%3Aq@a:1,[::1]:2,c/svc/3?prefix=z:", frozenset({"prefix"})
    )
    assert address.nodes == (("a", 1), ("::1", 2), ("c", 26379))
    assert (address.service, address.tls, address.rest) == ("svc", True, {"prefix": "z:"})
    assert address.options == {"username": "u@x", "password": "p:q", "db": 3}
    assert "p:q" not in repr(address) + str(address)


def test_constructing_connects_to_nothing_and_shows_no_password(prefix):
    for url in (
        "redis://u:{}@10.255.255.1",
        "redis+cluster://u:{}@10.255.255.1",
        "redis+sentinel://u:{}@10.255.255.1/s",
    ):
        started = time.monotonic()
        store = RedisStore(url.format(HIDDEN), prefix=prefix)
        assert HIDDEN not in repr(store)
        assert "10.255.255.1" in repr(store)
        assert time.monotonic() - started < 1.0
        store.close()


# -- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["black hole", "refuse", "latency", "half-open", "trickle"])
def test_no_operation_outlives_its_deadline(fault, prefix, valkey, within):
    from servers.chaos import ChaosProxy

    with ChaosProxy(valkey.host, valkey.port) as proxy:
        store = RedisStore(f"redis://{proxy.host}:{proxy.port}", prefix=prefix)
        if fault in {"latency", "half-open", "trickle"}:
            store.set("key", b"value" * 10, None)
        spoil(proxy, fault)
        # New connections are whole when old ones are lost; their handshake may take all the time.
        for _ in range(1 if fault in {"half-open", "trickle"} else 3):
            within(0.2)
            started = time.monotonic()
            with pytest.raises((redis.RedisError, TimeoutError)):
                store.get("key")
            assert time.monotonic() - started < 0.3
        proxy.ok()
        within(2.0)
        assert wait_for(lambda: tried(store)), "it works again"
        store.close()


@pytest.mark.parametrize("side", ["threads", "tasks"])
def test_connections_that_were_lost_unnoticed_cost_one_caller_its_time_and_not_each(
    side, prefix, valkey, within
):
    from servers.chaos import ChaosProxy

    def threads(store):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda number: store.set(f"key{number}", b"value", None), range(200)))
        proxy.half_open()
        within(0.2)
        with pytest.raises(redis.TimeoutError):
            store.get("key1")
        for number in range(20):
            within(1.0)
            assert store.get(f"key{number}").value == b"value"
        store.close()

    async def tasks(store):
        await asyncio.gather(*[store.aset(f"key{number}", b"value", None) for number in range(20)])
        proxy.half_open()
        within(0.2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await store.aget("key1")
        for number in range(20):
            within(1.0)
            async with asyncio.timeout(1.0):
                assert (await store.aget(f"key{number}")).value == b"value"
        await store.aclose()

    with ChaosProxy(valkey.host, valkey.port) as proxy:
        store = RedisStore(f"redis://{proxy.host}:{proxy.port}", prefix=prefix)
        if side == "threads":
            threads(store)
        else:
            asyncio.run(tasks(store))


def spoil(proxy, fault):
    {
        "black hole": proxy.black_hole,
        "refuse": proxy.refuse,
        "latency": lambda: proxy.latency(1.0),
        "half-open": proxy.half_open,
        "trickle": lambda: proxy.trickle(every=0.02),  # never silent for longer
    }[fault]()


def tried(store):
    try:
        store.set("key", b"value", None)
    except (redis.RedisError, TimeoutError):
        return False
    return True


def wait_for(holds, seconds=5.0):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_waiting_for_a_free_connection_counts(prefix, valkey, within):
    from servers.chaos import ChaosProxy

    with ChaosProxy(valkey.host, valkey.port) as proxy:
        store = RedisStore(f"redis://{proxy.host}:{proxy.port}?max_connections=1", prefix=prefix)
        store.set("key", b"value", None)
        proxy.latency(0.4)
        slow = threading.Thread(target=store.get, args=("key",))
        slow.start()
        time.sleep(0.1)
        within(0.1)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            store.get("key")
        assert time.monotonic() - started < 0.2
        slow.join()
        store.close()


def test_a_restarted_server_costs_no_call_an_error(prefix):
    from servers.redis import redis_server

    with redis_server("valkey") as server:
        store = RedisStore(server.url, prefix=prefix)
        store.set_many([(f"k{n}", b"v", None) for n in range(5)])
        server.restart()
        assert store.get("k1") is None
        store.set("k1", b"v", None)
        assert store.get("k1").value == b"v"
        store.close()


# -- values -------------------------------------------------------------------------------------


def test_the_server_is_given_the_life_that_is_left_and_the_reader_the_exact_expiry(prefix, valkey):
    clock = ManualClock()
    store = RedisStore(valkey.url, prefix=prefix, clock=clock)
    store.set("key", b"value", clock() + 1.4)
    assert 1_300 < valkey.run("PTTL", f"{prefix}key") <= 1_400
    assert store.get("key").expires_at == clock() + 1.4
    store.set("key", b"value", clock() + 100)
    assert 99_000 < valkey.run("PTTL", f"{prefix}key") <= 100_000
    store.set("key", b"value", None)
    assert valkey.run("PTTL", f"{prefix}key") == -1
    valkey.run("PERSIST", f"{prefix}key")
    store.set("key", b"value", clock() + 5)
    valkey.run("PERSIST", f"{prefix}key")  # somebody's hand in it does not lengthen a life
    clock.advance(5)
    assert store.get("key") is None
    store.close()


@pytest.mark.parametrize("foreign", ["text", "list", "short", "other mark"])
def test_a_foreign_value_under_our_key_is_no_value(foreign, prefix, valkey):
    name = f"{prefix}key"
    if foreign == "list":
        valkey.run("RPUSH", name, "a")
    else:
        values = {"text": "x" * 50, "short": "ao", "other mark": b"zz" + bytes(20)}
        valkey.run("SET", name, values[foreign])
    store = RedisStore(valkey.url, prefix=prefix)
    if foreign == "list":
        with pytest.raises(StoreError) as caught:
            store.get("key")
        assert prefix not in str(caught.value)
    else:
        assert store.get("key") is None
        assert store.get_many(["key"]) == {}
        assert list(store.scan("")) == []
    store.close()


def test_only_our_own_keys_are_found_and_removed(prefix, valkey):
    valkey.run("SET", f"{prefix[:-1]}x", "foreign")
    valkey.run("SET", f"{prefix}*", "foreign too")
    store = RedisStore(valkey.url, prefix=prefix)
    with Cache(store, namespace="one") as one, Cache(store, namespace="two") as two:
        for space in ("one", "two", "one*"):
            store.set(f"{space}:key", b"value", None)
        assert one.clear() == 1
        assert sorted(store.scan("")) == ["one*:key", "two:key"]
        assert two.clear() == 1
    assert valkey.run("GET", f"{prefix[:-1]}x") == b"foreign"
    assert valkey.run("GET", f"{prefix}*") == b"foreign too"


def test_a_full_server_refuses_writes_and_goes_on_answering():
    from servers.redis import redis_server

    with redis_server("redis", maxmemory="3mb") as server:
        store = RedisStore(server.url)
        store.set("small", b"value", None)
        with pytest.raises(Refused):
            for number in range(200):
                store.set(f"key{number}", os.urandom(100_000), None)
        assert store.get("small").value == b"value"
        warned = store.ping().warnings
        assert any("noeviction" in warning for warning in warned)
        assert any("persistence" in warning for warning in warned)
        store.close()


def test_500_keys_take_one_round_trip(prefix, valkey):
    store = RedisStore(valkey.url, prefix=prefix)
    store.set_many([(f"k{n}", b"v", None) for n in range(500)])
    before = valkey.run("INFO", "commandstats")["cmdstat_mget"]["calls"] if has_mget(valkey) else 0
    assert len(store.get_many([f"k{n}" for n in range(500)])) == 500
    assert valkey.run("INFO", "commandstats")["cmdstat_mget"]["calls"] == before + 1
    store.close()


def has_mget(server):
    return "cmdstat_mget" in server.run("INFO", "commandstats")


# -- loops, threads, leaks ----------------------------------------------------------------------


def test_connections_close_with_their_loop_and_with_the_store(prefix):
    from servers.redis import redis_server

    with redis_server("valkey") as server:
        store = RedisStore(server.url, prefix=prefix)

        async def tasks():
            await asyncio.gather(*[store.aget(f"k{n}") for n in range(100)])

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(5):
                asyncio.run(tasks())
                gc.collect()
        assert wait_for(lambda: len(connected(server)) == 0), "each loop took its connections with it"
        threads = [threading.Thread(target=store.get, args=("key",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(connected(server)) <= 20
        store.close()
        assert wait_for(lambda: len(connected(server)) == 0)


def connected(server):
    listed = server.run("CLIENT", "LIST")
    lines = listed if isinstance(listed, list) else listed.splitlines()
    return [line for line in lines if "user=kit" not in str(line) and "'user': 'kit'" not in str(line)]


def test_a_cancelled_task_leaves_no_reply_for_the_next_one(prefix, valkey):
    from servers.chaos import ChaosProxy

    async def tasks(url):
        store = RedisStore(f"{url}?max_connections=2", prefix=prefix)
        await store.aset_many([(f"k{n}", b"v%d" % n, None) for n in range(50)])
        for number in range(50):
            task = asyncio.create_task(store.aget(f"k{number}"))
            await asyncio.sleep(0.0005 * (number % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            other = (number + 1) % 50
            assert (await store.aget(f"k{other}")).value == b"v%d" % other
        await store.aclose()

    with ChaosProxy(valkey.host, valkey.port) as proxy:
        proxy.latency(0.001)
        asyncio.run(tasks(f"redis://{proxy.host}:{proxy.port}"))


def test_a_thousand_tasks_share_a_few_connections(prefix, valkey):
    async def tasks():
        store = RedisStore(f"{valkey.url}?max_connections=8", prefix=prefix)
        await store.aset("key", b"value", None)
        found = await asyncio.gather(*[store.aget("key") for _ in range(1000)])
        await store.aclose()
        return found

    assert all(stored.value == b"value" for stored in asyncio.run(tasks()))


def test_a_sentinel_that_does_not_say_goodbye_in_time_leaves_the_others_closed(sentinel, prefix):
    nodes = ",".join(f"{host}:{port}" for host, port in sentinel.addresses)
    store = RedisStore(f"redis+sentinel://{nodes}/{sentinel.service}?timeout=5", prefix=prefix)

    async def late():
        raise TimeoutError

    async def asks():
        assert await store.aget("nothing") is None
        helpers = (await store._loops.link())._maker.helpers
        for helper in helpers:
            await helper.ping()
        pools = [helper.connection_pool for helper in helpers]
        goodbye, pools[0].disconnect = pools[0].disconnect, late
        await store._loops.close()
        await goodbye()
        return [one.is_connected for pool in pools for one in pool._available_connections]

    assert asyncio.run(asks()) == [False] * len(sentinel.addresses)
    store.close()
