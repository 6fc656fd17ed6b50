"""What ends a command early."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot go on; the text is one line for the person at the terminal.

    Attributes:
        code: the exit status. 1: it did not work; 2: it was called wrongly, or what it needs is not there.
    """

    def __init__(self, text: str, *, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def misuse(text: str) -> CommandError:
    """The error for a command that cannot begin: the person can mend it, the line says how."""
    return CommandError(text, code=2)
