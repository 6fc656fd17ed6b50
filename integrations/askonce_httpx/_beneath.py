"""What a transport of ours stands on: found, made when it is first needed, entered and closed with ours."""

from __future__ import annotations

from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar, Self

from askonce import ConfigurationError
from askonce_httpx._families import package_of


class Beneath:
    """A transport that stands before another one.

    Args:
        inner: the one that sends; None: the default transport of the package that a request comes from, made
            when it is first needed.
    """

    shown_as: ClassVar[str]
    """The name that people know the class by."""
    _default: ClassVar[str]
    base_name: ClassVar[str]
    handler: ClassVar[str]

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._made: dict[str, Any] = {}

    def _inner_for(self, request: Any) -> Any:
        if self.inner is not None:
            return self.inner
        package = package_of(request)
        made = self._made.get(package.__name__)
        if made is None:
            made = self._made.setdefault(package.__name__, getattr(package, self._default)())
        return made

    @property
    def _owned(self) -> list[Any]:
        return [self.inner] if self.inner is not None else list(self._made.values())


class SyncBeneath(Beneath):
    """For `Client`."""

    _default = "HTTPTransport"
    base_name = "BaseTransport"
    handler = "handle_request"

    def close(self) -> None:
        """Close the transport beneath, and nothing else."""
        for one in self._owned:
            one.close()

    def __enter__(self) -> Self:
        if self.inner is not None:
            self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._owned:
            one.__exit__(kind, error, trace)


class AsyncBeneath(Beneath):
    """For `AsyncClient`."""

    _default = "AsyncHTTPTransport"
    base_name = "AsyncBaseTransport"
    handler = "handle_async_request"

    async def aclose(self) -> None:
        """Close the transport beneath, and nothing else."""
        for one in self._owned:
            await one.aclose()

    async def __aenter__(self) -> Self:
        if self.inner is not None:
            await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for one in self._owned:
            await one.__aexit__(kind, error, trace)


def package_beneath(own: type[Beneath], inner: Any) -> Any | None:
    """The package of the transport beneath; None without one.

    Raises:
        ConfigurationError: it is none, or one of the other face.
    """
    if inner is None:
        return None
    if not hasattr(inner, own.handler):
        raise ConfigurationError(
            f"inner={type(inner).__name__} is not allowed; allowed: a transport with {own.handler}(), or None"
        )
    return package_of(inner)


@lru_cache(maxsize=8)
def class_for(own: type[Beneath], package: Any | None) -> type[Any]:
    """The class for transports of one package. Never one of both: some SDKs refuse what mentions httpx."""
    bases = (own,) if package is None else (own, getattr(package, own.base_name))
    return type(own.shown_as, bases, {"__module__": "askonce_httpx", "__doc__": own.__doc__})
