"""Store URLs: one line names a store and its options; what is wrong with it is said by name."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Cache, ConfigurationError
from askonce._clock import wall
from askonce.stores.disk import DiskStore
from askonce.stores.memory import MemoryStore
from askonce.stores.urls import open_store

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", "allowed: .*memory://.*disk://"),
        ("memory", "allowed: .*memory://"),
        ("memory:", "allowed: .*memory://"),
        ("memory:/", "allowed: .*memory://"),
        ("/var/cache", "allowed: .*disk://"),
        ("ftp://host/x", "ftp://.*allowed: .*memory://"),
        ("file:///x", "file://.*allowed: .*disk://"),
        ("://", "allowed: .*memory://"),
        ("memory://somewhere", "memory://somewhere.*allowed: memory://"),
        ("memory:///path", "allowed: memory://"),
        ("memory://?max_byte=1", "max_byte.*allowed: max_bytes, max_entries"),
        ("memory://?MAX_BYTES=1", "MAX_BYTES.*allowed: max_bytes"),
        ("memory://?max_bytes=", "max_bytes=''.*allowed: .*MiB"),
        ("memory://?max_bytes", "max_bytes=''.*allowed: .*MiB"),
        ("memory://?max_bytes=0", "max_bytes='0'.*allowed"),
        ("memory://?max_bytes=-1", "max_bytes.*allowed"),
        ("memory://?max_bytes=lots", "max_bytes='lots'.*allowed"),
        ("memory://?max_entries=0", "max_entries='0'.*allowed: a whole number >= 1"),
        ("memory://?max_entries=1.5", "max_entries.*allowed: a whole number"),
        ("memory://?max_entries=1e3", "max_entries.*allowed: a whole number"),
        ("memory://?max_entries=٣", "max_entries.*allowed: a whole number"),
        ("memory://?max_entries=" + "9" * 5000, "max_entries.*allowed: a whole number"),
        ("memory://?max_bytes=1KiB&max_bytes=2KiB", "max_bytes.*twice"),
        ("disk:///x?max_bytes=", "max_bytes.*allowed"),
        ("disk:///x?timeout=soon", "timeout='soon'.*allowed: seconds"),
        ("disk:///x?max_entries=5", "max_entries.*allowed: max_bytes, timeout"),
        ("disk:///x?path=y", "path.*allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_is_allowed(url, named):
    with pytest.raises(ConfigurationError, match=rf"(?s){named}"):
        open_store(url, wall)


@SETTINGS
@given(
    st.text(max_size=30)
    | st.text(max_size=20).map("memory://".__add__)
    | st.text(max_size=20).map("memory://?".__add__)
)
def test_no_text_raises_anything_but_a_configuration_error(url):
    try:
        open_store(url, wall).close()
    except ConfigurationError as error:
        assert "allowed" in str(error) or "twice" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "url",
    ["memory://", "MEMORY://", "memory://?max_bytes=1MiB&max_entries=10", "memory://?max_bytes=1%20MiB"],
)
def test_good_memory_urls_are_read(url):
    assert isinstance(open_store(url, wall), MemoryStore)


def test_a_disk_url_names_a_folder_and_nothing_is_made_yet(tmp_path):
    store = open_store(f"disk://{tmp_path}/deep/er?max_bytes=1MiB&timeout=1s", wall)
    assert isinstance(store, DiskStore)
    assert list(tmp_path.iterdir()) == []
    store.set("a:b", b"x", None)
    assert (tmp_path / "deep" / "er").is_dir()
    store.close()


def test_escapes_and_the_home_folder_in_a_path_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("disk://~/one", f"disk://{tmp_path}/with%20blank", f"disk://{tmp_path}/%C3%BC"):
        store = open_store(url, wall)
        store.set("a:b", b"x", None)
        store.close()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "one",
        "with blank",
        "ü",
    ]


def test_a_folder_with_a_blank_may_be_written_as_it_is(tmp_path):
    with Cache(f"disk://{tmp_path}/Application Support/x") as cache:
        assert "disk" in repr(cache)


def test_without_a_path_the_users_cache_folder_is_used(tmp_path, monkeypatch):
    from askonce.stores import urls

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert urls.user_cache_folder() == str(tmp_path / "askonce")
    assert urls.user_cache_folder().endswith("askonce")
