"""How commands speak: one line for errors, JSON for programs, a spinner where somebody watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from askonce import AskOnceError, ConfigurationError
from askonce.doors import missing_extra
from askonce_cli._errors import CommandError


def need(*packages: str, extra: str, what: str) -> None:
    """Raise ConfigurationError with the command that installs an extra, if a package of it is missing."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise missing_extra(package, extra, what) from error


@contextmanager
def one_line_for_errors(*, as_json: bool) -> Generator[None]:
    """Leave with one line on stderr, never folded or coloured, and 1 or, when called wrongly, 2.

    Errors that nobody foresaw are told by their class alone: their texts may quote what must not be shown.
    """
    code = 1
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise  # whoever read us has gone
    except ConfigurationError as error:
        cause: Exception = error
        text, code = str(error), 2
    except CommandError as error:
        cause = error
        text, code = str(error), error.code
    except AskOnceError as error:
        cause = error
        text = str(error)
    except OSError as error:
        cause = error
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        text = f"{place}{error.strerror or type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - a traceback with values would show prompts and keys
        cause = error
        text = f"the store or the network failed ({type(error).__name__}); try `askonce doctor`"
    else:
        return
    if as_json:
        write_json({"ok": False, "problems": [text]})
    sys.stderr.write(f"askonce: {text}\n")
    raise typer.Exit(code) from cause


def write_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


@contextmanager
def status(console: Console) -> Generator[Callable[[str], None]]:
    """A spinner with a text, on a terminal; silence elsewhere."""
    if not console.is_terminal:
        yield _nothing
        return
    with console.status("", spinner="dots" if console.encoding.startswith("utf") else "line") as spinner:

        def tell(text: str) -> None:
            spinner.update(Text(text))  # not a str: what a model says is not markup

        yield tell


def _nothing(_text: str) -> None:
    """What progress is where nobody watches."""


@contextmanager
def progress_bar(title: str, *, quiet: bool = False, unit: str = "") -> Generator[Callable[[int, int], None]]:
    """A bar on stderr, told `(done, total)`; silence where nobody watches."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _no_bar
        return
    from rich.progress import (  # noqa: PLC0415 - only where somebody watches
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield tell


def _no_bar(_done: int, _total: int) -> None:
    """What a bar is where nobody watches."""


def is_watched() -> bool:
    """Whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
