"""What the disk store promises when things go wrong: never a wrong value, rarely an error, no hang."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import pytest

from askonce import StoreError
from askonce.stores import _connections, _sqlite
from askonce.stores.disk import DiskStore

KIB = 1024
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def looks_at_once(monkeypatch):
    """Files are looked at before every operation, instead of once a second."""
    monkeypatch.setattr(_sqlite, "_LOOK_EVERY", 0.0)


def value_of(key, size):
    """A value that says whose it is and how long it is."""
    return f"{key}|{size}|".encode() + b"." * size


def is_value_of(key, value):
    owner, size, rest = value.split(b"|", 2)
    return owner == key.encode() and rest == b"." * int(size)


def wrong_values(store):
    keys = list(store.scan(""))
    return [key for key, stored in store.get_many(keys).items() if not is_value_of(key, stored.value)]


def generations(folder):
    return sorted(path.name for path in folder.glob("entries-*.sqlite3"))


def in_child(work):
    """Fork, run `work` there, give the child's pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are running: that is tested
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def succeeded(*pids):
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]  # waits for all of them
    return not any(codes)


def write_for_ever(store, seed):
    chance = random.Random(seed)
    while True:
        key = f"key:{chance.randrange(60)}"
        with contextlib.suppress(StoreError):  # busy
            action = chance.randrange(5)
            if action == 0:
                store.delete(key)
            elif action == 1:
                store.set_many(
                    (f"key:{n}", value_of(f"key:{n}", chance.randrange(4000)), None) for n in range(8)
                )
            else:
                store.set(key, value_of(key, chance.randrange(20_000)), None)


# -- processes ---------------------------------------------------------------------------------------


@needs_fork
def test_killing_writers_leaves_no_wrong_value_and_no_damage(folder):
    store = DiskStore(folder, max_bytes=300 * KIB, timeout=5.0)
    store.set("key:0", value_of("key:0", 10), None)
    chance = random.Random(9)
    for round_ in range(25):
        pids = [in_child(lambda seed=seed: write_for_ever(store, seed)) for seed in (round_, -round_)]
        time.sleep(chance.uniform(0.005, 0.04))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert wrong_values(store) == []
        assert store.ping().ok
    assert len(list(store.scan("key:"))) > 10
    assert store.ping().detail["bytes"] <= 300 * KIB
    assert generations(folder) == ["entries-000001.sqlite3"]
    store.close()


@needs_fork
def test_many_processes_and_threads_at_once_see_no_wrong_value_and_keep_the_bound(folder):
    bound = 200 * KIB
    keys = [f"key:{number}" for number in range(40)]

    def worker(seed):
        store = DiskStore(folder, max_bytes=bound, timeout=5.0)
        trouble = []
        end = time.monotonic() + 1.0

        def mix(number):
            chance = random.Random(seed * 10 + number)
            try:
                while time.monotonic() < end:
                    key = chance.choice(keys)
                    action = chance.randrange(8)
                    if action <= 2:
                        store.set(key, value_of(key, chance.randrange(12_000)), None)
                    elif action == 3:
                        store.delete(key)
                    elif action == 4:
                        assert wrong_values(store) == []
                    elif action == 5:
                        assert store.ping().detail["bytes"] <= bound
                    else:
                        stored = store.get(key)
                        assert stored is None or is_value_of(key, stored.value)
            except BaseException:
                trouble.append(traceback.format_exc())

        threads = [threading.Thread(target=mix, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.close()
        assert not trouble, trouble[0]

    assert succeeded(*[in_child(lambda seed=seed: worker(seed)) for seed in range(4)])
    assert generations(folder) == ["entries-000001.sqlite3"]


@needs_fork
def test_processes_that_start_together_agree_on_one_file(folder):
    def start(number):
        store = DiskStore(folder, timeout=5.0)
        store.set(f"key:{number}", b"value", None)
        store.close()

    assert succeeded(*[in_child(lambda number=number: start(number)) for number in range(8)])
    store = DiskStore(folder, timeout=5.0)
    assert len(list(store.scan("key:"))) == 8
    assert generations(folder) == ["entries-000001.sqlite3"]
    store.close()


@needs_fork
def test_forking_while_threads_work_harms_neither_side(folder):
    store = DiskStore(folder, timeout=5.0)
    stop, trouble = threading.Event(), []

    def work(number):
        try:
            while not stop.is_set():
                store.set(f"key:{number}", value_of(f"key:{number}", 500), None)
                assert is_value_of(f"key:{number}", store.get(f"key:{number}").value)
        except BaseException:
            trouble.append(traceback.format_exc())

    def child(number):
        store.set(f"child:{number}", value_of(f"child:{number}", 500), None)
        assert wrong_values(store) == []
        store.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    pids = [in_child(lambda number=number: child(number)) for number in range(12)]
    assert succeeded(*pids)
    stop.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert len(list(store.scan("child:"))) == 12
    assert generations(folder) == ["entries-000001.sqlite3"]
    store.close()


@needs_fork
def test_a_child_does_not_open_a_file_whose_connection_it_inherited(folder, monkeypatch, looks_at_once):
    # As when a C program forks and tells Python only afterwards.
    monkeypatch.setattr(_connections.Connections, "before_fork", lambda _: None)
    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"value", None)

    def child():
        store.set("child", b"value", None)
        assert store.get("child") is not None

    assert succeeded(in_child(child))
    assert generations(folder) == ["entries-000001.sqlite3", "entries-000002.sqlite3"]
    assert store.get("child") is not None
    store.close()


@needs_fork
def test_another_process_notices_the_newer_file(folder, monkeypatch):
    monkeypatch.setattr(_sqlite, "_LOOK_EVERY", 0.05)
    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"old", None)

    def child():
        mine = DiskStore(folder, timeout=5.0)
        assert mine.get("key").value == b"old"
        end = time.monotonic() + 10
        while time.monotonic() < end:
            stored = mine.get("key")
            if stored is not None and stored.value == b"new":
                return
            time.sleep(0.01)
        raise AssertionError("still the old file")

    pid = in_child(child)
    time.sleep(0.1)
    store.close()
    (folder / "entries-000001.sqlite3").write_bytes(b"garbage" * 1000)
    store.set("key", b"new", None)
    assert succeeded(pid)
    assert store.get("key").value == b"new"
    store.close()


