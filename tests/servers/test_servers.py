"""The kit itself: every server starts, answers, pauses, restarts, fails over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from botocore.exceptions import BotoCoreError, ClientError

from servers.chaos import ChaosProxy
from servers.process import wait_until
from servers.redis import client_at, redis_server
from servers.sentinel import sentinel as one_sentinel


class TestStandalone:
    @pytest.mark.parametrize(("kind", "version"), [("valkey", "9."), ("redis", "8.2.")])
    def test_answers(self, kind, version):
        with redis_server(kind) as server, redis.Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.info("server")[f"{kind}_version"].startswith(version)

    def test_password_users_memory_and_socket_file(self):
        with redis_server(
            password="p", users={"app": "on >s ~a:* +get"}, maxmemory="8mb", unix_socket=True
        ) as server:
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get("maxmemory")["maxmemory"] == str(8 << 20)
            with redis.Redis.from_url(server.unix_url) as client:
                assert client.ping()
            with client_at(server.address) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
            with client_at(server.address, username="app", password="s") as client:
                assert client.get("a:1") is None
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.get("b:1")

    def test_paused_it_says_nothing_and_goes_on(self):
        with redis_server() as server, client_at(server.address) as client:
            server.run("SET", "k", "v")
            server.pause()
            with pytest.raises(redis.TimeoutError):
                client.get("k")
            server.resume()
            assert client.get("k") == b"v"

    def test_killed_it_refuses_and_restarts_empty_on_its_port(self):
        with redis_server() as server, client_at(server.address) as client:
            server.run("SET", "k", "v")
            server.kill()
            with pytest.raises(redis.ConnectionError):
                client.get("k")
            server.restart()
            assert client.get("k") is None

    def test_a_server_that_cannot_start_shows_its_log(self):
        with pytest.raises(RuntimeError) as failure, redis_server("valkey", "--no-such-option", "1"):
            pass
        assert "no-such-option" in "".join(failure.value.__notes__)

    def test_ends_with_a_run_that_is_killed(self, tmp_path):
        code = (
            "import time; from servers.redis import redis_server\n"
            "with redis_server() as server: print(server.port, flush=True); time.sleep(60)"
        )
        folder = Path(__file__).parent.parent
        env = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(tmp_path)}
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as run:
            port = int(run.stdout.readline())
            run.kill()

        def refused():
            with socket.socket() as caller:
                return caller.connect_ex(("127.0.0.1", port))

        wait_until(refused, "the end of the server")
        wait_until(lambda: not list(tmp_path.iterdir()), "the end of its folder")


def status(call, **arguments):
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


class TestS3:
    @pytest.mark.parametrize(("name", "second"), [("s3", 412), ("rclone", 200)])
    def test_answers_and_what_it_makes_of_conditions(self, name, second, request):
        server = request.getfixturevalue(name)
        with server.client() as client:
            put = {"Bucket": server.create_bucket(), "Key": "k", "Body": b"v", "IfNoneMatch": "*"}
            assert status(client.put_object, **put) == 200
            assert status(client.put_object, **put) == second

    def test_paused_and_restarted(self, rclone):
        with rclone.client(read_timeout=0.3) as client:
            where = {"Bucket": rclone.create_bucket(), "Key": "k"}
            client.put_object(**where, Body=b"v")
            rclone.pause()
            with pytest.raises(BotoCoreError):
                client.get_object(**where)
            rclone.resume()
            assert client.get_object(**where)["Body"].read() == b"v"
            rclone.kill()
            with pytest.raises(BotoCoreError):
                client.get_object(**where)
            rclone.restart()
            assert client.get_object(**where)["Body"].read() == b"v"

    def test_behind_the_proxy(self, s3):
        bucket = s3.create_bucket()
        with s3.client() as client:
            client.put_object(Bucket=bucket, Key="k", Body=b"v" * 10_000)
        with (
            ChaosProxy(*s3.address) as proxy,
            s3.client(endpoint_url=f"http://127.0.0.1:{proxy.port}") as client,
        ):
            proxy.cut(3000)
            with pytest.raises(BotoCoreError):
                client.get_object(Bucket=bucket, Key="k")["Body"].read()


@pytest.fixture
def user(redis_cluster):
    with redis_cluster.client(socket_timeout=1.0) as client:
        yield client


class TestCluster:
    def test_answers_with_masters_and_replicas(self, redis_cluster, user):
        assert len(redis_cluster.masters) == len(redis_cluster.replicas) == 3
        for master in redis_cluster.masters:
            key = redis_cluster.key_on(master)
            user.set(key, "v")
            assert user.get(key) == b"v"
            assert len(redis_cluster.replicas_of(master)) == 1

    def test_a_replica_takes_the_place_of_its_master(self, redis_cluster, user):
        user.set("k", "v")
        old = redis_cluster.master_of("k")
        assert old.run("WAIT", 1, 1000) == 1
        new = redis_cluster.failover(old)
        assert redis_cluster.master_of("k") is new
        with redis_cluster.client() as client:
            assert client.get("k") == b"v"
        redis_cluster.heal()
        assert old.role() == "slave"

    def test_a_paused_master(self, redis_cluster):
        # Asked directly: a client of the cluster may try for so long that a replica takes over.
        master = redis_cluster.master_of("k")
        master.pause()
        with client_at(master.address) as client, pytest.raises(redis.TimeoutError):
            client.get("k")

    def test_a_slot_moves(self, redis_cluster, user):
        one, other, _ = redis_cluster.masters
        redis_cluster.flush()
        key = redis_cluster.key_on(one)
        redis_cluster.move_slot(key, other)
        assert user.set(key, "v")
        redis_cluster.flush()
        redis_cluster.move_slot(key, one)


class TestSentinel:
    def test_promotes_the_replica(self, sentinel):
        with sentinel.client() as client:
            client.set("k", "v")
            assert client.wait(1, 1000) == 1
        old = sentinel.master
        new = sentinel.failover()
        assert (sentinel.master, sentinel.replica) == (new, old)
        with sentinel.client() as client:
            assert client.get("k") == b"v"
            assert client.set("k", "w")

    def test_one_sentinel_with_passwords_on_redis(self):
        with one_sentinel("redis", sentinels=1, password="p", sentinel_password="s") as whole:
            with whole.client() as client:
                assert client.set("k", "v")
            (address,) = whole.addresses
            with client_at(address) as client, pytest.raises(redis.AuthenticationError):
                client.ping()


class TestSharedServers:
    def test_one_that_a_test_leaves_paused(self, valkey):
        valkey.pause()

    def test_answers_the_next_test(self, valkey):
        assert valkey.run("PING")
        valkey.kill()

    def test_and_one_left_dead_as_well(self, valkey):
        assert valkey.run("PING")
