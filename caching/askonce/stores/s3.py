"""Values in a bucket of S3, or of any server that speaks S3.

Each part is in its file: `_s3_names` turns keys into object names, `_s3_client` makes the boto3 client,
`_s3_bucket` has the requests, `_crew` the threads they run on, `_s3_operations` makes operations of requests,
once for both faces. This file has the options and the faces.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from askonce._bridge import step
from askonce._clock import Clock, wall
from askonce._errors import ConfigurationError, not_allowed
from askonce._fork import renew_after_fork
from askonce.stores._crew import Crew, wait_here, wait_in_loop
from askonce.stores._s3_bucket import Bucket
from askonce.stores._s3_client import Client
from askonce.stores._s3_errors import Explain
from askonce.stores._s3_leases import Leases
from askonce.stores._s3_names import Names
from askonce.stores._s3_operations import Operations
from askonce.stores.protocol import Health, Item, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WRITES = ("behind", "through")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[A-Za-z0-9:/._-]+")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=@:+,/-]{1,500}")


class S3Store:
    """A prefix of a bucket.

    Nothing goes over the network before the first use; from the start a thread loads boto3, which takes a
    second. Requests run on `max_pool` threads of the store's own, and each call waits for them as long as
    it may: `store_timeout` of the cache, else `timeout`. boto3 tries each request twice, in its "standard"
    mode; a second attempt that comes too late is not made.

    The server keeps what has expired; readers do not see it. A lifecycle rule removes it. Give it more
    days than the longest ttl and stale window have, and the prefix with its slash:

        {"Rules": [{"ID": "askonce", "Status": "Enabled", "Filter": {"Prefix": "askonce/"},
                    "Expiration": {"Days": 30}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}]}

    `ping` warns when there is none. Beside entries there are leases under the prefix, and an empty object
    `!probe` on which is tried what the server can do. Nothing outside the prefix is read, written or deleted.

    Listing does not tell when an entry expires, so `scan` and `delete` ask for the head of each object, a
    few at a time: thousands of keys take seconds. Permissions needed: s3:GetObject, s3:PutObject,
    s3:DeleteObject on the prefix, s3:ListBucket on the bucket. A name may have 1,024 bytes: prefix, key and
    what quoting adds. Who may write to the prefix may change answers, unless the cache has a `secret`.

    Args:
        bucket: name or ARN.
        prefix: path inside the bucket that is the store's alone.
        client: a boto3 client for S3 to use. It is never closed, and its own time-outs and retries hold;
            have it keep `max_pool` connections. None: one is made.
        endpoint_url: the server; None: Amazon's, or what boto3's configuration says.
        region, profile: as in boto3's configuration; None: what that says.
        write: "behind": the cache above does not wait for writes; "through": it does.
        timeout: seconds a request may take where no deadline is set, to connect, and between two bytes.
        max_pool: requests at once: threads, and connections kept.
        clock: the time that expiries are compared with, seconds since the epoch.

    Raises:
        ConfigurationError: an option cannot be, or the package `boto3` is not installed.
    """

    remote = True
    """Calls go over a network."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "askonce",
        *,
        client: Any = None,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        write: str = "behind",
        timeout: float = 5.0,
        max_pool: int = 16,
        clock: Clock = wall,
    ) -> None:
        if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
            raise not_allowed("bucket", bucket, "a bucket's name, or an ARN")
        prefix = _check_prefix(prefix)
        if write not in WRITES:
            raise not_allowed("write", write, WRITES)
        if not timeout > 0:
            raise not_allowed("timeout", timeout, "seconds above 0")
        if type(max_pool) is not int or max_pool < 1:
            raise not_allowed("max_pool", max_pool, "a whole number from 1 up")
        if endpoint_url is not None:
            _check_endpoint(endpoint_url)
        if client is not None:
            if endpoint_url or region or profile:
                raise ConfigurationError("client= brings its own endpoint_url, region and profile")
            if not hasattr(client, "get_object") or not hasattr(client, "meta"):
                raise not_allowed("client", type(client).__name__, "a boto3 client for S3")
        self.write = write
        self._names = Names(prefix)
        self._client = Client(
            client,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            timeout=timeout,
            connections=max_pool,
        )
        explain = Explain(bucket, prefix, self._client)
        self._bucket = Bucket(bucket, self._names.root, self._client, clock, explain)
        self._crew = Crew(max_pool, "askonce-s3")
        self._leases = Leases(self._bucket, self._names, clock)
        self._do = Operations(self._bucket, self._names, self._leases, self._crew, timeout=timeout)
        renew_after_fork(self)
        if client is None:
            self._crew.submit(self._client.warm, (None,))

    def after_fork(self) -> None:
        """In the child: threads, locks and connections of its own."""
        self._crew.after_fork()
        self._client.after_fork()
        self._leases.after_fork()

    def __repr__(self) -> str:
        bucket = self._bucket
        return f"S3Store({bucket.name!r}, {self._names.root[:-1]!r}, host={self._client.host!r})"

    @property
    def name(self) -> str:
        """Always "s3"."""
        return "s3"

    @property
    def blocking(self) -> bool:
        """Always True."""
        return True

    def get(self, key: str) -> Stored | None:
        """The live value under `key`, or None."""
        return step(self._do.get(wait_here, key))

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The live values among `keys`, several at a time."""
        return step(self._do.get_many(wait_here, keys))

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Keep `value` until `expires_at`. In the past: removes the key."""
        step(self._do.set_many(wait_here, [(key, value, expires_at)]))

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several, some at a time; of several with one key the last."""
        step(self._do.set_many(wait_here, items))

    def delete(self, *keys: str) -> int:
        """Remove keys; the number of live entries among them, as they were just before.

        S3 does not say what a delete has removed: two who delete the same key at once may both count it.
        """
        return step(self._do.delete(wait_here, keys))

    def scan(self, prefix: str) -> Iterator[str]:
        """The live keys that start with `prefix`, a page of up to 1,000 names at a time."""
        yield from self._do.scan(prefix)

    def ping(self) -> Health:
        """List, try a write (the first time) and look for a lifecycle rule."""
        return step(self._do.ping(wait_here))

    def close(self) -> None:
        """Close connections and let the threads go. A client of the caller's stays as it is."""
        self._crew.close()
        self._client.close()

    def acquire(self, key: str, token: str, life: float) -> bool:
        """Take the lease of a key for `life` seconds; False when somebody has it.

        Of many at once, in any number of processes, one has it. On a server without conditional writes
        (see `ping`) two that meet may both have it.
        """
        return step(self._do.acquire(wait_here, key, token, life))

    async def aacquire(self, key: str, token: str, life: float) -> bool:
        """Like `acquire`."""
        return await self._do.acquire(wait_in_loop, key, token, life)

    def renew(self, key: str, token: str, life: float) -> bool:
        """Have the lease for `life` seconds from now; False when it is ours no more."""
        return step(self._do.renew(wait_here, key, token, life))

    def release(self, key: str, token: str) -> None:
        """Give the lease back, if it is ours."""
        step(self._do.release(wait_here, key, token))

    def on_release(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        """Never calls: a bucket tells nobody. Whoever waits looks again from time to time."""
        return _nothing

    async def aget(self, key: str) -> Stored | None:
        """Like `get`."""
        return await self._do.get(wait_in_loop, key)

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """Like `get_many`."""
        return await self._do.get_many(wait_in_loop, keys)

    async def aset(self, key: str, value: bytes, expires_at: float | None) -> None:
        """Like `set`."""
        await self._do.set_many(wait_in_loop, [(key, value, expires_at)])

    async def aset_many(self, items: Iterable[Item]) -> None:
        """Like `set_many`."""
        await self._do.set_many(wait_in_loop, items)

    async def adelete(self, *keys: str) -> int:
        """Like `delete`."""
        return await self._do.delete(wait_in_loop, keys)

    async def ascan(self, prefix: str) -> list[str]:
        """Like `scan`, all at once."""
        return await self._do.ascan(prefix)

    async def aping(self) -> Health:
        """Like `ping`."""
        return await self._do.ping(wait_in_loop)

    async def aclose(self) -> None:
        """Like `close`, which does not block."""
        self.close()


def _nothing() -> None:
    pass


def _check_prefix(prefix: object) -> str:
    path = prefix.strip("/") if isinstance(prefix, str) else ""
    if not _PREFIX.fullmatch(path) or any(part.strip(".") == "" for part in path.split("/")):
        raise not_allowed("prefix", prefix, "a path of letters, digits and !_.*'()=@:+,- with / in between")
    return path


def _check_endpoint(endpoint_url: object) -> None:
    try:
        found = urlsplit(endpoint_url) if isinstance(endpoint_url, str) else None
        if found and found.scheme in {"http", "https"} and found.hostname and found.username is None:
            _ = found.port
            return
    except ValueError:  # a port that is no number
        pass
    # Not shown: a password may stand in it.
    raise ConfigurationError("endpoint_url= is not allowed; allowed: http://host:port or https://host:port")
