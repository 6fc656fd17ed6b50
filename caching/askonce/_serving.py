"""Which cache answers now: the one that a door was given, or that of an open replay block.

A replay block stands in for the providers of the whole process: every door asks here before each call, and
the doors that can serve all clients of their SDK are opened while a block is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, overload

from askonce._outcome import Outcome
from askonce._track import is_tracked_by

if TYPE_CHECKING:
    from askonce._cache import Cache

Opener: TypeAlias = "Callable[[Cache], Callable[[], None]]"
"""Puts a cache under every client of an SDK; returns what takes it away again."""

_GROUP: Final = "askonce.doors"
_Block: TypeAlias = "tuple[Cache, list[Outcome]]"

_blocks: tuple[_Block, ...] = tuple[_Block]()
_openers: dict[str, Opener] = {}
_lock = threading.Lock()


@overload
def serving(cache: Cache) -> Cache: ...
@overload
def serving(cache: None) -> Cache | None: ...
@overload
def serving(cache: Cache | None) -> Cache | None: ...
def serving(cache: Cache | None) -> Cache | None:
    """The cache that answers in place of a door's own: that of the innermost open replay block, if any.

    Blocks that are open at one time are told apart by who asks: the tasks and threads started inside. Code
    that was running before belongs to the block opened last.
    """
    blocks = _blocks
    for replaying, outcomes in reversed(blocks):
        if len(blocks) == 1 or is_tracked_by(outcomes):
            return replaying
    return blocks[-1][0] if blocks else cache


def register_door(name: str, opener: Opener) -> None:
    """Have a door opened with every replay block. Called when the door is imported."""
    _openers[name] = opener


@contextmanager
def standing_in(cache: Cache, outcomes: list[Outcome]) -> Generator[None]:
    """Have a cache answer at every door, in the `track()` block that yielded these outcomes."""
    global _blocks  # noqa: PLW0603 - of the process, like the classes that doors patch
    _find_doors()
    block = (cache, outcomes)
    with ExitStack() as closing:
        for opener in list(_openers.values()):
            closing.callback(opener(cache))
        with _lock:
            _blocks = (*_blocks, block)
        try:
            yield
        finally:
            with _lock:
                _blocks = tuple(one for one in _blocks if one is not block)


@lru_cache(maxsize=1)
def _find_doors() -> None:
    """Import the doors that are installed. None of them loads its SDK by that."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - only for those who replay

    for door in entry_points(group=_GROUP):
        door.load()
