"""One link to a Redis for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from askonce._fork import renew_after_fork


class Link(Protocol):
    """A connection, or several."""

    async def close(self) -> None: ...


L = TypeVar("L", bound=Link)


class Loops(Generic[L]):
    """One link per event loop. Links of loops that are over are forgotten.

    An asyncio connection works on the loop, and in the process, that made it, and nowhere else: used
    elsewhere it gives wrong answers.

    Args:
        make: makes a link for the running loop.
    """

    def __init__(self, make: Callable[[], L]) -> None:
        self._make = make
        self._links: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[L, Any]] = WeakKeyDictionary()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's loops do not run in a forked child."""
        # Kept, and never closed here: closing a transport in the child takes its socket out of the
        # poll set, which is one and the same with the parent's.
        _abandoned.append(self._links)
        self._links = WeakKeyDictionary()

    async def link(self) -> L:
        """The running loop's link."""
        loop = asyncio.get_running_loop()
        known = self._links.get(loop)
        if known is not None:
            return known[0]
        for other in [*self._links]:
            if other.is_closed():
                del self._links[other]
        link = self._make()
        farewell = _farewell(link)
        self._links[loop] = (link, farewell)
        await anext(farewell)
        return link

    async def close(self) -> None:
        """Close the running loop's link."""
        known = self._links.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].aclose()


_abandoned: list[Any] = []


async def _farewell(link: Link) -> AsyncGenerator[None]:
    """Closes a link with its loop.

    `asyncio.run` finishes the asynchronous generators that are still open before it closes the loop
    (`loop.shutdown_asyncgens`): the one moment at which connections can still say goodbye by themselves.
    """
    try:
        yield
    finally:
        await link.close()
