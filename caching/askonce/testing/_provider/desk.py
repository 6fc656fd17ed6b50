"""The provider's shared state: what was asked, what comes next, who is in flight. One lock."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from askonce.testing._provider.answers import Answer, Ask
from askonce.testing._provider.endpoints import answer, is_endpoint
from askonce.testing._provider.faults import WELL_BEHAVED, Fault, Script
from askonce.testing._provider.gate import Gate
from askonce.testing._provider.records import Call, RecordedRequest

Reply: TypeAlias = str | Callable[[RecordedRequest], str] | None
"""What answers say: a text, a function of the request, or None for the built-in text."""


class Desk:
    """Takes requests in, decides what happens to them and keeps the figures.

    Every change wakes whoever waits in `wait_until`.
    """

    def __init__(self, *, delay: float, chunk_delay: float, keep_requests: int | None) -> None:
        self.delay = delay
        self.chunk_delay = chunk_delay
        # Re-entrant, so that a condition given to `wait_until` may read the figures.
        self._changed = threading.Condition(threading.RLock())
        self._numbers = itertools.count(1)
        self._records: deque[RecordedRequest] = deque(maxlen=keep_requests)
        self._calls: Counter[str] = Counter()
        self._script = Script()
        self._gate = Gate()
        self._reply: Reply = None
        self._in_flight = 0
        self._max_in_flight = 0
        self._hangups = 0
        self._open_connections = 0
        self._connections = 0

    # -- steering ------------------------------------------------------------------------------

    def script(self, steps: tuple[Fault, ...]) -> None:
        with self._changed:
            self._script.extend(steps)

    def always(self, step: Fault) -> None:
        with self._changed:
            self._script.stand(step)

    def clear(self) -> None:
        with self._changed:
            self._script.clear()

    def reply(self, reply: Reply) -> None:
        with self._changed:
            self._reply = reply

    def hold(self, after: int | None) -> None:
        with self._changed:
            self._gate.hold(after)

    def release(self) -> None:
        with self._changed:
            self._gate.release()

    def reset(self) -> None:
        with self._changed:
            self._records.clear()
            self._calls.clear()
            self._script.clear()
            self._gate.release()
            self._reply = None
            self._max_in_flight = self._in_flight
            self._hangups = 0
            self._connections = self._open_connections
            self._changed.notify_all()

    # -- figures -------------------------------------------------------------------------------

    @property
    def calls(self) -> int:
        with self._changed:
            return self._calls.total()

    def calls_to(self, path_suffix: str) -> int:
        suffix = path_suffix.strip("/")
        with self._changed:
            if is_endpoint(suffix):
                return self._calls[suffix]
            return sum(count for name, count in self._calls.items() if name.endswith(suffix))

    @property
    def records(self) -> list[RecordedRequest]:
        with self._changed:
            return list(self._records)

    @property
    def pending_steps(self) -> int:
        with self._changed:
            return self._script.pending

    @property
    def in_flight(self) -> int:
        with self._changed:
            return self._in_flight

    @property
    def max_in_flight(self) -> int:
        with self._changed:
            return self._max_in_flight

    @property
    def hangups(self) -> int:
        with self._changed:
            return self._hangups

    @property
    def open_connections(self) -> int:
        with self._changed:
            return self._open_connections

    @property
    def connections(self) -> int:
        with self._changed:
            return self._connections

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    # -- the wire's side -----------------------------------------------------------------------

    def connected(self) -> None:
        """A client connected."""
        with self._changed:
            self._connections += 1
            self._open_connections += 1
            self._changed.notify_all()

    def disconnected(self) -> None:
        """A connection is closed, from whichever side."""
        with self._changed:
            self._open_connections -= 1
            self._changed.notify_all()

    def receive(
        self,
        *,
        method: str,
        path: str,
        query: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        endpoint: str,
    ) -> Call:
        """Record a request and draw its fault and its gate ticket, in one step.

        In one step, because a test that saw the call arrive may release the gate at once: a ticket
        drawn later would wait for the release after that.
        """
        record = RecordedRequest(
            method=method,
            path=path,
            query=query,
            headers=headers,
            body=body,
            time=time.time(),
            endpoint=endpoint,
        )
        counted = method == "POST" and endpoint != ""
        with self._changed:
            self._records.append(record)
            call = Call(
                record=record,
                number=next(self._numbers),
                fault=self._script.draw(endpoint) if counted else WELL_BEHAVED,
                ticket=self._gate.ticket(),
                counted=counted,
                in_flight=counted,
            )
            if counted:
                self._calls[endpoint] += 1
                self._in_flight += 1
                self._max_in_flight = max(self._max_in_flight, self._in_flight)
            self._changed.notify_all()
        return call

    def answer(self, call: Call) -> Answer:
        """The answer to a call, faults in its content included."""
        reply = self._reply if call.fault.reply is None else call.fault.reply
        text = reply(call.record) if callable(reply) else reply
        return answer(Ask(record=call.record, number=call.number, fault=call.fault, reply=text))

    def answered(self, call: Call) -> None:
        """The call is answered or given up. Counts once, however often it is told."""
        with self._changed:
            if call.in_flight:
                call.in_flight = False
                self._in_flight -= 1
                self._changed.notify_all()

    def hung_up(self, call: Call) -> None:
        """The client left before it had its whole answer."""
        with self._changed:
            self._hangups += call.counted
            self._changed.notify_all()
