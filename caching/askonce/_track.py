"""`track()`: collect the outcomes of a block's calls, wherever in the block they are made."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NamedTuple

from askonce._fork import renew_after_fork
from askonce._outcome import Outcome


class _Tracker:
    __slots__ = ("open", "outcomes")

    def __init__(self, outcomes: list[Outcome] | deque[Outcome]) -> None:
        self.outcomes = outcomes
        self.open = True


_trackers: ContextVar[tuple[_Tracker, ...] | None] = ContextVar("askonce_trackers", default=None)
_INHERITED: Final = "_askonce_trackers"
_WATCHED: Final = 64


def note(outcome: Outcome) -> None:
    """Hand an outcome to every `track()` block that the current code runs in."""
    for tracker in _active():
        if tracker.open:
            tracker.outcomes.append(outcome)  # one bytecode: atomic


@contextmanager
def untracked() -> Generator[None]:
    """Tell no `track()` block of the calls inside: they are nobody's but ours."""
    before = _trackers.get()
    _trackers.set(())
    try:
        yield
    finally:
        _trackers.set(before)  # no token: a forgotten coroutine is closed in whatever context


def _active() -> tuple[_Tracker, ...]:
    found = _trackers.get()
    if found is None and _lineage.hooked:
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
    outcomes: list[Outcome] = []
    tracker = _Tracker(outcomes)
    _trackers.set((*_active(), tracker))
    _lineage.hook()
    try:
        yield outcomes
    finally:
        tracker.open = False
        _lineage.unhook()
        # No token: a block may end in another context than it began in, as those of fixtures do.
        _trackers.set(tuple(one for one in _active() if one is not tracker))


def is_tracked_by(outcomes: list[Outcome]) -> bool:
    """Whether the current code runs in the `track()` block that yielded this list."""
    return any(tracker.outcomes is outcomes for tracker in _active())


class Watch:
    """Collects the last outcomes of calls made in this context from now on; a `track()` without a block.

    For those who are called twice and see nothing in between. One that is never stopped costs little: it
    keeps the last 64.
    """

    __slots__ = ("_tracker",)

    def __init__(self) -> None:
        self._tracker = _Tracker(deque(maxlen=_WATCHED))
        _trackers.set((*(one for one in _active() if one.open), self._tracker))

    def stop(self) -> list[Outcome]:
        """The outcomes so far; no more come."""
        self._tracker.open = False
        _trackers.set(tuple(one for one in _active() if one is not self._tracker))
        return list(self._tracker.outcomes)


class _Lineage:
    """Lets threads and pool work started inside a `track()` block know it.

    Tasks inherit context variables; threads and the work handed to thread pools do not. So while at
    least one block is open, `Thread.start` notes the starter's trackers on the new thread, and
    `ThreadPoolExecutor.submit` has its work run with the submitter's. A pool's own threads inherit
    nothing: they serve whoever submits next. The last block that closes puts the originals back, unless
    somebody wrapped them since.
    """

    def __init__(self) -> None:
        self.hooked = False
        self._blocks = 0
        self._lock = threading.RLock()
        self._patches: list[_Patched] = []
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.RLock()

    def hook(self) -> None:
        """A block opens."""
        with self._lock:
            self._blocks += 1
            if self.hooked:
                return
            from concurrent.futures import thread as pools  # noqa: PLC0415 - only for those who track

            worker: object = getattr(pools, "_worker", None)
            self._patch(threading.Thread, "start", partial(_starting, worker))
            self._patch(pools.ThreadPoolExecutor, "submit", _submitting)
            self.hooked = True

    def unhook(self) -> None:
        """A block closes."""
        with self._lock:
            self._blocks -= 1
            if self._blocks:
                return
            kept: list[_Patched] = []
            for patched in self._patches:
                if _own(patched.owner, patched.name) is patched.ours:
                    setattr(patched.owner, patched.name, patched.original)
                else:
                    kept.append(patched)  # somebody wrapped on top; ours stays beneath, idle
            self._patches = kept
            self.hooked = False

    def _patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        present = _own(owner, name)
        for patched in self._patches:
            if (patched.owner, patched.name) == (owner, name):
                if present is not patched.original:
                    return  # ours is still there, on top or beneath
                self._patches.remove(patched)
                break
        ours = make(present)
        setattr(owner, name, ours)
        self._patches.append(_Patched(owner, name, present, ours))


def _own(owner: Any, name: str) -> Any:
    """A class's own attribute, as it stands there."""
    attributes: Mapping[str, Any] = owner.__dict__
    return attributes[name]


class _Patched(NamedTuple):
    """A method that leads through us."""

    owner: Any
    name: str
    original: Any
    ours: Any


def _starting(worker: object, original: Callable[..., None]) -> Callable[..., None]:
    def start(thread: threading.Thread) -> None:
        inherited = _active()
        if inherited and getattr(thread, "_target", None) is not worker:
            setattr(thread, _INHERITED, inherited)
        original(thread)

    return start


def _submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(pool: Any, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(pool, partial(_run_with, _active(), work), *args, **kwargs)

    return submit


def _run_with(trackers: tuple[_Tracker, ...], work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = _trackers.set(trackers)
    try:
        return work(*args, **kwargs)
    finally:
        _trackers.reset(token)


_lineage = _Lineage()
