"""The key scheme, version 1.

A key is `sha256(canonical)` in hex, or HMAC-SHA256 with the cache's secret. The canonical form is a
list of parts, each prefixed with its length, so that no two different lists give the same bytes:

    version, namespace, scope, sample,
    METHOD, origin, path, query without credentials,
    number of headers that vary, their names and values,
    body kind, body parts

The version is inside: a later scheme never reads an entry of an older one. What never enters is all
that cannot change the answer: time to live, mode, credentials, tracing headers, the ignored fields.
The rule for fields is a deny-list: whatever nobody has proven irrelevant is in the key.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from struct import Struct

from askonce._body import Body
from askonce._request import Request

VERSION = b"askonce key v1"
VARY_HEADERS = frozenset({
    b"openai-organization", b"openai-project", b"openai-beta", b"anthropic-version", b"anthropic-beta",
})  # fmt: skip

_LENGTH = Struct(">Q").pack


def frame(parts: list[bytes]) -> bytes:
    """Join parts unambiguously: 8 bytes of length before each."""
    return b"".join([piece for part in parts for piece in (_LENGTH(len(part)), part)])


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=512)
def _place(method: str, url: str, namespace: str, scope: str, sample: int) -> bytes:
    """The framed parts before headers and body; the same for every call of one loop."""
    target = Request(method, url).target
    return frame([
        VERSION, _text(namespace), _text(scope), b"%d" % sample,
        _text(method), _text(target.origin), _text(target.path), _text(target.query),
    ])  # fmt: skip


def digest(
    request: Request,
    body: Body,
    *,
    namespace: str,
    scope: str = "",
    sample: int = 0,
    vary: frozenset[bytes] = VARY_HEADERS,
    ignore: frozenset[str] = frozenset(),
    secret: bytes | None = None,
) -> str:
    """The key digest of a request: 64 hex digits.

    Args:
        request: what is asked.
        body: its parsed body.
        namespace: logical separation.
        scope: who may share the answer; "" for everybody.
        sample: which of several independent answers.
        vary: lower-case header names that are part of the question.
        ignore: top-level body fields that are not.
        secret: turns the digest into an HMAC, so that nobody without it can test guesses.
    """
    headers: list[bytes] = []
    for name, value in request.headers:
        if name in vary:
            headers += (name, value)
    if len(headers) > 2:  # noqa: PLR2004 - more than one pair: their order on the wire means nothing
        pairs = sorted(zip(headers[::2], headers[1::2], strict=True))
        headers = [part for pair in pairs for part in pair]
    rest = frame([b"%d" % (len(headers) // 2), *headers, *body.canonical(ignore)])
    message = _place(request.method, request.url, namespace, scope, sample) + rest
    if secret is not None:
        return hmac.digest(secret, message, "sha256").hex()
    return hashlib.sha256(message).hexdigest()
