"""After `fork` the child has the parent's locks as they happened to be: held for ever, maybe.

Whatever owns a lock, a thread pool or a connection registers here and is told in the child, before
any other code of the child runs, to make new ones.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must renew its locks and handles in a forked child."""

    def after_fork(self) -> None:
        """Called in the child, in its only thread. Must not raise or block."""
        ...


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()


def renew_after_fork(owner: Forkable) -> None:
    """Have `owner.after_fork()` called in every forked child, for as long as `owner` lives."""
    _registered.add(owner)


def _in_child() -> None:
    for owner in list(_registered):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
