"""One answer in another shape: streamed for plain, plain for streamed, fewer choices of the same.

Pure functions from a stored body to another body, which raise `LossyError` rather than lose anything. Only
used where a Policy asks for it.
"""

from __future__ import annotations

import json

from askonce._shapes._chat import (
    LossyError,
    dumped,
    fewer_choices,
    must,
    plain_from_stream,
    stream_from_plain,
)
from askonce._shapes._messages import plain_from_stream as message_from_stream
from askonce._shapes._messages import stream_from_plain as stream_from_message
from askonce._sse import events
from askonce._surface import as_object

__all__ = [
    "LossyError",
    "fewer_choices",
    "message_from_stream",
    "plain_from_stream",
    "response_from_stream",
    "stream_from_message",
    "stream_from_plain",
]


def response_from_stream(body: bytes) -> bytes:
    """The plain answer of the Responses endpoint: its last event has the whole of it.

    Raises:
        LossyError: when it was not completed.
    """
    for _, data in events(body):
        event = as_object(json.loads(data))
        if event.get("type") == "response.completed":
            response = as_object(event.get("response"))
            must(response.get("status") == "completed")
            return dumped(response)
    raise LossyError
