"""For those who build a door: what to hand to `Cache.ask` and what comes back.

A door turns an SDK's request into a Request, offers an Exchange whose `open()` makes the provider call,
and turns the Reply into the SDK's own response. It holds no rule of caching.
"""

from __future__ import annotations

from askonce._buffer import StreamBroken
from askonce._cache_status import cache_status
from askonce._doorway import NativeCall, content_of, is_form, on_asyncio
from askonce._errors import missing_extra
from askonce._events import fault, warn
from askonce._exchange import AsyncExchange, Exchange, Opened, Reply
from askonce._family import MARK, Family, asked, family_of, opened, patience_of
from askonce._plans import Build, UnplannedError, plan, same
from askonce._reader import Reader
from askonce._serving import register_door, serving
from askonce._steps import Step
from askonce._surface import (
    EMPTY,
    ERROR,
    INCOMPLETE,
    REFUSED,
    TRUNCATED,
    Reading,
    Surface,
)
from askonce._surfaces import register_surface
from askonce._track import Watch

__all__ = [
    "EMPTY",
    "ERROR",
    "INCOMPLETE",
    "MARK",
    "REFUSED",
    "TRUNCATED",
    "AsyncExchange",
    "Build",
    "Exchange",
    "Family",
    "NativeCall",
    "Opened",
    "Reader",
    "Reading",
    "Reply",
    "Step",
    "StreamBroken",
    "Surface",
    "UnplannedError",
    "Watch",
    "asked",
    "cache_status",
    "content_of",
    "family_of",
    "fault",
    "is_form",
    "missing_extra",
    "on_asyncio",
    "opened",
    "patience_of",
    "plan",
    "register_door",
    "register_surface",
    "same",
    "serving",
    "warn",
]
