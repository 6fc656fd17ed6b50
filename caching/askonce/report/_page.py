"""A Report as one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from askonce.report._figures import Report, Row
from askonce.report._plots import day_bars, day_line, name_bars
from askonce.report._style import STYLE
from askonce.stores.protocol import Health

_MOST_ROWS: Final = 15
_DIME: Final = 0.1
_LEAST: Final = 1e-4
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole page. The policy in its head forbids it to load or send anything."""
    title = f"askonce: {escape(report.namespace)}, {report.last_day}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title></head><body>{body(report)}</body></html>\n"
    )


def body(report: Report) -> str:
    """What stands in the page: for notebooks, which have a page already."""
    total = report.total
    days = [row.name for row in report.by_day]
    parts = [
        f"<style>{STYLE}</style>",
        '<div class="askonce">',
        "<header><h1>What the cache saved</h1>",
        f"<p>Namespace <b>{escape(report.namespace)}</b>, ",
        f"{report.first_day} to {report.last_day} (UTC)</p></header>",
        _tiles(report),
    ]
    if not total.calls:
        parts.append(
            "<section><p>No calls were counted in these days. Programs add their figures once a minute, and "
            "when they end; stores that keep none show those of this process.</p></section>"
        )
    else:
        parts += [
            _section(
                "Calls",
                _legend(
                    ("served", "from the cache"), ("asked", "from the provider"), ("passed", "passed by")
                ),
                day_bars(
                    days,
                    [
                        ("served", "from the cache", [row.served for row in report.by_day]),
                        ("asked", "from the provider", [row.misses for row in report.by_day]),
                        ("passed", "passed by", [row.bypasses for row in report.by_day]),
                    ],
                    _short,
                    "Calls by day",
                ),
            ),
            _section(
                "Hit rate",
                "",
                day_line(days, [_rate(row) for row in report.by_day], _percent, "Hit rate by day"),
            ),
            _saved_by_day(report, days),
            _models(report),
        ]
        if report.by_tag:
            parts.append(_section("By tag", "", _rows(report.by_tag, "Tag")))
        if len(report.by_host) > 1:
            parts.append(_section("By provider", "", _rows(report.by_host, "Provider")))
    parts += [_reasons(report), _stores(report.health), _notes(report), "</div>"]
    return "".join(parts)


def _tiles(report: Report) -> str:
    total = report.total
    tiles = [("Saved", money(total.money_saved))] if report.prices else []
    tiles += [
        ("Tokens saved", _short(total.saved.total)),
        ("Hit rate", _percent(total.hit_rate) if total.served + total.misses else "none yet"),
        ("Calls", _short(total.calls)),
        ("Time saved", _span(total.seconds_saved)),
    ]
    if total.spent.cached:
        tiles.append(("Tokens read from the provider's cache", _short(total.spent.cached)))
    if report.prices:
        tiles.append(("Spent", money(total.money_spent)))
    inner = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles)
    return f'<div class="tiles">{inner}</div>'


def _saved_by_day(report: Report, days: Sequence[str]) -> str:
    if report.total.money_saved is not None:
        return _section(
            "Money",
            _legend(("served", "saved"), ("asked", "spent")),
            day_bars(
                days,
                [
                    ("served", "saved", [row.money_saved or 0.0 for row in report.by_day]),
                    ("asked", "spent", [row.money_spent or 0.0 for row in report.by_day]),
                ],
                money,
                "Money saved and spent by day",
            ),
        )
    return _section(
        "Tokens",
        _legend(("served", "saved"), ("asked", "spent")),
        day_bars(
            days,
            [
                ("served", "saved", [row.saved.total for row in report.by_day]),
                ("asked", "spent", [row.spent.total for row in report.by_day]),
            ],
            _short,
            "Tokens saved and spent by day",
        ),
    )


def _models(report: Report) -> str:
    shown = report.by_model[:_MOST_ROWS]
    priced = report.total.money_saved is not None
    bars = name_bars(
        [
            (
                row.name,
                (row.money_saved or 0.0) if priced else float(row.saved.total),
                f"{money(row.money_saved)}, {_short(row.saved.total)} tokens"
                if priced
                else _short(row.saved.total),
            )
            for row in shown
        ],
        "served",
    )
    return _section("By model", "", bars + _rows(report.by_model, "Model"))