# -- damage ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with 150 entries of many sizes, none of its file in the write-ahead log."""
    folder = tmp_path_factory.mktemp("sound") / "cache"
    store = DiskStore(folder, timeout=5.0)
    store.set_many(
        (f"key:{n:03}", value_of(f"key:{n:03}", n * 37 % 6000), 4e9 if n % 2 else None) for n in range(150)
    )
    store.delete(*(f"key:{n:03}" for n in range(0, 150, 10)))
    store.close()
    assert generations(folder) == ["entries-000001.sqlite3"]
    return folder


def use(store):
    """Everything works, nothing is wrong; how many entries are left."""
    assert wrong_values(store) == []
    left = 0
    for number in range(150):
        stored = store.get(f"key:{number:03}")
        if stored is not None:
            left += 1
            assert is_value_of(f"key:{number:03}", stored.value)
            assert stored.expires_at in (None, 4e9)
    for number in range(40):
        store.set(f"new:{number}", value_of(f"new:{number}", 6000), None)
    store.delete(*(f"key:{number:03}" for number in range(150)))
    assert list(store.scan("key:")) == []
    assert wrong_values(store) == []
    store.set("last", value_of("last", 3000), None)  # `new:...` may be lost, if damage was found after them
    assert store.get("last") is not None
    assert store.ping().ok
    return left


def damaged_copies(sound, tmp_path, damages):
    for number, damage in enumerate(damages):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        path = folder / "entries-000001.sqlite3"
        content = bytearray(path.read_bytes())
        path.write_bytes(damage(content))
        store = DiskStore(folder, timeout=5.0)
        yield store
        store.close()
        shutil.rmtree(folder)


def overwrite(offset, replacement):
    def damage(content):
        content[offset : offset + len(replacement)] = replacement
        return content

    return damage


def flip(offset):
    return lambda content: overwrite(offset, bytes([content[offset] ^ 4]))(content)


def test_damage_anywhere_in_the_file_is_no_error_and_no_wrong_value(sound, tmp_path):
    size = (sound / "entries-000001.sqlite3").stat().st_size
    chance = random.Random(4)
    header = [
        overwrite(offset, b"\xff")
        for offset in (0, 16, 18, 20, 23, 27, 31, 35, 43, 47, 51, 55, 59, 63, 68, 101)
    ]
    page_heads = [
        overwrite(page * 4096 + place, chance.randbytes(4)) for page in range(6) for place in (0, 3, 8)
    ]
    anywhere = [overwrite(chance.randrange(size - 64), chance.randbytes(64)) for _ in range(15)]
    bits = [flip(chance.randrange(size)) for _ in range(15)]
    for store in damaged_copies(sound, tmp_path, [*header, *page_heads, *anywhere, *bits]):
        use(store)


