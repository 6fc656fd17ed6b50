"""The two packages, found without importing the one that nobody uses."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from askonce import ConfigurationError
from askonce.doors import missing_extra

Name: TypeAlias = str
FAMILIES: Final = ("httpx", "httpx2")


def package_of(thing: Any) -> Any:
    """The package that an object's class, or one it is derived from, comes from; None for neither."""
    for kind in type(thing).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in FAMILIES:
            return sys.modules.get(name)
    return None


def load(name: Name) -> Any:
    """Import one of the packages.

    Raises:
        ConfigurationError: for another name, or when it is not installed.
    """
    if name not in FAMILIES:
        raise ConfigurationError(f"family={name!r} is not allowed; allowed: {', '.join(map(repr, FAMILIES))}")
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra(name, "httpx", f"family={name!r}") from error


@lru_cache(maxsize=1)
def installed() -> tuple[Name, ...]:
    """Which of the packages can be imported."""
    return tuple(name for name in FAMILIES if find_spec(name) is not None)


def is_client(thing: Any) -> bool:
    """True for a Client or AsyncClient of either package, also one that is derived from it."""
    package = package_of(thing)
    return package is not None and isinstance(thing, (package.Client, package.AsyncClient))
