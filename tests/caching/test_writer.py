"""The writer of a write-behind store: a store in trouble, the thread, and the end of the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import askonce
from askonce.stores import DiskStore, MemoryStore, Refused, time_left
from askonce.stores._behind import WriteBehind
from askonce.stores._pending import Pending, Write
from askonce.stores._writer import Writer
from askonce.testing import FlakyStore, ManualClock


class Log(MemoryStore):
    """Notes what is written, and does what a test wants in the middle of it."""

    blocking = True
    write = "behind"

    def __init__(self, clock):
        super().__init__(clock=clock)
        self.log = []
        self.hook = None

    def _note(self, *told):
        self.log.append(told)
        if self.hook is not None:
            self.hook(*told)

    def set(self, key, value, expires_at):
        self._note("set", key, value)
        super().set(key, value, expires_at)

    def set_many(self, items):
        items = list(items)
        self._note("set_many", *(key for key, _, _ in items))
        for item in items:
            super().set(*item)

    def delete(self, *keys):
        self._note("delete", *keys)
        return super().delete(*keys)

    def get(self, key):
        self.log.append(("get", key))
        return super().get(key)


class Held:
    """A hook that stops a store in the middle of a write until it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.let = threading.Event()

    def __call__(self, operation, *_):
        if operation.startswith("set"):
            self.entered.set()
            assert self.let.wait(10)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def inner(clock):
    return Log(clock)


@pytest.fixture
def make(clock, inner):
    made = []

    def make(store=inner, **options):
        options.setdefault("flush_timeout", 0.2)
        lost = []
        store = WriteBehind(store, clock=clock, lost=lambda *told: lost.append(told), **options)
        store.losses = lost
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def by_hand(monkeypatch):
    """No thread: a test makes the writer's steps itself."""
    monkeypatch.setattr(Writer, "wake", lambda self: None)


@pytest.fixture
def held(inner):
    held = inner.hook = Held()
    yield held
    held.let.set()


def test_writes_are_kept_while_the_store_is_down_and_made_when_it_is_back(make, inner):
    flaky = FlakyStore(inner)
    store = make(flaky)
    flaky.fail_with(ConnectionError)
    store.set_many((f"k{number}", b"v", None) for number in range(20))
    assert not store.flush(5)
    assert len(store._pending) == 20
    assert store.get("k7").value == b"v"
    assert store.ping().detail["pending"] == 20
    flaky.recover()
    assert store.flush(10)
    assert sorted(inner.scan("")) == sorted(f"k{number}" for number in range(20))
    assert store.losses == []


