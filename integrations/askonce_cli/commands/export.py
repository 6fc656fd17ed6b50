"""`askonce export`: a namespace as one file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from askonce.tools import export_entries
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import progress_bar, write_json
from askonce_cli._errors import misuse
from askonce_cli._index import IndexOption, index_of
from askonce_cli._words import many, size_text

HELP: Final = (
    "Write every answer of a namespace into one file (JSON lines), for `askonce import` elsewhere, and the "
    "rows by which a semantic layer finds them.\n\n"
    "Each line carries a checksum, the file a digest of all. Sealed answers stay sealed; others can be read "
    "by whoever has the file. An export that broke off goes on when it is started again."
)
EXAMPLES: Final = (
    ("askonce export answers.jsonl", "the default namespace"),
    ("askonce export -n evals --store redis://cache evals.jsonl", "another one, from Redis"),
    ("askonce export answers.jsonl --index redis://cache", "with the rows that a RedisIndex has"),
    ("askonce export - | ssh host askonce import -", "to another machine"),
)


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - for the standard output.")],
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    force: Annotated[bool, typer.Option("--force", help="Begin the file anew, whatever it has.")] = False,
    index: IndexOption = None,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with (
        opened(store, namespace, as_json=json_) as cache,
        index_of(index) as rows,
        progress_bar("Exporting", quiet=json_) as progress,
    ):
        if file == "-":
            if json_:
                raise misuse("--json and - are both the standard output; give a file")
            if sys.stdout.isatty():
                raise misuse("an export is not for a terminal; give a file, or pipe it")
            done = export_entries(cache, sys.stdout.buffer, progress=progress, index=rows)
        else:
            done = export_entries(cache, Path(file), anew=force, progress=progress, index=rows)
    if json_:
        write_json({"namespace": namespace, "file": file, **asdict(done)})
        return
    went_on = f", {done.resumed:,} of them by an earlier run" if done.resumed else ""
    with_rows = f" and {many(done.rows, 'row')} of the semantic layer" if done.rows else ""
    said = f"{many(done.entries, 'entry', 'entries')}{went_on}{with_rows}, {size_text(done.bytes)}"
    typer.echo(f"{said} in {file}" if file != "-" else said, err=file == "-")
