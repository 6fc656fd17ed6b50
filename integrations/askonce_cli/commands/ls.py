"""`askonce ls`: the entries of a store."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, TypeAlias

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce import Cache, Entry
from askonce.tools import seconds, size
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import write_json
from askonce_cli._words import many, plain, short_key, size_text, span

HELP: Final = (
    "List stored answers: model, kind, age, life left, size, tags.\n\n"
    "Conditions add up. The list is the newest first, and ends after --limit entries."
)
EXAMPLES: Final = (
    ("askonce ls --model 'gpt-4o*' --older-than 7d", "answers of a family of models, a week old"),
    ("askonce ls --tag nightly --larger-than 1MiB", "large answers of the nightly run"),
    ("askonce ls --sort size --limit 5", "what takes the most room"),
    ("askonce ls --json --limit 0", "all of them, for a program"),
)
Sort: TypeAlias = Literal["age", "size"]


def run(
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
    newer_than: Annotated[str | None, typer.Option(metavar="TIME", help="Made more recently.")] = None,
    larger_than: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Answers of more bytes: 64KB, 1MiB.")
    ] = None,
    smaller_than: Annotated[str | None, typer.Option(metavar="SIZE", help="Answers of fewer bytes.")] = None,
    sort: Annotated[Sort, typer.Option(help="Newest first, or largest first.")] = "age",
    limit: Annotated[int, typer.Option(min=0, help="Show at most so many; 0: all.")] = 50,
    json_: JsonOption = False,
) -> None:
    """See HELP. Memory holds `limit` entries, however many there are."""
    with opened(store, namespace, as_json=json_) as cache:
        now = time.time()
        matches = matcher(
            now,
            model=model,
            tag=tag,
            url=url,
            older_than=older_than,
            newer_than=newer_than,
            larger_than=larger_than,
            smaller_than=smaller_than,
        )
        matching, shown = _pick(cache, matches, now, sort, limit)
    if json_:
        write_json({"namespace": namespace, "matching": matching, "entries": shown})
        return
    console = Console()
    if shown:
        console.print(_table(shown))
    hidden = matching - len(shown)
    rest = f", {hidden:,} more: --limit {matching} shows all" if hidden else ""
    console.print(f"{many(matching, 'entry', 'entries')} in {namespace!r}{rest}", highlight=False)


def matcher(
    now: float,
    *,
    model: str | None,
    tag: str | None,
    url: str | None,
    older_than: str | None,
    newer_than: str | None,
    larger_than: str | None,
    smaller_than: str | None,
) -> Callable[[Entry], bool]:
    """What an entry must be to be listed: all that is given.

    Raises:
        ConfigurationError: for a time or size that is none.
    """
    oldest = None if newer_than is None else now - seconds("--newer-than", newer_than)
    newest = None if older_than is None else now - seconds("--older-than", older_than)
    least = None if larger_than is None else size("--larger-than", larger_than)
    most = None if smaller_than is None else size("--smaller-than", smaller_than)

    def matches(entry: Entry) -> bool:
        meta = entry.meta
        return (
            (model is None or fnmatchcase(meta.model, model))
            and (tag is None or tag in meta.tags)
            and (url is None or fnmatchcase(meta.url, url))
            and (oldest is None or meta.created_at > oldest)
            and (newest is None or meta.created_at < newest)
            and (least is None or len(entry.body) > least)
            and (most is None or len(entry.body) < most)
        )

    return matches


def described(key: str, entry: Entry, now: float) -> dict[str, Any]:
    """An entry's figures as JSON values: times in seconds, sizes in bytes."""
    meta = entry.meta
    return {
        "key": key,
        "model": meta.model,
        "surface": meta.surface,
        "stream": entry.is_stream,
        "url": meta.url,
        "created_at": meta.created_at,
        "expires_at": meta.expires_at,
        "age": max(0.0, now - meta.created_at),
        "ttl": None if meta.expires_at is None else meta.expires_at - now,
        "bytes": len(entry.body),
        "latency": meta.latency,
        "usage": meta.usage,
        "tags": list(meta.tags),
    }


def life_left(ttl: float | None) -> str:
    """How long an answer stays fresh."""
    if ttl is None:
        return "for ever"
    return span(ttl, 1) if ttl > 0 else "expired"


def _pick(
    cache: Cache, matches: Callable[[Entry], bool], now: float, sort: Sort, limit: int
) -> tuple[int, list[dict[str, Any]]]:
    matching = 0

    def found() -> Iterator[dict[str, Any]]:
        nonlocal matching
        for key, entry in cache.entries():
            if matches(entry):
                matching += 1
                yield described(key, entry, now)

    def order(one: dict[str, Any]) -> tuple[float, str]:
        return (one["created_at"] if sort == "age" else one["bytes"], one["key"])

    picked = heapq.nlargest(limit, found(), key=order) if limit else sorted(found(), key=order, reverse=True)
    return matching, picked


def _table(shown: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", highlight=False)
    table.add_column("Key", no_wrap=True, style="cyan")
    table.add_column("Model", overflow="fold")
    table.add_column("Kind")
    table.add_column("Age", justify="right", no_wrap=True)
    table.add_column("Fresh for", justify="right", no_wrap=True)
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Tags", overflow="fold")
    for one in shown:
        table.add_row(
            short_key(one["key"]),
            Text(plain(one["model"])),
            f"{one['surface']}, streamed" if one["stream"] else one["surface"],
            span(one["age"], 1),
            Text(life_left(one["ttl"]), "red" if one["ttl"] is not None and one["ttl"] <= 0 else ""),
            size_text(one["bytes"]),
            Text(plain(", ".join(one["tags"]))),
        )
    return table
