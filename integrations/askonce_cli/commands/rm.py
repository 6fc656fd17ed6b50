"""`askonce rm`: entries out of a store, by key or by condition."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from askonce import Cache
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, missing, opened, whole_key
from askonce_cli._console import is_watched, write_json
from askonce_cli._errors import misuse
from askonce_cli._words import many

HELP: Final = (
    "Remove stored answers: by key, or all that match every condition given.\n\n"
    "Programs that hold a copy in memory drop it too, where the store announces changes (Redis)."
)
EXAMPLES: Final = (
    ("askonce rm 9f2c41d0", "one answer"),
    ("askonce rm --model 'gpt-4o*' --older-than 30d --yes", "old answers of a family of models"),
    ("askonce rm --tag nightly --yes --json", "those of a run, from a script"),
)


def run(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys, or their first digits.")
    ] = None,
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model; * stands for anything.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="A label of using(tags=...).")] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it was asked; * stands for anything.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Made longer ago: 90s, 15m, 12h, 7d.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    conditions = [one for one in (model, tag, url, older_than) if one is not None]
    with opened(store, namespace, as_json=json_) as cache:
        if bool(keys) == bool(conditions):
            raise misuse("rm takes keys, or conditions (--model, --tag, --url, --older-than), one of the two")
        if keys:
            removed = _remove(cache, keys)
        else:
            sure("Remove every answer that matches?", yes=yes)
            removed = cache.invalidate(model=model, tag=tag, url=url, older_than=older_than)
    if json_:
        write_json({"namespace": namespace, "removed": removed})
    else:
        typer.echo(f"{many(removed, 'entry', 'entries')} removed")


def sure(question: str, *, yes: bool) -> None:
    """Have a person confirm; a script has to say `--yes`.

    Raises:
        CommandError: nobody can be asked.
        Abort: the person said no.
    """
    if yes:
        return
    if not is_watched():
        raise misuse("nobody is there to confirm this; add --yes")
    typer.confirm(question, abort=True, err=True)


def _remove(cache: Cache, keys: list[str]) -> int:
    whole = [(text, whole_key(cache, text)) for text in keys]  # all of them are known, or none is removed
    removed = 0
    for text, key in whole:
        if not cache.delete(key):
            raise missing(cache, text)
        removed += 1
    return removed
