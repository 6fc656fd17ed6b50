"""An embedder behind an OpenAI-compatible endpoint, whose calls the cache answers by exact means."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Self, cast

import orjson

from askonce._errors import missing_extra, not_allowed
from askonce._exchange import Opened
from askonce._family import MARK
from askonce._fork import renew_after_fork
from askonce._request import Request
from askonce._units import Duration, seconds
from askonce.semantic._embedder import Answering, check_name

_HOME: Final = "https://api.openai.com/v1"
_OK: Final = 200


class EndpointError(Exception):
    """The endpoint gave no vectors."""


class EndpointEmbedder:
    """Vectors from `POST {base_url}/embeddings`: OpenAI, Azure, vLLM, Ollama, LM Studio, TEI and others.

    A text that was embedded before costs no call: the request is answered from the cache that the layer
    belongs to, like any other. It never reaches the layer itself.

    Args:
        model: the embedding model's name.
        base_url: where; default `$OPENAI_BASE_URL`, else OpenAI's.
        api_key: default `$OPENAI_API_KEY`; none is sent where there is none.
        dimensions: asked of the model, where it lets one choose.
        headers: further ones.
        timeout: seconds for one call to the endpoint. The layer's own time-out holds besides.
        client: an `httpx.Client` or `httpx2.Client` of yours, which stays yours to close.

    Raises:
        ConfigurationError: for a bad option, or without httpx and httpx2.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        headers: dict[str, str] | None = None,
        timeout: Duration = 10.0,
        client: Any = None,
    ) -> None:
        check_name(model)
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _HOME
        if not url.startswith(("http://", "https://")):
            raise not_allowed("base_url", url, 'a URL that begins with "http://" or "https://"')
        if dimensions is not None and (isinstance(dimensions, bool) or dimensions < 1):
            raise not_allowed("dimensions", dimensions, "a whole number >= 1, or None")
        if client is None:
            _family()  # that there is one is known now, not at the first question
        self._model = model
        self._url = f"{url.rstrip('/')}/embeddings"
        self._dimensions = dimensions
        self._timeout = seconds("timeout", timeout)
        self._given = client
        self._made: Any = None
        self._lock = threading.Lock()
        self._cache: Answering | None = None
        key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        said = {"content-type": "application/json", **(headers or {})}
        if key:
            said.setdefault("authorization", f"Bearer {key}")
        self._headers = tuple((name.lower().encode(), value.encode()) for name, value in said.items())
        place = Request("POST", self._url).target
        self.name = f"{place.origin}{place.path} {model} {dimensions or ''}".rstrip()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's connections are the parent's."""
        self._lock = threading.Lock()
        self._made = None

    def through(self, cache: Answering) -> Self:
        """See `ThroughCache.through`."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.after_fork()  # a lock and connections of its own
        twin._cache = cache
        renew_after_fork(twin)
        return twin

    def embed(self, texts: Sequence[str]) -> Any:
        """See `Embedder.embed`.

        Raises:
            EndpointError: the endpoint did not answer with vectors.
        """
        fields: dict[str, Any] = {"input": list(texts), "model": self._model}
        if self._dimensions is not None:
            fields["dimensions"] = self._dimensions
        asked = _Asked(self, Request("POST", self._url, self._headers, orjson.dumps(fields)))
        if self._cache is not None:
            reply = self._cache.ask(asked)
            if reply.entry is not None:
                return _vectors(reply.entry.body, len(texts))
            if reply.native is not None:
                return _vectors(_body_of(reply.native), len(texts))
        return _vectors(_body_of(asked.open().native), len(texts))

    @property
    def client(self) -> Any:
        """The client that the calls are made with."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._made is None:
                self._made = _family().Client(timeout=self._timeout)
            return self._made

    def close(self) -> None:
        """Close the client, unless it is yours. The embedder may be used again."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def __repr__(self) -> str:
        return f"<EndpointEmbedder {self.name}>"


class _Asked:
    """One call to the endpoint, as a door hands it to the cache."""

    live = False

    def __init__(self, embedder: EndpointEmbedder, request: Request) -> None:
        self._embedder = embedder
        self.request = request
        self.patience: float | None = None

    def open(self) -> Opened:
        """See `Exchange.open`."""
        return self.instead(self.request.body)

    def instead(self, body: bytes) -> Opened:
        """See `Exchange.instead`."""
        client, request = self._embedder.client, self.request
        built = client.build_request(
            request.method,
            request.url,
            headers=list(request.headers),
            content=body,
            extensions={MARK: True},  # doors beneath let it pass: it was asked for already
        )
        response = client.send(built)
        return Opened(
            status=response.status_code,
            headers=list(response.headers.raw),
            native=response,
            body=response.content,
            framed=True,
        )

    def again(self) -> Opened:
        """See `Exchange.again`."""
        return self.open()


def _body_of(response: Any) -> bytes:
    if response.status_code != _OK:
        raise EndpointError(f"status {response.status_code}")
    body: bytes = response.content
    return body


def _vectors(body: bytes, count: int) -> Any:
    try:
        answer = cast("dict[str, Any]", orjson.loads(body))
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = [row["embedding"] for row in rows]
    except (ValueError, TypeError, KeyError):
        raise EndpointError("no vectors") from None
    if len(vectors) != count:
        raise EndpointError("another number of vectors")
    return vectors


def _family() -> Any:
    """One of httpx and httpx2: the one that is loaded, else the one that is installed.

    Raises:
        ConfigurationError: neither is.
    """
    for name in ("httpx2", "httpx"):
        if name in sys.modules:
            return sys.modules[name]
    for name in ("httpx2", "httpx"):
        if find_spec(name) is not None:
            return import_module(name)
    raise missing_extra("httpx", "httpx", "EndpointEmbedder")
