"""What the layer knows of one call, before it looks for anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from askonce._call import Call
from askonce._control import NOT_AT_ALL
from askonce._decision import Settings
from askonce._layer import Similar
from askonce.semantic import _guards
from askonce.semantic._inside import is_inside
from askonce.semantic._turn import Question, find_turn, question_of

if TYPE_CHECKING:
    from askonce.semantic._layer import Options
    from askonce.semantic._vector import Vector

_HALF: Final = 32


@dataclass(slots=True, eq=False)
class Notes:
    """What is known of one call.

    Attributes:
        question: its partition and text.
        facts: what guards compare.
        owner: who shares its answers, as a digest.
        vector: of the text.
        tried: the embedder was asked, with whatever success.
        neighbour: whose answer was there when the provider was asked all the same.
        would_serve: it would have been given, had this not been a sample.
    """

    question: Question
    facts: bytes
    owner: str
    vector: Vector | None = field(default=None, repr=False)
    tried: bool = False
    neighbour: Similar | None = None
    would_serve: bool = False


class Scribe:
    """Takes notes; what keeps the layer out of a call is counted.

    Args:
        options: of the layer.
        embedder: its name: another one's vectors never meet.
        settings: of the cache.
        count: is told why a call has none.
    """

    def __init__(
        self, options: Options, embedder: str, settings: Settings, count: Callable[[str], None]
    ) -> None:
        self._options = options
        self._also: tuple[str, ...] = (embedder,)
        self._settings = settings
        self._count = count

    def notes(self, call: Call) -> Notes | None:
        """None when the layer stays out."""
        if call.decision.semantic == NOT_AT_ALL or is_inside():
            return None
        body = call.body
        turn = find_turn(call.request.target.path, body.fields) if body.kind == "json" else None
        if turn is None:
            self._count("no user turn")
            return None
        most = self._options.max_turns
        if most is not None and turn.turns > most:
            self._count("too many turns")
            return None
        also = self._also
        partition = self._options.partition
        if partition is not None:
            try:
                named: object = partition(call.request)
            except Exception as error:  # noqa: BLE001 - the user's function
                self._count(f"partition: {type(error).__name__}")
                return None
            if not isinstance(named, str):
                self._count("partition: no text")
                return None
            also = (*also, named)
        question = question_of(turn, call.request, call.decision, self._settings, also)
        try:
            facts = _guards.features(turn.text, bytes.fromhex(question.partition))
        except _guards.TooLong:
            self._count("too long")
            return None
        return Notes(question, facts, owner_of(call.decision.scope))


def owner_of(scope: str) -> str:
    """Who shares the answers of a scope, as a digest."""
    return sha256(scope.encode("utf-8", "surrogatepass")).hexdigest()[:_HALF]
