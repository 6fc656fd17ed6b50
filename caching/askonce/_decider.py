"""Deciding, with a memory: the same bytes asked again get the decision, and so the key, they got before."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, cast

from askonce import _key
from askonce._body import Body
from askonce._control import NOTHING_SAID, Control
from askonce._decision import Decision, Settings, considers, decide
from askonce._errors import AskOnceError
from askonce._events import FAULT, fault
from askonce._request import CREDENTIAL_HEADERS, Request
from askonce._surfaces import OTHER, read_body, registered

_ROOM: Final = 4 << 20
_MOST: Final = 4096
_COMPARED: Final = 128 << 10  # larger bodies are known by their digest: a few would fill the room
_ITEM: Final = 128  # bytes that the key of one input takes
_UNCONSIDERED: Final = Body("raw", b"")

_Ticket = tuple[Any, ...]


class Decider:
    """`decide` for one cache.

    Remembers its latest decisions, by *everything* they depend on: method, URL, every header that the key
    or the caller's control can come from, the caller's settings, and the whole body: compared byte by
    byte, above 128 KiB by its SHA-256, as keys are. Nothing is remembered where a function of the user's
    has a say.

    Two generations of at most 4096 requests and 4 MiB of bodies each: when the young one is full, the
    older one is dropped. Without locks: each step is one operation on a dict, and the worst that threads
    can do to each other is to decide once more.
    """

    __slots__ = (
        "_content_type",
        "_endpoints",
        "_headers",
        "_old",
        "_remembers",
        "_room",
        "_settings",
        "_since",
        "_young",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        policy = settings.policy
        self._remembers = policy.cacheable is None and isinstance(settings.scope, str)
        self._headers = tuple(
            sorted({b"content-type", b"cache-control", *_key.VARY_HEADERS, *policy.vary, *CREDENTIAL_HEADERS})
        )
        self._content_type = self._headers.index(b"content-type")
        self._endpoints = registered()
        self._young: dict[_Ticket, Decision] = {}
        self._old: dict[_Ticket, Decision] = {}
        self._room = _ROOM
        self._since = object()  # decisions noted on requests hold from here on

    def decide(self, request: Request, said: Control) -> tuple[Decision, Body | None]:
        """What may happen with a request, and its body where that had to be read.

        A fault of our own means a bypass: never an error where there would be none without a cache.

        Raises:
            ConfigurationError: as `askonce._decision.decide`.
        """
        noted = self.noted(request, said)
        if noted is not None:
            return noted, None
        ticket = self._ticket(request, said)
        if ticket is not None:
            known = self._young.get(ticket)
            if known is None:
                known = self._old.get(ticket)
                if known is not None:
                    self._remember(ticket, known)
            if known is not None:
                if said is NOTHING_SAID:  # a door that asks with this very object again is answered at once
                    object.__setattr__(request, "decided", (self._since, known))
                return known, None
        try:
            if considers(self._settings, request.method, request.target.path):
                body = read_body(request)
            else:
                body = _UNCONSIDERED
            decision = decide(self._settings, request, body, said)
        except AskOnceError:
            raise
        except Exception as error:  # noqa: BLE001 - such as a body too deep for the rest of the caller's stack
            fault("a call was not cached", error)
            return self._undecided(said), _UNCONSIDERED
        if ticket is not None and not decision.bypass:
            self._remember(ticket, decision)
        return decision, body

    def noted(self, request: Request, said: Control) -> Decision | None:
        """What was decided on this very object before, as long as that holds."""
        if self._endpoints is not registered():
            self.forget()  # what was no question may be one now
        noted = request.decided
        if noted is None or said is not NOTHING_SAID or noted[0] is not self._since:
            return None
        return cast("Decision", noted[1])

    def forget(self) -> None:
        """Remember nothing."""
        self._endpoints = registered()
        self._young, self._old, self._room = {}, {}, _ROOM
        self._since = object()

    def _undecided(self, said: Control) -> Decision:
        """What holds for a request that could not be decided: the cache stays out of its way."""
        return Decision(
            bypass=FAULT,
            terms=self._settings.policy.terms,
            surface=OTHER,
            model="",
            key="",
            scope="",
            sample=0,
            read=False,
            write=False,
            offline=self._settings.mode_for(said) == "offline",
            coalesce=False,
            ttl=None,
            max_age=None,
            stale_while_revalidate=0.0,
            stale_if_error=0.0,
            tags=(),
        )

    def _ticket(self, request: Request, said: Control) -> _Ticket | None:
        if not self._remembers or request.unread:
            return None
        headers = request.values(self._headers)
        if headers is None or _is_form(headers[self._content_type]):
            return None
        control = None if said is NOTHING_SAID else said
        body = request.body
        # A long body is known by its digest, which as a text is never equal to another body's bytes.
        known_by = body if len(body) <= _COMPARED else sha256(body).hexdigest()
        return (known_by, request.url, headers, control, request.principal, request.method)

    def _remember(self, ticket: _Ticket, decision: Decision) -> None:
        size = len(ticket[0]) + len(decision.items) * _ITEM
        self._room -= size
        if self._room < 0 or len(self._young) >= _MOST:
            self._old = self._young
            self._young = {}
            self._room = _ROOM - size
        self._young[ticket] = decision


def _is_form(content_type: bytes | None) -> bool:
    """A form has another boundary each time it is asked: its bytes never come back."""
    return content_type is not None and content_type.startswith(b"multipart/")
