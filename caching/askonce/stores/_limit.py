"""A time-out for tasks that knows how much of the time was the event loop's fault.

A loop that is busy with something else reads an answer late and lets timers fire late. Seen from inside,
every store it talks to looks dead. So while an operation runs, a timer beats; what it comes late was
nobody's time but the loop's.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final

from askonce._errors import StoreError

if TYPE_CHECKING:
    from asyncio import TimerHandle

_BEAT: Final = 0.05


class Limit:
    """Ends what runs in its block after `seconds`, with TimeoutError. For one use, inside a task.

    Attributes:
        lag: seconds that the event loop was away, so far as they cost this block something.
    """

    __slots__ = ("_beat", "_due", "_every", "_loop", "_task", "_timeout", "lag")

    def __init__(self, seconds: float) -> None:
        import asyncio  # noqa: PLC0415 - whoever awaits has it

        self.lag = 0.0
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timeout = asyncio.timeout(seconds)
        self._every = min(_BEAT, seconds / 4)
        self._beat: TimerHandle | None = None
        self._due = 0.0

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio  # noqa: PLC0415

        if self._beat is not None:
            self._beat.cancel()
        self._measure()
        await self._timeout.__aexit__(kind, error, trace)
        if kind is asyncio.CancelledError and self._task is not None and not self._task.cancelling():
            # Nobody cancelled this task: something inside the store was, such as a closed connection's wait.
            raise StoreError("the operation was cancelled from within") from error

    def _wait(self) -> None:
        self._due = self._loop.time() + self._every
        self._beat = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._measure()
        self._wait()

    def _measure(self) -> None:
        self.lag += max(0.0, self._loop.time() - self._due)
