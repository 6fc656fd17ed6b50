"""What the S3 store can be told, in Python and in a URL, and what it does before it is used: nothing."""

from __future__ import annotations

import sys
import time

import pytest

from askonce import Cache, ConfigurationError
from askonce.stores import S3Store
from askonce.stores.urls import open_store


@pytest.fixture(autouse=True)
def _account(s3_account):
    pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bucket": ""}, "bucket"),
        ({"bucket": "a/b"}, "bucket"),
        ({"bucket": None}, "bucket"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "/"}, "prefix"),
        ({"prefix": "a//b"}, "prefix"),
        ({"prefix": "a/../b"}, "prefix"),
        ({"prefix": "./b"}, "prefix"),
        ({"prefix": "a\nb"}, "prefix"),
        ({"prefix": "a" * 501}, "prefix"),
        ({"prefix": 5}, "prefix"),
        ({"write": "later"}, "write"),
        ({"timeout": 0}, "timeout"),
        ({"max_pool": 0}, "max_pool"),
        ({"max_pool": True}, "max_pool"),
        ({"endpoint_url": "minio:9000"}, "endpoint_url"),
        ({"endpoint_url": ""}, "endpoint_url"),
        ({"endpoint_url": "http://host:port"}, "endpoint_url"),
        ({"endpoint_url": "ftp://host"}, "endpoint_url"),
        ({"endpoint_url": 5}, "endpoint_url"),
        ({"client": object()}, "client"),
    ],
)
def test_a_bad_option_is_named_at_construction(options, named):
    with pytest.raises(ConfigurationError, match=named):
        S3Store(**{"bucket": "bucket", **options})


def test_a_password_in_the_endpoint_is_refused_and_not_shown():
    with pytest.raises(ConfigurationError, match="endpoint_url") as caught:
        S3Store("bucket", endpoint_url="http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_a_client_brings_its_own_options(s3):
    with s3.client() as client, pytest.raises(ConfigurationError, match="region"):
        S3Store("bucket", client=client, region="eu-west-1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket", "S3Store('bucket', 'askonce', host='s3.amazonaws.com')"),
        ("s3://bucket/", "S3Store('bucket', 'askonce', host='s3.amazonaws.com')"),
        ("s3://bucket/a/b/", "S3Store('bucket', 'a/b', host='s3.amazonaws.com')"),
        (
            "s3://my.bucket/a%2Bb?endpoint_url=http://minio:9000/",
            "S3Store('my.bucket', 'a+b', host='minio:9000')",
        ),
        (
            "s3://b/p?region=eu-west-1&profile=work&write=through&timeout=2s&max_pool=3&endpoint_url=https%3A%2F%2Fh",
            "S3Store('b', 'p', host='h')",
        ),
    ],
)
def test_urls(url, shown, monkeypatch):
    monkeypatch.setattr("askonce.stores._s3_client.Client.warm", lambda *_: None)
    store = open_store(url, time.time)
    assert repr(store) == shown
    assert store.write == ("through" if "through" in url else "behind")
    assert (store.name, store.blocking, store.remote) == ("s3", True, True)
    store.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("s3://bucket?max_bytes=5", "max_bytes.*endpoint_url"),
        ("s3://bucket?region=", "region"),
        ("s3://bucket?write=never", "write"),
        ("s3://bucket?max_pool=many", "max_pool"),
        ("s3://bucket?timeout=0", "timeout"),
        ("s3://bucket/a//b", "prefix"),
    ],
)
def test_bad_urls(url, named):
    with pytest.raises(ConfigurationError, match=named):
        Cache(url)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r'pip install "askonce\[s3\]"'):
        S3Store("bucket")


def test_importing_the_module_loads_no_boto3_and_constructing_loads_it_aside_without_a_network(run_python):
    code = """if True:
        import socket, sys, time
        def connect(*args):
            print("connected to", args)
        socket.socket.connect = connect
        import askonce.stores.s3
        assert "boto3" not in sys.modules and "asyncio" not in sys.modules
        store = askonce.stores.s3.S3Store("bucket")
        end = time.monotonic() + 30
        while not store._crew._desk.idle and time.monotonic() < end:
            time.sleep(0.01)
        assert "boto3" in sys.modules
        assert store._client._session is not None and not store._client.ready
    """
    ran = run_python(code)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
