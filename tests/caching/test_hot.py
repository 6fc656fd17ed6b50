"""Entries decoded a moment ago: never another answer than decoding anew would give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askonce import _codec
from askonce._entry import Entry, Meta
from askonce._hot import Hot


def entry(body=b"answer"):
    meta = Meta(created_at=1.0, expires_at=2.0, stale_until=2.0)
    return Entry(status=200, headers=(), body=body, meta=meta)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([b"one", b"two", b"three" * 1000]))))
def test_what_it_remembers_is_what_decoding_gives(steps):
    hot = Hot(None)
    for key, body in steps:
        value = _codec.encode(key, entry(body))
        assert hot.decode(key, bytes(bytearray(value))) == _codec.decode(key, value)


def test_equal_bytes_are_decoded_once():
    hot = Hot(None)
    value = _codec.encode("k", entry())
    first = hot.decode("k", value)
    assert hot.decode("k", bytes(bytearray(value))) is first


def test_bytes_of_another_key_are_no_entry_also_when_they_are_known():
    hot = Hot(None)
    value = _codec.encode("k", entry())
    hot.decode("k", value)
    with pytest.raises(_codec.Undecodable):
        hot.decode("other", value)


def test_one_flipped_bit_is_no_entry_also_when_the_rest_is_known():
    hot = Hot(None)
    value = bytearray(_codec.encode("k", entry()))
    hot.decode("k", bytes(value))
    value[-1] ^= 1
    with pytest.raises(_codec.Undecodable):
        hot.decode("k", bytes(value))


def test_after_forgetting_nothing_is_known():
    hot = Hot(None)
    value = _codec.encode("k", entry())
    first = hot.decode("k", value)
    hot.forget()
    assert hot.decode("k", value) is not first
