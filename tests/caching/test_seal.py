"""The seal: nobody without the secret reads, changes or moves an answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Cache, ConfigurationError
from askonce._seal import Seal

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
SEAL = Seal(b"0123456789abcdef")


@SETTINGS
@given(st.binary(max_size=300), st.binary(max_size=80))
def test_what_was_closed_opens_under_the_same_key(content, key):
    closed = SEAL.close(content, key)
    assert SEAL.open(closed, key) == content
    assert len(closed) == len(content) + 28


@SETTINGS
@given(st.binary(max_size=60), st.data())
def test_nothing_changed_in_one_bit_opens(content, data):
    closed = SEAL.close(content, b"key")
    place = data.draw(st.integers(0, len(closed) - 1))
    bit = data.draw(st.integers(0, 7))
    assert SEAL.open(closed[:place] + bytes([closed[place] ^ 1 << bit]) + closed[place + 1 :], b"key") is None


@SETTINGS
@given(st.binary(max_size=100), st.binary(max_size=10))
def test_no_bytes_of_anybody_elses_open_and_none_raise(content, key):
    assert SEAL.open(content, key) is None


def test_nothing_cut_short_or_lengthened_opens():
    closed = SEAL.close(b"content", b"key")
    assert [SEAL.open(closed[:size], b"key") for size in range(len(closed))] == [None] * len(closed)
    assert SEAL.open(closed + b"x", b"key") is None


def test_another_key_or_another_secret_does_not_open():
    closed = SEAL.close(b"content", b"key")
    assert SEAL.open(closed, b"kez") is None
    assert SEAL.open(closed, b"") is None
    assert Seal(b"0123456789abcdeF").open(closed, b"key") is None


def test_the_same_secret_in_another_process_opens():
    assert Seal(b"0123456789abcdef").open(SEAL.close(b"content", b"key"), b"key") == b"content"


def test_no_two_seals_of_the_same_content_look_alike():
    assert len({SEAL.close(b"content", b"key") for _ in range(50)}) == 50


def test_the_seal_shows_no_secret():
    assert "0123456789abcdef" not in repr(SEAL)


@pytest.mark.parametrize("secret", ["short", b"fifteen bytes!!", "", b"", 5, ["x" * 16], True], ids=str)
def test_a_bad_secret_is_refused_without_being_shown(secret):
    with pytest.raises(ConfigurationError, match=r"secret.*16 bytes") as caught:
        Cache("memory://", secret=secret)
    if isinstance(secret, str | bytes) and secret:
        assert str(secret) not in str(caught.value)


def test_a_missing_package_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r'pip install "askonce\[secret\]"'):
        Cache("memory://", secret="0123456789abcdef")
