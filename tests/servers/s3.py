"""S3 servers: moto, which honours conditional writes, and rclone, which ignores them."""

from __future__ import annotations

import http.client
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3
from botocore.config import Config

from servers.binaries import rclone
from servers.process import Server, running

__all__ = ["MotoServer", "RcloneServer", "S3Server", "moto_server", "rclone_s3"]


class S3Server(Server):
    """A server that speaks S3, with path-style addresses."""

    access_key = "askonce"
    secret_key = "askonce-secret"
    region = "us-east-1"

    @property
    def endpoint_url(self) -> str:
        """The endpoint."""
        return f"http://{self.host}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """Keyword arguments of boto3 clients."""
        return {
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def answers(self) -> bool:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=2.0)) as connection:
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return False
        return True

    @contextmanager
    def client(self, *, endpoint_url: str | None = None, **options: Any) -> Iterator[Any]:
        """A boto3 client that retries nothing. `options` go into its Config; the URL may be a proxy's."""
        # Path-style: names of buckets do not resolve here. No proxies: the environment may name one.
        settings = {
            "connect_timeout": 5.0,
            "read_timeout": 5.0,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "s3": {"addressing_style": "path"},
            "proxies": {},
            **options,
        }
        # A session of its own: the default one is shared, and not made for threads.
        access = self.credentials | ({"endpoint_url": endpoint_url} if endpoint_url else {})
        with closing(boto3.Session().client("s3", config=Config(**settings), **access)) as client:
            yield client

    def create_bucket(self, name: str | None = None) -> str:
        """Create a bucket, with a name nobody else has unless given, and return its name."""
        name = name or f"askonce-{secrets.token_hex(6)}"
        with self.client() as client:
            client.create_bucket(Bucket=name)
        return name


class MotoServer(S3Server):
    """Moto: in memory, so a restart comes back without buckets."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", self.host, "-p", str(self.port)]


class RcloneServer(S3Server):
    """Rclone over a folder: a restart comes back with all objects. Credentials are checked."""

    def __init__(self) -> None:
        self._program = rclone()
        super().__init__()
        (self.folder / "buckets").mkdir()

    def command(self) -> list[str]:
        address = f"{self.host}:{self.port}"
        key = f"{self.access_key},{self.secret_key}"
        folder = str(self.folder / "buckets")
        return [
            *(str(self._program), "serve", "s3", "--addr", address, "--auth-key", key),
            # Neither the user's remotes nor a cache of writes belong into a test.
            *("--config", str(self.folder / "rclone.conf"), "--vfs-cache-mode", "off", folder),
        ]


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A started Moto."""
    server = MotoServer()
    with running(server):
        yield server


@contextmanager
def rclone_s3() -> Iterator[RcloneServer]:
    """A started rclone."""
    server = RcloneServer()
    with running(server):
        yield server
