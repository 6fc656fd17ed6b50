"""What thresholds would have done with questions that were asked before, and answers that were given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from askonce._errors import ConfigurationError, not_allowed
from askonce.semantic import _guards
from askonce.semantic._embedder import check_embedder
from askonce.semantic._figures import Interval, wilson
from askonce.semantic._judges import Judgement, check_judge
from askonce.semantic._turn import find_turn
from askonce.semantic._vector import BadVector, unit

if TYPE_CHECKING:
    from askonce.semantic._embedder import Embedder
    from askonce.semantic._judges import Judge
    from askonce.semantic._vector import Vector

THRESHOLDS: Final = tuple(round(0.70 + 0.01 * step, 2) for step in range(31))
_FORM: Final = (
    '{"question": "...", "answer": "..."}, with a "partition" or a "vector" where there is one, or '
    '{"request": {...}, "answer": "..."} with the body of a chat request'
)
_NEIGHBOURS: Final = 32
_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A question that was asked, and what was answered. Its repr shows neither."""

    question: str = field(repr=False)
    answer: str = field(repr=False)
    partition: str = ""
    vector: tuple[float, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What one threshold would have done.

    Attributes:
        threshold: least similarity of a hit.
        requests: questions in the log.
        hits: those that would have been answered by an earlier one's answer.
        wrong: those whose own answer was another one, as the judge says.
    """

    threshold: float
    requests: int
    hits: int
    wrong: int

    @property
    def hit_rate(self) -> float:
        """Hits among all requests."""
        return self.hits / self.requests if self.requests else 0.0

    @property
    def error(self) -> Interval:
        """Wrong answers among all requests, with its interval."""
        return wilson(self.wrong, self.requests)

    @property
    def precision(self) -> Interval:
        """Right answers among hits, with its interval."""
        return wilson(self.hits - self.wrong, self.hits)


def read_log(path: str | Path) -> list[Logged]:
    """The questions in a JSONL file, in order.

    Raises:
        ConfigurationError: a line has not the form; says which and what is allowed.
        OSError: the file cannot be read.
    """
    found: list[Logged] = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.append(_logged(line, number))
    return found


def _logged(line: bytes, number: int) -> Logged:
    try:
        said: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"line {number} is not JSON; allowed: {_FORM}") from None
    if isinstance(said, dict):
        fields = cast("dict[str, Any]", said)
        question, answer, partition = (fields.get(name, "") for name in ("question", "answer", "partition"))
        request: Any = fields.get("request")
        if isinstance(request, dict):
            turn = find_turn("/chat/completions", cast("dict[str, Any]", request))
            if turn is not None:
                question = turn.text
                rest = orjson.dumps(turn.rest, option=orjson.OPT_SORT_KEYS)
                partition = f"{partition} {sha256(rest).hexdigest()}"
        vector = fields.get("vector")
        if all(isinstance(text, str) for text in (question, answer, partition)) and question and answer:
            numbers = _numbers(vector)
            if vector is None or numbers is not None:
                return Logged(question=question, answer=answer, partition=partition, vector=numbers)
    raise ConfigurationError(f"line {number} is no question with its answer; allowed: {_FORM}")


def _numbers(vector: Any) -> tuple[float, ...] | None:
    if not isinstance(vector, list):
        return None
    items = cast("list[Any]", vector)
    if not items or not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        return None
    return tuple(map(float, items))


def tune(
    log: Sequence[Logged],
    embedder: Embedder | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    judge: str | Judge | None = None,
    guards: bool | Iterable[str] = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tuned]:
    """Replay questions with every threshold, as a layer with an empty index would have met them.

    A question that would have been a hit is counted, and wrong when its own answer is another one than the
    one it would have been given. Others join the index. Exact repeats are no hits of the layer, and left out.

    Args:
        log: the questions, in the order in which they were asked.
        embedder: of the layer; None: every question has a vector.
        thresholds: to be tried.
        judge: as for `SemanticLayer`.
        guards: as for `SemanticLayer`.
        progress: told (done, total) while texts are embedded and compared.

    Raises:
        ConfigurationError: for a bad option, or a question without a vector where there is no embedder.
        Exception: whatever the embedder or the judge raises.
    """
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise not_allowed("thresholds", threshold, "numbers from 0 to 1")
    decide, on = check_judge(judge), _guards.checked_guards(guards)
    first = {(one.partition, one.question): number for number, one in reversed(list(enumerate(log)))}
    asked = [one for number, one in enumerate(log) if first[one.partition, one.question] == number]
    tell = progress or _nothing
    vectors = _vectors(asked, embedder, tell)
    near = _neighbours(asked, vectors, min(thresholds, default=1.0), on, tell)
    verdicts: dict[tuple[int, int], bool] = {}

    def right(number: int, other: int, similarity: float) -> bool:
        if (number, other) not in verdicts:
            verdicts[number, other] = decide(
                Judgement(
                    question=asked[number].question,
                    cached=asked[other].answer,
                    fresh=asked[number].answer,
                    similarity=similarity,
                    embed=_no_embedder if embedder is None else embedder.embed,
                )
            )
        return verdicts[number, other]

    found: list[Tuned] = []
    for threshold in thresholds:
        kept = [False] * len(asked)
        hits = wrong = 0
        for number, candidates in enumerate(near):
            for similarity, other in candidates:
                if similarity < threshold:
                    continue
                if kept[other]:
                    hits += 1
                    wrong += not right(number, other, similarity)
                    break
            else:
                kept[number] = True
        found.append(Tuned(threshold=threshold, requests=len(asked), hits=hits, wrong=wrong))
    return found


def _nothing(_done: int, _total: int) -> None:
    """What progress is where nobody watches."""


def _no_embedder(texts: list[str]) -> Any:  # noqa: ARG001 - as an embedder has it
    raise not_allowed("judge", "embedding", "with an embedder; the log's vectors are of questions alone")


def _vectors(
    asked: Sequence[Logged], embedder: Embedder | None, progress: Callable[[int, int], None]
) -> list[Vector]:
    if embedder is not None:
        check_embedder(embedder)
    found: list[Vector] = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        try:
            if embedder is None:
                rows: Any = [one.vector for one in batch]
            else:
                rows = embedder.embed([one.question for one in batch])
            found += [unit([row]) for row in rows]
        except BadVector as error:
            remedy = "give each line a vector" if embedder is None else "see what the embedder returns"
            raise ConfigurationError(
                f"a question of {start + 1} to {start + len(batch)} has no vector ({error}); {remedy}"
            ) from None
        progress(len(found), 2 * len(asked))
    if len({len(vector) for vector in found}) > 1:
        raise ConfigurationError(
            "the vectors have different numbers of dimensions; allowed: those of one model"
        )
    return found


def _neighbours(
    asked: Sequence[Logged],
    vectors: Sequence[Vector],
    least: float,
    on: frozenset[str],
    progress: Callable[[int, int], None],
) -> list[list[tuple[float, int]]]:
    """For each question the earlier ones of its partition that guards let pass, nearest first."""
    import numpy as np  # noqa: PLC0415 - loaded with the first vector

    groups: dict[str, list[int]] = {}
    for number, one in enumerate(asked):
        groups.setdefault(one.partition, []).append(number)
    found: list[list[tuple[float, int]]] = [[] for _ in asked]
    facts = [_facts(one) for one in asked]
    done = 0
    for members in groups.values():
        matrix = np.stack([vectors[number] for number in members])
        for place, number in enumerate(members):
            done += 1
            progress(len(asked) + done, 2 * len(asked))
            mine = facts[number]
            if mine is None or not place:
                continue
            scores = matrix[:place] @ matrix[place]
            for other in map(int, np.argsort(scores)[::-1]):
                similarity, theirs = float(scores[other]), facts[members[other]]
                if similarity < least or len(found[number]) >= _NEIGHBOURS:
                    break
                if theirs is not None and not _guards.veto(mine, theirs, on):
                    found[number].append((min(1.0, similarity), members[other]))
    return found


def _facts(one: Logged) -> bytes | None:
    try:
        return _guards.features(one.question, sha256(one.partition.encode()).digest())
    except _guards.TooLong:
        return None
