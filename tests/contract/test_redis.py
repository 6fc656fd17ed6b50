"""The Redis store passes the suite: Valkey, Redis, a Cluster, and over a client of the caller's."""

from __future__ import annotations

import uuid

import pytest
import redis

from askonce.stores import RedisStore
from askonce.testing import StoreContract


class Contract(StoreContract):
    fixture = "valkey"

    @pytest.fixture(autouse=True)
    def _server(self, request):
        self.server = request.getfixturevalue(self.fixture)

    def make_store(self, clock):
        return RedisStore(self.url(), prefix=f"{uuid.uuid4().hex}:", clock=clock, timeout=5.0)

    def url(self):
        return self.server.url


class TestValkey(Contract):
    fixture = "valkey"


class TestRedis(Contract):
    fixture = "redis8"


class TestCluster(Contract):
    fixture = "redis_cluster"

    def url(self):
        return self.server.url.replace("redis://", "redis+cluster://")


class TestClientOfTheCallers(Contract):
    def make_store(self, clock):
        self.client = redis.Redis.from_url(self.server.url)
        return RedisStore(client=self.client, prefix=f"{uuid.uuid4().hex}:", clock=clock, timeout=5.0)

    @pytest.fixture(autouse=True)
    def _close(self):
        yield
        self.client.close()
