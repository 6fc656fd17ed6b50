"""The short way at `create`: the same arguments as before, so the same request, so the same answer.

Building a request costs the SDK a hundred times what a hit costs. Where these very arguments have led to a
hit before, the request is known. The stored answer is looked up under it, in the same store, by the same
Policy and control; and when it is still the answer that the SDK made an object of, that object is made
again. Everything else takes the usual way, by which the next call is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias, cast

import orjson
from openai import AsyncStream, Stream

from askonce import AskOnceError, Cache, Entry, Request
from askonce.doors import Reply, UnplannedError, fault, on_asyncio, plan, same
from askonce_openai._client_state import is_own
from askonce_openai._learned import Learned, Lessons, lessons_of
from askonce_openai._lesson import Lesson, lesson
from askonce_openai._replays import StreamParts, record, remade

Serving: TypeAlias = "Callable[[Any], Cache | None]"
"""Which cache answers a client the short way; None: none."""

# What orjson would write down although the SDK makes something else of it.
_STRICT: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_LONG: Final = 2048
_AROUND: Final = frozenset(
    {"extra_headers", "extra_query", "extra_body", "timeout"}
)  # not in the body by name
_unequal: set[type] = set()


def sync_create(serving: Serving) -> Callable[..., Any]:
    """The wrapper for the sync `create` of a resource."""

    def create(wrapped: Any, resource: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = None if args else serving(resource._client)  # noqa: SLF001 - where resources keep it
        known = None if cache is None else _known(cache, resource, kwargs)
        if cache is None or known is None:
            return wrapped(*args, **kwargs)
        asked, learned = known
        if learned is not None:
            try:
                reply = cache.recall(learned.request, learned.fits)
                if reply is not None:
                    return _answer(learned, reply, resource._client)  # noqa: SLF001
            except AskOnceError:
                pass  # the usual way says it in the SDK's words
            except Exception as error:  # noqa: BLE001
                fault("an answer was not rebuilt", error)
        before = lesson.get()
        lesson.set(Lesson())
        try:
            result = wrapped(**kwargs)
            return _learn(cache, asked, resource._client, result)  # noqa: SLF001
        finally:
            lesson.set(before)

    return create


def async_create(serving: Serving) -> Callable[..., Any]:
    """The wrapper for the async `create` of a resource."""

    async def create(wrapped: Any, resource: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = None if args else serving(resource._client)  # noqa: SLF001
        known = None if cache is None else _known(cache, resource, kwargs)
        if cache is None or known is None:
            return await wrapped(*args, **kwargs)
        asked, learned = known
        if learned is not None and on_asyncio():
            try:
                reply = await cache.arecall(learned.request, learned.fits)
                if reply is not None:
                    return _answer(learned, reply, resource._client)  # noqa: SLF001
            except AskOnceError:
                pass
            except Exception as error:  # noqa: BLE001
                fault("an answer was not rebuilt", error)
        before = lesson.get()
        lesson.set(Lesson())
        try:
            result = await wrapped(**kwargs)
            return _learn(cache, asked, resource._client, result)  # noqa: SLF001
        finally:
            lesson.set(before)  # no token: a forgotten coroutine is closed in whatever context

    return create


class _Asked(NamedTuple):
    """A call as it was before the SDK saw it: what is known of its client, and its arguments as JSON."""

    lessons: Lessons
    ticket: tuple[type, bytes]
    said: bytes


def _known(cache: Cache, resource: Any, kwargs: dict[str, Any]) -> tuple[_Asked, Learned | None] | None:
    """What was learnt of these arguments; None when they, or the client, are not understood."""
    try:
        client = resource._client  # noqa: SLF001
        said = _written(kwargs) if is_own(resource, client) else None
        lessons = None if said is None else lessons_of(client, cookies=cache.heeds_cookies)
        if said is None or lessons is None:
            return None
        digest = said if len(said) <= _LONG else sha256(said).digest()
        asked = _Asked(lessons, (cast("type[Any]", type(resource)), digest), said)
        return asked, lessons.get(asked.ticket)
    except Exception as error:  # noqa: BLE001 - the call goes on without us
        fault("a call was not looked at", error)
        return None


def _written(kwargs: dict[str, Any]) -> bytes | None:
    """The arguments as JSON; None when they are more than plain data."""
    try:
        said = orjson.dumps(kwargs, option=_STRICT)
    except TypeError:
        given = {name: value for name, value in kwargs.items() if not _is_unset(value) and name != "timeout"}
        try:
            said = orjson.dumps(given, option=_STRICT)
        except TypeError:
            return None
    if b"null" in said and not _is_finite(kwargs):
        return None  # orjson has null for what is no number, where the SDK refuses it
    return said


def _is_unset(value: object) -> bool:
    """Whether the SDK leaves an argument out: `NOT_GIVEN`, `omit`."""
    kind = type(value)
    return kind.__name__ in {"NotGiven", "Omit"} and kind.__module__.partition(".")[0] == "openai"


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, cast("dict[Any, Any]", value).values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, cast("Sequence[Any]", value)))
    return not isinstance(value, float) or value - value == 0.0


def _answer(learned: Learned, reply: Reply, client: Any) -> Any:
    """The object for a stored answer, made anew."""
    if learned.build is not None:
        return learned.build()
    parts = learned.stream
    assert parts is not None  # noqa: S101 - one of the two is there
    assert reply.entry is not None  # noqa: S101 - a recalled answer is a stored one
    native = parts.family.again(parts.native, learned.request.body)
    response = parts.family.replay(reply.entry, reply.outcome, native, live=True, pace=reply.pace)
    return remade(parts, client, response, len(reply.entry.body), paced=bool(reply.pace))


# -- learning -----------------------------------------------------------------------------------------------


def _learn(cache: Cache, asked: _Asked, client: Any, result: Any) -> Any:
    """Remember what the usual way has made, and hand it on."""
    taken = lesson.get()
    found = None if taken is None else taken.learned()
    kind = cast("type[Any]", type(result))
    if found is None or kind in _unequal:
        return result
    call, reply = found
    entry, lessons, ticket = reply.entry, asked.lessons, asked.ticket
    assert entry is not None  # noqa: S101 - a hit has one
    if not lessons.has_room_for(call.request, entry):
        return result
    try:
        held = lessons.state.holds(client, cookies=cache.heeds_cookies)
        if not held or not _is_of(call.request, asked.said, client):
            return result
        if kind in (Stream, AsyncStream):
            record(result, call, partial(_learnt, lessons, ticket, call.request, entry))
            return result
        build = plan(result, "openai")
        if same(build(), result):
            lessons.learn(ticket, Learned(call.request, entry, build=build))
        else:
            _unequal.add(kind)
            cache.rebuilt_unequal()
    except UnplannedError:
        pass  # a raw response, a user's own class
    except Exception as error:  # noqa: BLE001 - the caller has the answer
        fault("an answer was not learnt", error)
    return result


def _is_of(request: Request, said: bytes, client: Any) -> bool:
    """Whether a request says what the arguments said, and is the client's.

    Another thread may have changed the caller's own list, or the client's key, while the SDK built it. That
    is a call gone wrong once; learnt, it would go wrong again and again.
    """
    sent = orjson.loads(request.body)
    given = orjson.loads(said)
    if any(sent.get(name) != value for name, value in given.items() if name not in _AROUND):
        return False
    key = client.api_key
    return key in {request.header(b"authorization").removeprefix("Bearer "), request.header(b"api-key")}


def _learnt(lessons: Lessons, ticket: Any, request: Request, entry: Entry, parts: StreamParts) -> None:
    lessons.learn(ticket, Learned(request, entry, stream=parts))
