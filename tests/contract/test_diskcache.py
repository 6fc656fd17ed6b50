"""diskcache passes the suite behind our adapter, and none of its pickles is ever opened."""

from __future__ import annotations

import sqlite3
import sys

import pytest

from askonce import ConfigurationError, StoreError
from askonce.stores.diskcache import DiskCacheStore
from askonce.testing import ManualClock, StoreContract

diskcache = pytest.importorskip("diskcache")


class TestContract(StoreContract):
    def make_store(self, clock):
        return DiskCacheStore(self.tmp_path / "cache", clock=clock, timeout=5.0)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path, padding=""):
        self.path = str(path)
        self.padding = padding

    def __reduce__(self):
        return open, (self.path, "w"), {"padding": self.padding}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(folder):
    store = DiskCacheStore(folder, timeout=5.0)
    yield store
    store.close()


def plain_cache(folder):
    return diskcache.Cache(str(folder))


def rows(folder, sql, *values):
    connection = sqlite3.connect(folder / "cache.db")
    found = connection.execute(sql, values).fetchall()
    connection.commit()
    connection.close()
    return found


@pytest.mark.parametrize("padding", ["", "x" * 100_000], ids=["in the row", "in a file"])
def test_a_planted_pickle_is_absent_and_never_executed(store, folder, tmp_path, padding):
    trap = tmp_path / "executed"
    store.set("good", b"value", None)
    with plain_cache(folder) as planter:
        planter.set("planted", Bomb(trap, padding))
        planter.set(("a", "pickled", "key"), b"value")
        planter.set(("both", Bomb), Bomb(trap, padding))
    trap.unlink(missing_ok=True)  # diskcache may have looked at it itself
    assert store.get("planted") is None
    assert list(store.get_many(["planted", "good"])) == ["good"]
    assert list(store.scan("")) == ["good"]
    assert store.ping().ok
    store.set("good", b"new", None)
    assert store.delete("planted") == 0
    store.set("planted", b"ours now", None)
    assert store.get("planted").value == b"ours now"
    assert not trap.exists()


def test_evicting_planted_pickles_does_not_execute_them(folder, tmp_path):
    trap = tmp_path / "executed"
    folder.mkdir()
    with plain_cache(folder) as planter:
        for number in range(30):
            planter.set(f"planted:{number}", Bomb(trap, "x" * 40_000))
    trap.unlink(missing_ok=True)
    store = DiskCacheStore(folder, max_bytes=300_000)
    for number in range(30):
        store.set(f"key:{number}", bytes(40_000), None)
    assert rows(folder, "SELECT count(*) FROM Cache WHERE key LIKE 'planted:%'") == [(0,)]
    assert not trap.exists()
    store.close()


@pytest.mark.parametrize("value", ["text", "t" * 100_000, 17, 2.5, b"bytes of another program", None])
def test_rows_of_other_programs_are_absent(store, folder, value):
    folder.mkdir()
    with plain_cache(folder) as other:
        other.set("key", value)
    assert store.get("key") is None
    assert list(store.scan("")) == []


@pytest.mark.parametrize("size", [100, 100_000], ids=["in the row", "in a file"])
def test_a_flipped_bit_is_a_miss(store, folder, size):
    store.set("key", bytes(size), 4e9)
    store.close()
    files = list(folder.glob("*/*/*.val"))
    if files:
        data = bytearray(files[0].read_bytes())
        data[50] ^= 1
        files[0].write_bytes(data)
    else:
        ((value,),) = rows(folder, "SELECT value FROM Cache")
        rows(folder, "UPDATE Cache SET value = ?", value[:50] + b"\1" + value[51:])
    assert store.get("key") is None


def test_a_row_moved_to_another_key_is_a_miss(store, folder):
    store.set("key", b"value", None)
    rows(folder, "UPDATE Cache SET key = 'other'")
    assert store.get("other") is None


def test_a_planted_path_is_neither_read_nor_removed(store, folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    for name in ("../precious", str(precious)):
        store.set("key", bytes(100_000), None)
        rows(folder, "UPDATE Cache SET filename = ?", name)
        assert store.get("key") is None
        store.delete("key")
    assert precious.read_bytes() == b"mine"


def test_values_in_files_are_replaced_and_removed_with_their_rows(store, folder):
    store.set("key", bytes(100_000), None)
    store.set("key", bytes(200_000), None)
    assert [path.stat().st_size for path in folder.glob("*/*/*.val")] == [200_000 + 16]
    assert store.delete("key") == 1
    assert list(folder.glob("*/*/*.val")) == []
    assert list(folder.glob("*")) == [folder / "cache.db"] or not list(folder.glob("??"))


def test_a_value_in_a_file_replaced_while_it_is_read_is_read_again(store, monkeypatch):
    from askonce.stores import _diskcache

    store.set("key", b"a" * 100_000, None)
    real, first = _diskcache.Path.read_bytes, []

    def read_bytes(path):
        if not first:
            first.append(path)
            store.set("key", b"b" * 100_000, None)  # removes the file about to be opened
        return real(path)

    monkeypatch.setattr(_diskcache.Path, "read_bytes", read_bytes)
    assert store.get("key").value == b"b" * 100_000


def test_the_expiry_comes_back_to_the_last_bit(folder):
    clock = ManualClock(1_700_000_000.1)
    store = DiskCacheStore(folder, clock=clock)
    for expires_at in (1_700_000_123.456789, 1_700_000_000.1000001, 1e300):
        store.set("key", b"value", expires_at)
        assert store.get("key").expires_at == expires_at
    store.close()


def test_a_value_larger_than_the_bound_is_not_kept_and_its_forerunner_is_gone(folder):
    store = DiskCacheStore(folder, max_bytes=1_000_000)
    store.set("key", b"old", None)
    store.set("key", bytes(1_000_001), None)
    assert store.get("key") is None
    store.close()


def test_without_the_package_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diskcache", None)
    store = DiskCacheStore(folder)
    with pytest.raises(ConfigurationError, match=r"askonce\[diskcache\]"):
        store.get("key")
    assert not store.ping().ok


def test_a_folder_that_cannot_be_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = DiskCacheStore(tmp_path / "file" / "cache")
    with pytest.raises(StoreError):
        store.set("key", b"value", None)
    assert not store.ping().ok


def test_constructing_touches_nothing(folder):
    assert repr(DiskCacheStore(folder)) == f"DiskCacheStore({str(folder)!r}, max_bytes=1073741824)"
    assert not folder.exists()
    with pytest.raises(ConfigurationError, match="max_bytes"):
        DiskCacheStore(folder, max_bytes=0)
