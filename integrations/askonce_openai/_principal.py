"""Who asks, where the request does not say so yet."""

from __future__ import annotations

from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

_known: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def principal_of(client: Any, kwargs: dict[str, Any]) -> bytes:
    """Nothing for clients with an API key, whose header says who they are; else a random name per client.

    Workload identities and HTTP authentication are put into the request below `_send_request`. Their
    callers are told apart by client: two clients of one person miss each other's answers, two people
    never share one.
    """
    if (
        kwargs.get("auth") is None
        and getattr(client, "workload_identity", None) is None
        and getattr(client, "_provider_runtime", None) is None
        and getattr(client._client, "auth", None) is None  # noqa: SLF001 - where SDK and httpx keep it
    ):
        return b""
    name = _known.get(client)
    if name is None:
        name = _known.setdefault(client, uuid4().bytes)
    return name
