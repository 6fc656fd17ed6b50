"""Streams without their decoder: events learnt while one caller reads them, and built anew for the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from openai import AsyncStream

from askonce.doors import Build, Family, NativeCall, plan, same

_OWN: Final = ("response", "_client", "_decoder", "_iterator")  # of a stream object: of its call alone


@dataclass(frozen=True, slots=True, eq=False)
class StreamParts:
    """What a replayed stream is made of.

    Attributes:
        kind: `Stream` or `AsyncStream`.
        fields: of the stream object, without those of a single call.
        native: the request that its response names.
        family: of that request.
        events: makes them, one after the other.
    """

    kind: type
    fields: dict[str, Any]
    native: Any
    family: Family
    events: tuple[Build, ...]


def record(stream: Any, call: NativeCall, learnt: Callable[[StreamParts], None]) -> None:
    """Have a stream's events learnt while its caller reads them.

    Args:
        stream: a `Stream` or `AsyncStream` that nobody has read from.
        call: of which it is the answer.
        learnt: is given what another is made of, when it was read to its end.
    """
    state: dict[str, Any] = stream.__dict__
    kind = cast("type[Any]", type(stream))
    fields = {name: value for name, value in state.items() if name not in _OWN}
    native = call.copy()
    events: list[Build] = []

    def planned(event: Any) -> bool:
        try:
            build = plan(event, "openai")
            if not same(build(), event):
                return False
        except Exception:  # noqa: BLE001 - then this stream is not learnt
            return False
        events.append(build)
        return True

    def ended() -> None:
        learnt(StreamParts(kind, fields, native, call.family, tuple(events)))

    recorded = _arecorded if kind is AsyncStream else _recorded
    stream._iterator = recorded(stream._iterator, planned, ended)  # noqa: SLF001 - where both kinds have it


def _recorded(events: Any, planned: Callable[[Any], bool], ended: Callable[[], None]) -> Iterator[Any]:
    whole = True
    try:
        for event in events:
            whole = whole and planned(event)
            yield event
    finally:
        events.close()
    if whole:
        ended()


async def _arecorded(
    events: Any, planned: Callable[[Any], bool], ended: Callable[[], None]
) -> AsyncIterator[Any]:
    whole = True
    try:
        async for event in events:
            whole = whole and planned(event)
            yield event
    finally:
        await events.aclose()
    if whole:
        ended()


def remade(parts: StreamParts, client: Any, response: Any, size: int, *, paced: bool) -> Any:
    """A stream as the SDK would make it.

    Args:
        parts: what was learnt.
        client: who asks.
        response: with the answer, still to be read.
        size: of its body, in bytes.
        paced: the events are to come as the response hands them out.
    """
    stream = cast("Any", object.__new__(parts.kind))
    stream.__dict__.update(
        parts.fields,
        response=response,
        _client=client,
        _decoder=client._make_sse_decoder(),  # noqa: SLF001
    )
    if paced:
        stream._iterator = stream.__stream__()  # noqa: SLF001
    else:
        replay = _areplayed if parts.kind is AsyncStream else _replayed
        stream._iterator = replay(stream, parts, size)  # noqa: SLF001
    return stream


def _replayed(stream: Any, parts: StreamParts, size: int) -> Iterator[Any]:
    """The events of a sync stream, built one by one."""
    response = stream.response
    if response.is_closed or response.is_stream_consumed:
        yield from stream.__stream__()  # somebody has read or closed it: the SDK says what happens then
        return
    try:
        _consumed(response, size)
        for build in parts.events:
            yield build()
    finally:
        response.close()


async def _areplayed(stream: Any, parts: StreamParts, size: int) -> AsyncIterator[Any]:
    """The events of an async stream."""
    response = stream.response
    if response.is_closed or response.is_stream_consumed:
        async for event in stream.__stream__():
            yield event
        return
    try:
        _consumed(response, size)
        for build in parts.events:
            yield build()
    finally:
        await response.aclose()


def _consumed(response: Any, size: int) -> None:
    """Have the response say that its body is read, as it is where the events are read from it."""
    response.is_stream_consumed = True
    response._num_bytes_downloaded = size  # noqa: SLF001
