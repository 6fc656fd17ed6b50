"""The chunks of a shared stream that somebody still needs."""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol


class Pending(Enum):
    """The type of PENDING."""

    PENDING = "the next chunk is not here yet"


PENDING: Final = Pending.PENDING


class StreamBroken(Exception):
    """The stream somebody else leads ended before its end; what was read is not the whole answer.

    Attributes:
        cause: the provider's error as the leader saw it; None when the stream just stopped.
    """

    def __init__(self, cause: BaseException | None) -> None:
        super().__init__("the shared stream ended early")
        self.cause = cause


class Place(Protocol):
    """What a stream knows of a reader: see `askonce._reader`.

    Attributes:
        leads: True for the caller whose provider call it is: it sees the provider's own errors.
        position: number of chunks it has had.
    """

    leads: bool
    position: int


class Buffer:
    """Chunks and who has read how far. Not locked: its stream is.

    While the stream is recorded, everything is kept, so that newcomers get all of it. Once it is not,
    only what present readers need is kept, and of that at most `limit` bytes.

    Attributes:
        readers: who reads now.
        base: number of chunks before the first one kept.
    """

    __slots__ = ("_chunks", "_limit", "base", "readers")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self._limit = limit
        self.base = 0
        self.readers: list[Place] = []

    def append(self, chunk: bytes) -> None:
        """A chunk came."""
        self._chunks.append(chunk)

    def has_for(self, reader: Place) -> bool:
        """Whether the reader's next chunk is here."""
        return reader.position - self.base < len(self._chunks)

    def take(self, reader: Place) -> bytes | Pending:
        """The reader's next chunk, or PENDING.

        Raises:
            StreamBroken: when it was given up.
        """
        position = reader.position - self.base
        if position < 0:
            raise StreamBroken(None)
        if position >= len(self._chunks):
            return PENDING
        reader.position += 1
        return self._chunks[position]

    def trim(self) -> None:
        """Drop what nobody needs, and who lags behind by more than the limit; never the leader."""
        positions = [reader.position - self.base for reader in self.readers]
        drop = max(0, min(positions, default=len(self._chunks)))
        behind = self._chunks[drop : min([max(positions, default=0), *self._leaders()])]
        lag = sum(map(len, behind))
        for chunk in behind:
            if lag <= self._limit:
                break
            lag -= len(chunk)
            drop += 1
        del self._chunks[:drop]
        self.base += drop

    def leader_lags(self) -> bool:
        """Whether the leader is so far behind that others may not read on: it needs all that comes."""
        leaders = self._leaders()
        return bool(leaders) and sum(map(len, self._chunks[leaders[0] :])) > self._limit

    def _leaders(self) -> list[int]:
        return [reader.position - self.base for reader in self.readers if reader.leads]
