"""Where answers are kept. Each store is imported when it is used, and its package with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from askonce._deadline import time_left
from askonce._errors import Refused
from askonce.stores.protocol import Health, Item, NativeAsync, Store, Stored

if TYPE_CHECKING:
    from askonce.stores.disk import DiskStore as DiskStore
    from askonce.stores.diskcache import DiskCacheStore as DiskCacheStore
    from askonce.stores.memory import MemoryStore as MemoryStore
    from askonce.stores.redis import RedisStore as RedisStore
    from askonce.stores.s3 import S3Store as S3Store
    from askonce.stores.tiered import TieredStore as TieredStore

__all__ = [
    "DiskCacheStore",
    "DiskStore",
    "Health",
    "Item",
    "MemoryStore",
    "NativeAsync",
    "RedisStore",
    "Refused",
    "S3Store",
    "Store",
    "Stored",
    "TieredStore",
    "time_left",
]

_HOMES = {
    "DiskCacheStore": "diskcache",
    "DiskStore": "disk",
    "MemoryStore": "memory",
    "RedisStore": "redis",
    "S3Store": "s3",
    "TieredStore": "tiered",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when a store is asked for

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
