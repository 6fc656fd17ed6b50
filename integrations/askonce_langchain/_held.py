"""Calls between their lookup and their update, and how one sees that the update will never come."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from askonce import Cache, Outcome
from askonce.doors import Step, Watch

_MOST_OPEN: Final = 256


@dataclass(slots=True, eq=False)
class Held:
    """A call between its lookup and its update.

    Attributes:
        cache: who has a part in it.
        step: that part.
        watch: what doors beneath do meanwhile.
        gone: whether LangChain's method is over; None: nobody can tell.
    """

    cache: Cache
    step: Step
    watch: Watch
    gone: Callable[[], bool] | None


class OpenCalls:
    """The open calls of one door, by who makes them: a thread's number, or a task."""

    def __init__(self) -> None:
        self._open: dict[Hashable, dict[tuple[str, str], Held]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def hold(
        self,
        who: Hashable,
        what: tuple[str, str],
        cache: Cache,
        step: Step,
        gone: Callable[[], bool] | None,
    ) -> None:
        """Keep a step until `take`, unless it is over."""
        if not step.is_open:
            return
        if len(self._open) > _MOST_OPEN:
            for other in list(self._open):
                self.sweep(other)
        self._open.setdefault(who, {})[what] = Held(cache, step, Watch(), gone)

    def take(self, who: Hashable, what: tuple[str, str]) -> Held | None:
        """The open call of this caller for this question, which is no longer kept."""
        mine = self._open.get(who)
        if mine is None:
            return None
        held = mine.pop(what, None)
        if not mine:
            self._open.pop(who, None)
        return held

    def sweep(self, who: Hashable) -> None:
        """Whatever this caller looked up before and has left is over: its model call failed."""
        mine = self._open.get(who)
        if mine is None:
            return
        for what, held in list(mine.items()):
            if held.gone is not None and held.gone():
                mine.pop(what, None)
                self.drop(held)
        if not mine:
            self._open.pop(who, None)

    def drop(self, held: Held | None) -> None:
        """No answer will come."""
        if held is not None:
            held.watch.stop()
            held.cache.abandon(held.step)


def beneath(outcomes: list[Outcome]) -> tuple[str, float | None]:
    """Key and age of what a door beneath has answered or stored meanwhile; an empty key for nothing."""
    for outcome in reversed(outcomes):
        if outcome.surface == "langchain" or not outcome.key:
            continue  # of this door: another prompt of the same call
        if outcome.age is not None or outcome.stored:
            return outcome.key, outcome.age
    return "", None


def left(thread: int, frame: FrameType | None) -> Callable[[], bool] | None:
    """Whether LangChain's method is no longer among what a thread runs."""
    if frame is None:  # called by hand: nobody knows whether an update will follow
        return None

    def gone() -> bool:
        running = sys._current_frames().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - made for this
        while running is not None:
            if running is frame:
                return False
            running = running.f_back
        return True

    return gone


def finished(task: asyncio.Task[Any] | None, frame: FrameType | None) -> Callable[[], bool] | None:
    """Whether LangChain's method is no longer among what a task awaits."""
    if task is None or frame is None:
        return None

    def gone() -> bool:
        if task.done():
            return True
        awaited: Any = task.get_coro()
        while awaited is not None:
            if getattr(awaited, "cr_frame", None) is frame or getattr(awaited, "cr_running", False):
                return False
            awaited = getattr(awaited, "cr_await", None)
        return True

    return gone
