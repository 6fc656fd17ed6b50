"""The semantic layer, as users make it: which embedder, how near is near enough, and what is kept where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from askonce._errors import ConfigurationError, not_allowed
from askonce._request import Request
from askonce._units import Duration, seconds
from askonce.semantic._embedder import Answering, Embedder, ThroughCache, check_embedder
from askonce.semantic._guards import checked_guards
from askonce.semantic._index import Index
from askonce.semantic._judges import Judge, check_judge
from askonce.semantic._local import LocalIndex, need_numpy

if TYPE_CHECKING:
    from askonce._layer import Layer
    from askonce.semantic._parts import Parts

_THRESHOLD: Final = 0.95
_LEAST_THRESHOLD: Final = 0.5


class Options(NamedTuple):
    """What a layer was made with, checked.

    Attributes:
        threshold: least similarity of a hit; None in verified mode.
        max_error: share of wrong answers among all requests that verified mode stays under.
    """

    threshold: float | None
    max_error: float | None
    judge: Judge
    shadow: float
    partition: Callable[[Request], str] | None
    guards: frozenset[str]
    max_turns: int | None
    timeout: float


class SemanticLayer:
    """Answers a question with the stored answer to one that means the same.

    Given to `Cache(semantic=...)`, and consulted after an exact miss, before the provider is called. Only
    the text of the last user turn is compared; everything else of a request has to be exactly the same.
    One layer belongs to one cache.

    In the mode "offline" it is consulted only if the embedder is `local` (see `askonce.semantic.Embedder`).
    Rows in the store are waited for then, and what verified mode would ask the provider about is a miss.

    Args:
        embedder: turns texts into vectors; see `askonce.semantic.Embedder`. There is no default.
        threshold: least cosine of two questions that share an answer, 0.5 to 1; default 0.95. What it is
            worth depends on the embedder: `askonce semantic tune` draws it from your own traffic.
        max_error: instead of a threshold: verified mode. How often stored answers were right is learned for
            each of them, from provider calls that are made all the same; it serves as long as wrong answers
            stay under this share *of all requests*, 0.001 to 0.5.
        index: where vectors are; default a `LocalIndex()`, in memory and kept in the cache's store.
        judge: says whether two answers say the same, for verified mode and shadow sampling: "exact",
            "normalised" (default), "embedding", or a callable `(Judgement) -> bool`.
        shadow: share of hits that ask the provider all the same and compare, 0 to 1; default 0.01. It is
            what measures the rate of wrong answers, and what notices that answers no longer hold.
        partition: `(Request) -> str`: requests for which it differs never share an answer.
        guards: True: all; False: none; or the names of those that are on (see `askonce.semantic.GUARDS`).
        max_turns: conversations with more user turns are left alone; None: none are.
        timeout: seconds that one call may lose to the embedder and, again, to an index in a network, or
            offline to reading the rows.

    Raises:
        ConfigurationError: for a bad option, or without numpy.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        threshold: float | None = None,
        max_error: float | None = None,
        index: Index | None = None,
        judge: str | Judge | None = None,
        shadow: float = 0.01,
        partition: Callable[[Request], str] | None = None,
        guards: bool | Iterable[str] = True,
        max_turns: int | None = None,
        timeout: Duration = 1.0,
    ) -> None:
        self._embedder = check_embedder(embedder)
        need_numpy("SemanticLayer")
        if threshold is not None and max_error is not None:
            raise ConfigurationError("threshold and max_error are given together; allowed: one of them")
        if max_error is None:
            threshold = _THRESHOLD if threshold is None else threshold
            _check_share("threshold", threshold, _LEAST_THRESHOLD, 1.0)
        else:
            _check_share("max_error", max_error, 0.001, 0.5)
        _check_share("shadow", shadow, 0.0, 1.0)
        if index is not None and not all(callable(getattr(index, name, None)) for name in ("add", "search")):
            raise not_allowed("index", index, "a LocalIndex, a RedisIndex, or an Index of yours")
        if partition is not None and not callable(partition):
            raise not_allowed("partition", partition, "a callable(Request) -> str, or None")
        if max_turns is not None and (
            isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1
        ):
            raise not_allowed("max_turns", max_turns, "a whole number >= 1, or None")
        patience = seconds("timeout", timeout)
        if not patience:
            raise not_allowed("timeout", timeout, "a duration above 0")
        self._index = index
        self._options = Options(
            threshold=threshold,
            max_error=max_error,
            judge=check_judge(judge),
            shadow=float(shadow),
            partition=partition,
            guards=checked_guards(guards),
            max_turns=max_turns,
            timeout=patience,
        )
        self._taken = False

    def attach(self, cache: Answering, parts: Parts) -> Layer:
        """For the Cache that was given this layer: what its flow consults.

        Raises:
            ConfigurationError: another cache has it.
        """
        if self._taken:
            raise ConfigurationError(
                "this SemanticLayer was given to another Cache already; allowed: one of its own for each"
            )
        self._taken = True
        from askonce.semantic._consult import Consultant  # noqa: PLC0415 - most of the work is there

        embedder = self._embedder
        if isinstance(embedder, ThroughCache):
            embedder = embedder.through(cache)
        index = LocalIndex(clock=parts.clock) if self._index is None else self._index
        return Consultant(self._options, embedder, index, parts)

    def __repr__(self) -> str:
        options = self._options
        how = (
            f"threshold={options.threshold}"
            if options.max_error is None
            else f"max_error={options.max_error}"
        )
        return f"<SemanticLayer {self._embedder.name}, {how}>"


def _check_share(option: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise not_allowed(option, value, f"a number from {least} to {most}")
