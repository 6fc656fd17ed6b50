"""What was asked, free of any SDK: method, URL, headers, body bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

CREDENTIAL_QUERY = frozenset({"key", "api_key", "api-key", "access_token", "sig", "signature"})
CREDENTIAL_HEADERS = frozenset({b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie"})

_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Target(NamedTuple):
    """Where a request goes, without anything secret.

    Attributes:
        origin: `scheme://host:port`, lower case, the port always written.
        path: the path as sent.
        query: the query parameters that are not credentials, sorted by name; parameters of one name
            keep their order, because servers may read it.
        credentials: the query parameters that are, and what stands before an @ in the host.
    """

    origin: str
    path: str
    query: str
    credentials: str

    def __repr__(self) -> str:
        return f"<Target {self.origin}{self.path}>"


# RFC 3986 appendix B, without the fragment, which is never sent. Not urllib's urlsplit: that one raises
# for some URLs and drops control characters from others.
_URL = re.compile(r"(?:([^:/?#]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?", re.DOTALL)
_PLACE = re.compile(r"(\[.*\]|[^:]*)(?::(\d*))?", re.DOTALL)


def _unquoted(name: str) -> str:
    if "%" not in name and "+" not in name:
        return name
    from urllib.parse import unquote_plus  # noqa: PLC0415 - not for the names that APIs have

    return unquote_plus(name)


@lru_cache(maxsize=512)
def target_of(url: str) -> Target:
    """Split a URL, once per distinct text: a program calls few endpoints very often. Never raises."""
    found = _URL.match(url)
    scheme, authority, path, query = (text or "" for text in (found.groups() if found else ("", "", url, "")))
    scheme = scheme.lower()
    user, _, place = authority.rpartition("@")
    split = _PLACE.fullmatch(place)
    host, port = (split[1], split[2]) if split else (place, "")
    open_: list[tuple[str, str]] = []
    secret: list[str] = [user] if user else []
    for pair in filter(None, query.split("&")):
        name = _unquoted(pair.partition("=")[0])
        if name.lower() in CREDENTIAL_QUERY:
            secret.append(pair)
        else:
            open_.append((name, pair))
    open_.sort(key=lambda named: named[0])
    return Target(
        origin=f"{scheme}://{host.lower()}:{port or _DEFAULT_PORTS.get(scheme, '')}",
        path=path or "/",
        query="&".join(pair for _, pair in open_),
        credentials="&".join(secret),
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One ask, as it would go over the wire.

    Attributes:
        method: the HTTP method in capitals.
        url: the absolute URL.
        headers: (name, value) pairs as bytes, in order; names are brought to lower case.
        body: the whole body as sent (not content-encoded).
        principal: who asks, where that is not in the headers yet: anything that differs between callers
            who must not share under `scope="credential"`.
        unread: the body can be sent only once, so nobody looked at it; such a request passes through.
        decided: what the last cache that decided on this very object noted on it; not part of it.

    The repr shows neither body nor headers nor query: they hold prompts and credentials.
    """

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    principal: bytes = b""
    unread: bool = False
    decided: tuple[object, object] | None = field(default=None, init=False, repr=False, compare=False)
    _named: dict[bytes, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lowered = tuple([(name.lower(), value) for name, value in self.headers])
        named = dict(lowered)
        if len(named) < len(lowered):
            for wanted in named:
                named[wanted] = b", ".join([value for name, value in lowered if name == wanted])
        object.__setattr__(self, "headers", lowered)
        object.__setattr__(self, "_named", named)

    @property
    def target(self) -> Target:
        """The URL's parts, credentials apart."""
        return target_of(self.url)

    def header(self, name: bytes) -> str:
        """The values of a header (`name` in lower case) joined by ", " as HTTP allows; "" if absent."""
        found = self._named.get(name)
        return found.decode("latin-1") if found else ""

    def values(self, names: tuple[bytes, ...]) -> tuple[bytes | None, ...] | None:
        """The values of headers (names in lower case), None for each that is absent.

        None for all of it when any header stands there twice: joined values are no single one.
        """
        if len(self._named) < len(self.headers):
            return None
        get = self._named.get
        return tuple([get(name) for name in names])

    def credentials(self) -> bytes:
        """Everything that says *who* asks, joined unambiguously; for `scope="credential"`."""
        found = sorted((key, value) for key, value in self.headers if key in CREDENTIAL_HEADERS)
        flat = [part for pair in found for part in pair]
        flat += (self.target.credentials.encode("utf-8", "surrogatepass"), self.principal)
        return b"".join(b"%d:%b" % (len(part), part) for part in flat)

    def __repr__(self) -> str:
        target = self.target
        return f"<Request {self.method} {target.origin}{target.path}, {len(self.body)} bytes>"
