"""A transport that sends each question to the deployment whose own prompt cache knows its beginning.

It stands below the cache: hits never reach it, and the cache's keys are made of what the program wrote, so
they are the same whichever deployment answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from askonce import ConfigurationError
from askonce.doors import on_asyncio
from askonce.prefix import PrefixAffinity
from askonce_httpx._beneath import AsyncBeneath, SyncBeneath, class_for, package_beneath
from askonce_httpx._deployments import Deployment
from askonce_httpx._outcomes import akeep, keep
from askonce_httpx._questions import question_of
from askonce_httpx._routing import Routing

if TYPE_CHECKING:
    import httpx
    import httpx2


class _Sync(Routing, SyncBeneath):
    shown_as = "AffinityTransport"
    awaits = False

    def handle_request(self, request: Any) -> Any:
        """Send a question to the deployment that is picked, and anything else where it was to go.

        Raises:
            Exception: whatever the inner transport raises, unchanged.
        """
        inner = self._inner_for(request)
        question = question_of(request)
        if question is None:
            return inner.handle_request(request)
        steps = self.routed(question)
        try:
            todo = next(steps)
            while True:
                try:
                    done = self._do(inner, *todo)
                except BaseException as error:  # noqa: BLE001 - the steps decide
                    todo = steps.throw(error)
                else:
                    todo = steps.send(done)
        except StopIteration as end:
            return end.value

    def _do(self, inner: Any, what: str, one: Any, two: Any = None) -> Any:
        match what:
            case "pick":
                return self.affinity.pick(one.prompt, scope=one.scope, tried=two)
            case "send":
                return inner.handle_request(one)
            case "know":
                return one.knows()
            case "keep":
                return keep(one, two)
            case _:
                return one.close()


class _Async(Routing, AsyncBeneath):
    shown_as = "AsyncAffinityTransport"
    awaits = True

    async def handle_async_request(self, request: Any) -> Any:
        """What `AffinityTransport` does, for tasks. Off asyncio everything goes where it was to go."""
        inner = self._inner_for(request)
        question = question_of(request) if on_asyncio() else None
        if question is None:
            return await inner.handle_async_request(request)
        steps = self.routed(question)
        try:
            todo = next(steps)
            while True:
                try:
                    done = await self._do(inner, *todo)
                except BaseException as error:  # noqa: BLE001 - the steps decide
                    todo = steps.throw(error)
                else:
                    todo = steps.send(done)
        except StopIteration as end:
            return end.value

    async def _do(self, inner: Any, what: str, one: Any, two: Any = None) -> Any:
        match what:
            case "pick":
                return await self.affinity.apick(one.prompt, scope=one.scope, tried=two)
            case "send":
                return await inner.handle_async_request(one)
            case "know":
                return await one.aknows()
            case "keep":
                return await akeep(one, two)
            case _:
                return await one.aclose()


def _made(
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: Any,
    *,
    annotate: bool,
    awaits: bool,
) -> Any:
    if not isinstance(affinity, PrefixAffinity):
        raise ConfigurationError(
            f"affinity={type(affinity).__name__} is not allowed; allowed: a PrefixAffinity"
        )
    wanted = sorted(affinity.candidates)
    if not isinstance(deployments, Mapping) or not all(
        isinstance(one, Deployment) for one in deployments.values()
    ):
        raise ConfigurationError(
            f"deployments={type(deployments).__name__} is not allowed; allowed: a mapping with a Deployment "
            f"for each of {wanted}"
        )
    if set(deployments) != set(wanted):
        raise ConfigurationError(
            f"deployments={sorted(map(str, deployments))} is not allowed; "
            f"allowed: a Deployment for each of {wanted}"
        )
    own = _Async if awaits else _Sync
    kind = class_for(own, package_beneath(own, inner))
    return kind(affinity, deployments, inner, annotate=annotate)


@overload
def AffinityTransport(
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: httpx.BaseTransport | None = None,
    *,
    annotate: bool = False,
) -> httpx.BaseTransport: ...
@overload
def AffinityTransport(
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: httpx2.BaseTransport,
    *,
    annotate: bool = False,
) -> httpx2.BaseTransport: ...
def AffinityTransport(  # noqa: N802
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: Any = None,
    *,
    annotate: bool = False,
) -> Any:
    """A transport that sends each question to the deployment whose prompt cache knows its beginning.

    Goes below the cache: `CacheTransport(cache, AffinityTransport(affinity, {"eu": Deployment(...), ...}))`.
    Chat completions, Anthropic messages and responses with `store=False` are routed; all else, and what
    refers to files, containers or earlier responses, goes where the program sent it. A deployment that
    cannot be reached, or answers 429, 500, 502, 503 or 529, is left alone for a while (a Retry-After is
    heeded, up to an hour), and the question goes to one other. No body is changed but by `annotate`, so a
    model must have the same name everywhere.

    Args:
        affinity: picks.
        deployments: by the names that it picks among.
        inner: the transport that sends; None: the default one of the request's package. Closed with this one.
        annotate: say where the provider may cut the prompt, see `askonce.prefix.annotate`.

    Raises:
        ConfigurationError: for an argument of the wrong kind, or other names than the affinity's.
    """
    return _made(affinity, deployments, inner, annotate=annotate, awaits=False)


@overload
def AsyncAffinityTransport(
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: httpx.AsyncBaseTransport | None = None,
    *,
    annotate: bool = False,
) -> httpx.AsyncBaseTransport: ...
@overload
def AsyncAffinityTransport(
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: httpx2.AsyncBaseTransport,
    *,
    annotate: bool = False,
) -> httpx2.AsyncBaseTransport: ...
def AsyncAffinityTransport(  # noqa: N802
    affinity: PrefixAffinity,
    deployments: Mapping[str, Deployment],
    inner: Any = None,
    *,
    annotate: bool = False,
) -> Any:
    """`AffinityTransport`, for `AsyncClient`. On trio everything goes where the program sent it."""
    return _made(affinity, deployments, inner, annotate=annotate, awaits=True)
