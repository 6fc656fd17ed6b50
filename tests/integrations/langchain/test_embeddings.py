"""CachedEmbeddings: any model's vectors, each text embedded once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_openai import OpenAIEmbeddings
from pydantic import BaseModel

from askonce import Cache, ConfigurationError, OfflineMiss, using
from askonce_langchain import CachedEmbeddings


class Counting(Embeddings):
    """Says what it was asked."""

    def __init__(self, model="m", *, size=3):
        self.model = model
        self.size = size
        self._asked = []
        self._gate = threading.Event()
        self._gate.set()

    @property
    def asked(self):
        return self._asked

    def _vector(self, text):
        return [float(len(text)), *(float(ord(text[:1] or " ")) / 3,) * (self.size - 1)]

    def embed_documents(self, texts):
        self.asked.append(list(texts))
        self._gate.wait(10)
        return [self._vector(text) for text in texts]

    def embed_query(self, text):
        self.asked.append(f"query {text}")
        return [0.5, *self._vector(text)]


@pytest.fixture
def model():
    return Counting()


async def test_each_text_is_embedded_once_and_vectors_come_in_order(model, cache):
    cached = CachedEmbeddings(model, cache)
    plain = Counting()
    for texts in (["a", "bb"], ["bb", "ccc", "a", "bb"], ["a"], []):
        assert cached.embed_documents(texts) == plain.embed_documents(texts) if texts else True
    assert await cached.aembed_documents(["ccc", "dd"]) == plain.embed_documents(["ccc", "dd"])
    assert model.asked == [["a", "bb"], ["ccc"], ["dd"]]


async def test_queries_and_documents_are_told_apart(model, cache):
    cached = CachedEmbeddings(model, cache)
    assert cached.embed_query("a") != cached.embed_documents(["a"])[0]
    assert cached.embed_query("a") == await cached.aembed_query("a")
    assert model.asked == ["query a", ["a"]]


def test_two_models_never_share(cache):
    models = [Counting("m"), Counting("n"), Counting("m", size=5)]
    for one in models:
        CachedEmbeddings(one, cache).embed_documents(["a"])
    assert [one.asked for one in models] == [[["a"]]] * 3
    again = Counting("m")
    CachedEmbeddings(again, cache).embed_documents(["a"])
    assert again.asked == []


def test_a_setting_changed_later_is_another_model(model, cache):
    cached = CachedEmbeddings(model, cache)
    cached.embed_documents(["a"])
    model.model = "other"
    cached.embed_documents(["a"])
    assert model.asked == [["a"], ["a"]]


def test_a_model_that_does_not_say_what_it_is_has_to_be_named(cache):
    with pytest.raises(ConfigurationError, match="model="):
        CachedEmbeddings(DeterministicFakeEmbedding(size=3), cache)
    named = CachedEmbeddings(DeterministicFakeEmbedding(size=3), cache, model="fake of 3")
    assert (
        named.embed_query("a")
        == named.embed_query("a")
        == DeterministicFakeEmbedding(size=3).embed_query("a")
    )


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "retrieval_mode",
        "tokenizer_name",
        "batch_norm",
        "cache_prefix",
        "header_style",
        "secretary",
    ],
)
def test_a_setting_of_a_name_nobody_knows_tells_models_apart(name, cache):
    models = [Counting(), Counting(), Counting()]
    for one, value in zip(models, ("a", "b", "a"), strict=True):
        setattr(one, name, value)
        CachedEmbeddings(one, cache).embed_documents(["x"])
    assert [one.asked for one in models] == [[["x"]], [["x"]], []]


@pytest.mark.parametrize(
    ("name", "one", "other"), [("timeout", 3, 4), ("openai_api_key", "a", "b"), ("chunk_size", 1, 2)]
)
def test_how_a_model_is_called_is_not_what_it_is(name, one, other, cache):
    models = [Counting(), Counting()]
    for model, value in zip(models, (one, other), strict=True):
        setattr(model, name, value)
        CachedEmbeddings(model, cache).embed_documents(["x"])
    assert [model.asked for model in models] == [[["x"]], []]


def test_sets_and_nested_settings_are_seen_whole(cache):
    class Inner(BaseModel):
        dimensions: int

    models = [Counting() for _ in range(4)]
    for model, words, size in zip(models, ({"a", "b"}, {"b", "a"}, {"a"}, {"a"}), (1, 1, 1, 2), strict=True):
        model.allowed, model.inner = words, Inner(dimensions=size)
        CachedEmbeddings(model, cache).embed_documents(["x"])
    assert [len(model.asked) for model in models] == [1, 0, 1, 1]


def test_a_setting_that_cannot_be_seen_is_refused_and_one_that_comes_later_costs_only_the_cache(
    model, cache, caplog
):
    strange = Counting()
    strange.pipeline = object()
    with pytest.raises(ConfigurationError, match="pipeline is a object"):
        CachedEmbeddings(strange, cache)
    cached = CachedEmbeddings(model, cache)
    model.pipeline = object()
    assert cached.embed_documents(["a"]) == cached.embed_documents(["a"]) == [model._vector("a")]
    assert len(model.asked) == 2
    assert "pipeline is a object" in caplog.text
    with using(mode="offline"), pytest.raises(OfflineMiss):
        cached.embed_documents(["a"])


async def test_a_text_that_no_json_can_hold_is_the_models_business(model, cache):
    cached = CachedEmbeddings(model, cache)
    assert cached.embed_documents(["\ud800"]) == [model._vector("\ud800")]
    assert await cached.aembed_documents(["\ud800"]) == [model._vector("\ud800")]
    assert cache.stats().stored == 0


def test_two_tenants_never_share(model, cache):
    for scope in ("a", "b", "a"):
        CachedEmbeddings(model, cache, scope=scope).embed_documents(["x", "y"])
    assert model.asked == [["x", "y"]] * 2


def test_floats_survive_to_the_bit(cache):
    values = [1e-7, 1e22, -0.0, 1 / 3, 5e-324, 1.7976931348623157e308]

    class Exact(Counting):
        def embed_documents(self, texts):
            return [values for _ in texts]

    cached = CachedEmbeddings(Exact(), cache)
    first = cached.embed_documents(["a", "b"])
    again = cached.embed_documents(["b"])[0]
    assert (
        [value.hex() for value in again] == [value.hex() for value in first[1]] == [v.hex() for v in values]
    )


@pytest.mark.parametrize(
    "wrong", [[], [[1.0]], "text", None, [["x"], ["y"]], [[float("nan")], [1.0]]], ids=repr
)
def test_what_is_no_vector_for_each_text_is_handed_on_and_never_kept(wrong, cache):
    class Wrong(Counting):
        def embed_documents(self, texts):
            self.asked.append(texts)
            return wrong

    model = Wrong()
    cached = CachedEmbeddings(model, cache)
    for _ in range(2):
        found = cached.embed_documents(["a", "b"])
        assert found is wrong or repr(found) == repr(wrong)
    assert len(model.asked) >= 2


async def test_overlapping_calls_embed_each_text_once(model, cache):
    cached = CachedEmbeddings(model, cache)
    model._gate.clear()
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(cached.embed_documents, texts)
            for texts in (["a", "b"], ["b", "c"], ["c", "a"], ["b"])
        ]
        await asyncio.sleep(0.2)
        model._gate.set()
        found = [one.result(10) for one in work]
    assert found[1][0] == found[0][1] == found[3][0]
    assert sorted(text for asked in model.asked for text in asked) == ["a", "b", "c"]


def test_errors_are_the_callers_and_modes_hold(model, cache):
    class Failing(Counting):
        def embed_documents(self, texts):
            raise LookupError("no")

    with pytest.raises(LookupError):
        CachedEmbeddings(Failing(), cache).embed_documents(["a", "b"])
    with Cache("memory://", mode="offline") as offline, pytest.raises(OfflineMiss):
        CachedEmbeddings(model, offline).embed_documents(["a", "b"])
    cached = CachedEmbeddings(model, cache)
    with using(mode="off"):
        assert cached.embed_documents(["a"]) == [model._vector("a")]
    assert cache.stats().stored == 0


def test_the_models_of_openai_say_what_they_are(provider, cache):
    model = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=provider.base_url,
        api_key="k",
        dimensions=8,
        check_embedding_ctx_length=False,
    )
    cached = CachedEmbeddings(model, cache)
    first = cached.embed_documents(["a", "b"])
    assert cached.embed_documents(["b", "a"]) == first[::-1]
    assert provider.calls == 1
    model.client._client.close()


@pytest.mark.parametrize("kind", ["disk", "redis", "s3", "tiered"])
async def test_on_every_store(kind, store_of, model):
    import uuid

    async with Cache(store_of(kind), namespace=uuid.uuid4().hex, store_timeout=10) as cache:
        cached = CachedEmbeddings(model, cache)
        first = await cached.aembed_documents(["a", "bb"])
        assert await cached.aembed_documents(["bb", "a"]) == first[::-1]
        assert cached.embed_documents(["a"]) == first[:1]
    assert model.asked == [["a", "bb"]]
    cache.close()
