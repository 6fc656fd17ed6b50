"""`replay(...)`: a block, or a function, whose asks are answered from a file."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from askonce._errors import ConfigurationError, OfflineMiss, not_allowed
from askonce._replay._cache import RecordingCache
from askonce._replay._recording import MODES, Mode, Recording
from askonce._serving import standing_in
from askonce._track import track

F = TypeVar("F", bound=Callable[..., Any])

_ENDS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Session:
    """An open block, for those who end it step by step: what `replay` and the pytest plugin share."""

    def __init__(self, path: Path, mode: Mode) -> None:
        self.recording = Recording(path, mode)
        self._cache = RecordingCache(self.recording)
        self._closing = ExitStack()
        with ExitStack() as opening:
            self.recording.outcomes = opening.enter_context(track())
            opening.enter_context(standing_in(self._cache, self.recording.outcomes))
            self._closing = opening.pop_all()

    def end(self, *, keep: bool) -> None:
        """Answer nobody any more; with `keep`, and without misses, write what was recorded."""
        self._closing.close()
        self._cache.close()
        if keep and not self.recording.misses:
            self.recording.save()


def hides_a_miss(recording: Recording, error: BaseException | None) -> bool:
    """Whether a block with this error, or none, ends as if nothing had been missing."""
    if not recording.misses or isinstance(error, (OfflineMiss, *_ENDS)):
        return False
    from asyncio import CancelledError  # noqa: PLC0415 - only where something is wrong

    return not isinstance(error, CancelledError)


class replay:  # noqa: N801 - reads as a statement: with replay("answers.json"):
    """Record what providers answer inside a block, and replay it the next time without them.

    Also an async context manager, and a decorator of functions and coroutine functions. Stands in for the
    provider at every door, open or not: the OpenAI client, httpx and httpx2 clients and so the SDKs on
    them, LangChainCache, CachedEmbeddings. A cache of the program's own is not used inside. SDKs on other
    HTTP libraries (aiohttp, requests) are not seen.

    A replay asks nobody: an ask without a recording fails the block with an OfflineMiss that says what
    differs from the nearest recording, also when the SDK or the program swallows the error. An ask
    repeated in a block has one answer; `using(sample=...)` asks for further ones.

    Args:
        path: the file: JSON, made to be read and compared. Credentials are never in it.
        mode: "auto": replay what is there, record what is missing. "record": ask anew, and replace the
            file when the block succeeds. "replay": ask nobody.

    Entering gives a Recording, whose `unused`, `not_recorded` and `misses` say what became of it.

    Raises:
        ConfigurationError: for a bad mode; on entering, for a file that is damaged or something else.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "auto") -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise not_allowed("path", path, "the path of a file")
        if mode not in MODES:
            raise not_allowed("mode", mode, MODES)
        self._path = Path(path)
        self._mode: Mode = mode
        self._lock = threading.Lock()
        self._session: Session | None = None

    def __enter__(self) -> Recording:
        with self._lock:
            if self._session is not None:
                raise ConfigurationError(
                    f"replay({str(self._path)!r}) is open already; allowed: another replay(...) object"
                )
            session = self._session = Session(self._path, self._mode)
        return session.recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is None:
            return
        recording = session.recording
        session.end(keep=error is None)
        if hides_a_miss(recording, error):
            raise recording.failure() from error
        if error is None:
            _warn_of(recording)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """The function, with a block around each call."""
        import inspect  # noqa: PLC0415 - as heavy as much of the rest

        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"replay() around the generator {function.__name__} would end before it begins; allowed: "
                "functions, coroutine functions, and `with replay(...)` inside the generator"
            )
        path, mode = self._path, self._mode
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def acall(*args: Any, **kwargs: Any) -> Any:
                async with replay(path, mode):
                    return await function(*args, **kwargs)

            return cast(F, acall)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with replay(path, mode):
                return function(*args, **kwargs)

        return cast(F, call)


def _warn_of(recording: Recording) -> None:
    for what, which in recording.troubles():
        warnings.warn(f"{recording.path}: {what}: {'; '.join(which)}", UserWarning, stacklevel=3)
