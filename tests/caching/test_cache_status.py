"""The Cache-Status header: RFC 9211, for every outcome."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Outcome
from askonce.doors import cache_status

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
KEY = "default:" + "9f" * 32

TABLE = [
    (
        Outcome(status="hit", reason="fresh", key="k:1", ttl=3540.9, tier="memory"),
        'askonce; hit; ttl=3540; key="k:1"; detail="memory"',
    ),
    (
        Outcome(status="hit", reason="fresh", key="k:1", ttl=None, tier="disk"),
        'askonce; hit; key="k:1"; detail="disk"',
    ),
    (
        Outcome(status="stale", reason="stale-if-error", key="k:1", ttl=-3.2),
        'askonce; hit; ttl=-4; key="k:1"; detail="stale-if-error"',
    ),
    (
        Outcome(status="coalesced", reason="shared a call", key="k:1", ttl=5.0),
        'askonce; fwd=uri-miss; collapsed; key="k:1"',
    ),
    (
        Outcome(status="miss", reason="not stored", key="k:1", stored=True),
        'askonce; fwd=uri-miss; stored; key="k:1"',
    ),
    (
        Outcome(status="miss", reason="expired", key="k:1", stored=True),
        'askonce; fwd=stale; stored; key="k:1"',
    ),
    (
        Outcome(status="miss", reason="refresh", key="k:1", stored=True),
        'askonce; fwd=request; stored; key="k:1"',
    ),
    (
        Outcome(status="miss", reason="not stored", key="k:1", not_stored="truncated"),
        'askonce; fwd=uri-miss; key="k:1"; detail="truncated"',
    ),
    (Outcome(status="miss", reason="not stored", key="k:1", stored=None), 'askonce; fwd=uri-miss; key="k:1"'),
    (Outcome(status="bypass", reason="method"), 'askonce; fwd=bypass; detail="method"'),
    (
        Outcome(status="error", reason="status 500", key="k:1", not_stored="status 500"),
        'askonce; fwd=uri-miss; key="k:1"; detail="status 500"',
    ),
]


@pytest.mark.parametrize(("outcome", "expected"), TABLE, ids=lambda value: str(value)[:40])
def test_each_outcome_says_what_happened(outcome, expected):
    assert cache_status(outcome) == expected


STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
MEMBER = re.compile(
    rf"askonce(?:; (?:hit|stored|collapsed|ttl=-?\d{{1,15}}|fwd=[a-z-]+|key={STRING}|detail={STRING}))+"
)
TEXT = st.text(max_size=20)


@SETTINGS
@given(
    st.builds(
        Outcome,
        status=st.sampled_from(["hit", "stale", "semantic", "coalesced", "miss", "bypass", "error"]),
        reason=TEXT, key=TEXT, tier=TEXT, not_stored=TEXT,
        ttl=st.none() | st.floats(-1e9, 1e9), stored=st.none() | st.booleans(),
    )
)  # fmt: skip
def test_whatever_the_texts_are_it_is_one_well_formed_list_member(outcome):
    header = cache_status(outcome)
    assert MEMBER.fullmatch(header), header
    header.encode("ascii")
    assert header.count("; hit") + header.count("; fwd=") == 1 or '"' in header


def test_no_text_breaks_out_of_its_quotes():
    assert cache_status(Outcome(status="miss", reason="", key='a"; hit; x="\\\r\nset-cookie: 1')) == (
        'askonce; fwd=uri-miss; key="a\\"; hit; x=\\"\\\\??set-cookie: 1"'
    )


def test_time_to_live_is_never_claimed_longer_than_it_is():
    for ttl, claimed in ((0.9, 0), (1.0, 1), (-0.1, -1), (59.999, 59)):
        assert f"; ttl={claimed};" in cache_status(Outcome(status="hit", reason="fresh", key="k", ttl=ttl))
