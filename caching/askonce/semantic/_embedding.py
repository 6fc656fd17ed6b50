"""Getting one vector in time, or nothing: whatever the embedder does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from askonce._call import Call
from askonce._errors import StoreError
from askonce._events import inform, warn
from askonce._fork import renew_after_fork
from askonce.semantic._embedder import AsyncEmbedder, Embedder, Truncating
from askonce.semantic._inside import inside
from askonce.semantic._vector import BadVector, unit
from askonce.stores._breaker import Breaker, State
from askonce.stores._crew import Crew, TimedOut, wait_here, wait_in_loop

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

T = TypeVar("T")
_WORKERS: Final = 8


class Patient:
    """Has work done that may hang, and waits for it only so long. A breaker keeps what fails out of the way.

    Args:
        name: of what may hang, for warnings and threads.
        timeout: seconds that one call may lose to it.
        count: told why something failed, in a word or two.
    """

    def __init__(self, name: str, timeout: float, count: Callable[[str], None]) -> None:
        self._name = name
        self._timeout = timeout
        self._count = count
        self._breaker = Breaker(self._changed, lease=1.0 + 2.0 * timeout)
        self._crew = Crew(_WORKERS, f"askonce-{name}")
        renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent's threads do not exist in a forked child."""
        self._crew.after_fork()

    async def do(self, call: Call, work: Callable[[], T], awork: Callable[[], Any] | None = None) -> T | None:
        """What the work returns; None when it failed, hung, or is not tried at present.

        Args:
            call: whose time it takes.
            work: done in a worker thread.
            awork: the same as a coroutine function; used on event loops.
        """
        ticket = self._breaker.admit()
        if ticket is None:
            self._count("left alone")
            return None
        known = False
        why = ""
        result: T | None = None
        try:
            result = await self._done(call, work, awork)
            known = True
        except (TimedOut, TimeoutError):
            known, why = True, "too slow"
        except BadVector as error:
            known, why = True, str(error)
        except StoreError:
            known, why = True, "busy"
        except Exception as error:  # noqa: BLE001 - it is the user's, and raises what it likes
            known, why = True, type(error).__name__
        finally:
            if not known:
                self._breaker.gave_up(ticket)  # cancelled
        if why:
            self._breaker.failed(ticket)
            self._count(why)
            warn("semantic", "the %s failed (%s); calls go on without it", self._name, why)
            return None
        self._breaker.succeeded(ticket)
        return result

    async def _done(self, call: Call, work: Callable[[], T], awork: Callable[[], Any] | None) -> T:
        on_loop = call.face.owner().loop is not None
        if on_loop and awork is not None:
            import asyncio  # noqa: PLC0415 - whoever awaits has it

            result: Any = None
            async with asyncio.timeout(self._timeout):
                result = await _marked(awork)
            return cast("T", result)
        batch = self._crew.submit(_without_argument(work), [None])
        (found,) = await (wait_in_loop if on_loop else wait_here)(batch, self._timeout)
        return found

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _changed(self, state: State) -> None:
        if state == "open":
            warn("semantic", "the %s is left alone for a while: it fails again and again", self._name)
        elif state == "closed":
            inform("semantic", "the %s works again", self._name)


async def _marked(awork: Callable[[], Any]) -> Any:
    with inside():
        return await awork()


def _without_argument(work: Callable[[], T]) -> Callable[[None], T]:
    def run(_: None) -> T:
        with inside():
            return work()

    return run


class Embedding:
    """Vectors of one embedder, all of one number of dimensions.

    Args:
        embedder: whose.
        timeout: seconds that one call may lose to it.
        count: told why there was no vector, in a word or two.
    """

    def __init__(self, embedder: Embedder, timeout: float, count: Callable[[str], None]) -> None:
        self._embedder = embedder
        self._patient = Patient("embedder", timeout, count)
        self._count = count
        self._dimensions = 0
        # Asked once: protocols take their time.
        self._truncates = embedder.truncates if isinstance(embedder, Truncating) else None
        self._aembed = embedder.aembed if isinstance(embedder, AsyncEmbedder) else None

    async def vector(self, call: Call, text: str) -> Vector | None:
        """The text's vector, of length one; None when there is none in time."""
        embedder = self._embedder
        truncates, aembed = self._truncates, self._aembed
        cut = False

        def embed() -> Vector | None:
            nonlocal cut
            if truncates is not None and truncates(text):
                cut = True
                return None
            return self._checked(embedder.embed([text]))

        awork = None
        if aembed is not None:

            async def aembedded() -> Vector | None:
                nonlocal cut
                if truncates is not None and truncates(text):
                    cut = True
                    return None
                return self._checked(await aembed([text]))

            awork = aembedded
        vector = await self._patient.do(call, embed, awork)
        if cut:
            self._count("truncates")
        return vector

    def close(self) -> None:
        """Let the threads go."""
        self._patient.close()

    def _checked(self, given: Any) -> Vector:
        vector = unit(given)
        if not self._dimensions:
            self._dimensions = len(vector)
        elif len(vector) != self._dimensions:
            raise BadVector("other dimensions")
        return vector
