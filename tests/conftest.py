"""Real servers, shared by the whole run. One starts when a first test asks for it, else never."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers.cluster import Cluster
    from servers.redis import RedisServer
    from servers.s3 import MotoServer, RcloneServer
    from servers.sentinel import Sentinel

# Here, not in the configuration: tests of the built wheel run with another path.
sys.path.append(str(Path(__file__).parent))

_shared: list = []


def _share(server: AbstractContextManager) -> Iterator:
    """Keep it for the run, and in order: a test may pause, kill and drop as it likes."""
    with server as running:
        _shared.append(running)
        try:
            yield running
        finally:
            _shared.remove(running)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    for server in _shared:
        server.heal()


# What these import is imported late: other tests start as fast as before, and need no redis and no boto3.


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    """A Valkey. Keys of other tests are in it: use names of your own, or `flush`."""
    from servers.redis import redis_server

    yield from _share(redis_server("valkey"))


@pytest.fixture(scope="session")
def redis8() -> Iterator[RedisServer]:
    """A Redis 8.2."""
    from servers.redis import redis_server

    yield from _share(redis_server("redis"))


@pytest.fixture(scope="session")
def redis_query() -> Iterator[RedisServer]:
    """A Redis 8.2 with the query engine. Indexes of other tests are in it: use names of your own."""
    from servers.binaries import query_engine
    from servers.redis import redis_server

    yield from _share(redis_server("redis", "--loadmodule", str(query_engine())))


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Cluster]:
    """Three masters of Valkey, each with a replica. Who is which may differ from test to test."""
    from servers.cluster import cluster

    yield from _share(cluster("valkey"))


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    """A master, a replica and three sentinels, new for each test: 2 s, and to mend one takes longer."""
    from servers.sentinel import sentinel

    with sentinel("valkey") as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[MotoServer]:
    """A Moto. Take a bucket of your own: `s3.create_bucket()`."""
    from servers.s3 import moto_server

    yield from _share(moto_server())


@pytest.fixture(scope="session")
def rclone() -> Iterator[RcloneServer]:
    """An rclone that serves S3 without conditional writes."""
    from servers.s3 import rclone_s3

    yield from _share(rclone_s3())
