"""Tasks on an event loop that may end before they have begun."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task


def begin_task(
    loop: AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None]], held: set[Task[None]]
) -> Task[None]:
    """Run `work()` in a task of `loop`, from that loop; `held` keeps it, because loops hold tasks weakly.

    When the loop ends before the task's first step, nothing was made that could be left over.
    """
    task = loop.create_task(_Late(work))
    held.add(task)
    task.add_done_callback(held.discard)
    return task


class _Late(Coroutine[Any, Any, None]):
    """A coroutine that is made at its first step.

    CPython warns of a coroutine that was never awaited; a stream that is closed while its loop ends
    would give its user that warning, about code that is not theirs.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._make = make
        self._made: Coroutine[Any, Any, None] | None = None

    def send(self, value: Any, /) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made.send(value)

    def throw(self, *error: Any) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made.throw(*error)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._make().__await__()
