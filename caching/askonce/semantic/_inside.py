"""Whether the current code runs for a layer: what an embedder or a judge asks is answered by exact means."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from askonce._track import untracked

_inside: ContextVar[bool] = ContextVar("askonce_inside_layer", default=False)


def is_inside() -> bool:
    """True in calls that an embedder or a judge makes."""
    return _inside.get()


@contextmanager
def inside() -> Generator[None]:
    """Mark what runs in the block, and the tasks that it starts. No `track()` block is told of it."""
    before = _inside.get()
    _inside.set(True)
    try:
        with untracked():
            yield
    finally:
        _inside.set(before)  # no token: a forgotten coroutine is closed in whatever context
