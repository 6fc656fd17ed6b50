"""The commands that work on a store, one a module. What they need is loaded when they run."""

from __future__ import annotations

import typer

from askonce_cli.commands import (
    clear,
    doctor,
    export,
    import_,
    ls,
    report,
    rm,
    show,
    stats,
    tune,
    warm,
    why,
)

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Make them commands of the app, in the order in which `--help` lists them."""
    for name, module in (
        ("stats", stats),
        ("report", report),
        ("ls", ls),
        ("show", show),
        ("why", why),
        ("rm", rm),
        ("clear", clear),
        ("export", export),
        ("import", import_),
        ("warm", warm),
        ("doctor", doctor),
    ):
        app.command(name, help=module.HELP, epilog=examples(module.EXAMPLES))(module.run)
    semantic = typer.Typer(
        name="semantic", help="The semantic layer: find its threshold.", no_args_is_help=True
    )
    semantic.callback()(_semantic)  # else its one command would take its name
    semantic.command("tune", help=tune.HELP, epilog=examples(tune.EXAMPLES))(tune.run)
    app.add_typer(semantic)


def _semantic() -> None:
    """What holds for every command of the semantic layer."""


def examples(pairs: tuple[tuple[str, str], ...]) -> str:
    """The epilog of a command's help."""
    return "Examples:\n\n" + "\n\n".join(f"[cyan]{command}[/cyan]  {what}" for command, what in pairs)
