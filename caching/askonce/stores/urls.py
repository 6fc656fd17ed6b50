"""Store URLs: one line that names a store and its options.

memory://?max_bytes=256MiB&max_entries=1000000
disk:///var/cache/askonce?max_bytes=1GiB          disk://  (the user's cache folder)
diskcache:///var/cache/askonce?max_bytes=1GiB
s3://bucket/prefix?endpoint_url=https://minio:9000&region=eu-west-1&profile=work&write=behind
redis://[user:password@]host:6379/0?timeout=2s
rediss://  redis+unix:///path  redis+cluster://host,host  redis+sentinel://host/service
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from askonce._clock import Clock
from askonce._errors import ConfigurationError
from askonce._units import seconds, size
from askonce.stores.protocol import Store

_DIGITS: Final = 18

Reader: TypeAlias = Callable[[str, object], Any]


def _count(option: str, value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _DIGITS:
        number = int(value)
        if number >= 1:
            return number
    raise ConfigurationError(f"{option}={value!r} is not allowed; allowed: a whole number >= 1")


def _text(option: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ConfigurationError(f"{option}={value!r} is not allowed; allowed: at least one character")


def _memory(place: str, options: dict[str, Any], clock: Clock) -> Store:
    from askonce.stores.memory import MemoryStore  # noqa: PLC0415 - stores are imported when used

    if place:
        raise ConfigurationError(f"memory://{place} names a place; allowed: memory:// with options after ?")
    return MemoryStore(**options, clock=clock)


def _disk(place: str, options: dict[str, Any], clock: Clock) -> Store:
    from askonce.stores.disk import DiskStore  # noqa: PLC0415

    return DiskStore(_path(place), **options, clock=clock)


def _diskcache(place: str, options: dict[str, Any], clock: Clock) -> Store:
    from askonce.stores.diskcache import DiskCacheStore  # noqa: PLC0415

    return DiskCacheStore(_path(place), **options, clock=clock)


def _s3(place: str, options: dict[str, Any], clock: Clock) -> Store:
    from askonce.stores.s3 import S3Store  # noqa: PLC0415

    bucket, _, prefix = place.partition("/")
    if prefix:
        options["prefix"] = prefix
    return S3Store(bucket, **options, clock=clock)


def _path(place: str) -> str:
    return os.path.expanduser(place) if place else user_cache_folder()  # noqa: PTH111 - stays a text


def folder_of(url: str) -> str | None:
    """The folder that a `disk://` or `diskcache://` URL names, there or not; None for other URLs."""
    scheme, _, rest = url.partition("://")
    return _path(_place_of(rest.partition("?")[0])) if scheme.lower() in {"disk", "diskcache"} else None


def user_cache_folder() -> str:
    """Where answers are kept by default: `askonce` in the user's cache folder."""
    from platformdirs import user_cache_path  # noqa: PLC0415 - only when nobody says where

    return str(user_cache_path("askonce", appauthor=False))


_SCHEMES: Final[dict[str, tuple[Callable[[str, dict[str, Any], Clock], Store], dict[str, Reader]]]] = {
    "memory": (_memory, {"max_bytes": size, "max_entries": _count, "max_life": seconds}),
    "disk": (_disk, {"max_bytes": size, "timeout": seconds}),
    "diskcache": (_diskcache, {"max_bytes": size, "timeout": seconds}),
    "s3": (
        _s3,
        {
            "endpoint_url": _text,
            "region": _text,
            "profile": _text,
            "write": _text,
            "timeout": seconds,
            "max_pool": _count,
        },
    ),
}


def _redis(url: str, clock: Clock) -> Store:
    from askonce.stores.redis import RedisStore  # noqa: PLC0415

    return RedisStore(url, clock=clock)


# Schemes whose URLs have parts of their own: users, several hosts, services.
_WHOLE: Final[dict[str, Callable[[str, Clock], Store]]] = dict.fromkeys(
    (
        "redis", "rediss", "redis+unix",
        "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel",
    ),
    _redis,
)  # fmt: skip


def open_store(url: str, clock: Clock) -> Store:
    """The store a URL names. Does no I/O.

    Raises:
        ConfigurationError: for an unknown scheme or option or a bad value; it says what is allowed.
    """
    scheme, separator, rest = url.partition("://")
    whole = _WHOLE.get(scheme.lower())
    if separator and whole is not None:
        return whole(url, clock)
    known = _SCHEMES.get(scheme.lower())
    if not separator or known is None:
        allowed = ", ".join(f"{name}://" for name in (*_SCHEMES, *_WHOLE))
        shown = f"{scheme}://" if separator else repr(url)
        raise ConfigurationError(f"store URL {shown} is not known; allowed: {allowed}")
    make, readers = known
    from urllib.parse import parse_qsl  # noqa: PLC0415

    place, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        reader = readers.get(name)
        if reader is None:
            raise ConfigurationError(
                f"store URL {scheme}://: option {name!r} is not known; allowed: {', '.join(sorted(readers))}"
            )
        if name in options:
            raise ConfigurationError(f"store URL {scheme}://: option {name!r} is given twice")
        options[name] = reader(f"store URL {scheme}://: {name}", value)
    return make(_place_of(place), options, clock)


def _place_of(place: str) -> str:
    r"""The file path in a URL; on Windows `/C:/folder` means `C:\folder`."""
    from urllib.parse import unquote  # noqa: PLC0415

    path = unquote(place)
    if os.name == "nt" and path[:1] == "/" and path[2:3] == ":":
        return path[1:]
    return path