def test_a_file_cut_anywhere_is_no_error_and_no_wrong_value(sound, tmp_path):
    size = (sound / "entries-000001.sqlite3").stat().st_size
    cuts = [0, 1, 15, 50, 100, 4095, 4096, 4097, 8192, 20_000, size // 2, size - 4096, size - 1]
    for store in damaged_copies(sound, tmp_path, [lambda content, cut=cut: content[:cut] for cut in cuts]):
        use(store)


def test_a_flipped_bit_inside_a_value_costs_that_entry_only(sound, tmp_path):
    def damage(content):
        place = content.find(b"key:003|111|") + 60
        return overwrite(place, b"!")(content)

    for store in damaged_copies(sound, tmp_path, [damage]):
        assert store.get("key:003") is None
        assert len(list(store.scan("key:"))) == 134
        assert use(store) == 134


def test_garbage_is_set_aside_for_a_post_mortem(folder):
    folder.mkdir()
    (folder / "entries-000001.sqlite3").write_bytes(b"no database " * 1000)
    store = DiskStore(folder, timeout=5.0)
    assert store.get("key") is None
    store.set("key", b"value", None)
    assert store.get("key").value == b"value"
    assert generations(folder) == ["entries-000001.sqlite3", "entries-000002.sqlite3"]
    assert (folder / "entries-000001.sqlite3").read_bytes().startswith(b"no database")
    store.close()


def test_only_the_last_damaged_file_is_kept(folder):
    for number in range(1, 6):
        store = DiskStore(folder, timeout=5.0)
        store.set("key", b"value", None)
        store.close()
        (folder / f"entries-{number:06}.sqlite3").write_bytes(b"garbage" * 1000)
    store = DiskStore(folder, timeout=5.0)
    assert store.get("key") is None
    store.close()
    assert generations(folder) == ["entries-000005.sqlite3", "entries-000006.sqlite3"]


def foreign(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


OURS = ("PRAGMA application_id=1634954033", "PRAGMA user_version=1")


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE users (name TEXT)", "INSERT INTO users VALUES ('ada')"),
        ("CREATE TABLE entries (key TEXT, value BLOB)",),
        ("PRAGMA user_version=7",),
        ("PRAGMA application_id=1634954033", "PRAGMA user_version=99", "CREATE TABLE entries (id)"),
        OURS,
        (*OURS, "CREATE TABLE entries (key TEXT, value BLOB)"),
        (*OURS, "CREATE TABLE totals (bytes)", "CREATE VIEW entries AS SELECT 1 AS key"),
    ],
)
def test_another_programs_database_is_left_alone(folder, statements):
    folder.mkdir()
    path = folder / "entries-000001.sqlite3"
    foreign(path, *statements)
    before = path.read_bytes()
    store = DiskStore(folder, timeout=5.0)
    use(store)
    store.close()
    if statements != ("PRAGMA user_version=7",):  # no table: as good as empty
        assert path.read_bytes() == before
        assert len(generations(folder)) == 2


def test_lost_totals_are_damage(folder):
    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"value", None)
    foreign(folder / "entries-000001.sqlite3", "DELETE FROM totals")
    store.set("key", b"new", None)
    assert store.get("key").value == b"new"
    assert len(generations(folder)) == 2
    store.close()


def test_wrong_totals_do_not_let_the_file_grow(folder):
    store = DiskStore(folder, max_bytes=100 * KIB, timeout=5.0)
    store.set("key", b"value", None)
    foreign(folder / "entries-000001.sqlite3", "UPDATE totals SET bytes = -1000000000, entries = 1000000")
    store.set_many((f"key:{n}", bytes(3000), None) for n in range(2000))
    assert store.ping().detail["file_bytes"] < 2 * 1024 * KIB
    store.close()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"garbage" * 3000, None], ids=["empty", "short", "garbage", "cut"]
)
def test_damage_under_a_running_store_heals(folder, content, looks_at_once):
    store = DiskStore(folder, timeout=5.0)
    for n in range(150):
        store.set(f"key:{n:03}", value_of(f"key:{n:03}", 3000), None)
    path = folder / "entries-000001.sqlite3"
    with path.open("r+b") as file:
        if content is None:
            file.truncate(40_000)
        else:
            file.truncate(0)
            file.write(content)
    use(store)
    store.close()
    store = DiskStore(folder, timeout=5.0)
    use(store)
    store.close()


def test_many_threads_that_meet_damage_together_begin_one_new_file(folder):
    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"value", None)
    store.close()
    (folder / "entries-000001.sqlite3").write_bytes(b"garbage" * 1000)
    gate, trouble = threading.Barrier(8), []

    def work(number):
        try:
            gate.wait()
            store.set(f"key:{number}", b"value", None)
        except BaseException:
            trouble.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert len(list(store.scan("key:"))) == 8
    assert len(generations(folder)) == 2
    store.close()


