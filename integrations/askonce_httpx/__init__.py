"""The httpx door: transports that put a cache under every httpx and httpx2 client."""

from __future__ import annotations

__all__: list[str] = []
