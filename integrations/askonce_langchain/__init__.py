"""The LangChain door: `set_llm_cache(LangChainCache())`."""

from __future__ import annotations

__all__: list[str] = []
