"""The OpenAI door: `enable_cache()` puts a cache under every OpenAI and AsyncOpenAI client."""

from __future__ import annotations

from askonce_openai._patch import disable_cache, enable_cache

__all__ = ["disable_cache", "enable_cache"]
