"""`askonce show`: one entry."""

from __future__ import annotations

import base64
import sys
import time
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce import Entry
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, missing, opened, whole_key
from askonce_cli._console import write_json
from askonce_cli._words import plain, size_text, span
from askonce_cli.commands.ls import described, life_left

HELP: Final = (
    "Show one stored answer: where it came from, how long it lives, what it cost.\n\n"
    "The first digits of the key are enough. The question itself is not stored, only digests of its parts."
)
EXAMPLES: Final = (
    ("askonce show 9f2c41d0", "its figures"),
    ("askonce show 9f2c41d0 --body", "the answer, byte for byte"),
    ("askonce show 9f2c41d0 --body --json", "both, for a program"),
)


def run(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or its first digits (askonce ls).")],
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    body: Annotated[bool, typer.Option("--body", help="Print the answer itself.")] = False,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with opened(store, namespace, as_json=json_) as cache:
        whole = whole_key(cache, key)
        entry = cache.entry(whole)
        if entry is None:
            raise missing(cache, key)
    if json_:
        write_json(_json(whole, entry, body=body))
    elif body:
        _write_body(entry.body)
    else:
        Console().print(_table(whole, entry))


def _json(key: str, entry: Entry, *, body: bool) -> dict[str, Any]:
    said = {
        **described(key, entry, time.time()),
        "stale_until": entry.meta.stale_until,
        "status": entry.status,
        "headers": [list(pair) for pair in entry.headers],
        "fingerprint": entry.meta.fingerprint,
    }
    if body:
        try:
            said["body"] = entry.body.decode()
        except UnicodeDecodeError:
            said["body_base64"] = base64.b64encode(entry.body).decode()
    return said


def _write_body(body: bytes) -> None:
    if sys.stdout.isatty():
        # What a model said must not move the cursor or set the window's title.
        text = body.decode("utf-8", "replace")
        sys.stdout.write("".join(one if one.isprintable() or one in "\n\t" else "?" for one in text) + "\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


def _table(key: str, entry: Entry) -> Table:
    meta = entry.meta
    now = time.time()
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(meta.created_at))
    ttl = None if meta.expires_at is None else meta.expires_at - now
    rows = [
        ("Key", key),
        ("Model", meta.model or "none named"),
        ("Kind", f"{meta.surface}, streamed" if entry.is_stream else meta.surface),
        ("Asked at", meta.url),
        ("Made", f"{made}, {span(now - meta.created_at)} ago, in {meta.latency:.2f} s"),
        ("Fresh for", life_left(ttl)),
        ("Answer", f"{size_text(len(entry.body))}, {entry.header('content-type') or 'no type'}"),
        ("Usage", ", ".join(f"{name} {number:,}" for name, number in meta.usage.items()) or "not said"),
        ("Tags", ", ".join(meta.tags) or "none"),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(plain(value)))
    return table
