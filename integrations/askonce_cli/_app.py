"""The commands and their options. What a command does is in a module of its own, loaded when it runs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from askonce import ConfigurationError, __version__
from askonce.doors import missing_extra
from askonce_cli._errors import CommandError

app = typer.Typer(
    name="askonce",
    help="One cache under every LLM SDK: ask a model once, answer every identical ask from the cache.",
    epilog="Example: [cyan]askonce demo[/cyan] shows the cache at work, with or without an API key.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    # A traceback with the values of variables would show prompts and keys.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line of this process, and leave with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a character gets a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="askonce")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"askonce {__version__}")
        raise typer.Exit


@app.callback()
def askonce(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """What holds for every command."""


@app.command(
    help="Show the cache at work: ask, ask again, then once more from a new process.\n\n"
    "Asks the provider that OPENAI_API_KEY and OPENAI_BASE_URL name, or a stand-in on this machine when "
    "neither is set. The exit status is 1 when a repeated ask reached the provider, or an answer was "
    "not the first one.",
    epilog="Examples:\n\n"
    "[cyan]askonce demo[/cyan]  a provider stand-in on this machine, nothing to set up\n\n"
    "[cyan]OPENAI_API_KEY=... askonce demo --model gpt-4o[/cyan]  a real model\n\n"
    "[cyan]askonce demo --store memory:// --store disk:///tmp/answers[/cyan]  a store of yours\n\n"
    "[cyan]askonce demo --json[/cyan]  the figures, for a program",
)
def demo(
    *,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Where answers are kept; several times: front tier first. "
            "Default: memory over disk, in a fresh temporary folder.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder.")] = False,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model for chats.")] = "gpt-4o-mini",
    embedding_model: Annotated[
        str, typer.Option(metavar="NAME", help="The model for the embedding.")
    ] = "text-embedding-3-small",
) -> None:
    """Show the cache at work: ask, ask again, then once more from a new process.

    Exit status 1: the promise did not hold, or the provider gave no answer. 2: see `main`.
    """
    with _one_line_for_errors(as_json=json_), _status(Console(stderr=True)) as progress:
        progress("loading the OpenAI SDK")
        _need("wrapt", "openai", extra="openai", what="askonce demo")
        from askonce_cli._demo import run_demo  # noqa: PLC0415 - it needs the extra
        from askonce_cli._show import figures, show  # noqa: PLC0415

        report = run_demo(
            # As in ASKONCE_STORE, one text may name several tiers.
            stores=[url for text in store or () for url in text.split() or [text]],
            model=model,
            embedding_model=embedding_model,
            keep=keep,
            progress=progress,
        )
    if json_:
        _write_json(figures(report))
    else:
        show(report, Console())
    if report.problems:
        for problem in report.problems:
            sys.stderr.write(f"askonce demo: {problem}\n")
        raise typer.Exit(1)


def _need(*packages: str, extra: str, what: str) -> None:
    """Raise ConfigurationError with the command that installs an extra, if a package of it is missing."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise missing_extra(package, extra, what) from error


@contextmanager
def _one_line_for_errors(*, as_json: bool) -> Generator[None]:
    """Leave with one line on stderr, never folded or coloured, and 1 or, when called wrongly, 2."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(f"askonce: {error}\n")
        raise typer.Exit(2) from error
    except CommandError as error:
        if as_json:
            _write_json({"ok": False, "problems": [str(error)]})
        sys.stderr.write(f"askonce: {error}\n")
        raise typer.Exit(1) from error


def _write_json(value: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


@contextmanager
def _status(console: Console) -> Generator[Callable[[str], None]]:
    """A spinner with a text, on a terminal; silence elsewhere."""
    if not console.is_terminal:
        yield _nothing
        return
    with console.status("", spinner="dots" if console.encoding.startswith("utf") else "line") as status:

        def tell(text: str) -> None:
            status.update(Text(text))  # not a str: what a model says is not markup

        yield tell


def _nothing(_text: str) -> None:
    """What progress is where nobody watches."""
