"""Embedders: endpoints, functions, models; each with what it does when it is not what it says."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import httpx
import httpx2
import numpy as np
import pytest

from askonce import Cache, ConfigurationError
from askonce.semantic import (
    EndpointEmbedder,
    FunctionEmbedder,
    RedisVLEmbedder,
    SentenceTransformerEmbedder,
)
from askonce.semantic._endpoint import EndpointError
from askonce.semantic._vector import BadVector, unit
from askonce.testing import FakeProvider
from askonce.testing._provider.faults import Fault


@pytest.fixture(scope="module")
def running():
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(running):
    running.reset()
    yield running
    running.reset()


@pytest.fixture
def embedder(provider):
    embedder = EndpointEmbedder("m", base_url=f"{provider.base_url}/", api_key="secret-key", dimensions=16)
    yield embedder
    embedder.close()


def test_an_endpoint_gives_its_vectors_in_order(provider, embedder):
    rows = np.array(embedder.embed(["one", "two"]))
    for row, text in zip(rows, ("one", "two"), strict=True):
        assert row == pytest.approx(provider.embedding_of(text, dimensions=16), abs=1e-6)
    (request,) = provider.requests
    assert request.json() == {"input": ["one", "two"], "model": "m", "dimensions": 16}
    assert request.header("authorization") == "Bearer secret-key"


def test_through_a_cache_a_text_is_embedded_once(provider, embedder):
    with Cache("memory://") as cache:
        through = embedder.through(cache)
        try:
            first = through.embed(["one"])
            assert through.embed(["one"]) == first
            assert provider.calls == 1
            assert cache.stats().hits == 1
            assert embedder.embed(["one"]) == first  # and without it, not
            assert provider.calls == 2
        finally:
            through.close()


def test_a_cache_that_passes_by_costs_no_vector(provider, embedder):
    with Cache("memory://", ttl=0) as cache:
        through = embedder.through(cache)
        assert len(through.embed(["one"])[0]) == 16
        through.close()


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=401), Fault(garbage=True)], ids=["500", "401", "garbage"]
)
def test_an_endpoint_that_fails_says_so_and_shows_nothing(provider, embedder, fault):
    provider.always(fault)
    with pytest.raises(EndpointError) as caught:
        embedder.embed(["a secret text"])
    assert "secret" not in str(caught.value)
    with Cache("memory://") as cache:
        through = embedder.through(cache)
        with pytest.raises(EndpointError):
            through.embed(["a secret text"])
        assert list(cache.keys()) == []
        through.close()


def test_another_number_of_vectors_is_an_error(provider, embedder, monkeypatch):
    monkeypatch.setattr(
        "askonce.semantic._endpoint._body_of", lambda response: b'{"data":[{"index":0,"embedding":[1]}]}'
    )
    with pytest.raises(EndpointError):
        embedder.embed(["one", "two"])


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_client_of_the_users_is_used_and_not_closed(provider, package):
    with package.Client(headers={"x-own": "1"}, verify=False) as client:
        embedder = EndpointEmbedder("m", base_url=provider.base_url, client=client)
        embedder.embed(["one"])
        embedder.close()
        assert not client.is_closed
    assert provider.requests[0].header("x-own") == "1"


def test_after_close_it_works_again(provider, embedder):
    embedder.embed(["one"])
    embedder.close()
    embedder.close()
    embedder.embed(["one"])


def test_names_tell_models_places_and_dimensions_apart(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    names = {
        EndpointEmbedder(*arguments, **options).name
        for arguments, options in [
            (("m",), {}),
            (("n",), {}),
            (("m",), {"base_url": "http://other/v1"}),
            (("m",), {"dimensions": 5}),
        ]
    }
    assert len(names) == 4
    assert not any("key" in EndpointEmbedder("m", api_key="key-1").name for _ in range(1))
    assert "key-1" not in repr(EndpointEmbedder("m", api_key="key-1"))


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": 5},
        {"base_url": "ftp://x"},
        {"dimensions": 0},
        {"dimensions": True},
        {"timeout": "x"},
    ],
)
def test_options_of_an_endpoint_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigurationError):
        EndpointEmbedder(**{"model": "m", **options})


@pytest.mark.parametrize("arguments", [(5,), (None,)])
def test_what_is_no_function_is_refused(arguments):
    with pytest.raises(ConfigurationError, match="function"):
        FunctionEmbedder(*arguments, name="m")
    with pytest.raises(ConfigurationError, match="afunction"):
        FunctionEmbedder(len, name="m", afunction=5)
    with pytest.raises(ConfigurationError, match="name"):
        FunctionEmbedder(len, name="")


class Model:
    """As `SentenceTransformer` is."""

    max_seq_length = 4
    model_card_data = SimpleNamespace(base_model="some/model")

    def encode(self, texts, *, show_progress_bar, convert_to_numpy):
        assert not show_progress_bar
        return np.ones((len(texts), 3), np.float32)

    @staticmethod
    def tokenizer(text, *, truncation, verbose):
        return {"input_ids": text.split()}


def test_a_sentence_transformer_says_what_it_would_cut():
    embedder = SentenceTransformerEmbedder(Model())
    assert embedder.name == "sentence-transformers some/model"
    assert np.array(embedder.embed(["a", "b"])).shape == (2, 3)
    assert not embedder.truncates("one two three four")
    assert embedder.truncates("one two three four five")


def test_without_sentence_transformers_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("askonce.semantic._models.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="sentence-transformers"):
        SentenceTransformerEmbedder("all-MiniLM-L6-v2")
    with pytest.raises(ConfigurationError, match="model"):
        SentenceTransformerEmbedder(object())


def test_a_redisvl_vectorizer_embeds():
    vectorize = pytest.importorskip("redisvl.utils.vectorize")
    made = vectorize.CustomVectorizer(embed=lambda text: [1.0, float(len(text))])
    embedder = RedisVLEmbedder(made)
    assert embedder.embed(["ab", "c"]) == [[1.0, 2.0], [1.0, 1.0]]
    assert embedder.name.startswith("redisvl CustomVectorizer")
    assert RedisVLEmbedder(made, name="mine").name == "mine"
    with pytest.raises(ConfigurationError, match="embed_many"):
        RedisVLEmbedder(object())


def test_vectors_are_copied_and_of_length_one():
    given = np.array([[3.0, 4.0]], np.float32)
    vector = unit(given)
    assert vector == pytest.approx([0.6, 0.8])
    given[:] = 9
    assert vector == pytest.approx([0.6, 0.8])
    assert unit([[1e-30, 0.0]]) == pytest.approx([1.0, 0.0])
    assert unit([[1e30, 0.0]]) == pytest.approx([1.0, 0.0])
    with pytest.raises(BadVector):
        unit(object())


def test_importing_askonce_or_the_semantic_package_loads_no_numpy():
    import subprocess

    code = "import sys, askonce.semantic; assert 'numpy' not in sys.modules; from askonce import Cache, using"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'numpy' not in sys.modules"], check=True)
