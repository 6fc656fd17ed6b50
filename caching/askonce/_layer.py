"""What the flow asks of a layer: a further look after an exact miss, before the provider is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from askonce._call import Call, Found
from askonce._entry import Entry

if TYPE_CHECKING:
    from askonce.semantic import Index, SemanticFigures

Read = Callable[[Call, str], Awaitable[Found | None]]
"""Reads the stored answer under a key that this call may be given, fresh or stale."""


class Similar(NamedTuple):
    """An answer to another question that means the same.

    Attributes:
        found: the answer.
        key: whose answer it is.
        similarity: of the two questions, at most 1.
    """

    found: Found
    key: str
    similarity: float


class Layer(Protocol):
    """Consulted after an exact miss. Raises nothing but what its own caller's cancellation brings."""

    async def consult(self, call: Call, read: Read) -> Similar | None:
        """A fresh answer that may be given to this call; None when there is none."""
        ...

    def accepts(self, call: Call, similar: Similar) -> bool:
        """Whether this caller may be given what another caller of the same question was given."""
        ...

    def mark(self, call: Call) -> str:
        """What the entry of this call's answer is marked with, so that an index can be checked against it."""
        ...

    async def remember(self, call: Call, entry: Entry) -> None:
        """The answer to this call was stored: from now on it may answer others."""
        ...

    def prefixes(self, namespace: str) -> tuple[str, ...]:
        """What the keys begin with that it keeps in the store, besides the entries of a namespace."""
        ...

    def keeper(self) -> Index | None:
        """The index, where it keeps its rows itself; None: they are kept in the store."""
        ...

    def reread(self) -> None:
        """The rows in the store were changed by somebody else: look at them anew."""
        ...

    def figures(self) -> list[SemanticFigures]:
        """What it did so far: all together first, then by partition and model."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
