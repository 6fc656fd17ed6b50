"""One bucket and one prefix in it: the requests, as blocking calls made in workers.

An entry is an object whose body is the value and whose metadata has the expiry, `askonce-expires`, and a
checksum over name, expiry and value, `askonce-check`. An object without them is somebody else's, or has been
copied by something that loses metadata: no entry. Neither is one whose checksum is wrong: some servers mix
two writes that come at once, others keep metadata apart from the object it belongs to.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from askonce._clock import Clock
from askonce.stores._crew import Abandoned, give_up_if_abandoned
from askonce.stores._s3_client import Client
from askonce.stores._s3_errors import Explain, S3Error, code_of, is_missing

EXPIRES = "askonce-expires"
"""Name of the metadata: seconds since the epoch, or "never"."""
_CHECK = "askonce-check"

_NEVER = "never"
_NOT_OURS = -math.inf  # an expiry that is always past
_CHUNK = 64 << 10
_NO_BATCHES = frozenset(
    {"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidRequest", "InvalidArgument", "501"}
)
_UNKNOWN = frozenset({"AccessDenied", "403", "NotImplemented", "MethodNotAllowed", "501"})


class Seen(NamedTuple):
    """An object's head.

    Attributes:
        expires_at: the expiry; long past when the object is no entry.
        etag: what it can be compared by.
        metadata: all of it, with names in lower case.
    """

    expires_at: float | None
    etag: str
    metadata: dict[str, str]


class NoBatchesError(Exception):
    """This server removes one object at a time."""


class Bucket:
    """The requests of one store. Any thread may call; the first call waits for the client to be made.

    Args:
        name: the bucket's.
        root: what the name of every object begins with.
        client: makes the boto3 client.
        clock: decides what has expired.
        explain: makes the errors.
    """

    def __init__(self, name: str, root: str, client: Client, clock: Clock, explain: Explain) -> None:
        self.name = name
        self.root = root
        self.explain = explain
        self._client = client
        self._clock = clock

    @property
    def ready(self) -> bool:
        """Whether requests can go out at once."""
        return self._client.ready

    def alive(self, expires_at: float | None) -> bool:
        """Whether an entry with this expiry is still there for readers."""
        return expires_at is None or self._clock() < expires_at

    def get(self, name: str) -> tuple[bytes, float | None] | None:
        """Value and expiry of a live entry."""
        try:
            answer = self._client.get().get_object(Bucket=self.name, Key=name)
            metadata = _lower(answer["Metadata"])
            expires_at = read_expiry(metadata)
            if self.alive(expires_at):
                value = _read(answer)
                sound = metadata.get(_CHECK) == _checksum(name, metadata[EXPIRES], value)
                return (value, expires_at) if sound else None
            _drop(answer)
        except Exception as error:
            if not is_missing(error):
                raise self._explained(error, "GetObject") from error
        return None

    def head(self, name: str) -> Seen | None:
        """What is known about an object without its value; None when there is none."""
        try:
            answer = self._client.get().head_object(Bucket=self.name, Key=name)
        except Exception as error:
            if is_missing(error):
                return None
            raise self._explained(error, "HeadObject") from error
        metadata = _lower(answer["Metadata"])
        return Seen(read_expiry(metadata), str(answer.get("ETag", "")), metadata)

    def is_alive(self, name: str) -> bool:
        """Whether there is a live entry."""
        seen = self.head(name)
        return seen is not None and self.alive(seen.expires_at)

    def put(
        self,
        name: str,
        value: bytes,
        expires_at: float | None,
        metadata: Mapping[str, str] | None = None,
        **condition: str,
    ) -> None:
        """Write an entry, with further metadata and on a condition."""
        expiry = _NEVER if expires_at is None else repr(float(expires_at))
        self.put_object(
            name,
            Body=value,
            Metadata={EXPIRES: expiry, _CHECK: _checksum(name, expiry, value), **(metadata or {})},
            ContentType="application/octet-stream",
            **condition,
        )

    def put_object(self, name: str, **arguments: Any) -> None:
        """Write any object under the root."""
        try:
            self._client.get().put_object(Bucket=self.name, Key=name, **arguments)
        except Exception as error:
            raise self._explained(error, "PutObject") from error

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens when there is none."""
        try:
            self._client.get().delete_object(Bucket=self.name, Key=name)
        except Exception as error:
            if not is_missing(error):
                raise self._explained(error, "DeleteObject") from error

    def remove_many(self, names: Sequence[str]) -> None:
        """Remove up to 1,000 objects in one request.

        Raises:
            NoBatchesError: the server has no such request.
        """
        listed = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        try:
            answer = self._client.get().delete_objects(Bucket=self.name, Delete=listed)
        except Exception as error:
            if code_of(error) in _NO_BATCHES:
                raise NoBatchesError from error
            raise self._explained(error, "DeleteObjects") from error
        for failed in answer.get("Errors", ()):
            code = str(failed.get("Code", ""))
            if code != "NoSuchKey":
                raise self.explain.refusal(code, "DeleteObjects")

    def page(self, beginning: str, token: str | None, size: int) -> tuple[list[str], str | None]:
        """Up to `size` names that begin so, and what to ask the next page with; None: there is none."""
        more = {} if token is None else {"ContinuationToken": token}
        try:
            answer = self._client.get().list_objects_v2(
                Bucket=self.name, Prefix=beginning, MaxKeys=size, **more
            )
        except Exception as error:
            raise self._explained(error, "ListBucket") from error
        names = [str(each["Key"]) for each in answer.get("Contents", ())]
        if not answer.get("IsTruncated"):
            return names, None
        following = answer.get("NextContinuationToken")
        if not following or following == token:  # or a scan would have no end
            raise self.explain.nonsense("ListBucket", "there is more, but not where")
        return names, str(following)

    def lifecycle(self) -> list[dict[str, Any]] | None:
        """The bucket's lifecycle rules; None when we may not know, or the server knows no such thing."""
        try:
            answer = self._client.get().get_bucket_lifecycle_configuration(Bucket=self.name)
        except Exception as error:
            code = code_of(error)
            if code == "NoSuchLifecycleConfiguration":
                return []
            if code in _UNKNOWN:
                return None
            raise self._explained(error, "GetLifecycleConfiguration") from error
        rules: list[dict[str, Any]] = answer.get("Rules", [])
        return rules

    def region(self) -> str:
        """The region that requests are signed for."""
        return str(self._client.get().meta.region_name)

    def _explained(self, error: Exception, action: str) -> Exception:
        return error if isinstance(error, (Abandoned, S3Error)) else self.explain.error(error, action)


