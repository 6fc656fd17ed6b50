"""Figures and names as people read them."""

from __future__ import annotations

from typing import Final

_STEPS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_DIME: Final = 0.1


def span(seconds: float, units: int = 2) -> str:
    """A length of time in its largest units: "3d 4h", "12m", "8s"."""
    left = max(0.0, seconds)
    words: list[str] = []
    for size, unit in _STEPS:
        if left >= size:
            words.append(f"{int(left // size)}{unit}")
            left %= size
        elif words:
            break
        if len(words) == units:
            break
    return " ".join(words) or f"{left:.0f}s"


def size_text(number: float) -> str:
    """Bytes: "812 B", "3.4 MiB"."""
    for unit in _UNITS[:-1]:
        if number < _STEP:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _STEP
    return f"{number:.1f} {_UNITS[-1]}"


def money_text(dollars: float | None) -> str:
    """US dollars; small sums keep their digits."""
    if dollars is None:
        return "no price"
    return f"${dollars:,.2f}" if dollars >= _DIME or not dollars else f"${dollars:.4f}"


def many(number: int, word: str, plural: str = "") -> str:
    """A number with its noun: "1 entry", "2,000 entries"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {plural or f'{word}s'}"


def plain(text: str) -> str:
    """A text from outside on one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short_key(key: str) -> str:
    """A key's first digits: enough for `askonce show`."""
    return key.rpartition(":")[2][:12]
