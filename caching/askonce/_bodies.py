"""Response bodies of httpx and httpx2 that are read through a Reader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from askonce._buffer import StreamBroken
from askonce._reader import Reader


def _translated(package: Any, error: Exception, request: Any) -> Exception:
    """The error that this family's own client would raise."""
    if isinstance(error, TimeoutError):
        stalled: Exception = package.ReadTimeout("the shared stream stalled", request=request)
        return stalled
    cause = error.cause if isinstance(error, StreamBroken) else error
    kind = getattr(package, type(cause).__name__, None)
    if not (isinstance(kind, type) and issubclass(kind, package.TransportError)):
        kind = package.ReadError
    broken: Exception = kind(str(cause or "the shared stream ended early"), request=request)
    return broken


def body_classes(package: Any) -> tuple[Any, Any]:
    """Response bodies for one family. One class per family: an object of both is refused by some SDKs."""
    sync_base: Any = package.SyncByteStream
    async_base: Any = package.AsyncByteStream

    class SyncBody(sync_base):  # type: ignore[misc]
        """A body read through a Reader."""

        def __init__(self, reader: Reader, inner: Any, patience: float | None, request: Any) -> None:
            self._reader = reader
            self._inner = inner
            self._patience = patience
            self._request = request

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        def __iter__(self) -> Iterator[bytes]:
            while True:
                try:
                    chunk = self._reader.read(self._patience)
                except (StreamBroken, TimeoutError) as error:
                    raise _translated(package, error, self._request) from error
                if chunk is None:
                    return
                yield chunk

        def close(self) -> None:
            self._reader.close()

    class AsyncBody(async_base):  # type: ignore[misc]
        """A body read through a Reader, for event loops."""

        def __init__(self, reader: Reader, inner: Any, patience: float | None, request: Any) -> None:
            self._reader = reader
            self._inner = inner
            self._patience = patience
            self._request = request

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                try:
                    chunk = await self._reader.aread(self._patience)
                except (StreamBroken, TimeoutError) as error:
                    raise _translated(package, error, self._request) from error
                if chunk is None:
                    return
                yield chunk

        async def aclose(self) -> None:
            await self._reader.aclose()

    return SyncBody, AsyncBody
