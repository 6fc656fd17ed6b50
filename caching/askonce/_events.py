"""Who listens to events (see `askonce.events`), and warnings: never with a prompt in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    import logging

    from askonce.events import Event

_INTERVAL: Final = 60.0
FAULT: Final = "internal error"
"""The reason of an outcome where the fault is ours."""


Listener: TypeAlias = "Callable[[Event], None]"


class Events:
    """The listeners of one cache. A listener that fails is warned about and stays."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    @property
    def wanted(self) -> bool:
        """False when nobody listens: nothing needs to be built."""
        return bool(self._listeners)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(event)` called for every event, in the calling thread; returns the way out."""
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not listener)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - a broken listener must not break a call
                warn("events", "an event listener raised %s", type(error).__name__)


_last: dict[tuple[str, str, tuple[object, ...]], float] = {}
_lock = threading.Lock()


def warn(part: str, message: str, *details: object) -> None:
    """Log a warning on `askonce.<part>`, the same one at most once a minute."""
    _say("warning", part, message, details)


def fault(what: str, error: Exception) -> None:
    """Warn that something of ours failed which never should.

    Says where, and not what the exception says: a prompt may stand in that.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
    warn("flow", "%s: %s%s. Please report it; calls go on", what, type(error).__name__, where)


def inform(part: str, message: str, *details: object) -> None:
    """`warn`, for good news: at level INFO."""
    _say("info", part, message, details)


def _say(level: Literal["info", "warning"], part: str, message: str, details: tuple[object, ...]) -> None:
    said = (part, message, details)
    now = time.monotonic()
    # No blocking: a warning is not worth waiting for, nor a lock inherited through fork.
    if not _lock.acquire(blocking=False):
        return
    try:
        if now - _last.get(said, -_INTERVAL) < _INTERVAL:
            return
        if len(_last) > 1000:  # noqa: PLR2004 - bounded, whatever the details are
            _last.clear()
        _last[said] = now
    finally:
        _lock.release()
    getattr(logger(part), level)(message, *details)


def logger(part: str) -> logging.Logger:
    """`askonce.<part>`. Silent unless the program sets up logging: the family's root has a NullHandler."""
    import logging  # noqa: PLC0415 - most programs never need it from us

    family = logging.getLogger("askonce")
    if not family.handlers:
        family.addHandler(logging.NullHandler())
    return logging.getLogger(f"askonce.{part}")
