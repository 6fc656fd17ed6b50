"""LangChain's own suites for caches, over every store."""

from __future__ import annotations

import uuid

import pytest

pytest.importorskip("langchain_tests")

from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from askonce import Cache
from askonce_langchain import LangChainCache


@pytest.fixture(params=["memory", "disk", "redis", "s3", "tiered"])
def made(request, store_of):
    with Cache(store_of(request.param), namespace=uuid.uuid4().hex, store_timeout=10) as cache:
        yield LangChainCache(cache)


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, made):
        return made


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, made):
        yield made
        await made.cache.aclose()
