"""The httpx door: a cache beneath every httpx and httpx2 client, and so beneath nearly every LLM SDK."""

from __future__ import annotations

from askonce_httpx._affinity import AffinityTransport, AsyncAffinityTransport
from askonce_httpx._deployments import Deployment
from askonce_httpx._everywhere import disable_cache, enable_cache
from askonce_httpx._transport import AsyncCacheTransport, CacheTransport
from askonce_httpx._wrap import unwrap_client, wrap_client

__all__ = [
    "AffinityTransport",
    "AsyncAffinityTransport",
    "AsyncCacheTransport",
    "CacheTransport",
    "Deployment",
    "disable_cache",
    "enable_cache",
    "unwrap_client",
    "wrap_client",
]
