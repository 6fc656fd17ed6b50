"""Plots as inline SVG: bars over days, and bars beside names. No script, no font, no colour of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

_WIDTH: Final = 720
_HEIGHT: Final = 200
_LEFT: Final = 64
_RIGHT: Final = 20
_BOTTOM: Final = 24
_TOP: Final = 10
_TICKS: Final = 4
_MOST_LABELS: Final = 10

Series = tuple[str, str, Sequence[float]]
"""Class of the colour, name, and a value for each day."""


def day_bars(days: Sequence[str], series: Sequence[Series], words: Callable[[float], str], title: str) -> str:
    """Bars over days, those of several series on top of each other.

    Args:
        days: "2026-11-26", in order.
        series: the lowest first.
        words: a value for people.
        title: what is to be seen, for those who cannot.
    """
    sums = [sum(values[place] for _, _, values in series) for place in range(len(days))]
    top = _nice(max(sums, default=0.0))
    high = _HEIGHT - _TOP - _BOTTOM
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(days))
    wide = min(40.0, step * 0.72)
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_grid(top, high, words),
    ]
    for place, day in enumerate(days):
        left = _LEFT + step * place + (step - wide) / 2
        below = 0.0
        said = [f"{name} {words(values[place])}" for _, name, values in series]
        parts.append(f"<g><title>{escape(day)}: {escape(', '.join(said))}</title>")
        # Whoever points anywhere at the day is told its figures.
        parts.append(
            f'<rect class="reach" x="{_LEFT + step * place:.1f}" y="{_TOP}" '
            f'width="{step:.1f}" height="{high}"/>'
        )
        for colour, _, values in series:
            tall = high * values[place] / top
            if tall > 0:
                y = _TOP + high - below - tall
                parts.append(
                    f'<rect class="{colour}" x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                    f'height="{max(tall, 0.8):.1f}"/>'
                )
            below += tall
        parts.append("</g>")
    parts += _days_below(days, step)
    parts.append("</svg>")
    return "".join(parts)


def day_line(
    days: Sequence[str], values: Sequence[float | None], words: Callable[[float], str], title: str
) -> str:
    """A line over days, from 0 to 1; a day without a value is a gap."""
    high = _HEIGHT - _TOP - _BOTTOM
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(days))
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_grid(1.0, high, words),
    ]
    before: tuple[float, float] | None = None
    for place, value in enumerate(values):
        if value is None:
            before = None
            continue
        x, y = _LEFT + step * (place + 0.5), _TOP + high * (1 - value)
        if before is not None:
            parts.append(
                f'<line class="line" x1="{before[0]:.1f}" y1="{before[1]:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>'
            )
        parts.append(
            f"<g><title>{escape(days[place])}: {escape(words(value))}</title>"
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/></g>'
        )
        before = x, y
    parts += _days_below(days, step)
    parts.append("</svg>")
    return "".join(parts)


def name_bars(rows: Sequence[tuple[str, float, str]], colour: str) -> str:
    """Bars beside names, as a table: name, value, and what stands behind the bar."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = ['<table class="bars">']
    for name, value, said in rows:
        share = 100 * value / most
        parts.append(
            f'<tr><th scope="row">{escape(name)}</th><td>'
            '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="{colour}" x="0" y="1" width="{max(share, 0.4):.2f}" height="8"/>'
            f"</svg></td><td>{escape(said)}</td></tr>"
        )
    parts.append("</table>")
    return "".join(parts)


def _grid(top: float, high: float, words: Callable[[float], str]) -> list[str]:
    parts: list[str] = []
    for tick in range(_TICKS + 1):
        y = _TOP + high - high * tick / _TICKS
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}"/>')
        text = escape(words(top * tick / _TICKS))
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return parts


def _days_below(days: Sequence[str], step: float) -> list[str]:
    every = max(1, ceil(len(days) / _MOST_LABELS))
    last = len(days) - 1
    return [
        f'<text x="{_LEFT + step * (place + 0.5):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(day[5:])}</text>"
        for place, day in enumerate(days)
        if (last - place) % every == 0  # counted from today, which is always named
    ]


def _nice(value: float) -> float:
    """The next round number that four steps divide."""
    if value <= 0:
        return 1.0
    size = 10.0 ** floor(log10(value))
    return next(step * size for step in (1, 2, 4, 8, 10) if step * size >= value * (1 - 1e-9))
