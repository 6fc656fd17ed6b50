"""What becomes of a question: which deployment is asked, what its answer means, whether another one is.

All decisions, and no input or output: whoever runs the steps does what they say, with or without an event
loop.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any, Final, TypeAlias, cast

from askonce.prefix import Pick, PrefixAffinity
from askonce_httpx._beneath import Beneath
from askonce_httpx._deployments import Addressed, Deployment, addressed
from askonce_httpx._families import package_of
from askonce_httpx._outcomes import UNABLE, Outcome, blame, pause_of, unreached, watched
from askonce_httpx._questions import Question

NAMED: Final = "askonce_deployment"
"""In the extensions of a routed response: the name of the deployment that answered."""
_GOOD: Final = range(200, 300)

Steps: TypeAlias = Generator[tuple[Any, ...], Any, Any]
"""What is to be done, by name, for whoever does it with or without an event loop. Returns a response."""


class Routing(Beneath):
    """What the sync and the async transport share: all decisions.

    Args:
        affinity: picks.
        deployments: by the names that it picks among.
        inner: sends; None: the package's default transport, made when it is first needed.
        annotate: say where the provider may cut, see `askonce.prefix.annotate`.
    """

    awaits: bool

    def __init__(
        self, affinity: PrefixAffinity, deployments: Mapping[str, Deployment], inner: Any, *, annotate: bool
    ) -> None:
        super().__init__(inner)
        self.affinity = affinity
        self._deployments = dict(deployments)
        self._annotate = annotate

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._deployments)}>"

    def _body(self, question: Question) -> bytes:
        if not self._annotate:
            return question.body
        marked = self.affinity.annotated(question.prompt, provider=question.provider)
        if marked == question.prompt:
            return question.body
        return json.dumps(marked, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    def routed(self, question: Question) -> Steps:
        """Ask the deployment that is picked, and when it is unable, one other."""
        package = package_of(question.native)
        body = self._body(question)
        pick = yield "pick", question, ()
        first: Outcome = yield from self._asked(question, body, pick)
        if not first.elsewhere or len(self._deployments) == 1:
            return _told(first)
        # Its connection is freed before another is taken: many such calls at once could use up a pool.
        answer = None if first.response is None else (yield "keep", package, first.response)
        other = yield "pick", question, (pick.name,)
        second: Outcome = yield from self._asked(question, body, other)
        if second.response is None and answer is not None:
            return answer
        return _told(second)

    def _asked(self, question: Question, body: bytes, pick: Pick) -> Steps:
        package = package_of(question.native)
        try:
            there = addressed(question.native, question.endpoint, body, self._deployments[pick.name])
            response = yield "send", there.request
        except BaseException as error:
            blame(package, pick, error)
            if not isinstance(error, package.TransportError):
                raise
            return Outcome(None, cast("Exception", error), unreached(package, error))
        if response.status_code in UNABLE:
            pick.failed(pause_of(response))
        elif response.status_code in _GOOD:
            # Noted now, since the prompt has been read when an answer begins, and since the end of a stream
            # may be a cancellation, where nothing should be waited for. Under way it is to the end.
            try:
                yield "know", pick
            except BaseException:
                pick.left()
                yield "close", response
                raise
        if response.is_closed:  # made in memory, and read: nobody will close it
            pick.left()
        else:
            response.stream = watched(package, awaits=self.awaits)(response.stream, pick)
        _signed(response, pick, there)
        return Outcome(response, None, response.status_code in UNABLE)


def _told(outcome: Outcome) -> Any:
    if outcome.error is not None:
        raise outcome.error
    return outcome.response


def _signed(response: Any, pick: Pick, there: Addressed) -> None:
    response.extensions[NAMED] = pick.name
    if there.foreign and "set-cookie" in response.headers:
        # The client would take it for one of the program's origin, and send it there.
        del response.headers["set-cookie"]
