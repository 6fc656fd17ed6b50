"""What ends a command early."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot go on; the text is one line for the person at the terminal."""
