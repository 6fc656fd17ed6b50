"""Other questions whose stored answer answers this one, too, where the Policy allows it.

`share_streams`: the same question streamed, or not streamed. `share_choices`: the same question with a
larger `n`. Looked for only after an exact miss, all in one batched read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from askonce import _key, _shapes
from askonce._body import Body
from askonce._call import Call, Found
from askonce._clock import Clock
from askonce._codec import Undecodable
from askonce._decision import Settings
from askonce._entry import Entry
from askonce._hot import Hot
from askonce._surface import as_object

_PLAIN: Final = "application/json"
_EVENTS: Final = "text/event-stream; charset=utf-8"
_MOST_CHOICES: Final = 8

_FROM_STREAM: Final = {
    "chat": _shapes.plain_from_stream,
    "responses": _shapes.response_from_stream,
    "messages": _shapes.message_from_stream,
}


class Twin(NamedTuple):
    """Another question.

    Attributes:
        key: of its answer.
        reason: what an Outcome says of it.
        content_type: of the answer in this question's shape.
        convert: makes its body; raises when something would be lost.
    """

    key: str
    reason: str
    content_type: str
    convert: Callable[[bytes], bytes]

    def answer(self, entry: Entry) -> Entry | None:
        """The stored answer in the shape that was asked for; None when that cannot be had."""
        try:
            body = self.convert(entry.body)
        except Exception:  # noqa: BLE001 - whatever a stored answer looks like: a miss
            return None
        kept = [(name, value) for name, value in entry.headers if name != "content-type"]
        return replace(entry, body=body, headers=(("content-type", self.content_type), *kept))


def twins_of(call: Call, settings: Settings) -> list[Twin]:
    """The twins of a call, the likeliest first; none where the policy wants none."""
    policy = settings.policy
    if not (policy.share_streams or policy.share_choices) or call.body.kind != "json":
        return []
    decision = call.decision
    namespace = decision.key.rpartition(":")[0]
    found: list[Twin] = []
    for fields, reason, content_type, convert in _asked_otherwise(call.body.fields, call, settings):
        digest = _key.digest(
            call.request,
            Body("json", fields, fields),
            namespace=namespace,
            scope=decision.scope,
            sample=decision.sample,
            vary=policy.vary,
            ignore=policy.ignore_fields,
            secret=settings.secret,
        )
        found.append(Twin(f"{namespace}:{digest}", reason, content_type, convert))
    return found


_Asked = tuple[dict[str, Any], str, str, Callable[[bytes], bytes]]


def _asked_otherwise(fields: dict[str, Any], call: Call, settings: Settings) -> Iterator[_Asked]:
    surface = call.decision.surface.name
    streams = fields.get("stream") is True
    if settings.policy.share_streams and surface in _FROM_STREAM:
        if streams:
            yield from _unstreamed(fields, surface)
        elif not fields.get("stream"):
            # A plain answer tells its usage: of chat streams only those that do can become one.
            options: dict[str, Any] = {"stream_options": {"include_usage": True}} if surface == "chat" else {}
            asked = {**fields, "stream": True, **options}
            yield asked, "from a stream", _PLAIN, _FROM_STREAM[surface]
    if settings.policy.share_choices and surface == "chat" and not streams:
        yield from _with_more_choices(fields)


def _unstreamed(fields: dict[str, Any], surface: str) -> Iterator[_Asked]:
    asked = {name: value for name, value in fields.items() if name not in ("stream", "stream_options")}
    if surface == "chat":
        with_usage = bool(as_object(fields.get("stream_options")).get("include_usage"))
        yield asked, "from a plain answer", _EVENTS, partial(_shapes.stream_from_plain, with_usage=with_usage)
    elif surface == "messages":
        yield asked, "from a plain answer", _EVENTS, _shapes.stream_from_message


def _with_more_choices(fields: dict[str, Any]) -> Iterator[_Asked]:
    given = fields.get("n")
    count = 1 if given is None else given
    if type(count) is not int or not 1 <= count < _MOST_CHOICES:
        return
    if count == 1:  # said or not, it is the same
        same = {name: value for name, value in fields.items() if name != "n"} if given else {**fields, "n": 1}
        yield same, "from more choices", _PLAIN, partial(_shapes.fewer_choices, count=1)
    for more in range(count + 1, _MOST_CHOICES + 1):
        convert = partial(_shapes.fewer_choices, count=count)
        yield {**fields, "n": more}, "from more choices", _PLAIN, convert


async def twin_of(call: Call, settings: Settings, hot: Hot, clock: Clock) -> tuple[Found, str] | None:
    """A fresh stored answer to a twin, in the shape that was asked for, and where it comes from."""
    twins = twins_of(call, settings)
    if not twins:
        return None
    stored = await call.tiers.get_many([twin.key for twin in twins])
    for twin in twins:
        one = stored.get(twin.key)
        if one is None:
            continue
        try:
            found = call.found(hot.decode(twin.key, one.value), one.tier, clock())
        except Undecodable:
            continue  # told when it is asked for itself
        entry = twin.answer(found.entry) if found is not None and found.fresh else None
        if found is not None and entry is not None:
            return found._replace(entry=entry), twin.reason
    return None