def test_pauses_between_failures_grow_and_end_with_a_success(make, inner, by_hand):
    store = make()
    store.set("k", b"v", None)

    def fails(*_):
        raise ConnectionError

    inner.hook = fails
    pauses = []
    for _ in range(12):
        store._writer.write_some()
        pauses.append(round(store._writer.pause_until - time.monotonic(), 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
    inner.hook = None
    store._writer.write_some()
    assert store._writer.failures == 0


def test_a_store_that_is_down_is_tried_with_one_write_at_a_time(make, inner, by_hand):
    store = make()
    store.set_many((f"k{number}", b"v", None) for number in range(130))

    def fails(*_):
        raise ConnectionError

    inner.hook = fails
    for _ in range(3):
        store._writer.write_some()
    inner.hook = None
    while store._pending:
        store._writer.write_some()
    sizes = [len(told) - 1 if told[0] == "set_many" else 1 for told in inner.log]
    assert sizes == [64, 1, 1, 1, 2, 4, 8, 16, 32, 64, 3]


def test_when_too_many_wait_the_oldest_are_given_up_and_told(make, by_hand):
    store = make(max_entries=3)
    for number in range(5):
        store.set(f"k{number}", b"v", None)
    assert list(store.scan("")) == ["k2", "k3", "k4"]
    assert store.losses == [("k0", "full"), ("k1", "full")]
    assert store.ping().detail["dropped"] == 2
    assert store.ping().warnings


def test_when_they_take_too_much_room_the_oldest_are_given_up(make, by_hand):
    store = make(max_bytes=100)
    store.set("a", bytes(60), None)
    store.set("b", bytes(60), None)
    assert store.losses == [("a", "full")]
    store.set("huge", bytes(200), None)
    assert store.losses == [("a", "full"), ("huge", "full")]
    assert list(store.scan("")) == ["b"]
    assert store._pending.bytes == 61


def test_what_flies_counts_as_held(clock):
    pending = Pending(2, 1000, clock)
    pending.put(Write("a", b"1", None))
    pending.put(Write("b", b"1", None))
    pending.take(1, 1000)
    assert [write.key for write in pending.put(Write("c", b"1", None))] == ["b"]
    pending.landed()
    assert (len(pending), pending.bytes) == (1, 2)


def test_what_the_store_refuses_is_given_up_at_once_and_the_rest_is_written(make, inner, by_hand):
    store = make()
    store.set_many((f"k{number}", b"v", None) for number in range(6))

    def refuses(operation, *keys):
        if "k3" in keys:
            raise Refused("too large")

    inner.hook = refuses
    while store._pending:
        store._writer.write_some()
    assert store.losses == [("k3", "refused")]
    assert sorted(inner.scan("")) == ["k0", "k1", "k2", "k4", "k5"]
    assert store._writer.failures == 0


def test_a_write_that_fails_again_and_again_while_others_succeed_is_given_up(make, inner, by_hand):
    store = make()

    def fails(operation, *keys):
        if "poison" in keys:
            raise ValueError

    inner.hook = fails
    store.set("poison", b"v", None)
    for number in range(40):
        store.set(f"k{number}", b"v", None)
        store._writer.write_some()
    assert store.losses == [("poison", "failed")]
    while store._pending:
        store._writer.write_some()
    assert len(list(inner.scan(""))) == 40


def test_a_write_is_never_given_up_because_the_store_is_down(make, inner, by_hand):
    store = make()
    store.set("a", b"v", None)
    store.set("b", b"v", None)

    def fails(*_):
        raise ConnectionError

    inner.hook = fails
    for _ in range(50):
        store._writer.write_some()
    assert (store.losses, len(store._pending)) == ([], 2)


def test_a_write_has_a_deadline_that_the_store_can_ask_for(make, inner, by_hand):
    store = make()
    lefts = []
    inner.hook = lambda *_: lefts.append(time_left())
    store.set("k", b"v", None)
    store._writer.write_some()
    assert 9 < lefts[0] <= 10
    assert time_left() is None


def test_failures_are_told_with_their_operation(inner, clock, by_hand):
    told = []
    store = WriteBehind(inner, clock=clock, trouble=lambda *trouble: told.append(trouble))

    def fails(*_):
        raise ConnectionError

    inner.hook = fails
    store.set_many([("a", b"1", None), ("b", b"2", None)])
    store._writer.write_some()
    store._writer.write_some()
    assert [(operation, type(error)) for operation, error in told] == [
        ("set_many", ConnectionError), ("set", ConnectionError),
    ]  # fmt: skip
    assert store.ping().detail["failed"] == 2
    assert store.ping().warnings


# -- the thread, and the end -------------------------------------------------------------------------


def test_writing_never_waits_for_the_store(make, held):
    store = make()
    started = time.monotonic()
    for number in range(100):
        store.set(f"k{number}", b"v", None)
    assert time.monotonic() - started < 0.5


async def test_writing_never_stops_an_event_loop(make, held):
    store = make()
    started = time.monotonic()
    for number in range(100):
        await store.aset(f"k{number}", b"v", None)
    assert time.monotonic() - started < 0.5
    assert (await store.aget("k5")).value == b"v"


def test_closing_writes_what_is_promised_and_it_can_be_used_again(make, inner):
    store = make()
    for turn in range(3):
        store.set_many((f"{turn} {number}", b"v", None) for number in range(50))
        store.close()
        assert len(list(inner.scan(f"{turn} "))) == 50
    assert store.losses == []


async def test_closing_in_an_event_loop_writes_what_is_promised(make, inner):
    store = make()
    await store.aset_many((f"k{number}", b"v", None) for number in range(50))
    await store.aclose()
    assert len(list(inner.scan(""))) == 50


def test_closing_while_the_store_hangs_ends_in_time_and_tells_what_is_lost(make, held):
    store = make(flush_timeout=0.1)
    store.set("flies", b"v", None)
    assert held.entered.wait(10)
    store.set("waits", b"v", None)
    started = time.monotonic()
    store.close()
    assert 0.09 < time.monotonic() - started < 0.3
    assert store.losses == [("waits", "closed")]


def test_closing_while_the_store_is_down_does_not_take_all_that_time(make, inner):
    flaky = FlakyStore(inner)
    store = make(flaky, flush_timeout=30)
    flaky.fail_with(ConnectionError, operations=["set", "set_many"])
    store.set("k", b"v", None)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 3
    assert store.losses == [("k", "closed")]


def test_a_thread_without_work_ends_and_another_begins(make, inner, monkeypatch, k):
    monkeypatch.setattr("askonce.stores._writer._IDLE", 0.02)
    store = make()
    store.set("a", b"1", None)
    k.until(lambda: store._writer._thread is None, "the thread to end")
    store.set("b", b"2", None)
    assert store.flush(10)
    assert inner.get("b").value == b"2"


def test_where_no_thread_can_be_had_closing_writes(make, inner, monkeypatch):
    def refuses(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    store = make()
    store.set("k", b"v", None)
    store.close()
    assert inner.get("k").value == b"v"


def test_a_forgotten_store_is_written_and_then_goes(inner, clock, monkeypatch, k):
    monkeypatch.setattr("askonce.stores._writer._IDLE", 0.02)
    store = WriteBehind(inner, clock=clock)
    store.set("k", b"v", None)
    gone = weakref.ref(store)
    del store
    k.until(lambda: gc.collect() is not None and gone() is None, "the store to go")
    assert inner.get("k").value == b"v"


@pytest.mark.parametrize("closing", ["left open", "closed"])
def test_a_process_that_ends_writes_what_is_promised(tmp_path, closing):
    """A real interpreter, on its way out."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(askonce.__file__).parent.parent)!r})
from askonce.stores import DiskStore
from askonce.stores._behind import WriteBehind

class Slow(DiskStore):
    def set(self, *item):
        import time
        time.sleep(0.05)
        super().set(*item)
    def set_many(self, items):
        for item in items:
            self.set(*item)

store = WriteBehind(Slow({str(tmp_path / "cache")!r}))
for number in range(10):
    store.set(f"k{{number}}", b"v", None)
if {closing == "closed"}:
    store.close()
"""
    # Children that measure coverage import half the library for themselves.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=bare, timeout=60)
    found = DiskStore(tmp_path / "cache")
    assert sorted(found.scan("")) == sorted(f"k{number}" for number in range(10))
    found.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_with_an_empty_queue_and_writes_its_own(tmp_path):
    held = Held()

    class Holding(DiskStore):
        def set(self, *item):
            if os.getpid() == parent:
                held("set")
            super().set(*item)

    parent = os.getpid()
    store = WriteBehind(Holding(tmp_path / "cache", timeout=5.0))
    store.set("parent flies", b"v", None)
    assert held.entered.wait(10)
    store.set("parent waits", b"v", None)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            empty = not store._pending and list(store.scan("")) == []
            store.set("child", b"v", None)
            code = 0 if empty and store.flush(10) and store.inner.get("child") else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held.let.set()
    assert store.flush(10)
    assert sorted(store.scan("")) == ["child", "parent flies", "parent waits"]
    store.close()
