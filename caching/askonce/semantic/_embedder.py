"""What an embedder is, and the adapter for functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from askonce._errors import ConfigurationError, not_allowed
from askonce._exchange import Exchange, Reply


class Embedder(Protocol):
    """Turns texts into vectors that are near when the texts mean the same.

    A failure is an exception, whichever. It may take its time, but is waited for only so long. What it
    returns is checked, normalised, and not kept.

    It may say one more thing of itself, as a plain attribute: `local` (default False), True when it never
    uses a network. In the mode "offline" only those embedders are asked.
    """

    @property
    def name(self) -> str:
        """Names the model and all that changes its vectors: vectors of different names never meet."""
        ...

    def embed(self, texts: Sequence[str]) -> Any:
        """The vectors of texts: an array of shape (n, d), or whatever numpy makes one of.

        Called from worker threads, several at a time.
        """
        ...


@runtime_checkable
class AsyncEmbedder(Protocol):
    """An embedder that has a way of its own on event loops; others are called in worker threads there."""

    def aembed(self, texts: Sequence[str]) -> Awaitable[Any]:
        """See `Embedder.embed`."""
        ...


@runtime_checkable
class Truncating(Protocol):
    """An embedder that knows how much of a text its model reads."""

    def truncates(self, text: str) -> bool:
        """True when the model would not read the text to its end: then it is not compared by meaning."""
        ...


class Answering(Protocol):
    """What a Cache is to an embedder."""

    def ask(self, exchange: Exchange) -> Reply:
        """See `Cache.ask`."""
        ...


@runtime_checkable
class ThroughCache(Protocol):
    """An embedder whose own calls to a provider can be answered from the cache, by exact means."""

    def through(self, cache: Answering) -> Embedder:
        """An embedder like this one whose calls go through a cache, for that cache to close."""
        ...

    def close(self) -> None:
        """Give back connections. It may be used again."""
        ...


class FunctionEmbedder:
    """An embedder made of a function.

    Args:
        function: takes a list of texts, returns one vector for each.
        name: names the model and its settings.
        afunction: the same as a coroutine function, for event loops; without it they call `function` in
            a worker thread.
        local: it never uses a network, and so may be asked offline, too; see `Embedder`.
    """

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        name: str,
        afunction: Callable[[list[str]], Awaitable[Any]] | None = None,
        local: bool = False,
    ) -> None:
        if not callable(function):
            raise not_allowed("function", function, "a function of a list of texts")
        self.name = check_name(name)
        self.local = check_local(local)
        self._function = function
        if afunction is not None:
            if not callable(afunction):
                raise not_allowed("afunction", afunction, "a coroutine function of a list of texts")
            self.aembed = _awaited(afunction)

    def embed(self, texts: Sequence[str]) -> Any:
        """See `Embedder.embed`."""
        return self._function(list(texts))

    def __repr__(self) -> str:
        return f"<FunctionEmbedder {self.name}>"


def _awaited(function: Callable[[list[str]], Awaitable[Any]]) -> Callable[[Sequence[str]], Awaitable[Any]]:
    def aembed(texts: Sequence[str]) -> Awaitable[Any]:
        return function(list(texts))

    return aembed


def check_name(name: object) -> str:
    """An embedder's name.

    Raises:
        ConfigurationError: it is empty, or no text.
    """
    if not isinstance(name, str) or not name:
        raise not_allowed("name", name, "a text that names the embedding model, at least one character")
    return name


def check_local(local: object) -> bool:
    """Whether an embedder needs no network, as it was made with.

    Raises:
        ConfigurationError: it is neither True nor False.
    """
    if not isinstance(local, bool):
        raise not_allowed("local", local, "True for an embedder that never uses a network, else False")
    return local


def is_local(embedder: Embedder) -> bool:
    """Whether an embedder says that it never uses a network."""
    return getattr(embedder, "local", False) is True


def check_embedder(embedder: object) -> Embedder:
    """What was given as an embedder, if it is one.

    Raises:
        ConfigurationError: it is none; says how to choose one.
    """
    found: Any = embedder
    if (
        callable(getattr(found, "embed", None))
        and isinstance(getattr(found, "name", None), str)
        and found.name
    ):
        return found  # type: ignore[no-any-return]
    what = "None" if embedder is None else f"a {type(embedder).__name__}"
    raise ConfigurationError(
        f"SemanticLayer got {what} as embedder, and there is no default: which texts mean the same is for a "
        "model to say. Allowed: askonce.semantic.EndpointEmbedder(model=...) for an OpenAI-compatible "
        "endpoint, SentenceTransformerEmbedder(name or path), RedisVLEmbedder(vectorizer), "
        "FunctionEmbedder(function, name=...), or an object with a name and embed(texts)"
    )
