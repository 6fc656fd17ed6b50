"""Names of objects: reversible, narrow to scan, literal on every server."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from askonce.stores import Refused
from askonce.stores._s3_names import Names

NAMES = Names("a/prefix")
# Whatever UTF-8 can say; often with what means something here.
KEYS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.text("ab:!/.0fé", max_size=8),
)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("default:0123abcd", "a/prefix/default/01/0123abcd"),
        ("team a:0123", "a/prefix/team!20a/01/0123"),
        ("ns:a", "a/prefix/ns/a/a"),
        ("ns:", "a/prefix/ns/!!/!!"),
        (":ab", "a/prefix/!!/ab/ab"),
        ("a:b:c", "a/prefix/a/b!3a/b!3ac"),
        ("plain", "a/prefix/plain/!"),
        ("", "a/prefix/!!/!"),
        ("é", "a/prefix/!c3!a9/!"),
        ("../x:..", "a/prefix/!2e!2e!2fx/!2e!2e/!2e!2e"),
        ("!21", "a/prefix/!2121/!"),
    ],
)
def test_what_names_look_like(key, name):
    assert NAMES.of(key) == name
    assert NAMES.key(name) == key


@given(KEYS)
@example("!!")
@example("!")
@example("!!:!!")
def test_every_name_leads_back_to_its_key(key):
    name = NAMES.of(key)
    assert NAMES.key(name) == key
    assert re.fullmatch(r"a/prefix(/[A-Za-z0-9!_-]+){2,3}", name)


@given(KEYS, KEYS)
def test_names_of_different_keys_differ_also_as_files_and_folders(one, other):
    if one != other:
        first, second = NAMES.of(one), NAMES.of(other)
        assert first != second
        assert not second.startswith(first + "/")


@given(KEYS, KEYS, KEYS)
def test_a_listing_for_a_prefix_finds_every_key_that_has_it(start, rest, other):
    beginning = NAMES.beginning(start)
    assert beginning.startswith("a/prefix/")
    assert NAMES.of(start + rest).startswith(beginning)
    # Without much before the colon or after it, some neighbours share the listing; digests never do.
    if len(start.partition(":")[2]) > 2 and not other.startswith(start):
        assert not NAMES.of(other).startswith(beginning)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/prefix",
        "a/prefix/",
        "a/prefix/!probe",
        "a/prefix/README",
        "a/prefix/a/b",
        "a/prefix/a/b/c/d",
        "a/prefix/default/zz/0123",
        "a/prefix/default/01/0123/",
        "a/prefix/DEFAULT!2F/01/0123",
        "a/prefix/!61/!",
        "a/prefix/!ff/!",
        "a/prefix/é/!",
        "a/prefix/日/!",
        "a/prefix/!leases/ns/ab/abcd",
        "a/prefix//!",
        "other/default/01/0123",
        "a/prefixed/default/01/0123",
    ],
)
def test_other_names_have_no_key(name):
    assert NAMES.key(name) is None


@given(KEYS)
def test_leases_and_the_probe_are_nobodys_entries(key):
    assert NAMES.key(NAMES.lease(key)) is None
    assert NAMES.of(key) not in {NAMES.probe, NAMES.lease(key)}
    assert NAMES.lease(key).startswith("a/prefix/!leases/")


def test_a_name_too_long_for_s3_is_refused():
    longest = "k" * (1024 - len("a/prefix//!"))
    assert len(NAMES.of(longest)) == 1024
    assert NAMES.beginning("k" * 1020) is None
    for key in (longest + "k", "é" * 200):
        with pytest.raises(Refused, match="shorter namespace or prefix"):
            NAMES.of(key)
