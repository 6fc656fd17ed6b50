"""`askonce stats`: what the cache did, for all processes that use the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce import Cache, Stats
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import write_json
from askonce_cli._words import many, plain, size_text, span

HELP: Final = (
    "Show what a cache did since its store was first used: calls, tokens and time saved, and why some calls "
    "passed it by.\n\n"
    "Kept by redis:// and disk://, for all processes together, and brought up to date once a minute. Other "
    "stores keep no figures; what they hold is shown all the same."
)
EXAMPLES: Final = (
    ("askonce stats", "your user cache folder, or $ASKONCE_STORE"),
    ("askonce stats --store redis://cache --namespace evals --json", "for a program"),
)


def run(
    *, store: StoreOption = None, namespace: NamespaceOption = "default", json_: JsonOption = False
) -> None:
    """See HELP."""
    with opened(store, namespace, as_json=json_) as cache:
        found = cache.totals()
        held = _held(cache)
    if json_:
        write_json({"namespace": namespace, **stats_json(found), "stores": held})
    else:
        console = Console()
        console.print(_table(found, namespace, held))


def stats_json(stats: Stats) -> dict[str, Any]:
    """All figures, and those that follow from them."""
    return {
        "calls": stats.calls,
        "served": stats.served,
        "hit_rate": stats.hit_rate,
        "tokens_saved": stats.tokens_saved,
        **asdict(stats),
    }


def _held(cache: Cache) -> list[dict[str, Any]]:
    entries = len(cache.keys())
    return [{"kind": health.kind, "entries": entries, **health.detail} for health in cache.ping()]


def _table(stats: Stats, namespace: str, held: list[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows: list[tuple[str, str]] = [("Namespace", namespace)]
    for one in held:
        used = next((one[name] for name in ("bytes", "used_memory") if one.get(name)), None)
        room = f", {size_text(float(used))} used" if used else ""
        rows.append(("Store", f"{one['kind']}, {many(one['entries'], 'entry', 'entries')}{room}"))
    if not stats.calls:
        rows.append(("Calls", "none counted yet; programs add theirs once a minute, and when they end"))
    else:
        rows += [
            ("Calls", f"{stats.calls:,}"),
            ("From the cache", f"{stats.served:,} ({stats.hit_rate:.0%} of what can be cached){_how(stats)}"),
            ("From the provider", f"{stats.misses:,}"),
            ("Passed by", _reasons(stats.bypasses, stats.bypassed)),
            ("In vain", f"{stats.errors:,}"),
            ("Not stored", _reasons(sum(stats.dropped.values()), stats.dropped)),
            ("Tokens saved", f"{stats.tokens_saved:,}"),
            ("Time saved", span(stats.seconds_saved)),
        ]
    if stats.tokens_provider_cached:
        rows.append(("Tokens read from the provider's cache", f"{stats.tokens_provider_cached:,}"))
    if stats.by_meaning is not None:
        rows.append(("By meaning", str(stats.by_meaning)))
    if stats.store_errors or stats.corrupt:
        failed = _reasons(sum(stats.store_errors.values()), stats.store_errors)
        rows.append(("Store failures", f"{failed}; {many(stats.corrupt, 'damaged value')}"))
    for name, value in rows:
        table.add_row(name, Text(plain(value)))
    return table


def _how(stats: Stats) -> str:
    parts = [f"{many(number, word)}" for number, word in ((stats.hits, "hit"),) if number]
    parts += [
        f"{number:,} {word}"
        for number, word in (
            (stats.stale, "stale"),
            (stats.coalesced, "shared a call"),
            (stats.semantic, "similar"),
        )
        if number
    ]
    return f": {', '.join(parts)}" if parts else ""


def _reasons(total: int, reasons: dict[str, int]) -> str:
    if not total:
        return "0"
    told = ", ".join(
        f"{name} {number:,}" for name, number in sorted(reasons.items(), key=lambda one: -one[1])
    )
    return f"{total:,}: {told}" if told else f"{total:,}"
