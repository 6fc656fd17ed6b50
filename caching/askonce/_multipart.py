"""multipart/form-data bodies (RFC 7578): split at the boundary, which every SDK draws at random."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_NAME = re.compile(rb'\r\ncontent-disposition:[^\r\n]*?[; ]name="([^"]*)"', re.IGNORECASE)
_MAX_TEXT = 4096


class Part(NamedTuple):
    """One part of a form: its name, its header block as sent, its content."""

    name: str
    head: bytes
    content: bytes

    @property
    def is_file(self) -> bool:
        """A part with a file name; its head keeps name and type in the key."""
        return b"filename" in self.head


def split(content_type: str, body: bytes) -> list[Part] | None:
    """The parts in order, or None when the body is not exactly a well-formed form."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    delimiter = b"\r\n--" + (match[1] or match[2]).encode("latin-1", "replace")
    chunks = (b"\r\n" + body).split(delimiter)
    if len(chunks) < 2 or chunks[0] or chunks[-1].strip() != b"--":  # noqa: PLR2004 - opening and closing
        return None
    parts: list[Part] = []
    for chunk in chunks[1:-1]:
        head, blank, content = chunk.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not blank or not head.startswith(b"\r\n") or name is None:
            return None
        parts.append(Part(name[1].decode("utf-8", "surrogateescape"), head, content))
    return parts


def text_fields(parts: list[Part]) -> dict[str, str]:
    """The short text fields, for Policy to look at (model, stream, ...)."""
    return {
        part.name: part.content.decode("utf-8", "replace")
        for part in parts
        if not part.is_file and len(part.content) <= _MAX_TEXT
    }


def canonical(parts: list[Part], ignore: frozenset[str]) -> Iterator[bytes]:
    """Heads and contents by field name; fields of one name keep their order."""
    for part in sorted(parts, key=lambda part: part.name):
        if part.is_file or part.name not in ignore:
            yield part.head
            yield part.content
