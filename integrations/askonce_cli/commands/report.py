"""`askonce report`: what the cache saved, in the terminal and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce.report import Price, Report, Row
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, opened
from askonce_cli._console import write_json
from askonce_cli._errors import misuse
from askonce_cli._words import many, money_text, plain, span

HELP: Final = (
    "Report what a cache saved: calls, tokens, time and money, by model, tag and day.\n\n"
    "Kept by redis:// and disk://, for all processes together. Prices are those of the package genai-prices "
    "(extra prices), and yours: a JSON file of model names (* stands for anything) with US dollars for a "
    "million tokens. The page has everything in it, and loads nothing."
)
EXAMPLES: Final = (
    ("askonce report", "the last 30 days"),
    ("askonce report --days 7 --html report.html", "a page with plots"),
    ("askonce report --prices prices.json", '{"my-model*": {"input": 0.2, "output": 0.8}}'),
    ("askonce report --json", "for a program"),
)
_MOST_ROWS: Final = 10


def run(
    *,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days, today included (UTC).")] = 30,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the page here.")] = None,
    prices: Annotated[str | None, typer.Option(metavar="FILE", help="Prices of your own.")] = None,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with opened(store, namespace, as_json=json_) as cache:
        found = cache.report(days=days, prices=None if prices is None else _prices(Path(prices)))
        if html is not None:
            Path(html).write_text(found.to_html(), "utf-8")
    if json_:
        write_json(found.to_dict())
        return
    _show(found, Console())
    if html is not None:
        typer.echo(f"The page is in {html}")


def _prices(file: Path) -> dict[str, Price]:
    """The prices in a JSON file.

    Raises:
        CommandError: it is not there, or not of that form.
    """
    try:
        said: object = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise misuse(f"there is no file {file}") from error
    except ValueError as error:
        raise misuse(f"{file} is not JSON") from error
    form = '{"model": {"input": 0.2, "output": 0.8, "cached": 0.1, "cache_written": 0.2}}'
    if not isinstance(said, dict):
        raise misuse(f"{file} has no prices; allowed: {form}")
    found: dict[str, Price] = {}
    for model, figures in cast("dict[str, Any]", said).items():
        try:
            found[model] = Price(**figures)
        except TypeError as error:
            raise misuse(f"{file}: the price of {model!r} is none; allowed: {form}") from error
    return found


def _show(report: Report, console: Console) -> None:
    total = report.total
    console.print(
        Text.assemble((f"{report.namespace}", "bold"), f", {report.first_day} to {report.last_day} (UTC)")
    )
    if not total.calls:
        console.print("No calls were counted in these days.")
        return
    money = f"{money_text(total.money_saved)} and " if report.prices else ""
    console.print(
        Text(
            f"{money}{many(total.saved.total, 'token')} saved, {span(total.seconds_saved)} of waiting; "
            f"{total.hit_rate:.0%} of {many(total.served + total.misses, 'call')} came from the cache",
            "green",
        )
    )
    console.print(_table(report.by_model, "Model", priced=bool(report.prices)))
    if report.by_tag:
        console.print(_table(report.by_tag, "Tag", priced=bool(report.prices)))
    busy = [row for row in report.by_day if row.calls][-_MOST_ROWS:]
    console.print(_table(busy, "Day", priced=bool(report.prices)))
    for note in _notes(report):
        console.print(Text(note, "dim"))


def _table(rows: Sequence[Row], what: str, *, priced: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", highlight=False)
    table.add_column(what, overflow="fold")
    heads = ("Served", "Asked", "Rate", "Tokens saved", *(("Saved", "Spent") if priced else ()))
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows[:_MOST_ROWS]:
        cells = [
            f"{row.served:,}",
            f"{row.misses:,}",
            f"{row.hit_rate:.0%}",
            f"{row.saved.total:,}",
        ]
        if priced:
            cells += [money_text(row.money_saved), money_text(row.money_spent)]
        table.add_row(Text(plain(row.name)), *cells)
    if len(rows) > _MOST_ROWS:
        table.add_row(Text(f"and {len(rows) - _MOST_ROWS} more", "dim"))
    return table


def _notes(report: Report) -> list[str]:
    notes: list[str] = []
    if not report.prices:
        notes.append('No prices: pip install "askonce[prices]", or --prices FILE.')
    elif report.total.unpriced:
        notes.append(f"Without a price, tokens only: {plain(', '.join(report.total.unpriced))}")
    if report.total.unmetered:
        notes.append(f"{many(report.total.unmetered, 'served answer')} said nothing of their usage.")
    if report.stats.by_meaning is not None:
        notes.append(f"By meaning, since the store was first used: {report.stats.by_meaning}.")
    return notes
