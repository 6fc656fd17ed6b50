"""What reached the provider, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from askonce.testing._provider.faults import Fault
    from askonce.testing._provider.gate import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One HTTP request, as it came over the wire.

    The repr shows neither headers, query nor body: a failing test prints it, and prompts and keys
    have no place in a test log.

    Attributes:
        method: upper case, such as "POST".
        path: the path without the query, as sent.
        query: the raw query string without "?"; empty when there was none.
        headers: name and value pairs in order; names in lower case.
        body: the body's bytes, out of any chunked framing.
        time: seconds since the epoch at which the body was complete.
        endpoint: which endpoint the path means, such as "chat/completions"; empty: none.
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    time: float
    endpoint: str

    def header(self, name: str) -> str | None:
        """The first value of a header, by name in any case; None when it was not sent."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is none."""
        return orjson.loads(self.body)


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One request on its way to an answer.

    Attributes:
        record: what was asked.
        number: counts every request of a provider's life, from 1; what makes each answer fresh.
        fault: the behaviour that this call drew.
        ticket: what the gate said when the call came in.
        counted: it is a call to an endpoint, and so part of the provider's figures.
        in_flight: it is not completely answered yet.
    """

    record: RecordedRequest
    number: int
    fault: Fault
    ticket: Ticket
    counted: bool
    in_flight: bool = True
