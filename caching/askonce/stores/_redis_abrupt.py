"""TLS connections of asyncio that close at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class _Connection:
        """What redis-py's asyncio connections have, so far as it matters here."""

        _writer: Any

        async def disconnect(self, *args: Any, **options: Any) -> None: ...

else:
    _Connection = object


class _Abrupt(_Connection):
    """Comes before a connection class of redis-py.

    TLS says goodbye and waits for the other side's. From a side that is silent none comes, and with the
    end of the loop the socket would stay open for good.
    """

    async def disconnect(self, *args: Any, **options: Any) -> None:
        writer = self._writer
        if writer is not None:
            writer.transport.abort()
        await super().disconnect(*args, **options)


def abrupt(kind: Any) -> Any:
    """The connection class, made to close like that."""
    return type(f"Abrupt{kind.__name__}", (_Abrupt, kind), {})
