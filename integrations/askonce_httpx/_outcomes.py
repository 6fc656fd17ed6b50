"""What an answer or an error says about a deployment."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

from askonce.prefix import Pick

UNABLE: Final = frozenset({429, 500, 502, 503, 529})
"""Statuses by which a deployment says that it cannot answer now; another one may."""
_LONGEST: Final = 3600.0  # seconds; no header leaves a deployment alone for longer
_LARGEST: Final = 65536  # bytes of an error that are kept while another deployment is asked


class Outcome(NamedTuple):
    """What came of asking one deployment.

    Attributes:
        response: what it answered; None when nothing came.
        error: why nothing came.
        elsewhere: nothing was done there: another deployment may be asked.
    """

    response: Any
    error: Exception | None
    elsewhere: bool


def unreached(package: Any, error: BaseException) -> bool:
    """No connection: the provider has seen nothing of the request."""
    return isinstance(error, (package.ConnectError, package.ConnectTimeout))


def blame(package: Any, pick: Pick, error: BaseException) -> None:
    """The call is over. Its error counts against the deployment unless it is the client's own doing."""
    own = (package.PoolTimeout, package.LocalProtocolError, package.UnsupportedProtocol, package.ProxyError)
    if isinstance(error, package.TransportError) and not isinstance(error, own):
        pick.failed()
    else:
        pick.left()


def pause_of(response: Any) -> float:
    """Seconds for which an answer says not to ask again; 0.0 where it says nothing that can be read.

    RFC 9110 section 10.2.3: Retry-After is a number of seconds, or a date.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = response.headers.get(name, "")
        try:
            seconds = float(said) * unit
        except ValueError:
            seconds = _seconds_to(said, response.headers.get("date", ""))
        if isfinite(seconds) and seconds > 0:
            return min(seconds, _LONGEST)
    return 0.0


def _seconds_to(date: str, now: str) -> float:
    """From one HTTP date to another: by the clock of the host that said both, where it said both."""
    then = _timestamp(date)
    if then is None:
        return 0.0
    said = _timestamp(now)
    return then - (time.time() if said is None else said)


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):  # a header may say anything; a call goes on
        return None


def kept(package: Any, response: Any, pieces: list[bytes]) -> Any:
    """An answer of which all was read, as if it had just come."""
    return package.Response(
        response.status_code,
        headers=response.headers.raw,
        stream=package.ByteStream(b"".join(pieces)),
        extensions={name: value for name, value in response.extensions.items() if name != "network_stream"},
    )


def keep(package: Any, response: Any) -> Any:
    """Read a small answer and free its connection; None for one that is large, or does not come."""
    pieces: list[bytes] = []
    try:
        for piece in response.stream:
            pieces.append(piece)
            if sum(map(len, pieces)) > _LARGEST:
                return None
    except package.TransportError:
        return None
    finally:
        response.close()
    return kept(package, response, pieces)


async def akeep(package: Any, response: Any) -> Any:
    """`keep`, for event loops."""
    pieces: list[bytes] = []
    try:
        async for piece in response.stream:
            pieces.append(piece)
            if sum(map(len, pieces)) > _LARGEST:
                return None
    except package.TransportError:
        return None
    finally:
        await response.aclose()
    return kept(package, response, pieces)


@lru_cache(maxsize=4)
def watched(package: Any, *, awaits: bool) -> Any:
    """The class of bodies at whose end a call is no longer under way; of one package only."""
    sync_base: Any = package.SyncByteStream
    async_base: Any = package.AsyncByteStream

    class Watched(async_base if awaits else sync_base):  # type: ignore[misc]
        """A body that ends its pick once: read, broken, closed or forgotten, whichever comes first."""

        def __init__(self, inner: Any, pick: Pick) -> None:
            self._inner = inner
            self._pick = pick

        if awaits:

            async def __aiter__(self) -> AsyncIterator[bytes]:
                try:
                    async for piece in self._inner:
                        yield piece
                except Exception as error:
                    blame(package, self._pick, error)
                    raise
                self._pick.left()

            async def aclose(self) -> None:
                self._pick.left()
                await self._inner.aclose()

        else:

            def __iter__(self) -> Iterator[bytes]:
                try:
                    yield from self._inner
                except Exception as error:
                    blame(package, self._pick, error)
                    raise
                self._pick.left()

            def close(self) -> None:
                self._pick.left()
                self._inner.close()

        def __del__(self) -> None:
            self._pick.left()

    return Watched