def read_expiry(metadata: Mapping[str, str]) -> float | None:
    """The expiry in an object's metadata; long past when there is none that makes sense."""
    text = metadata.get(EXPIRES, "")
    if text == _NEVER:
        return None
    try:
        expires_at = float(text)
    except ValueError:
        return _NOT_OURS
    return _NOT_OURS if math.isnan(expires_at) else expires_at


def _checksum(name: str, expiry: str, value: bytes) -> str:
    about = f"{name} {expiry}".encode()
    return f"{zlib.crc32(value, zlib.crc32(about)):08x}"


def _lower(metadata: Mapping[str, str]) -> dict[str, str]:
    # Some servers send the names back as Http-Headers-Are-Written.
    return {name.lower(): value for name, value in metadata.items()}


def _read(answer: Any) -> bytes:
    if _is_short(answer):
        whole: bytes = answer["Body"].read()
        return whole
    return b"".join(_chunks(answer["Body"]))


def _chunks(body: Any) -> Iterator[bytes]:
    while chunk := body.read(_CHUNK):
        give_up_if_abandoned()
        yield chunk


def _drop(answer: Any) -> None:
    """Be done with a body that is not wanted: a short one is read, which keeps the connection."""
    if _is_short(answer):
        answer["Body"].read()
    else:
        answer["Body"].close()


def _is_short(answer: Any) -> bool:
    size = answer.get("ContentLength")
    return size is not None and size <= _CHUNK
