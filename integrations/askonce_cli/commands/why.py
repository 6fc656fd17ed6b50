"""`askonce why`: what the cache makes of a request."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final, Literal

import typer
from rich.console import Console
from rich.text import Text

from askonce import using
from askonce.tools import Explanation
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import one_line_for_errors, write_json
from askonce_cli._requests import base_url, read_request, text_of
from askonce_cli._words import plain

HELP: Final = (
    "Say why a request is or is not answered from the cache: the nearest stored answer, and the parts in "
    "which its question differs.\n\n"
    "FILE has one JSON object: url (a path belongs to --base-url), method, headers, body. Digests are "
    "compared; no prompt is stored. The policy is the default one: what a Policy of your program forbids or "
    "ignores is not known here. The exit status is 0 whatever the verdict is."
)
EXAMPLES: Final = (
    ("askonce why request.json", "a request in a file"),
    (
        'echo \'{"url": "/chat/completions", "body": {...}}\' | askonce why -',
        "one in a pipe",
    ),
    ("askonce why request.json --json", "for a program"),
)


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The request; - for the standard input.")],
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    base: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="Where paths belong. Default: $OPENAI_BASE_URL."),
    ] = None,
    scope: Annotated[
        str | None, typer.Option(metavar="NAME", help="The using(scope=...) of the call.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="The using(sample=...) of the call.")] = 0,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with one_line_for_errors(as_json=json_):
        wanted = read_request(text_of(file), base_url(base))
    with opened(store, namespace, as_json=json_) as cache, using(scope=scope, sample=sample):
        found = cache.explain(wanted.request())
    if json_:
        write_json(asdict(found))
    else:
        _show(found, Console())


_STYLES: Final[dict[str, Literal["green", "yellow", "red"]]] = {
    "hit": "green",
    "expired": "yellow",
    "miss": "red",
    "bypass": "yellow",
}


def _show(found: Explanation, console: Console) -> None:
    verdict = {"bypass": f"not cacheable: {found.reason}"}.get(found.verdict, found.verdict)
    console.print(Text(plain(verdict), f"bold {_STYLES.get(found.verdict, 'yellow')}"))
    if found.key:
        console.print(Text.assemble(("Key      ", "dim"), found.key), soft_wrap=True)
    if found.verdict != "miss":
        return
    if found.nearest:
        console.print(Text.assemble(("Nearest  ", "dim"), found.nearest), soft_wrap=True)
        for one in found.differences:
            console.print(Text(f"  - {plain(one)}"), soft_wrap=True)
    else:
        console.print("Nothing of its kind is stored near it.")
    if found.entries:
        looked = f"{found.looked_at:,} of {found.entries:,} entries were compared"
        console.print(Text(looked, "dim"))
