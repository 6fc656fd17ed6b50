"""Just enough multipart/form-data to answer uploads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'\bname="([^"]*)"')


def form_fields(content_type: str, body: bytes) -> Iterator[tuple[str, str | bytes]]:
    """The fields of a form: text for plain ones, bytes for files; `name[]` counts as `name`."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        return
    delimiter = b"\r\n--" + found[1].encode()
    for part in (b"\r\n" + body).split(delimiter)[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            continue  # the closing delimiter
        key = name[1].decode("utf-8", "replace").removesuffix("[]")
        yield key, content if b"filename=" in head else content.decode("utf-8", "replace")
