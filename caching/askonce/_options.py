"""The Cache's options that are more than a value: the store and the secret."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from askonce._clock import Clock
from askonce._errors import ConfigurationError, not_allowed
from askonce.stores.protocol import Store
from askonce.stores.tiered import TieredStore
from askonce.stores.urls import open_store

_NEXT_URL: Final = re.compile(r"\s+(?=[a-z0-9+]+://)")

_DEFAULT: Final = ("memory://", "disk://")

StoreSpec: TypeAlias = "str | Store | Sequence[str | Store] | None"


def read_secret(secret: object) -> bytes | None:
    """The secret as bytes."""
    if secret is None:
        return None
    found = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(found, bytes) or len(found) < 16:  # noqa: PLR2004
        raise ConfigurationError(
            "secret is not allowed; allowed: None, or bytes or text of at least 16 bytes"
        )
    return found


def store_urls(urls: Sequence[str] | None = None) -> list[str]:
    """The URLs of a cache's tiers, front first: those given, else `$ASKONCE_STORE`'s, else the default's.

    Each text may hold several, separated by blanks; a blank in a path separates nothing.
    """
    texts = list(urls) if urls else [os.environ.get("ASKONCE_STORE", "")]
    found = [url for text in texts for url in _NEXT_URL.split(text.strip()) if url]
    return found or list(_DEFAULT)


def read_stores(spec: StoreSpec, clock: Clock) -> list[Store]:
    """The tiers, front first; a TieredStore's own tiers are taken apart, so that each is guarded alone."""
    if spec is None:
        spec = store_urls()
    if isinstance(spec, str) or not isinstance(spec, Sequence):
        spec = [spec]
    found: list[Store] = []
    for one in spec:
        if isinstance(one, TieredStore):
            found += one.tiers
        elif isinstance(one, str):
            found.append(open_store(one, clock))
        elif all(callable(getattr(one, name, None)) for name in ("get", "set", "delete", "scan")):
            found.append(one)
        else:
            raise not_allowed("store", one, "a URL, a Store, or a list of them, front tier first")
    if not found:
        raise ConfigurationError(
            "store=[] is not allowed; allowed: a URL, a Store, or a list of at least one"
        )
    return found
