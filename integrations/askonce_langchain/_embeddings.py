"""Embeddings of LangChain, item by item: any wrapped model's vectors from a Cache."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from langchain_core.embeddings import Embeddings

from askonce import Cache, ConfigurationError, Request, using
from askonce.doors import EMPTY, Opened, Reading, Reply, Surface, fault, register_surface, serving, warn
from askonce_langchain._identity import identity

_URL: Final = "langchain:vectors"
_JSON: Final = ((b"content-type", b"application/json"),)
_NOTHING: Final = b'{"data":[]}'
_UNSEEN: Final = Request("POST", "langchain:unseen", _JSON, b"")  # passed by; offline mode refuses it


def _reading(answer: dict[str, Any]) -> Reading:
    return Reading(flaws=set() if answer.get("data") else {EMPTY})


register_surface(
    Surface(name="langchain_embeddings", path=re.compile("^vectors$"), read_json=_reading, items="input")
)


class CachedEmbeddings(Embeddings):
    """Any `Embeddings` with a cache before it: each text is embedded once.

    A list is looked up text by text in one read; only what is missing goes to the model, each duplicate
    once. Texts of documents and queries are told apart, as models do. Overlapping calls at one time embed
    each text once.

    Args:
        embeddings: the model.
        cache: the cache to use; None: a new `Cache()`.
        model: what the vectors depend on, such as "text-embedding-3-small at 512 dimensions". None: the
            model's class and its plain settings, where these can be seen.
        scope: who shares the vectors, such as a tenant's name.

    Raises:
        ConfigurationError: for an argument of the wrong kind, or a model that does not say what it is.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        cache: Cache | None = None,
        *,
        model: str | None = None,
        scope: str | None = None,
    ) -> None:
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigurationError(f"cache={type(cache).__name__} is not allowed; allowed: a Cache or None")
        self.embeddings = embeddings
        self.cache = cache or Cache()
        if scope is None and self.cache.scope == "credential":
            raise ConfigurationError(
                'who asks cannot be seen here, so scope="credential" cannot be kept; allowed: '
                'CachedEmbeddings(..., scope="who shares")'
            )
        self._scope = scope
        self._given = model
        self._identity()  # a model that does not say what it is should be told so now

    def __repr__(self) -> str:
        return f"<CachedEmbeddings {type(self.embeddings).__name__}, {self.cache!r}>"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in order."""
        return self._ask(texts, "document") if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._ask([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, for event loops."""
        return await self._aask(texts, "document") if texts else []

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, for event loops."""
        return (await self._aask([text], "query"))[0]

    def _ask(self, texts: list[str], kind: str) -> list[list[float]]:
        call = _Call(self.embeddings, self._request(texts, kind), kind)
        with using(scope=self._scope):
            reply = serving(self.cache).ask(call)
        return _vectors(reply) if not reply.bypassed else call.embed(texts)

    async def _aask(self, texts: list[str], kind: str) -> list[list[float]]:
        call = _AsyncCall(self.embeddings, self._request(texts, kind), kind)
        with using(scope=self._scope):
            reply = await serving(self.cache).aask(call)
        return _vectors(reply) if not reply.bypassed else await call.embed(texts)

    def _request(self, texts: list[str], kind: str) -> Request:
        try:
            asked = {**self._identity(), "kind": kind, "input": list(texts)}
            return Request("POST", _URL, _JSON, orjson.dumps(asked))
        except ConfigurationError as error:  # a setting that came later; the call goes on
            warn("langchain", "embeddings are not cached: %s", str(error))
        except Exception as error:  # noqa: BLE001 - a lone surrogate, texts that are none: the model's business
            fault("a list of texts was not understood", error)
        return _UNSEEN

    def _identity(self) -> dict[str, Any]:
        """What the vectors depend on."""
        if self._given is None:
            return identity(self.embeddings)
        kind = type(self.embeddings)
        return {"model": self._given, "class": f"{kind.__module__}.{kind.__qualname__}"}


def _vectors(reply: Reply) -> list[list[float]]:
    if reply.entry is None:
        native: list[list[float]] = reply.native
        return native
    data = orjson.loads(reply.entry.body)["data"]
    return [row["embedding"] for row in data]


def _opened(vectors: Any) -> Opened:
    """A model's vectors as an answer. What is no list of vectors is handed on, and never stored."""
    try:
        rows = [
            {"index": index, "embedding": [float(one) for one in vector]}
            for index, vector in enumerate(vectors)
        ]
        body = orjson.dumps({"data": rows})
        if b"null" in body:  # NaN or infinite: JSON has no word for it
            body = _NOTHING
    except (TypeError, ValueError):
        body = _NOTHING
    return Opened(status=200, headers=list(_JSON), native=vectors, body=body, framed=True)


def _texts(body: bytes) -> list[str]:
    given = orjson.loads(body)["input"]
    return [given] if isinstance(given, str) else given


class _Call:
    """An `askonce.doors.Exchange` whose provider is a model in this process."""

    live = False
    patience: float | None = None

    def __init__(self, embeddings: Embeddings, request: Request, kind: str) -> None:
        self._embeddings = embeddings
        self.request = request
        self._kind = kind

    def embed(self, texts: list[str]) -> list[list[float]]:
        if self._kind == "query":
            return [self._embeddings.embed_query(text) for text in texts]
        return self._embeddings.embed_documents(texts)

    def open(self) -> Opened:
        return self.instead(self.request.body)

    def again(self) -> Opened:
        return self.instead(self.request.body)

    def instead(self, body: bytes) -> Opened:
        return _opened(self.embed(_texts(body)))


class _AsyncCall:
    """The same for event loops."""

    live = False
    patience: float | None = None

    def __init__(self, embeddings: Embeddings, request: Request, kind: str) -> None:
        self._embeddings = embeddings
        self.request = request
        self._kind = kind

    async def embed(self, texts: list[str]) -> list[list[float]]:
        if self._kind == "query":
            return [await self._embeddings.aembed_query(text) for text in texts]
        return await self._embeddings.aembed_documents(texts)

    async def open(self) -> Opened:
        return await self.instead(self.request.body)

    async def again(self) -> Opened:
        return await self.instead(self.request.body)

    async def instead(self, body: bytes) -> Opened:
        return _opened(await self.embed(_texts(body)))
