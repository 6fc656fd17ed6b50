"""Times and sizes as people write them, and nothing that they cannot have meant."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import ConfigurationError
from askonce._units import life, seconds, size

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0), (5, 5), (0.25, 0.25), ("0", 0), ("5", 5), ("5.5", 5.5), ("90s", 90), ("15m", 900),
        ("12h", 43200),
        ("7d", 604800), ("2w", 1209600), ("250ms", 0.25), ("1h30m", 5400), ("1.5h", 5400), (" 1D ", 86400),
        ("1d12h30m5s", 131405), (timedelta(minutes=2), 120), (timedelta(0), 0), (10**9, 10**9),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_it_is_meant(written, meant):
    assert seconds("ttl", written) == pytest.approx(meant)


@pytest.mark.parametrize(
    "written",
    [
        -1, -0.1, "-1", "-5m", math.nan, math.inf, -math.inf, "nan", "inf", "-inf", "", " ", "m", "5x", "5 m",
        "1h-", "h1",
        "1.5.5h", "five minutes", "1h 30m", "0x10", True, False, None, [], {}, b"5m", object(),
        timedelta(seconds=-1), 5j,
        10**400, "9" * 400, "1" + "0" * 400 + "d", "\x00", "1d\n2",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_duration_is_refused_by_name_with_what_is_allowed(written):
    with pytest.raises(ConfigurationError, match=r"(?s)store_timeout=.*allowed: .*90s"):
        seconds("store_timeout", written)


def test_none_is_a_life_without_end_and_no_duration():
    assert life("ttl", None) is None
    assert life("ttl", 0) == 0.0
    with pytest.raises(ConfigurationError):
        seconds("ttl", None)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (1, 1), (4096, 4096), ("1", 1), ("64KB", 64_000), ("64k", 64_000), ("16MiB", 16 << 20),
        ("1.5GiB", 3 << 29),
        ("2gb", 2 * 10**9), ("1TiB", 1 << 40), ("10 MiB", 10 << 20), (" 1b ", 1), ("100mb", 10**8),
    ],
)  # fmt: skip
def test_a_size_is_read_as_it_is_meant(written, meant):
    assert size("max_bytes", written) == meant


@pytest.mark.parametrize(
    "written",
    [
        0, -1, 1.0, 1.5, "0", "0.5", "-1MiB", "", " ", "MiB", "5XB", "1_000", "1e6", "5 5", "1MiB2", True,
        None, [], b"1",
        math.nan, "9" * 400, "9" * 5000, "1" * 400 + "TiB", "inf", "nan",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_size_is_refused_by_name_with_what_is_allowed(written):
    with pytest.raises(ConfigurationError, match=r"(?s)max_bytes=.*allowed: .*MiB"):
        size("max_bytes", written)


@SETTINGS
@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{0,5}[a-z]{0,3}", fullmatch=True))
def test_no_text_raises_anything_but_a_configuration_error(text):
    for read in (seconds, life, size):
        try:
            assert read("option", text) >= 0
        except ConfigurationError as error:
            assert "option=" in str(error)  # noqa: PT017


@SETTINGS
@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_combined_duration_is_the_sum_of_its_parts(days, hours, minutes, rest):
    whole = timedelta(days=days, hours=hours, minutes=minutes, seconds=rest)
    assert (
        seconds("ttl", f"{days}d{hours}h{minutes}m{rest}s") == seconds("ttl", whole) == whole.total_seconds()
    )
