"""The kit itself: every fault of the proxy is what it says; TLS asks for what it should."""

from __future__ import annotations

import socket
import ssl
from time import monotonic

import pytest
import redis

from servers.chaos import ChaosProxy
from servers.process import wait_until
from servers.redis import client_at
from servers.tls import TLSRelay


@pytest.fixture
def proxy(valkey):
    valkey.flush()
    with ChaosProxy(*valkey.address) as proxy:
        yield proxy


class TestChaos:
    def test_forwards_and_counts(self, proxy):
        with client_at(proxy.address) as client:
            assert client.set("k", "v" * 300_000)
            assert client.get("k") == b"v" * 300_000
            assert (proxy.connections, proxy.open_connections) == (1, 1)
        wait_until(lambda: not proxy.open_connections, "the client's end")

    def test_refuse_resets_new_connections_only(self, proxy):
        with client_at(proxy.address) as client, client_at(proxy.address) as late:
            client.ping()
            proxy.refuse()
            assert client.ping()
            with pytest.raises(redis.ConnectionError):
                late.ping()
            proxy.ok()
            assert late.ping()

    def test_black_hole_holds_back_and_lets_go(self, proxy, valkey):
        with socket.create_connection(proxy.address, timeout=0.2) as caller:
            caller.sendall(b"PING\r\n")
            assert caller.recv(99) == b"+PONG\r\n"
            proxy.black_hole()
            caller.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                caller.recv(99)
            with client_at(proxy.address) as client, pytest.raises(redis.TimeoutError):
                client.ping()
            wait_until(lambda: proxy.open_connections == 1, "the late client's end, in the hole")
            proxy.ok()
            assert caller.recv(99) == b"+PONG\r\n"

    def test_latency_of_each_direction(self, proxy):
        with client_at(proxy.address) as client:
            client.set("k", "v" * 500_000)
            proxy.latency(up=0.05, down=0.1)
            before = monotonic()
            client.get("k")
            assert 0.15 <= monotonic() - before < 0.29

    def test_cut_in_the_middle_of_a_value(self, proxy):
        with client_at(proxy.address) as client:
            client.set("k", "v" * 1000)
        with socket.create_connection(proxy.address, timeout=1) as caller:
            proxy.cut(100)
            caller.sendall(b"GET k\r\n")
            assert caller.recv(2000) == b"$1000\r\n" + b"v" * 93
            with pytest.raises(ConnectionResetError):
                caller.recv(2000)
        with socket.create_connection(proxy.address, timeout=1) as caller:
            proxy.cut(7, reset=False)
            caller.sendall(b"GET k\r\n")
            assert caller.recv(2000) == b"$1000\r\n"
            assert caller.recv(2000) == b""

    def test_garbage_is_no_answer(self, proxy):
        with client_at(proxy.address) as client:
            client.ping()
            proxy.garbage()
            with pytest.raises(redis.RedisError):
                client.ping()

    def test_trickle(self, proxy):
        with socket.create_connection(proxy.address, timeout=1) as caller:
            proxy.trickle(3, 0.1)
            before = monotonic()
            caller.sendall(b"PING\r\n")
            assert caller.recv(99) == b"+PO"
            caller.recv(99)
            caller.recv(99)
            assert 0.2 <= monotonic() - before < 0.5

    def test_half_open_loses_connections_that_were_there(self, proxy):
        with client_at(proxy.address) as old, client_at(proxy.address) as new:
            old.ping()
            proxy.half_open()
            with pytest.raises(redis.TimeoutError):
                old.ping()
            assert new.ping()

    def test_drop_resets_all(self, proxy):
        with socket.create_connection(proxy.address, timeout=1) as caller:
            caller.sendall(b"PING\r\n")
            caller.recv(99)
            proxy.drop()
            with pytest.raises(ConnectionResetError):
                caller.recv(99)
        assert proxy.open_connections == 0

    def test_a_server_that_is_gone(self, proxy, valkey):
        valkey.kill()
        with client_at(proxy.address) as client, pytest.raises(redis.ConnectionError):
            client.ping()


class TestTLS:
    def test_answers_those_who_know_the_authority(self, valkey):
        with TLSRelay(*valkey.address) as relay:
            with client_at(relay.address, ssl=True, ssl_ca_certs=relay.ca_file) as client:
                assert client.set("k", "v" * 300_000)
                assert client.get("k") == b"v" * 300_000
                assert relay.open_connections == 1
            with (
                client_at(relay.address, ssl=True, ssl_ca_certs=relay.other_ca_file) as client,
                pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"),
            ):
                client.ping()
            with client_at(relay.address) as client, pytest.raises(redis.RedisError):
                client.ping()

    def test_a_wrong_host(self, valkey):
        with (
            TLSRelay(*valkey.address, names=("elsewhere.example",)) as relay,
            client_at(relay.address, ssl=True, ssl_ca_certs=relay.ca_file, ssl_check_hostname=True) as client,
            pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.ping()

    def test_client_certificates(self, valkey):
        with TLSRelay(*valkey.address, client_certificate=True) as relay:
            trust = {"ssl": True, "ssl_ca_certs": relay.ca_file}
            with client_at(relay.address, **trust) as client, pytest.raises(redis.ConnectionError):
                client.ping()
            own = {"ssl_certfile": relay.client_cert_file, "ssl_keyfile": relay.client_key_file}
            with client_at(relay.address, **trust, **own) as client:
                assert client.ping()

    def test_drop_resets_all(self, valkey):
        with TLSRelay(*valkey.address) as relay:
            context = ssl.create_default_context(cafile=relay.ca_file)
            # Some Pythons read a reset as an end without goodbye; either is an error here.
            strict = {"server_hostname": relay.host, "suppress_ragged_eofs": False}
            with (
                socket.create_connection(relay.address, timeout=1) as raw,
                context.wrap_socket(raw, **strict) as caller,
            ):
                caller.sendall(b"PING\r\n")
                assert caller.recv(99) == b"+PONG\r\n"
                relay.drop()
                with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
                    caller.recv(99)

    def test_faults_behind_it(self, valkey):
        with (
            ChaosProxy(*valkey.address) as proxy,
            TLSRelay(*proxy.address) as relay,
            client_at(relay.address, ssl=True, ssl_ca_certs=relay.ca_file) as client,
        ):
            assert client.ping()
            proxy.black_hole()
            with pytest.raises(redis.TimeoutError):
                client.ping()
