"""Embedders in this process: sentence-transformers, and whatever redisvl has a vectorizer for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from askonce._errors import missing_extra, not_allowed
from askonce._fork import renew_after_fork
from askonce.semantic._embedder import check_local, check_name


class SentenceTransformerEmbedder:
    """A model of the package `sentence-transformers`, in this process.

    A text that is longer than what the model reads is not compared by meaning: its end would not count.
    Loading a model takes seconds, and happens here; what is loaded uses no network, and may be asked offline.

    Args:
        model: name or path of a model, or a `SentenceTransformer` of yours.
        name: names the model and its settings; default: `model`, or what the object says of itself.
        **options: for `SentenceTransformer(...)`, such as `device="cpu"` or `local_files_only=True`.

    Raises:
        ConfigurationError: the package is not installed, or `model` is none.
    """

    local = True

    def __init__(self, model: Any, *, name: str | None = None, **options: Any) -> None:
        if isinstance(model, str):
            if find_spec("sentence_transformers") is None:
                raise missing_extra(
                    "sentence-transformers", "sentence-transformers", "SentenceTransformerEmbedder"
                )
            label = model
            model = import_module("sentence_transformers").SentenceTransformer(model, **options)
        elif not callable(getattr(model, "encode", None)):
            raise not_allowed("model", model, "the name or path of a model, or a SentenceTransformer")
        else:
            card = getattr(getattr(model, "model_card_data", None), "base_model", None)
            label = card if isinstance(card, str) else type(model).__name__
        self.name = f"sentence-transformers {check_name(name or label)}"
        self._model = model
        self._lock = threading.Lock()  # fast tokenizers refuse to be used by two threads at once
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Any:
        """See `Embedder.embed`."""
        with self._lock:
            return self._model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)

    def truncates(self, text: str) -> bool:
        """See `Truncating.truncates`."""
        most: object = getattr(self._model, "max_seq_length", None)
        tokenizer: Any = getattr(self._model, "tokenizer", None)
        if not isinstance(most, int) or not callable(tokenizer):
            return False
        with self._lock:
            found: Any = tokenizer(text, truncation=False, verbose=False)
        return len(found["input_ids"]) > most

    def __repr__(self) -> str:
        return f"<SentenceTransformerEmbedder {self.name}>"


class RedisVLEmbedder:
    """Any vectorizer of the package `redisvl`: OpenAI, Azure, Cohere, Mistral, Vertex, HuggingFace, custom.

    Args:
        vectorizer: it has `embed_many(texts)`, and says its `model`.
        name: names the model and its settings; default: the vectorizer's class and model.
        local: it never uses a network, and so may be asked offline, too; see `Embedder`.

    Raises:
        ConfigurationError: `vectorizer` is none.
    """

    def __init__(self, vectorizer: Any, *, name: str | None = None, local: bool = False) -> None:
        many = getattr(vectorizer, "embed_many", None)
        if not callable(many):
            raise not_allowed("vectorizer", vectorizer, "a vectorizer of redisvl, with embed_many(texts)")
        model: object = getattr(vectorizer, "model", "")
        self.name = check_name(name or f"redisvl {type(vectorizer).__name__} {model}".strip())
        self.local = check_local(local)
        self._many: Callable[[list[str]], Any] = many

    def embed(self, texts: Sequence[str]) -> Any:
        """See `Embedder.embed`. In worker threads on event loops: many vectorizers block those."""
        return self._many(list(texts))

    def __repr__(self) -> str:
        return f"<RedisVLEmbedder {self.name}>"
