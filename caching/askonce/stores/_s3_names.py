"""Keys as object names: fanned out, reversible, made of characters that every S3 server takes literally.

    namespace:0123abcd...  ->  prefix/namespace/01/0123abcd...
    key without a colon    ->  prefix/key without a colon, quoted/!

Names begin as their keys do, so a scan for a prefix of keys lists little more than its answer.
"""

from __future__ import annotations

import re

from askonce._errors import Refused

LONGEST = 1024
"""Bytes of an object's name, at most: S3's bound."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_QUOTED = re.compile(r"!([0-9a-f]{2})")
_FAN = 2  # hex digits of a digest: 256 folders
# "!" before two hex digits is a quoted byte; these two are not.
_NO_REST = "!"
_EMPTY = "!!"


class Names:
    """The names of one store's objects.

    Args:
        prefix: what stands before the first slash, without one at its end.

    Attributes:
        root: what every name begins with.
        probe: a name that is no key's, to try out what the server can do.
    """

    def __init__(self, prefix: str) -> None:
        self.root = f"{prefix}/"
        self.probe = f"{prefix}/!probe"

    def of(self, key: str) -> str:
        """The name of the key's object.

        Raises:
            Refused: the name would be longer than S3 allows.
        """
        head, colon, rest = key.partition(":")
        tail = f"{_segment(rest[:_FAN])}/{_segment(rest)}" if colon else _NO_REST
        name = f"{self.root}{_segment(head)}/{tail}"
        if len(name) > LONGEST:
            raise Refused(
                f"an S3 object's name may have {LONGEST} bytes, this key's would have {len(name)}. "
                "Choose a shorter namespace or prefix"
            )
        return name

    def lease(self, key: str) -> str:
        """The name of the key's lease, which is no key's."""
        return f"{self.root}!leases/{self.of(key)[len(self.root) :]}"

    def key(self, name: str) -> str | None:
        """The key whose object has this name; None for a name that no key has."""
        if not name.startswith(self.root):
            return None
        try:
            match name[len(self.root) :].split("/"):
                case [head, tail] if tail == _NO_REST:
                    key = _unquote(head)
                case [head, _, rest]:
                    key = f"{_unquote(head)}:{_unquote(rest)}"
                case _:
                    return None
            return key if self.of(key) == name else None
        except (UnicodeError, Refused):  # somebody else's name
            return None

    def beginning(self, prefix: str) -> str | None:
        """What the names of all keys with the prefix begin with; None when there can be none."""
        head, colon, rest = prefix.partition(":")
        if not colon:
            beginning = self.root + _quote(head)
        elif len(rest) < _FAN:
            beginning = f"{self.root}{_segment(head)}/{_quote(rest)}"
        else:
            beginning = f"{self.root}{_segment(head)}/{_quote(rest[:_FAN])}/{_quote(rest)}"
        return beginning if len(beginning) <= LONGEST else None


def _quote(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    # Not percent signs: they would be quoted once more on the way, and some servers unquote twice. Dots
    # are quoted, too: a server with a file system behind it must not see "..".
    return "".join(
        character if _PLAIN.fullmatch(character) else "".join(f"!{byte:02x}" for byte in character.encode())
        for character in text
    )


def _segment(text: str) -> str:
    return _quote(text) or _EMPTY


def _unquote(text: str) -> str:
    if text == _EMPTY:
        return ""
    raw = _QUOTED.sub(lambda found: chr(int(found[1], 16)), text)
    return raw.encode("latin-1").decode()
