"""For those who build a door: what to hand to `Cache.ask` and what comes back.

A door turns an SDK's request into a Request, offers an Exchange whose `open()` makes the provider call,
and turns the Reply into the SDK's own response. It holds no rule of caching.
"""

from __future__ import annotations

from askonce._buffer import StreamBroken
from askonce._cache_status import cache_status
from askonce._errors import missing_extra
from askonce._exchange import AsyncExchange, Exchange, Opened, Reply
from askonce._family import MARK, Family, asked, family_of, opened, patience_of
from askonce._reader import Reader

__all__ = [
    "MARK",
    "AsyncExchange",
    "Exchange",
    "Family",
    "Opened",
    "Reader",
    "Reply",
    "StreamBroken",
    "asked",
    "cache_status",
    "family_of",
    "missing_extra",
    "opened",
    "patience_of",
]
