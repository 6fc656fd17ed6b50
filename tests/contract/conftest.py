"""What several files here need."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from askonce._deadline import set_deadline
from askonce.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def _descriptions():
    """One of what boto3 reads its descriptions of S3 with: it takes 0.3 s, and each store has a session."""
    from botocore.loaders import create_loader

    return create_loader()


@pytest.fixture
def s3_account(monkeypatch, _descriptions):
    """The environment in which boto3 finds the credentials of the servers, and nobody else's."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "askonce",
        "AWS_SECRET_ACCESS_KEY": "askonce-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nowhere/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("botocore.session.create_loader", lambda *_: _descriptions)


_buckets: dict[int, str] = {}


@pytest.fixture
def moto_bucket(s3):
    """One for all: prefixes keep tests apart. A restarted Moto has forgotten it."""
    if s3.pid not in _buckets:
        _buckets[s3.pid] = s3.create_bucket()
    return _buckets[s3.pid]


@pytest.fixture(scope="session")
def rclone_bucket(rclone):
    return rclone.create_bucket()


@pytest.fixture
def opened():
    """Stores of this test, with names of their own; all closed afterwards, and no thread of theirs left."""
    from askonce.stores import S3Store

    stores = []

    def open_one(url, bucket="bucket", **options):
        options = {"prefix": f"p-{uuid.uuid4().hex[:8]}", "timeout": 10, **options}
        stores.append(S3Store(bucket, endpoint_url=url, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def within():
    """Bounds the operations of a block, as the guard does."""

    @contextlib.contextmanager
    def within(seconds):
        set_deadline(time.monotonic() + seconds)
        try:
            yield
        finally:
            set_deadline(None)

    return within


@pytest.fixture
def place(s3, moto_bucket):
    """A bucket with a prefix of this test's own, and a plain client to look into it."""
    with s3.client() as client:
        yield Place(client, s3.endpoint_url, moto_bucket, f"p-{uuid.uuid4().hex[:8]}")


class Place:
    def __init__(self, client, url, bucket, prefix):
        self.client, self.url, self.bucket, self.prefix = client, url, bucket, prefix

    def store(self, prefix=None, **options):
        from askonce.stores import S3Store

        options = {"endpoint_url": self.url, "timeout": 20, **options}
        return S3Store(self.bucket, prefix or self.prefix, **options)

    def put(self, name, body=b"somebody's", **options):
        self.client.put_object(Bucket=self.bucket, Key=name, Body=body, **options)

    def objects(self, prefix=None):
        answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix or self.prefix)
        return {each["Key"]: each["ETag"] for each in answer.get("Contents", ())}


@pytest.fixture
def run_python():
    """Runs code in a new interpreter."""
    return _run_python


def _run_python(code, **options):
    source = str(Path(sys.modules["askonce"].__file__).parents[1])
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**bare, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
