"""One cache under every LLM SDK: ask a model once, answer every identical ask from the cache."""

from __future__ import annotations

from askonce._cache import Cache
from askonce._control import using
from askonce._entry import Entry
from askonce._errors import AskOnceError, ConfigurationError, OfflineMiss, StoreError
from askonce._outcome import Outcome
from askonce._policy import Policy, Rule
from askonce._request import Request
from askonce._stats import Stats
from askonce._track import track
from askonce._version import __version__

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
    "track",
    "using",
]
