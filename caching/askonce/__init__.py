"""One cache under every LLM SDK: ask a model once, answer every identical ask from the cache.

The names are loaded when they are first used: `import askonce` alone costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from askonce._version import __version__

if TYPE_CHECKING:
    from askonce._cache import Cache as Cache
    from askonce._control import using as using
    from askonce._entry import Entry as Entry
    from askonce._errors import AskOnceError as AskOnceError
    from askonce._errors import ConfigurationError as ConfigurationError
    from askonce._errors import OfflineMiss as OfflineMiss
    from askonce._errors import StoreError as StoreError
    from askonce._outcome import Outcome as Outcome
    from askonce._policy import Policy as Policy
    from askonce._policy import Rule as Rule
    from askonce._replay._block import replay as replay
    from askonce._request import Request as Request
    from askonce._stats import Stats as Stats
    from askonce._track import track as track

__all__ = [
    "AskOnceError",
    "Cache",
    "ConfigurationError",
    "Entry",
    "OfflineMiss",
    "Outcome",
    "Policy",
    "Request",
    "Rule",
    "Stats",
    "StoreError",
    "__version__",
    "replay",
    "track",
    "using",
]

_HOMES = {
    "AskOnceError": "_errors",
    "Cache": "_cache",
    "ConfigurationError": "_errors",
    "Entry": "_entry",
    "OfflineMiss": "_errors",
    "Outcome": "_outcome",
    "Policy": "_policy",
    "Request": "_request",
    "Rule": "_policy",
    "Stats": "_stats",
    "StoreError": "_errors",
    "replay": "_replay._block",
    "track": "_track",
    "using": "_control",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when a name is asked for

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
