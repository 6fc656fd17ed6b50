"""Everything askonce raises by design: one base, few leaves, each with the remedy in its text."""

from __future__ import annotations

from collections.abc import Iterable


class AskOnceError(Exception):
    """Base of every error that askonce raises on purpose."""


class ConfigurationError(AskOnceError, ValueError):
    """An option, URL or value that cannot work. The text names it and says what is allowed.

    Raised where the mistake is made: in the constructor, in `using(...)`, at the call that carries a
    wrong `Cache-Control`. Never raised later, from the middle of somebody's request.
    """


class StoreError(AskOnceError):
    """A store could not do what it was asked to do.

    Callers who use a store directly see it. A call that goes through a door never does: the cache
    counts it, logs it once per interval and asks the provider instead.
    """


class Refused(StoreError):
    """The store answered, and the answer was no: full, too large, read-only. For stores to raise.

    It is a failure that is counted, and a sign of life: the breaker stays closed.
    """


class OfflineMiss(AskOnceError):
    """Mode `offline` (or `only-if-cached`) met a request that is not in the cache.

    Attributes:
        key: the key that was looked up, `namespace:digest`.
        differences: the parts in which the nearest stored entry differs, most telling first; empty
            when nothing near is stored.
    """

    def __init__(self, message: str, *, key: str = "", differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.key = key
        self.differences = differences


def missing_extra(package: str, extra: str, what: str) -> ConfigurationError:
    """The error for an optional package that is not installed, with the command that installs it."""
    return ConfigurationError(f'{what} needs the package {package!r}: pip install "askonce[{extra}]"')


def not_allowed(option: str, value: object, allowed: Iterable[str] | str) -> ConfigurationError:
    """The error for a value outside what an option accepts."""
    words = allowed if isinstance(allowed, str) else ", ".join(repr(word) for word in allowed)
    return ConfigurationError(f"{option}={value!r} is not allowed; allowed: {words}")
