"""Names that callers choose, as metric labels: few, and short."""

from __future__ import annotations

import threading
from typing import Final

from askonce._fork import renew_after_fork

OTHER: Final = "other"
_LONGEST: Final = 128


class Labels:
    """The first so many names stay themselves; later ones, and very long ones, are "other"."""

    __slots__ = ("__weakref__", "_known", "_lock", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """New lock in a forked child."""
        self._lock = threading.Lock()

    def known(self, name: str) -> str:
        """The label of a name, which takes no place by this."""
        return name if not name or name in self._known else OTHER

    def of(self, name: str) -> str:
        """The label of a name, which takes a place if there is one."""
        if not name or name in self._known:
            return name
        if len(name) > _LONGEST:
            return OTHER
        with self._lock:
            if len(self._known) < self._most:
                self._known.add(name)
        return self.known(name)
