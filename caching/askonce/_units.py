"""Times and sizes as people write them: "15m", "7d", "256MiB"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

from askonce._errors import ConfigurationError

Duration: TypeAlias = float | int | str | timedelta
"""Seconds, or "90s" "15m" "12h" "7d" "2w" (also combined: "1h30m"), or a timedelta."""

Size: TypeAlias = int | str
"""Bytes, or "64KB" "16MiB" "1.5GiB"."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_BYTES = {
    "": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_MOST = 1 << 62  # beyond it lies a mistake
_DIGITS = 20
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def seconds(option: str, value: object) -> float:
    """A duration in seconds, at least 0. `option` is named in the error.

    Raises:
        ConfigurationError: for anything that is not a finite duration.
    """
    found = math.nan
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, bool):
        pass  # True is an int to Python, but nobody means one second by it
    elif isinstance(value, int | float):
        found = float(value) if abs(value) < _MOST else math.nan
    elif isinstance(value, str):
        found = _read_duration(value.strip().lower())
    if math.isfinite(found) and found >= 0:
        return found
    raise ConfigurationError(
        f"{option}={value!r} is not a duration; allowed: seconds as a number >= 0, "
        'text such as "90s", "15m", "12h", "7d" or "1h30m", or a timedelta'
    )


def _read_duration(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    if not text or _DURATION.sub("", text):
        return math.nan
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def life(option: str, value: object) -> float | None:
    """A time to live: like `seconds`, and None for "never expires"."""
    return None if value is None else seconds(option, value)


def size(option: str, value: object) -> int:
    """A number of bytes, at least 1.

    Raises:
        ConfigurationError: for anything else, naming `option`.
    """
    found = 0
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        if match is not None and match[2] in _BYTES and len(match[1]) <= _DIGITS:
            found = int(float(match[1]) * _BYTES[match[2]])
    if 1 <= found < _MOST:
        return found
    raise ConfigurationError(
        f"{option}={value!r} is not a size; allowed: bytes as a whole number >= 1, "
        'or text such as "64KB", "16MiB", "1GiB"'
    )
