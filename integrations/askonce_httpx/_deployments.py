"""Deployments of a model, and a request rebuilt for one of them.

A credential reaches only the origin that it was given for: the program's own is taken off before a request
goes to another origin, and so is whatever looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from askonce import ConfigurationError
from askonce_httpx._families import package_of

_CREDENTIAL: Final = re.compile(
    r"auth|(^|-|_)(key|apikey|token|cookie|secret|credential|signature|password)s?($|-|_)"
    r"|^openai-(organization|project)$"
)
_NO_CREDENTIAL: Final = frozenset({"idempotency-key"})
_MADE_ANEW: Final = frozenset({"host", "content-length", "transfer-encoding"})
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_ASKED: Final = ("api-version", "beta")
"""The query parameters that go to another origin; others may be signatures or keys."""
_OF_THE_ORIGIN: Final = ("target", "sni_hostname")
"""Request extensions that are about the place that the program named."""
_AZURE: Final = re.compile(r"(?P<openai>/openai)(?P<named>/deployments/[^/]+)$")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, repr=False)
class Deployment:
    """Where a model can be asked, and with which credentials.

    Args:
        base_url: what an SDK's client is given as its base URL: `https://api.openai.com/v1`,
            `https://api.anthropic.com`, `https://NAME.openai.azure.com/openai/v1` or
            `https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=VERSION`. The
            parameters in it replace those of the request.
        headers: replace those of the request: `{"Authorization": "Bearer ..."}` for OpenAI,
            `{"api-key": ...}` for Azure, `{"x-api-key": ...}` for Anthropic. With a credential among them
            the program's own are all taken off. Without, a deployment on the program's origin gets the
            program's; one on another origin gets none. For credentials that change, such as tokens of an
            hour: a function that returns the headers, called for each question (on an event loop too: it
            should have the token at hand).
        same_credentials: the program's own credentials are meant for this deployment too.

    Raises:
        ConfigurationError: for a bad URL or header, or for both kinds of credentials at once.
    """

    base_url: str
    headers: Mapping[str, str] | Callable[[], Mapping[str, str]] = field(default_factory=dict[str, str])
    same_credentials: bool = False

    def __post_init__(self) -> None:
        origin_of(self.parts)
        if self.parts.username is not None or self.parts.password is not None or self.parts.fragment:
            raise ConfigurationError(
                "base_url=<with a user or fragment> is not allowed; allowed: scheme, host, path and query"
            )
        if not callable(self.headers):
            _check(self.headers)
        if self.same_credentials and self.brings:
            raise ConfigurationError(
                "same_credentials=True with a credential in headers is not allowed; allowed: one of them"
            )

    @property
    def parts(self) -> SplitResult:
        """The base URL in parts."""
        return urlsplit(self.base_url)

    @property
    def brings(self) -> bool:
        """It has a credential of its own. A function is there for one."""
        return callable(self.headers) or any(map(is_credential, self.headers))

    def current(self) -> Mapping[str, str]:
        """The headers as they are now.

        Raises:
            ConfigurationError: when a function returned what HTTP does not take.
            Exception: whatever that function raises.
        """
        if not callable(self.headers):
            return self.headers
        headers = self.headers()
        _check(headers)
        return headers

    def __repr__(self) -> str:
        scheme, host, port = origin_of(self.parts)
        headers = "of a function" if callable(self.headers) else sorted(self.headers)
        return f"<Deployment {scheme}://{host}:{port}{self.parts.path}, headers: {headers}>"


def _check(headers: Mapping[str, str]) -> None:
    if not isinstance(headers, Mapping):
        raise ConfigurationError(
            f"headers={type(headers).__name__} is not allowed; allowed: a mapping of names to values, or a "
            "function that returns one"
        )
    for name, value in headers.items():
        texts = isinstance(name, str) and isinstance(value, str)
        if (
            not texts
            or not _NAME.fullmatch(name)
            or name.lower() in _MADE_ANEW
            or not _VALUE.fullmatch(value)
        ):
            raise ConfigurationError(
                f"headers={{{name!r}: ...}} is not allowed; allowed: names and values that HTTP takes, "
                "and none of Host, Content-Length, Transfer-Encoding"
            )


class Addressed(NamedTuple):
    """A request for a deployment.

    Attributes:
        request: of the same package as the program's.
        foreign: it goes to another origin than the program's.
    """

    request: Any
    foreign: bool


def is_credential(name: str) -> bool:
    """A header that says who asks."""
    return name.lower() not in _NO_CREDENTIAL and _CREDENTIAL.search(name.lower()) is not None


def origin_of(url: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port.

    Raises:
        ConfigurationError: for a URL without them.
    """
    try:
        port = url.port
    except ValueError:
        port = -1
    if url.scheme not in _PORTS or not url.hostname or port == -1:
        raise ConfigurationError("base_url is not allowed; allowed: http:// or https:// and a host")
    return url.scheme, url.hostname, port or _PORTS[url.scheme]


def addressed(native: Any, endpoint: str, body: bytes, deployment: Deployment) -> Addressed:
    """The request that asks a deployment the same.

    Args:
        native: the program's own request; not changed.
        endpoint: the end of its path that is the endpoint's; what is before it is the program's base.
        body: what is sent.
        deployment: whom to ask.

    Raises:
        Exception: see `Deployment.current`.
    """
    there = deployment.parts
    here = urlsplit(str(native.url))
    foreign = origin_of(there) != origin_of(here)
    keep = not deployment.brings and (deployment.same_credentials or not foreign)
    brought = deployment.current()
    own = {name.lower() for name in brought}
    headers = [
        (name, value)
        for name, value in native.headers.raw
        if (low := name.decode("ascii").lower()) not in own | _MADE_ANEW and (keep or not is_credential(low))
    ]
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in brought.items()]
    path = _path(here.path, endpoint, there.path.rstrip("/"))
    url = there._replace(path=path, query=_query(here.query, there, path, everything=not foreign))
    extensions = {
        name: value for name, value in native.extensions.items() if not foreign or name not in _OF_THE_ORIGIN
    }
    extensions.pop("target", None)
    package = package_of(native)
    request = package.Request(
        native.method, url.geturl(), headers=headers, content=body, extensions=extensions
    )
    return Addressed(request, foreign)


def _path(here: str, endpoint: str, base: str) -> str:
    program = here[: len(here) - len(endpoint)]
    azure = _AZURE.search(program)
    if azure is not None and not base:  # Azure's endpoint alone: the rest is as the program has it
        return azure["openai"] + azure["named"] + endpoint
    if azure is not None and base.endswith("/openai"):
        return base + azure["named"] + endpoint
    if base.endswith("/v1") and endpoint.startswith("/v1/"):
        base = base.removesuffix("/v1")
    return base + endpoint


def _query(here: str, there: SplitResult, path: str, *, everything: bool) -> str:
    given = parse_qsl(there.query, keep_blank_values=True)
    own = {name for name, _ in given}
    asked = parse_qsl(here, keep_blank_values=True)
    if not everything:
        asked = [(name, value) for name, value in asked if name in _ASKED]
    if "/openai/" not in path or "/openai/v1/" in path:  # a dated version is refused there
        asked = [pair for pair in asked if pair[0] != "api-version" or not pair[1][:1].isdigit()]
    return urlencode([*(pair for pair in asked if pair[0] not in own), *given])