def _rows(rows: Sequence[Row], what: str) -> str:
    heads = (
        what,
        "Served",
        "Asked",
        "Hit rate",
        "Input",
        "Output",
        "Reasoning",
        "Provider-cached",
        "Time",
        "Saved",
        "Spent",
    )
    parts = ['<div class="wide"><table class="figures"><thead><tr>']
    parts += [f'<th scope="col">{head}</th>' for head in heads]
    parts.append("</tr></thead><tbody>")
    for row in rows[:_MOST_ROWS]:
        cells = (
            f"{row.served:,}", f"{row.misses:,}", _percent(row.hit_rate), f"{row.saved.input:,}",
            f"{row.saved.output:,}", f"{row.saved.reasoning:,}", f"{row.saved.cached:,}",
            _span(row.seconds_saved), money(row.money_saved), money(row.money_spent),
        )  # fmt: skip
        inner = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        parts.append(f'<tr><th scope="row">{escape(row.name)}</th>{inner}</tr>')
    parts.append("</tbody></table></div>")
    if len(rows) > _MOST_ROWS:
        parts.append(f"<p>and {len(rows) - _MOST_ROWS} more</p>")
    return "".join(parts)


def _reasons(report: Report) -> str:
    stats = report.stats
    parts: list[str] = []
    for title, counts in (
        ("Passed by, because of", stats.bypassed),
        ("Answered, but not stored, because of", stats.dropped),
        ("Served by", stats.tiers),
        ("By meaning", stats.layer),
    ):
        if counts:
            most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_MOST_ROWS]
            rows = [(name, float(number), f"{number:,}") for name, number in most]
            parts.append(f"<h3>{title}</h3>{name_bars(rows, 'passed')}")
    if stats.by_meaning is not None:
        parts.append(f"<p>By meaning: {escape(str(stats.by_meaning))}.</p>")
    if not parts:
        return ""
    return _section("Why", "<p>Since the store was first used.</p>", "".join(parts))


def _stores(health: Iterable[Health]) -> str:
    parts: list[str] = []
    for one in health:
        mark = '<b class="good">well</b>' if one.ok else '<b class="bad">not usable</b>'
        detail = ", ".join(f"{name} {value}" for name, value in one.detail.items() if value not in {None, ""})
        warnings = "".join(f"<li>{escape(text)}</li>" for text in one.warnings)
        took = f"Answered in {one.latency * 1000:.1f} ms."
        parts.append(f"<h3>{escape(one.kind)}: {mark}</h3><p>{took} {escape(detail)}</p>")
        parts.append(f"<ul>{warnings}</ul>" if warnings else "")
    return _section("Stores", "", "".join(parts))


def _notes(report: Report) -> str:
    total = report.total
    notes = ["A served answer counts as saved, a provider's as spent; no call is counted twice."]
    if report.prices:
        notes.append(
            f"Prices: {report.prices}, in US dollars, by the day of the call, without surcharges for very "
            "long prompts."
        )
    else:
        notes.append('No prices: pip install "askonce[prices]", or give your own with report(prices=...).')
    if total.unpriced and report.prices:
        notes.append(
            f"Of these models no price is known, and only tokens are counted: {', '.join(total.unpriced)}."
        )
    if total.unmetered:
        said = f"{total.unmetered:,} served answers say nothing of their usage"
        notes.append(f"{said}: they saved more than is shown.")
    if total.bypasses:
        notes.append("What calls that passed by have cost is not known here.")
    return f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>"


def _section(title: str, above: str, inner: str) -> str:
    if inner.startswith("<svg"):
        inner = f'<div class="wide">{inner}</div>'
    return f"<section><h2>{title}</h2>{above}{inner}</section>"


def _legend(*entries: tuple[str, str]) -> str:
    keys = "".join(f'<span><i class="{colour}"></i>{name}</span>' for colour, name in entries)
    return f'<div class="legend">{keys}</div>'


def _rate(row: Row) -> float | None:
    return row.hit_rate if row.served + row.misses else None


def _percent(share: float) -> str:
    return f"{share:.0%}"


def money(dollars: float | None) -> str:
    """US dollars; small sums keep their digits."""
    if dollars is None:
        return "no price"
    if not dollars:
        return "$0"
    if dollars >= _DIME:
        return f"${dollars:,.2f}"
    return f"${dollars:.4f}" if dollars >= _LEAST else f"${dollars:.2g}"


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            shown = number / (1e3 if unit == "k" else size)
            return f"{shown:.1f}".removesuffix(".0") + unit
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"


def _span(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
