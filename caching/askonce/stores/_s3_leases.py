"""Leases in a bucket: conditional writes, for one call among all processes and hosts that leads.

A lease is a small object with its holder and its expiry in the metadata. It is written "only where there is
nothing", or, over one that has expired, "only where it is still the one I saw" (`If-None-Match`, `If-Match`:
412 when that does not hold, 409 when two writes met).

Some servers ignore such headers without a word. Which it is has to be tried, once, on an object of our own.
Without them a lease is looked for and then written: two that meet may both have it, and two leaders are two
calls of the provider. Hosts' clocks have to agree to a second or so, as everywhere with expiries.
"""

from __future__ import annotations

import secrets
import threading

from askonce._clock import Clock
from askonce.stores._s3_bucket import Bucket
from askonce.stores._s3_errors import S3Error
from askonce.stores._s3_names import Names

_NO_SUCH_ETAG = '"00000000000000000000000000000000"'
_NOT_HELD = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted", "409"})
_GONE = frozenset({"NoSuchKey", "NotFound", "404"})
# The server knows no such header, or this boto3 no such argument.
_NOT_KNOWN = frozenset(
    {"NotImplemented", "501", "InvalidRequest", "InvalidArgument", "400", "ParamValidationError"}
)
_HOLDER = "askonce-holder"
_ATTEMPTS = 4


class Leases:
    """The leases of one store. Blocking: called in workers.

    Args:
        bucket: the requests.
        names: of objects.
        clock: the time that leases end by.

    Attributes:
        creates: the server honours "only where there is nothing"; None: not tried yet.
        replaces: the server honours "only where it is still the one I saw"; None: not tried yet.
    """

    def __init__(self, bucket: Bucket, names: Names, clock: Clock) -> None:
        self._bucket = bucket
        self._names = names
        self._clock = clock
        self._lock = threading.Lock()
        self.creates: bool | None = None
        self.replaces: bool | None = None

    def after_fork(self) -> None:
        """In the child: a new lock."""
        self._lock = threading.Lock()

    @property
    def conditional(self) -> str:
        """Whether the server has conditional writes: "yes", "no" or "unknown"."""
        if self.creates is None or self.replaces is None:
            return "unknown"
        return "yes" if self.creates and self.replaces else "no"

    def find_out(self) -> None:
        """Try the server's conditions, the first time: up to three writes of one small object."""
        with self._lock:
            if self.creates is None:
                # The first may be the one that creates it: then only the second tells.
                self.creates = self._heeds(IfNoneMatch="*") or self._heeds(IfNoneMatch="*")
            if self.replaces is None:
                self.replaces = self._heeds(IfMatch=_NO_SUCH_ETAG)

    def _heeds(self, **condition: str) -> bool:
        try:
            self._bucket.put_object(self._names.probe, Body=b"", **condition)
        except S3Error as error:
            if error.code in _NOT_HELD:
                return True
            if error.code not in _NOT_KNOWN:
                raise
        return False

    def acquire(self, key: str, token: str, life: float) -> bool:
        """See `Leasing`."""
        self.find_out()
        name = self._names.lease(key)
        for _ in range(_ATTEMPTS):
            if self.creates and self._written(name, token, life, IfNoneMatch="*"):
                return True
            seen = self._bucket.head(name)
            if seen is None:
                if not self.creates and self._written(name, token, life):
                    return True
            elif self._bucket.alive(seen.expires_at):
                # Ours: the write was made, its answer was lost, and boto3 has tried it again.
                return seen.metadata.get(_HOLDER) == token
            elif self._replaced(name, token, life, seen.etag):
                return True
        return False  # others are at it

    def renew(self, key: str, token: str, life: float) -> bool:
        """See `Leasing`."""
        self.find_out()
        name = self._names.lease(key)
        for _ in range(_ATTEMPTS):
            seen = self._bucket.head(name)
            if seen is None or seen.metadata.get(_HOLDER) != token:
                return False
            if self._replaced(name, token, life, seen.etag):
                return True
        return False

    def release(self, key: str, token: str) -> None:
        """See `Leasing`."""
        name = self._names.lease(key)
        seen = self._bucket.head(name)
        if seen is not None and seen.metadata.get(_HOLDER) == token:
            self._bucket.remove(name)

    def _replaced(self, name: str, token: str, life: float, etag: str) -> bool:
        return self._written(name, token, life, **({"IfMatch": etag} if self.replaces else {}))

    def _written(self, name: str, token: str, life: float, **condition: str) -> bool:
        # An etag is a digest of the content: no two writes may look alike.
        content = secrets.token_bytes(16)
        try:
            self._bucket.put(name, content, self._clock() + life, {_HOLDER: token}, **condition)
        except S3Error as error:
            if error.code in _NOT_HELD | _GONE:
                return False
            raise
        return True
