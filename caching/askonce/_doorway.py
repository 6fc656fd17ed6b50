"""What the doors to httpx and httpx2 share: reading a request without spoiling it, and answering it."""

from __future__ import annotations

from typing import Any

from askonce._exchange import Reply
from askonce._family import MARK, Family, asked, family_of, patience_of
from askonce._request import Request


class NativeCall:
    """The part of an Exchange that is the same at every door to httpx: what is asked, and by whom.

    Args:
        native: the request, of either package.
        body: its body; None for one that nobody may read.
        principal: who asks, where the headers do not say.
        live: the caller wants the body while it comes.

    Raises:
        TypeError: for an object that is no request of either package.
    """

    __slots__ = ("family", "live", "native", "request")

    def __init__(self, native: Any, body: bytes | None, principal: bytes = b"", *, live: bool) -> None:
        self.family: Family = family_of(native)
        self.native = native
        self.request: Request = asked(native, body, principal)
        self.live = live

    @property
    def patience(self) -> float | None:
        """Seconds the caller waits for a byte; None: for ever."""
        return patience_of(self.native)

    def marked(self) -> Any:
        """The caller's own request, marked so that doors beneath let it pass."""
        self.native.extensions[MARK] = True
        return self.native

    def copy(self) -> Any:
        """A request of our own with the same content, for a refresh behind the caller's back."""
        return self.family.again(self.native, self.request.body)

    def changed(self, body: bytes) -> Any:
        """A request of our own that asks something else in the same way."""
        return self.family.instead(self.native, body)

    def answered(self, reply: Reply, *, live_async: bool) -> Any:
        """The caller's response for a reply; see `Reply` for which is which.

        Args:
            reply: what the cache said; after a bypass with the provider's response in `native`.
            live_async: its body is read by a task.
        """
        family, native = self.family, self.native
        if reply.entry is not None:
            return family.replay(reply.entry, reply.outcome, native, live=self.live, pace=reply.pace)
        if reply.reader is None:
            return family.annotate(reply.native, reply.outcome)
        if reply.native is None:
            return family.tail(reply, native, live_async=live_async)
        return family.lead(reply, native, live_async=live_async)


def content_of(native: Any) -> bytes | None:
    """A request's body when it is there already; None for one that would have to be read."""
    try:
        content: bytes = native.content
    except Exception:  # noqa: BLE001 - RequestNotRead, of either family
        return None
    return content


def is_form(native: Any) -> bool:
    """A multipart form can be read ahead: it is sent from memory then. Other unread bodies stay untouched."""
    content_type: str = native.headers.get("content-type", "")
    return content_type.startswith("multipart/form-data")


def on_asyncio() -> bool:
    """False on trio, whose tasks cannot wait for ours; such calls go on as without a cache."""
    import asyncio  # noqa: PLC0415 - whoever awaits has it

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
