"""`askonce clear`: a namespace emptied."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import write_json
from askonce_cli._words import many
from askonce_cli.commands.rm import sure

HELP: Final = "Remove every answer of one namespace. Other namespaces, and other data in the store, stay."
EXAMPLES: Final = (
    ("askonce clear", "asks first"),
    ("askonce clear --namespace evals --yes", "from a script"),
)


def run(
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with opened(store, namespace, as_json=json_) as cache:
        sure(f"Remove every answer of the namespace {namespace!r}?", yes=yes)
        removed = cache.clear()
    if json_:
        write_json({"namespace": namespace, "removed": removed})
    else:
        typer.echo(f"{many(removed, 'entry', 'entries')} removed")
