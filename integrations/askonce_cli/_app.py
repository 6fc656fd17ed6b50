"""The commands and their options. What a command does is in a module of its own, loaded when it runs."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from askonce import __version__
from askonce_cli import commands
from askonce_cli._console import need, one_line_for_errors, status, write_json

app = typer.Typer(
    name="askonce",
    help="One cache under every LLM SDK: ask a model once, answer every identical ask from the cache.",
    epilog="Examples:\n\n"
    "[cyan]askonce demo[/cyan]  the cache at work, with or without an API key\n\n"
    "[cyan]askonce stats --store redis://cache:6379/0[/cyan]  what a store has saved so far\n\n"
    "[cyan]export ASKONCE_STORE=disk:///var/cache/answers[/cyan]  the store of all further commands\n\n"
    "ASKONCE_SECRET is the secret of a cache that has one. Exit status: 0 done, 1 it did not work, "
    "2 called wrongly, or the store, the key or an extra is not there.",
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
    output = sys.stdout  # click may put another one in its place
    try:
        try:
            app(prog_name="askonce")
        finally:
            output.flush()  # here, where it can be caught: at its end the interpreter would complain
    except BrokenPipeError:
        # `askonce ls | head`: whoever read us has enough. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        sys.exit(1)


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
    with one_line_for_errors(as_json=json_), status(Console(stderr=True)) as progress:
        progress("loading the OpenAI SDK")
        need("wrapt", "openai", extra="openai", what="askonce demo")
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
        write_json(figures(report))
    else:
        show(report, Console())
    if report.problems:
        for problem in report.problems:
            sys.stderr.write(f"askonce demo: {problem}\n")
        raise typer.Exit(1)


commands.add_to(app)
