"""The `askonce` command.

Importing this package loads nothing further: typer, rich and the SDKs are optional, and a missing one
is told in one line, with the command that installs it.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and leave with its exit status.

    0: done; 1: it did not work; 2: it was called wrongly, or an extra is not installed.
    """
    for package in ("typer", "rich"):
        try:
            import_module(package)
        except ImportError:
            sys.stderr.write(f'askonce needs the package {package!r}: pip install "askonce[cli]"\n')
            sys.exit(2)
    from askonce_cli._app import run  # noqa: PLC0415 - it needs the extra

    run()
