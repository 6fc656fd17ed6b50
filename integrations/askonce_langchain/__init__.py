"""The LangChain door: `set_llm_cache(LangChainCache())`, and embeddings item by item."""

from __future__ import annotations

from askonce_langchain._cache import LangChainCache
from askonce_langchain._embeddings import CachedEmbeddings

__all__ = ["CachedEmbeddings", "LangChainCache"]
