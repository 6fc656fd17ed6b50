"""What happened to one call, and who is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Status: TypeAlias = Literal["hit", "stale", "semantic", "coalesced", "miss", "bypass", "error"]

SERVED: Final = frozenset({"hit", "stale", "semantic", "coalesced"})
"""The statuses of answers that cost no provider call of their own."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened to one call.

    Attributes:
        status: "hit" (fresh from a store), "stale" (past its life, inside a stale window),
            "coalesced" (shared another caller's provider call), "semantic", "miss" (asked the
            provider), "bypass" (not cacheable: asked the provider, untouched), "error" (asked the
            provider in vain, or an offline miss).
        reason: why, in a word or two: "fresh", "not stored", "expired", "mode off", ...
        key: `namespace:digest`; "" for a bypass that never had one.
        age: seconds since the answer was created; None where there was none.
        ttl: seconds it stays fresh from now; negative when stale; None: for ever, or no answer.
        tier: the store that answered: "memory", "disk", ...; "" otherwise.
        similarity: of a semantic hit; None otherwise.
        model: the model asked for.
        surface: kind of endpoint, such as "chat".
        usage: the provider's usage figures of the answer: spent on a miss, saved on a hit.
        seconds: time of the call inside askonce, until the caller had its answer (for a stream: its
            headers), the provider's time included.
        saved: seconds the original call took, on an answer that cost none; 0.0 otherwise.
        stored: whether the answer was stored. None while a stream is still running.
        not_stored: why it was not; "" when it was, or when there was nothing to store.
    """

    status: Status
    reason: str
    key: str = ""
    age: float | None = None
    ttl: float | None = None
    tier: str = ""
    similarity: float | None = None
    model: str = ""
    surface: str = ""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    saved: float = 0.0
    stored: bool | None = False
    not_stored: str = ""

    @property
    def served(self) -> bool:
        """True when this call cost no provider call of its own."""
        return self.status in SERVED


class _Tracker:
    __slots__ = ("open", "outcomes")

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.open = True


_trackers: ContextVar[tuple[_Tracker, ...] | None] = ContextVar("askonce_trackers", default=None)
_INHERITED: Final = "_askonce_trackers"


def note(outcome: Outcome) -> None:
    """Hand an outcome to every `track()` block that the current code runs in."""
    for tracker in _active():
        if tracker.open:
            tracker.outcomes.append(outcome)  # one bytecode: atomic


def _active() -> tuple[_Tracker, ...]:
    found = _trackers.get()
    if found is None and _threads.hooked:
        found = getattr(threading.current_thread(), _INHERITED, None)
    return found or ()


@contextmanager
def track() -> Generator[list[Outcome]]:
    """Collect the Outcome of every call inside the block, in order.

    Calls of tasks and threads *started inside* count, also through frameworks; calls of other
    requests that run at the same time do not. Outcomes of streams are there when the stream starts
    and complete (`stored`, `usage`) when it ends.

    Yields:
        The list, which grows while the block runs and stays afterwards.
    """
    tracker = _Tracker()
    token = _trackers.set((*_active(), tracker))
    _threads.hook()
    try:
        yield tracker.outcomes
    finally:
        tracker.open = False
        _threads.unhook()
        _trackers.reset(token)


class _ThreadLineage:
    """Lets threads started inside a `track()` block know it: threads do not inherit context variables.

    While at least one block is open, `threading.Thread.start` notes the starter's trackers on the new
    thread. The last block that closes puts the original back, unless somebody wrapped it since.
    """

    def __init__(self) -> None:
        self.hooked = False
        self._blocks = 0
        self._lock = threading.RLock()
        self._original: Callable[..., Any] | None = None
        self._ours: Callable[..., Any] | None = None

    def hook(self) -> None:
        with self._lock:
            self._blocks += 1
            if self.hooked:
                return
            self._original = original = threading.Thread.start

            def start(thread: threading.Thread) -> None:
                inherited = _active()
                if inherited:
                    setattr(thread, _INHERITED, inherited)
                original(thread)

            self._ours = start
            setattr(threading.Thread, "start", start)  # noqa: B010 - a patch, said aloud
            self.hooked = True

    def unhook(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0 and threading.Thread.start is self._ours and self._original is not None:
                setattr(threading.Thread, "start", self._original)  # noqa: B010
                self.hooked = False

    def after_fork(self) -> None:
        self._lock = threading.RLock()


_threads = _ThreadLineage()
