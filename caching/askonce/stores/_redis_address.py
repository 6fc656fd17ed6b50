"""Where a Redis is and how to get in: a URL read into redis-py's own words.

redis://[user[:password]@]host[:port][/db]          one server
rediss://...                                        the same with TLS
redis+unix:///path/to/socket?db=0                   a Unix socket
redis+cluster://host:port[,host:port...]            a Cluster: some of its nodes
redis+sentinel://host:port[,host:port...]/service   the master that Sentinel names
rediss+cluster://...  rediss+sentinel://...         those with TLS
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from askonce._errors import ConfigurationError

Kind: TypeAlias = Literal["server", "unix", "cluster", "sentinel"]

_DIGITS: Final = 10
_PORTS: Final = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "redis+unix": ("unix", False),
    "unix": ("unix", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
}
SCHEMES: Final = tuple(_SCHEMES)


def whole(option: str, value: object) -> int:
    """A whole number, also as a text.

    Raises:
        ConfigurationError: for anything else.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < _DIGITS:
        return int(value)
    raise ConfigurationError(f"{option}={value!r} is not allowed; allowed: a whole number >= 0")


def _flag(option: str, value: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = known.get(value.lower())
    if found is None:
        raise ConfigurationError(f"{option}={value!r} is not allowed; allowed: true, false")
    return found


def _requirement(option: str, value: str) -> str:
    if value not in {"required", "optional", "none"}:
        raise ConfigurationError(f"{option}={value!r} is not allowed; allowed: required, optional, none")
    return value


def _text(_option: str, value: str) -> str:
    return value


_CONNECTION: Final[dict[str, Callable[[str, str], Any]]] = {
    "db": whole,
    "username": _text,
    "password": _text,
    "client_name": _text,
}
_TLS: Final[dict[str, Callable[[str, str], Any]]] = {
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _flag,
}
_SENTINEL: Final[dict[str, Callable[[str, str], Any]]] = {
    "sentinel_username": _text,
    "sentinel_password": _text,
}


@dataclass(frozen=True, slots=True)
class Address:
    """A place to connect to.

    Attributes:
        kind: what is there.
        tls: whether to speak TLS.
        nodes: (host, port) pairs: one server, or where a cluster or sentinels can be asked.
        service: the master's name that sentinels know.
        options: keyword arguments for redis-py connections. May hold a password: never shown.
        sentinel_options: those for connections to sentinels.
        rest: options of the URL that are not about connecting.
    """

    kind: Kind
    tls: bool
    nodes: tuple[tuple[str, int], ...]
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    rest: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return where or str(self.options.get("path", ""))


def read_address(url: str, known: frozenset[str]) -> Address:
    """Read a URL.

    Args:
        url: one of the forms above.
        known: names of options that are the store's own; they come back in `rest`.

    Raises:
        ConfigurationError: for what it does not understand; never with a password in its text.
    """
    scheme, separator, _ = url.partition("://")
    found = _SCHEMES.get(scheme.lower())
    if not separator or found is None:
        allowed = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigurationError(f"Redis URL of the scheme {scheme!r} is not known; allowed: {allowed}")
    kind, tls = found
    # Not urllib's urlsplit: it refuses an IPv6 address among several hosts, in some versions.
    beginning, hash_, _ = url.removeprefix(f"{scheme}://").partition("#")
    beginning, _, query = beginning.partition("?")
    authority, slash, path = beginning.partition("/")
    if hash_:
        raise ConfigurationError(f"store URL {scheme}://: '#' is not allowed; allowed: %23 in its place")
    readers = {**_CONNECTION, **(_TLS if tls else {}), **(_SENTINEL if kind == "sentinel" else {})}
    options, rest = _read_query(scheme, query, readers, known)
    sentinel = {name.removeprefix("sentinel_"): options.pop(name) for name in _SENTINEL if name in options}
    user, at, place = authority.rpartition("@")
    if at:
        name, _, password = user.partition(":")
        options |= {key: unquote(text) for key, text in (("username", name), ("password", password)) if text}
    service = _read_path(scheme, kind, slash + path, options)
    if kind == "unix":
        return Address(kind, tls, (), options=options, rest=rest)
    nodes = tuple(_node(scheme, one, _PORTS[kind]) for one in place.split(",")) if place else ()
    nodes = nodes or (("localhost", _PORTS[kind]),)
    if kind == "server" and len(nodes) > 1:
        raise ConfigurationError(
            f"store URL {scheme}:// names {len(nodes)} hosts; allowed: one (or redis+cluster://, redis+sentinel://)"
        )
    if kind == "cluster" and options.get("db"):
        raise ConfigurationError(
            f"store URL {scheme}://: db={options['db']} is not allowed; a Cluster has db 0"
        )
    return Address(kind, tls, nodes, service, options, sentinel, rest)


def _read_query(
    scheme: str, query: str, readers: dict[str, Callable[[str, str], Any]], known: frozenset[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    options: dict[str, Any] = {}
    rest: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options or name in rest:
            raise ConfigurationError(f"store URL {scheme}://: option {name!r} is given twice")
        if name in readers:
            options[name] = readers[name](f"store URL {scheme}://: {name}", value)
        elif name in known:
            rest[name] = value
        else:
            allowed = ", ".join(sorted({*readers, *known}))
            raise ConfigurationError(
                f"store URL {scheme}://: option {name!r} is not known; allowed: {allowed}"
            )
    return options, rest


def _read_path(scheme: str, kind: Kind, path: str, options: dict[str, Any]) -> str:
    """Put the path where it belongs; the service of a sentinel is returned."""
    path = unquote(path)
    if kind == "unix":
        if not path.strip("/"):
            raise ConfigurationError(
                f"store URL {scheme}:// names no socket; allowed: {scheme}:///path/to/socket"
            )
        options["path"] = path
        return ""
    path = path.strip("/")
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ConfigurationError(
                f"store URL {scheme}:// names no service; allowed: {scheme}://host:26379/mymaster"
            )
    else:
        service = ""
    if path:
        if "db" in options:
            raise ConfigurationError(f"store URL {scheme}:// gives db twice; allowed: /0 or ?db=0")
        options["db"] = whole(f"store URL {scheme}://: db", path)
    return service


def _node(scheme: str, text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        found = parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise ConfigurationError(
            f"store URL {scheme}://: {text!r} is not allowed as a host; allowed: host:port, [::1]:port"
        ) from None
    return found
