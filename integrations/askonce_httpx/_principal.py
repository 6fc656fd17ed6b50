"""Who asks, where the request does not say so when it comes by."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from askonce_httpx._families import package_of

_SAY_WHO: Final = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
_known: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def principal_of(request: Any, inner: Any) -> bytes:
    """Nothing for a request that says who asks and is sent as it is; else a random name per transport.

    A transport beneath may sign requests, add or replace a token, or present a certificate. Its callers are
    told apart by transport then: two clients of one person miss each other's answers, two people never
    share one. It matters under `scope="credential"` only.

    Args:
        request: of either package.
        inner: the transport that would send it, or what holds it as `behind`.
    """
    transport = getattr(inner, "behind", inner)
    package = package_of(request)
    if type(transport) in (package.HTTPTransport, package.AsyncHTTPTransport) and any(
        name in request.headers for name in _SAY_WHO
    ):
        return b""
    try:
        name = _known.get(transport)
        return name if name is not None else _known.setdefault(transport, uuid4().bytes)
    except TypeError:  # one that cannot be a weak key: nobody shares anything
        return uuid4().bytes
