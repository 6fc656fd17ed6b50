"""How the demo's report looks: for people as a table, for programs as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce_cli._asks import ASKS, Answered
from askonce_cli._demo import Report


def figures(report: Report) -> dict[str, Any]:
    """The report as JSON values. Seconds are seconds."""
    asked = report.asked
    return {
        "ok": not report.problems,
        "problems": list(report.problems),
        "provider": report.provider,
        "model": report.plan.model,
        "embedding_model": report.plan.embedding_model,
        "store": [shown_url(url) for url in report.plan.stores],
        "kept": report.kept,
        "asks": [
            {**asdict(one), "same": None if one.turn == "first" else place not in report.different}
            for place, one in enumerate(asked)
        ],
        "asked": len(asked),
        "provider_calls": report.provider_calls,
        "tokens_spent": sum(one.tokens_spent for one in asked),
        "tokens_saved": sum(one.tokens_saved for one in asked),
        "seconds_saved": sum(one.seconds_saved for one in asked),
        "same_answers": not report.different,
    }


def show(report: Report, console: Console) -> None:
    """Print the report, in 80 columns."""
    console.print(_heading(report))
    console.print(_table(report))
    console.print(_summary(report))
    if report.problems:
        return
    console.print()
    console.print("In your own program:", style="bold")
    for line in ("from openai import OpenAI", "from askonce_openai import enable_cache", "enable_cache()"):
        console.print(f"    {line}", style="cyan", highlight=False)


def shown_url(url: str) -> str:
    """A store URL without user and password."""
    return re.sub("(?<=://)[^/?#]*@", "***@", url)


def _heading(report: Report) -> Text:
    own = "a temporary folder" if report.kept is None else report.kept
    store = (
        f"memory over disk ({own})" if report.own_store else " over ".join(map(shown_url, report.plan.stores))
    )
    provider = report.provider
    if report.plan.local:
        provider = "a local stand-in; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one"
    return Text.assemble(
        ("Provider  ", "dim"), f"{provider}\n", ("Models    ", "dim"),
        f"{report.plan.model}, {report.plan.embedding_model}\n", ("Answers   ", "dim"), f"{store}",
    )  # fmt: skip


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", highlight=False)
    table.add_column("What", overflow="fold")
    table.add_column("Ask")
    table.add_column("Time", justify="right")
    table.add_column("From", overflow="fold")
    table.add_column("Tokens", justify="right")
    table.add_column("Same answer")
    place_of = {id(one): place for place, one in enumerate(report.asked)}
    for ask in ASKS:
        rows = [one for one in report.asked if one.ask == ask.name]
        labels = [Text(ask.title, "bold"), Text(ask.door, "dim"), Text("")]
        for label, one in zip(labels, rows, strict=True):
            table.add_row(
                label,
                one.turn,
                milliseconds(one.seconds),
                Text(one.source, "yellow" if one.provider_calls else "green"),
                _tokens(one),
                _sameness(one, same=place_of[id(one)] not in report.different),
                end_section=one is rows[-1] and ask is not ASKS[-1],
            )
    return table


def _tokens(one: Answered) -> Text:
    if one.tokens_saved:
        return Text(f"{one.tokens_saved:,} saved", "green")
    return Text(f"{one.tokens_spent:,} spent")


def _sameness(one: Answered, *, same: bool) -> Text:
    if one.turn == "first":
        return Text("")
    return Text("yes", "green") if same else Text("NO", "bold red")


def _summary(report: Report) -> Text:
    figure = figures(report)
    same = not report.different
    lines = [
        Text(
            f"{figure['asked']} asks, {_many(figure['provider_calls'], 'provider call')}, "
            f"{figure['tokens_saved']:,} tokens saved, {figure['seconds_saved']:.1f} s saved",
            "bold",
        ),
        Text.assemble("Same answers: ", ("yes", "bold green") if same else ("no", "bold red")),
    ]
    streams = _streams(report.asked)
    if streams:
        lines.append(Text(streams))
    if not report.own_store and report.provider_calls < len(ASKS):
        lines.append(Text("The store had answers already: an earlier run left them there."))
    return Text("\n").join(lines)


def _streams(asked: Sequence[Answered]) -> str:
    found = {one.turn: one for one in asked if one.first_chunk is not None}
    first, again = found.get("first"), found.get("again")
    if first is None or again is None:
        return ""
    return (
        f"Stream: first chunk after {milliseconds(first.first_chunk or 0.0)} from {first.source}, "
        f"{milliseconds(again.first_chunk or 0.0)} from {again.source}"
    )


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def milliseconds(seconds: float) -> str:
    """A time for people: one decimal where it matters."""
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004
