"""Judging answers behind the callers' backs, and what is learned from it for each entry.

What is learned of an entry is kept in the cache's store, beside it and as long as it lives:

    key     NAMESPACE~learned:<32 digits of the partition><32 digits of the entry's key>
    value   similarities and verdicts, as JSON; sealed with the cache's secret, if there is one

so all processes over one store learn together. Two that learn at the same moment may lose one observation:
one less of many, and of no bias.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from askonce._bridge import step
from askonce._call import Call
from askonce._entry import Entry
from askonce._errors import StoreError
from askonce._events import warn
from askonce._fork import renew_after_fork
from askonce._layer import Similar
from askonce.semantic._answers import said
from askonce.semantic._embedder import Embedder
from askonce.semantic._figures import Figures
from askonce.semantic._inside import inside
from askonce.semantic._judges import Judgement
from askonce.semantic._turn import Question
from askonce.semantic._verified import Learned, decode
from askonce.stores._crew import Crew

if TYPE_CHECKING:
    from askonce.semantic._layer import Options
    from askonce.semantic._parts import Parts

_WORKERS: Final = 4
_MOST: Final = 10_000
_HALF: Final = 32


class Learning:
    """What judges said of entries. One per layer.

    Args:
        options: of the layer.
        embedder: of the layer, for judges that want it.
        parts: of the cache.
        figures: where verdicts on would-be hits are counted.
    """

    def __init__(self, options: Options, embedder: Embedder, parts: Parts, figures: Figures) -> None:
        self._options = options
        self._embedder = embedder
        self._parts = parts
        self._figures = figures
        self._count: Callable[[str], None] = parts.counters.layer
        self._known: dict[str, tuple[bytes, Learned]] = {}
        self._crew = Crew(_WORKERS, "askonce-judge")
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child, which has no threads yet."""
        self._lock = threading.Lock()
        self._crew.after_fork()

    async def known(self, call: Call, partition: str, key: str) -> Learned:
        """What has been learned of the entry under a key."""
        place = _place(partition, key)
        stored = await call.tiers.get(place)
        return Learned() if stored is None else self._read(place, stored.value)

    def judge(
        self,
        call: Call,
        question: Question,
        neighbour: Similar,
        entry: Entry,
        *,
        would_serve: bool,
        settled: Callable[[bool | None], None],
    ) -> None:
        """Have two answers compared, some time soon, by a thread.

        Args:
            call: whose provider call it was.
            question: what was asked.
            neighbour: the answer that was there.
            entry: what the provider said.
            would_serve: the answer would have been given, had this not been a sample.
            settled: told in the end whether it would have been right; None: nobody knows.
        """
        model = call.decision.model

        def work(_: None) -> None:
            verdict = self._verdict(question, neighbour, entry)
            try:
                if verdict is not None:
                    self._tell(question, model, neighbour, right=verdict, would_serve=would_serve)
                    if would_serve:
                        self._figures.add(question.partition, model, "sampled")
                        self._count("sampled")
                        if not verdict:
                            self._figures.add(question.partition, model, "wrong")
                            self._count("sampled wrong")
                    if self._options.max_error is not None:
                        self._learn(question.partition, neighbour, right=verdict)
                    self._count("judged right" if verdict else "judged wrong")
                settled(verdict)
            except Exception as error:  # noqa: BLE001 - a thread of ours, and nobody waits for it
                warn("semantic", "a verdict was lost (%s)", type(error).__name__)

        try:
            self._crew.submit(work, [None])
        except StoreError:
            self._count("judges busy")
            settled(None)

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _verdict(self, question: Question, neighbour: Similar, entry: Entry) -> bool | None:
        """Whether the answer that was there would have been right; None: nobody knows."""
        cached, fresh = said(neighbour.found.entry), said(entry)
        if cached is None or fresh is None:
            self._count("judge: no text")
            return None
        asked = Judgement(
            question=question.text,
            cached=cached,
            fresh=fresh,
            similarity=neighbour.similarity,
            embed=self._embed,
        )
        try:
            with inside():
                verdict: object = self._options.judge(asked)
        except Exception as error:  # noqa: BLE001 - the user's function
            self._count(f"judge: {type(error).__name__}")
            warn("semantic", "the judge raised %s; nothing is learned from it", type(error).__name__)
            return None
        if not isinstance(verdict, bool):
            self._count("judge: no verdict")
            return None
        return verdict

    def _tell(
        self, question: Question, model: str, neighbour: Similar, *, right: bool, would_serve: bool
    ) -> None:
        events = self._parts.events
        if events.wanted:
            from askonce.events import AnswersCompared  # noqa: PLC0415 - loaded when somebody listens

            events.emit(
                AnswersCompared(
                    partition=question.partition[:8],
                    model=model,
                    similarity=neighbour.similarity,
                    right=right,
                    would_serve=would_serve,
                    source=neighbour.key,
                )
            )

    def _embed(self, texts: list[str]) -> Any:
        return self._embedder.embed(texts)

    def _learn(self, partition: str, neighbour: Similar, *, right: bool) -> None:
        place = _place(partition, neighbour.key)
        seal = self._parts.seal
        with self._lock:
            tiers = self._parts.backing.sync_guard.tiers()
            stored = step(tiers.get(place))
            before = Learned() if stored is None else self._read(place, stored.value)
            learned = before.more(neighbour.similarity, right=right)
            value = learned.encode()
            if seal is not None:
                value = seal.close(value, place.encode())
            self._keep(place, value, learned)
            step(tiers.set(place, value, neighbour.found.entry.meta.stale_until))

    def _read(self, place: str, value: bytes) -> Learned:
        known = self._known.get(place)
        if known is not None and known[0] == value:
            return known[1]
        seal = self._parts.seal
        content = value if seal is None else seal.open(value, place.encode())
        learned = Learned() if content is None else decode(content)
        self._keep(place, value, learned)
        return learned

    def _keep(self, place: str, value: bytes, learned: Learned) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[place] = (value, learned)


def prefix_of(namespace: str) -> str:
    """What the keys begin with under which a namespace's lessons are kept."""
    return f"{namespace}~learned:"


def _place(partition: str, key: str) -> str:
    namespace, _, name = key.partition(":")
    return f"{prefix_of(namespace)}{partition[:_HALF]}{name[:_HALF]}"
