"""`askonce warm`: answers stored before somebody needs them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from askonce import using
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import need, progress_bar, write_json
from askonce_cli._errors import misuse
from askonce_cli._requests import base_url, read_lines
from askonce_cli._words import many, plain

HELP: Final = (
    "Ask a list of requests, several at once, so that their answers are stored.\n\n"
    "FILE has one JSON object a line: url (a path belongs to --base-url), body, and perhaps headers and "
    "method; files of OpenAI's Batch API fit as they are. What is stored already is not asked for: a list "
    "that broke off is simply started again. The key is OPENAI_API_KEY, sent to --base-url alone.\n\n"
    "Exit status 1: a request got no answer; the others are stored."
)
EXAMPLES: Final = (
    ("askonce warm requests.jsonl", "four at once"),
    ("askonce warm batch.jsonl --at-once 16 --ttl 30d --tag evals", "more, kept for a month, with a label"),
    ("askonce warm local.jsonl --base-url http://localhost:8000/v1", "another provider"),
)


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Requests, one a line; - for standard input.")],
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    base: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="The provider. Default: $OPENAI_BASE_URL.")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Requests at the same time.")] = 4,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="Life of the answers: 12h, 7d, never.")] = "1d",
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A label on the answers.")] = None,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with ExitStack() as stack:
        cache = stack.enter_context(opened(store, namespace, as_json=json_, makes=True))
        need("wrapt", "openai", extra="openai", what="askonce warm")
        from askonce_cli._warming import warm  # noqa: PLC0415 - it needs the extra

        if file != "-" and not Path(file).is_file():
            raise misuse(f"there is no file {file}")
        lines = sys.stdin if file == "-" else stack.enter_context(Path(file).open(encoding="utf-8"))
        total = 0 if file == "-" else _count(Path(file))
        told = stack.enter_context(progress_bar("Asking", quiet=json_))
        stack.enter_context(using(ttl=None if ttl == "never" else ttl, tags=tag or ()))
        done = 0

        def progress(_line: int) -> None:
            nonlocal done
            done += 1
            told(done, total)

        provider = base_url(base)
        found = warm(cache, read_lines(lines, provider), base=provider, at_once=at_once, progress=progress)
    if json_:
        write_json({"ok": not found.failures, **asdict(found)})
    else:
        parts = [f"{many(found.stored, 'answer')} stored", f"{found.present:,} there already"]
        parts += [f"{number:,} not stored ({why})" for why, number in found.not_stored.items()]
        parts += [f"{found.failures:,} failed"] if found.failures else []
        typer.echo(", ".join(parts))
    for line in found.failed:
        sys.stderr.write(f"askonce warm: {plain(line)}\n")
    if found.failures > len(found.failed):
        sys.stderr.write(f"askonce warm: and {found.failures - len(found.failed):,} more\n")
    if found.failures:
        raise typer.Exit(1)


def _count(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())
