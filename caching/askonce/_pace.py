"""Stored streams at the pace of a reader: event by event instead of all at once."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import Any, Final

# An event or a line with all that ends it; the last one may lack its end.
_EVENT: Final = re.compile(rb".+?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)
_LINE: Final = re.compile(rb".+?(?:\n|\Z)", re.DOTALL)


def parts(body: bytes, *, lines: bool) -> list[bytes]:
    """What a stream is made of: its events, or its lines. Nothing is lost between them."""
    found: list[bytes] = (_LINE if lines else _EVENT).findall(body)
    return found


@lru_cache(maxsize=4)
def paced_class(package: Any) -> Any:
    """A response body of one package, for threads and for event loops."""
    base: Any = package.ByteStream

    class Paced(base):  # type: ignore[misc]
        """A body that takes its time."""

        def __init__(self, pieces: list[bytes], seconds: float) -> None:
            self._pieces = pieces
            self._seconds = seconds

        def __iter__(self) -> Iterator[bytes]:
            for number, piece in enumerate(self._pieces):
                if number:
                    time.sleep(self._seconds)
                yield piece

        async def __aiter__(self) -> AsyncIterator[bytes]:
            import asyncio  # noqa: PLC0415 - whoever awaits has it

            for number, piece in enumerate(self._pieces):
                if number:
                    await asyncio.sleep(self._seconds)
                yield piece

    return Paced
