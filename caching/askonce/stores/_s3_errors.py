"""What S3 and boto3 can say went wrong, as errors that name the bucket and the remedy.

Texts quote error codes, never the server's messages: those may contain names of users, key ids and objects.
"""

from __future__ import annotations

from typing import Any, cast

from askonce._errors import Refused, StoreError
from askonce.stores._s3_client import Client

_DENIED = "denied"
_THROTTLED = "throttled"
_ELSEWHERE = "elsewhere"
_KINDS = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "403": _DENIED,
    "SlowDown": _THROTTLED,
    "ServiceUnavailable": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "RequestLimitExceeded": _THROTTLED,
    "TooManyRequests": _THROTTLED,
    "429": _THROTTLED,
    "503": _THROTTLED,
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "301": _ELSEWHERE,
}
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket. Create it, or correct the store's URL",
    "InvalidBucketName": "no bucket can have this name. Correct the store's URL",
    "InvalidAccessKeyId": "the access key is not known there. Check profile= or AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not match the access key. Check the credentials",
    "ExpiredToken": "the session token has expired. Renew the credentials",
    "TokenRefreshRequired": "the session token has expired. Renew the credentials",
    "InvalidToken": "the session token is not valid. Renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's. Set it right",
    "InvalidObjectState": "the object is archived. Exclude the prefix from transitions to Glacier",
    "QuotaExceeded": "the bucket's quota is used up. Raise it, or add a lifecycle rule",
    _THROTTLED: "the server slows us down. Put a memory:// or disk:// tier in front, or spread over prefixes",
    _ELSEWHERE: "the bucket is in another region. Set region= to the bucket's own",
}
_NOT_FOUND = frozenset({"NoSuchKey", "404", "NotFound"})
# Nothing of this says that the next read will fail.
_REFUSED = frozenset({"QuotaExceeded", "EntityTooLarge", "InvalidObjectState", "XMinioStorageFull"})
_WRITES = frozenset({"PutObject", "DeleteObject", "DeleteObjects"})
# Names of botocore's exceptions: the package is not imported to be asked about errors.
_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOError",
        "NoAuthTokenError",
        "RefreshWithMFAUnsupportedError",
    }
)
_TIMED_OUT = frozenset({"ConnectTimeoutError", "ReadTimeoutError"})
_UNREACHABLE = frozenset({"HTTPClientError", "ConnectionError", "IncompleteReadError"})


class S3Error(StoreError):
    """S3 could not do what it was asked to do.

    Attributes:
        code: S3's error code, such as "AccessDenied" or "SlowDown"; for an error of the client the name of
            its class.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class S3RefusedError(S3Error, Refused):
    """S3 answered, and the answer was no. Reading may work all the same."""


class S3TimeoutError(S3Error, TimeoutError):
    """S3 did not answer in time."""


def code_of(error: Exception) -> str:
    """S3's error code, or "" when the error did not come from the server."""
    details = _answer(error)
    return str(details.get("Error", {}).get("Code", "") or status_of(error) or "")


def status_of(error: Exception) -> int:
    """The HTTP status, or 0 when the error did not come from the server."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: Exception) -> dict[str, Any]:
    answer = getattr(error, "response", None)  # only boto3's ClientError has one
    return cast(dict[str, Any], answer) if isinstance(answer, dict) else {}


def is_missing(error: Exception) -> bool:
    """Whether the error says that there is no such object; a missing bucket is another thing."""
    return code_of(error) in _NOT_FOUND


class Explain:
    """Makes the errors of one store.

    Args:
        bucket: the bucket's name.
        prefix: the store's prefix in it.
        client: knows where it is.
    """

    def __init__(self, bucket: str, prefix: str, client: Client) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = client

    @property
    def host(self) -> str:
        """Where the bucket is, for people."""
        return self._client.host

    def error(self, error: Exception, action: str) -> S3Error:
        """The error to raise. `action` is the permission that was needed, such as "GetObject"."""
        code = code_of(error)
        if code:
            return self.refusal(code, action, status_of(error))
        names = {each.__name__ for each in type(error).__mro__}
        code = type(error).__name__
        if names & _NO_CREDENTIALS:
            text = "no credentials were found. Set profile=, AWS_PROFILE or AWS_ACCESS_KEY_ID"
        elif "ProfileNotFound" in names:
            text = "the profile is not in the AWS configuration. Correct profile= or AWS_PROFILE"
        elif "NoRegionError" in names:
            text = "no region is known. Set region= or AWS_REGION"
        elif names & _TIMED_OUT:
            return S3TimeoutError(self._text(f"no answer in time. {self._reach()}"), code=code)
        elif names & _UNREACHABLE:
            text = f"cannot be reached, or the connection broke ({code}). {self._reach()}"
        else:
            text = f"{action} failed ({code})"
        return S3Error(self._text(text), code=code)

    def refusal(self, code: str, action: str, status: int = 0) -> S3Error:
        """The error for a code that the server gave."""
        kind = _KINDS.get(code, code)
        if kind == _DENIED:
            text = f"access denied to {action}. Allow {self._permission(action)} to these credentials"
            if action in {"GetObject", "HeadObject"}:
                text += " (without s3:ListBucket a missing object is denied as well)"
        elif kind in _REMEDIES:
            text = _REMEDIES[kind]
        elif status >= 500:  # noqa: PLR2004 - HTTP
            text = f"the server failed at {action}. Nothing to be done here; it is asked again later"
        else:
            text = f"{action} was refused"
        if code not in text:
            text = f"{text} ({code})"
        refused = code in _REFUSED or (kind == _DENIED and action in _WRITES)
        return (S3RefusedError if refused else S3Error)(self._text(text), code=code)

    def timeout(self, *, loading: bool) -> S3TimeoutError:
        """The error for a call that took longer than it may. `loading`: because boto3 is not ready."""
        # Without the seconds: the same text again and again can be told once.
        remedy = "boto3 is still being loaded, once per process" if loading else self._reach()
        return S3TimeoutError(self._text(f"no answer in time. {remedy}"), code="Timeout")

    def nonsense(self, action: str, what: str) -> S3Error:
        """The error for an answer that breaks S3's rules."""
        return S3Error(self._text(f"the answer to {action} makes no sense: {what}"), code="Nonsense")

    def _reach(self) -> str:
        return f"Check endpoint_url=, the network and the server at {self.host}"

    def _permission(self, action: str) -> str:
        if action in {"ListBucket", "GetLifecycleConfiguration"}:
            return f"s3:{action} on arn:aws:s3:::{self._bucket}"
        needed = {"HeadObject": "GetObject", "DeleteObjects": "DeleteObject"}.get(action, action)
        return f"s3:{needed} on arn:aws:s3:::{self._bucket}/{self._prefix}/*"

    def _text(self, text: str) -> str:
        return f"S3 bucket {self._bucket!r} at {self.host}: {text}"
