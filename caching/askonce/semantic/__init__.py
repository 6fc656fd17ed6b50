"""The semantic layer: questions that mean the same share an answer, and how often that is wrong is measured.

    from askonce import Cache
    from askonce.semantic import EndpointEmbedder, SemanticLayer

    cache = Cache(semantic=SemanticLayer(EndpointEmbedder("text-embedding-3-small"), threshold=0.95))

Needs the extra `semantic` (numpy). The names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from askonce.semantic._embedder import AsyncEmbedder as AsyncEmbedder
    from askonce.semantic._embedder import Embedder as Embedder
    from askonce.semantic._embedder import FunctionEmbedder as FunctionEmbedder
    from askonce.semantic._embedder import Truncating as Truncating
    from askonce.semantic._endpoint import EndpointEmbedder as EndpointEmbedder
    from askonce.semantic._figures import Interval as Interval
    from askonce.semantic._figures import SemanticFigures as SemanticFigures
    from askonce.semantic._figures import wilson as wilson
    from askonce.semantic._guards import GUARDS as GUARDS
    from askonce.semantic._index import AsyncIndex as AsyncIndex
    from askonce.semantic._index import Index as Index
    from askonce.semantic._index import Near as Near
    from askonce.semantic._index import Place as Place
    from askonce.semantic._index import Portable as Portable
    from askonce.semantic._index import Row as Row
    from askonce.semantic._judges import Judge as Judge
    from askonce.semantic._judges import Judgement as Judgement
    from askonce.semantic._judges import embedding_judge as embedding_judge
    from askonce.semantic._layer import SemanticLayer as SemanticLayer
    from askonce.semantic._local import LocalIndex as LocalIndex
    from askonce.semantic._models import RedisVLEmbedder as RedisVLEmbedder
    from askonce.semantic._models import SentenceTransformerEmbedder as SentenceTransformerEmbedder
    from askonce.semantic._redis import RedisIndex as RedisIndex
    from askonce.semantic._tune import Logged as Logged
    from askonce.semantic._tune import Tuned as Tuned
    from askonce.semantic._tune import read_log as read_log
    from askonce.semantic._tune import tune as tune

_HOMES = {
    "AsyncEmbedder": "_embedder",
    "Embedder": "_embedder",
    "EndpointEmbedder": "_endpoint",
    "FunctionEmbedder": "_embedder",
    "GUARDS": "_guards",
    "AsyncIndex": "_index",
    "Index": "_index",
    "Interval": "_figures",
    "Judge": "_judges",
    "Judgement": "_judges",
    "LocalIndex": "_local",
    "Logged": "_tune",
    "Near": "_index",
    "Place": "_index",
    "Portable": "_index",
    "RedisIndex": "_redis",
    "RedisVLEmbedder": "_models",
    "Row": "_index",
    "SemanticFigures": "_figures",
    "SemanticLayer": "_layer",
    "SentenceTransformerEmbedder": "_models",
    "Truncating": "_embedder",
    "Tuned": "_tune",
    "embedding_judge": "_judges",
    "read_log": "_tune",
    "tune": "_tune",
    "wilson": "_figures",
}
__all__ = [
    "GUARDS",
    "AsyncEmbedder",
    "AsyncIndex",
    "Embedder",
    "EndpointEmbedder",
    "FunctionEmbedder",
    "Index",
    "Interval",
    "Judge",
    "Judgement",
    "LocalIndex",
    "Logged",
    "Near",
    "Place",
    "Portable",
    "RedisIndex",
    "RedisVLEmbedder",
    "Row",
    "SemanticFigures",
    "SemanticLayer",
    "SentenceTransformerEmbedder",
    "Truncating",
    "Tuned",
    "embedding_judge",
    "read_log",
    "tune",
    "wilson",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when a name is asked for

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
