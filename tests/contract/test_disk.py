"""The disk store passes the suite, and keeps its own promises."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import pytest

from askonce import ConfigurationError, StoreError
from askonce.stores.disk import DiskStore
from askonce.testing import ManualClock, StoreContract

KIB = 1024


class TestContract(StoreContract):
    def make_store(self, clock):
        return DiskStore(self.tmp_path / "cache", clock=clock, timeout=5.0)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(folder, clock):
    store = DiskStore(folder, clock=clock, max_bytes=256 * KIB, timeout=5.0)
    yield store
    store.close()


def size_on_disk(folder):
    return sum(path.stat().st_size for path in folder.glob("*.sqlite3"))


def total_bytes(folder):
    """What a process that never used the store finds: counted, and kept by the triggers."""
    connection = sqlite3.connect(folder / "entries-000001.sqlite3")
    counted = "SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM entries"
    (real,) = connection.execute(counted).fetchone()
    (kept,) = connection.execute("SELECT bytes FROM totals").fetchone()
    connection.close()
    assert real == kept
    return real


def test_constructing_touches_nothing(folder):
    store = DiskStore(folder)
    assert not folder.exists()
    assert store.name == "disk"
    assert store.blocking


def test_importing_the_store_does_not_import_sqlite():
    code = "import sys; import askonce.stores.disk; sys.exit('sqlite3' in sys.modules)"
    source = str(Path(sys.modules["askonce"].__file__).parents[1])
    # Children that measure coverage import sqlite3 for themselves.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ran = subprocess.run([sys.executable, "-c", code], env={**bare, "PYTHONPATH": source}, check=False)
    assert ran.returncode == 0


def test_only_the_owner_may_read_the_folder_and_its_files(store, folder):
    store.set("key", b"value", None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_relative_path_stays_where_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = DiskStore("here")
    monkeypatch.chdir("/")
    store.set("key", b"value", None)
    assert (tmp_path / "here").is_dir()
    store.close()


def test_the_repr_shows_path_and_bound_only(store, folder):
    store.set("secret-key", b"secret-value", None)
    assert repr(store) == f"DiskStore({str(folder)!r}, max_bytes=262144)"


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": -1}, {"max_bytes": 1.5}, {"timeout": 0}])
def test_a_bad_option_is_named_at_construction(folder, options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        DiskStore(folder, **options)


def test_the_total_stays_under_the_bound_at_every_moment(store, folder):
    for number in range(600):
        store.set(f"key:{number:05}", bytes(number * 37 % 3000), None)
        if number % 50 == 0:
            assert total_bytes(folder) <= 256 * KIB
    assert 200 * KIB < total_bytes(folder) <= 256 * KIB
    assert store.get("key:00599") is not None


@pytest.mark.parametrize("size", [0, 700, 2100, 50_000])
def test_the_file_stays_near_the_bound_whatever_the_size_of_values(folder, size):
    bound = 512 * KIB
    store = DiskStore(folder, max_bytes=bound, timeout=5.0)
    for start in range(0, 2 * bound, 500 * (size + 70)):
        store.set_many((f"{start}:{number:060}", bytes(size), None) for number in range(500))
    store.close()  # and the write-ahead log is gone
    assert size_on_disk(folder) < 1.25 * bound + 1.3 * 1024 * KIB
    assert total_bytes(folder) <= bound


def test_a_batch_larger_than_the_bound_keeps_what_fits(store, folder):
    store.set_many((f"key:{number:03}", bytes(10 * KIB), None) for number in range(100))
    assert 20 <= len(list(store.scan("key:"))) <= 25
    assert store.get("key:099") is not None
    assert total_bytes(folder) <= 256 * KIB


def test_a_value_larger_than_the_bound_is_not_kept_and_its_forerunner_is_gone(store):
    store.set("other", b"value", None)
    store.set("key", b"old", None)
    store.set("key", bytes(300 * KIB), None)
    assert store.get("key") is None
    assert store.get("other") is not None


def test_expired_entries_go_before_live_ones(store, clock):
    store.set_many((f"live:{number}", bytes(10 * KIB), None) for number in range(12))
    store.set_many((f"dead:{number}", bytes(10 * KIB), clock() + 1) for number in range(12))
    clock.advance(1)
    store.set_many((f"new:{number}", bytes(10 * KIB), None) for number in range(12))
    assert len(list(store.scan("live:"))) == 12
    assert len(list(store.scan("new:"))) == 12


def test_what_is_read_again_and_again_outlives_a_flood_of_what_is_not(store):
    store.set_many((f"hot:{number}", bytes(4 * KIB), None) for number in range(10))
    for number in range(500):
        store.set(f"cold:{number}", bytes(4 * KIB), None)
        if number % 10 == 0:
            for hot in range(10):
                store.get(f"hot:{hot}")
    assert len(list(store.scan("hot:"))) == 10


def test_eviction_ends_when_everything_was_read(store):
    for number in range(60):
        store.set(f"key:{number}", bytes(4 * KIB), None)
        store.get(f"key:{number}")
    store.set("large", bytes(200 * KIB), None)
    assert store.get("large") is not None


def test_expired_entries_are_cleared_away_by_later_writes(store, clock, folder):
    store.set_many((f"key:{number}", bytes(100), clock() + 1) for number in range(100))
    clock.advance(1)
    for number in range(200):
        store.set("other", str(number).encode(), None)
    assert total_bytes(folder) < 100


def test_space_is_given_back_after_clearing(folder):
    store = DiskStore(folder, timeout=5.0)
    store.set_many((f"key:{number:05}", os.urandom(2000), None) for number in range(2500))
    store.close()
    full = size_on_disk(folder)
    keys = list(store.scan("key:"))
    for start in range(0, len(keys), 250):
        store.delete(*keys[start : start + 250])
    store.close()
    assert size_on_disk(folder) < full / 3


def test_reading_writes_nothing(store, folder):
    store.set("key", b"value", None)
    connection = sqlite3.connect(folder / "entries-000001.sqlite3")
    (before,) = connection.execute("PRAGMA data_version").fetchone()
    for _ in range(20):
        store.get("key")
        store.get("missing")
        store.get_many(["key", "missing"])
        list(store.scan(""))
    assert connection.execute("PRAGMA data_version").fetchone() == (before,)
    connection.close()


def test_connections_of_ended_threads_are_closed(store):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    store.set("key", b"value", None)
    before = descriptors()
    for _ in range(20):
        thread = threading.Thread(target=store.get, args=("key",))
        thread.start()
        thread.join()
    assert descriptors() <= before + 2  # SQLite keeps one aside, to be used again


def test_close_closes_the_connections_of_other_threads(store):
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    ready, done = threading.Barrier(4), threading.Event()

    def read():
        store.get("key")
        ready.wait()
        done.wait()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    store.close()
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [link for link in links if "entries-" in link]
    done.set()
    for thread in threads:
        thread.join()


def test_a_store_forgotten_without_close_warns_of_nothing(folder):
    store = DiskStore(folder)
    store.set("key", b"value", None)
    cycle = [store]
    cycle.append(cycle)
    del store, cycle
    gc.collect()  # Python 3.13 warns of connections nobody closed; warnings are errors here


def test_a_writer_that_waits_too_long_gets_an_error_in_time(folder):
    store = DiskStore(folder, timeout=0.1)
    store.set("key", b"value", None)
    other = sqlite3.connect(folder / "entries-000001.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = monotonic()
    with pytest.raises(StoreError, match="locked"):
        store.set("key", b"new", None)
    assert monotonic() - started < 1
    assert store.get("key").value == b"value"  # readers are not in anybody's way
    assert not store.ping().ok
    other.execute("ROLLBACK")
    other.close()
    store.set("key", b"new", None)
    assert store.get("key").value == b"new"
    store.close()


def test_ping_reports_figures_and_a_nearly_full_store(store, folder):
    assert store.ping().detail["entries"] == 0
    store.set("key", bytes(250 * KIB), None)
    health = store.ping()
    assert health.ok
    assert health.kind == f"sqlite {sqlite3.sqlite_version}"
    assert health.detail["path"] == str(folder)
    assert health.detail["entries"] == 1
    assert health.detail["bytes"] == 250 * KIB + 3
    assert any("max_bytes" in warning for warning in health.warnings)


def test_ping_warns_when_the_disk_has_less_room_than_the_store_may_take(folder, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    store = DiskStore(folder)
    assert any("free" in warning for warning in store.ping().warnings)
    store.close()