# -- the folder and the disk -------------------------------------------------------------------------


def test_a_deleted_folder_is_made_again(folder, looks_at_once):
    store = DiskStore(folder, timeout=5.0)
    for number in range(3):
        store.set("key", str(number).encode(), None)
        shutil.rmtree(folder)
        assert store.get("key") is None
        store.set("key", b"again", None)
        assert store.get("key").value == b"again"
        assert generations(folder) == ["entries-000001.sqlite3"]
    store.close()


def test_a_store_that_still_has_a_deleted_file_open_does_not_harm_the_new_one(folder):
    idle = DiskStore(folder, timeout=5.0)
    idle.set("key", b"old", None)
    shutil.rmtree(folder)
    other = DiskStore(folder, timeout=5.0)
    other.set("key", b"new", None)
    idle.close()  # must not take the new file's write-ahead log with it
    other.set("more", b"new", None)
    third = DiskStore(folder, timeout=5.0)
    assert third.get("key").value == b"new"
    assert third.get("more").value == b"new"
    assert idle.get("more").value == b"new"
    for store in (idle, other, third):
        store.close()


def assert_unusable(store):
    started = time.monotonic()
    with pytest.raises(StoreError):
        store.get("key")
    with pytest.raises(StoreError):
        store.set("key", b"value", None)
    with pytest.raises(StoreError):
        list(store.scan(""))
    health = store.ping()
    assert not health.ok
    assert health.warnings
    store.close()
    assert time.monotonic() - started < 2


def test_a_path_under_a_file_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert_unusable(DiskStore(tmp_path / "file" / "cache"))
    assert_unusable(DiskStore(tmp_path / "file"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_folder_that_cannot_be_created_is_a_store_error():
    assert_unusable(DiskStore("/proc/askonce"))


@needs_fork
def test_a_read_only_folder_is_a_store_error(sound):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        home = Path(name)
        shutil.copytree(sound, home / "full")
        (home / "empty").mkdir()
        for path in (home, home / "empty", home / "full"):
            path.chmod(0o555)

        def child():
            if os.geteuid() == 0:
                os.setuid(65534)  # modes do not bind root
            assert_unusable(DiskStore(home / "empty"))
            assert_unusable(DiskStore(home / "none"))
            store = DiskStore(home / "full")  # reading may work or not, as SQLite likes
            with pytest.raises(StoreError):
                store.set("key", b"value", None)
            assert not store.ping().ok

        ended_well = succeeded(in_child(child))
        for path in (home, home / "empty", home / "full"):
            path.chmod(0o755)
        assert ended_well
        assert generations(home / "full") == ["entries-000001.sqlite3"]


def test_a_full_file_refuses_new_values_and_keeps_the_old(folder):
    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"value", None)
    store._database.run(lambda c: c.execute("PRAGMA max_page_count=10").fetchall())
    with pytest.raises(StoreError, match="full"):
        store.set("large", bytes(100 * KIB), None)
    assert store._database.run(lambda c: c.in_transaction) is False
    assert store.get("key").value == b"value"
    store.set("large", bytes(100 * KIB), None)  # room again: the connection is a new one
    assert store.get("large") is not None
    store.close()


@needs_fork
def test_a_full_disk_is_a_store_error_and_reading_goes_on(folder):
    resource = pytest.importorskip("resource")
    store = DiskStore(folder, timeout=5.0)
    store.set("key", value_of("key", 1000), None)

    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 * KIB, resource.RLIM_INFINITY))
        mine = DiskStore(folder, timeout=5.0)
        refused = 0
        for number in range(100):
            try:
                mine.set(f"more:{number}", value_of(f"more:{number}", 10_000), None)
            except StoreError:
                refused += 1
        assert refused > 10
        assert is_value_of("key", mine.get("key").value)
        assert wrong_values(mine) == []
        mine.close()

    assert succeeded(in_child(child))
    assert wrong_values(store) == []
    store.set("after", value_of("after", 10_000), None)
    assert store.get("after") is not None
    assert generations(folder) == ["entries-000001.sqlite3"]
    store.close()


def test_an_interrupted_write_is_rolled_back(folder, monkeypatch):
    from askonce.stores import _rows

    store = DiskStore(folder, timeout=5.0)
    store.set("key", b"old", None)
    real = _rows.put

    def put(connection, row):
        real(connection, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(_rows, "put", put)
    with pytest.raises(KeyboardInterrupt):
        store.set("key", b"new", None)
    monkeypatch.undo()
    assert store.get("key").value == b"old"
    store.set("key", b"newer", None)
    assert store.get("key").value == b"newer"
    store.close()
