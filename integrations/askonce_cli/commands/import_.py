"""`askonce import`: an export's entries into a store."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from askonce.tools import Imported, import_entries, namespace_of
from askonce_cli._common import JsonOption, StoreOption, opened
from askonce_cli._console import one_line_for_errors, progress_bar, write_json
from askonce_cli._errors import CommandError, misuse
from askonce_cli._index import IndexOption, index_of
from askonce_cli._words import many

HELP: Final = (
    "Store the answers of an export, each with the life that it has left, and the rows by which a semantic "
    "layer of the same embedder finds them.\n\n"
    "The namespace is the export's: it is part of every key. What is stored already stays, so an import that "
    "broke off is simply started again. Import only files that you trust: they say what models answered.\n\n"
    "Exit status 1: a line is damaged, or the file has no end; what stands before it is stored."
)
EXAMPLES: Final = (
    ("askonce import answers.jsonl --store redis://cache", "into Redis"),
    ("askonce import answers.jsonl --index 'redis://cache?algorithm=flat'", "rows for a RedisIndex"),
    ("askonce import answers.jsonl --overwrite", "the file knows better than the store"),
)


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - for the standard input.")],
    *,
    store: StoreOption = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", metavar="NAME", help="The export's; needed with -."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace answers stored under the same keys.")
    ] = False,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with one_line_for_errors(as_json=json_):
        if file != "-" and not Path(file).is_file():
            raise misuse(f"there is no file {file}")
        space = namespace or ("default" if file == "-" else namespace_of(Path(file)))
    with (
        opened(store, space, as_json=json_, makes=True) as cache,
        index_of(index) as rows,
        progress_bar("Importing", quiet=json_, unit="bytes") as progress,
    ):
        source = sys.stdin.buffer if file == "-" else Path(file)
        done = import_entries(cache, source, overwrite=overwrite, progress=progress, index=rows)
    said: dict[str, Any] = {"namespace": space, "file": file, **asdict(done)}
    if json_:
        write_json(said)
    else:
        typer.echo(_told(done, space))
    if not done.complete:
        with one_line_for_errors(as_json=False):
            raise CommandError(f"{file} has no end: its export broke off, and entries or rows are missing")


def _told(done: Imported, namespace: str) -> str:
    parts = [f"{many(done.written, 'entry', 'entries')} stored in the namespace {namespace!r}"]
    if done.rows_written:
        parts.append(f"{many(done.rows_written, 'row')} of the semantic layer")
    if done.present:
        parts.append(f"{done.present:,} were there already")
    if done.expired:
        parts.append(f"{done.expired:,} past their life left out")
    return ", ".join(parts)
