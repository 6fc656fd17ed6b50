"""Judges: whether two answers say the same, so that one may stand for the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, cast

from askonce._errors import not_allowed
from askonce.semantic._vector import unit


class Embed(Protocol):
    """Vectors of texts, by the layer's own embedder."""

    def __call__(self, texts: list[str]) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge is asked. Its repr shows no text.

    Attributes:
        question: the last user turn that was asked now.
        cached: what the stored answer to a similar question says.
        fresh: what the provider answers to this one.
        similarity: of the two questions.
        embed: vectors of texts, by the layer's embedder.
    """

    question: str = field(repr=False)
    cached: str = field(repr=False)
    fresh: str = field(repr=False)
    similarity: float
    embed: Embed = field(repr=False)


Judge: TypeAlias = Callable[[Judgement], bool]
"""True when the cached answer would have been right. Called in a worker thread, behind the callers' backs."""

_AGREES: Final = 0.95


def exact(asked: Judgement) -> bool:
    """The same text."""
    return asked.cached == asked.fresh


def normalised(asked: Judgement) -> bool:
    """The same words and figures: case, blanks, punctuation and compatibility forms make no difference."""
    return _plain(asked.cached) == _plain(asked.fresh)


def embedding(asked: Judgement, *, threshold: float = _AGREES) -> bool:
    """Answers whose vectors have a cosine of at least `threshold`. Lenient: it lets near misses pass."""
    rows = asked.embed([asked.cached, asked.fresh])
    one, two = unit(rows[:1]), unit(rows[1:2])
    return float(one @ two) >= threshold


def embedding_judge(threshold: float) -> Judge:
    """The judge `embedding` with another threshold, 0 to 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise not_allowed("threshold", threshold, "a number from 0 to 1")
    return partial(embedding, threshold=threshold)


_NAMED: Final[dict[str, Judge]] = {"exact": exact, "normalised": normalised, "embedding": embedding}


def check_judge(judge: object) -> Judge:
    """The judge that is meant.

    Raises:
        ConfigurationError: there is none of this name, and it is no callable.
    """
    if judge is None:
        return normalised
    if isinstance(judge, str) and judge in _NAMED:
        return _NAMED[judge]
    if not callable(judge):
        raise not_allowed(
            "judge", judge, 'None, "exact", "normalised", "embedding", or a callable(Judgement) -> bool'
        )
    return cast("Judge", judge)


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    # Signs between digits are part of a figure; so is what stands for minus, plus and the like.
    kept = "".join(
        char if char.isalnum() or unicodedata.category(char)[0] == "S" or char in ".,-%" else " "
        for char in text
    )
    return " ".join(word for part in kept.split() if (word := part.strip(".,")))
