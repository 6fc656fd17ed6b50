"""What the last step of the SDK tells the first: which request a `create` made, and what answered it."""

from __future__ import annotations

from contextvars import ContextVar

from askonce.doors import NativeCall, Reply


class Lesson:
    """What the last step of the SDK does during one `create`."""

    __slots__ = ("call", "reply", "sends")

    def __init__(self) -> None:
        self.call: NativeCall | None = None
        self.reply: Reply | None = None
        self.sends = 0

    def note(self, call: NativeCall, reply: Reply) -> None:
        """A request went to the cache, and this came back."""
        self.call, self.reply = call, reply
        self.sends += 1

    def learned(self) -> tuple[NativeCall, Reply] | None:
        """The one request and its stored answer; None when it was another kind of call."""
        if self.sends != 1 or self.call is None or self.reply is None:
            return None
        reply = self.reply
        plain = reply.entry is not None and reply.outcome.status == "hit" and not reply.pace
        return (self.call, reply) if plain and not self.call.request.principal else None


lesson: ContextVar[Lesson | None] = ContextVar("askonce_lesson", default=None)
