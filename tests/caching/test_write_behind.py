"""Written behind: nobody waits, nothing promised is lost silently, and readers see what is promised."""

from __future__ import annotations

import asyncio
import threading

import pytest

from askonce import StoreError
from askonce.stores import MemoryStore
from askonce.stores._behind import WriteBehind
from askonce.stores._writer import Writer
from askonce.testing import ManualClock


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


# -- readers see what is promised --------------------------------------------------------------------


def test_a_write_is_there_for_readers_before_it_is_made_and_after(make, inner, by_hand):
    store = make()
    store.set("k", b"v", None)
    assert inner.log == []
    assert store.get("k").value == b"v"
    assert store.get_many(["k", "other"])["k"].value == b"v"
    assert list(store.scan("")) == ["k"]
    assert ("get", "k") not in inner.log
    store._writer.write_some()
    assert inner.log[-1] == ("set", "k", b"v")
    assert store.get("k").value == b"v"
    assert ("get", "k") in inner.log


def test_what_is_promised_keeps_its_expiry_to_the_last_digit(make, inner, by_hand, clock):
    store = make()
    expires = clock() + 12.345678
    store.set("k", b"v", expires)
    store.set_many([("a", b"1", clock() + 1), ("b", b"2", None)])
    assert store.get("k").expires_at == expires
    store._writer.write_some()
    assert inner.get("k").expires_at == expires
    assert inner.get("a").expires_at == clock() + 1
    assert inner.get("b").expires_at is None


def test_a_promised_value_dies_at_its_expiry(make, by_hand, clock):
    store = make()
    store.set("k", b"v", clock() + 5)
    clock.advance(5)
    assert store.get("k") is None
    assert store.get_many(["k"]) == {}
    assert list(store.scan("")) == []
    assert store.delete("k") == 0


def test_what_expired_while_it_waited_is_not_written_and_the_older_value_goes(make, inner, by_hand, clock):
    inner.set("k", b"older, lives longer", None)
    store = make()
    store.set("k", b"v", clock() + 5)
    clock.advance(5)
    store._writer.write_some()
    assert ("set", "k", b"v") not in inner.log
    assert store.get("k") is None
    assert inner.get("k") is None


def test_the_latest_write_wins_and_only_it_is_made(make, inner, by_hand):
    store = make()
    for number in range(5):
        store.set("k", b"%d" % number, None)
    assert store.get("k").value == b"4"
    store._writer.write_some()
    assert inner.log == [("set", "k", b"4")]


def test_many_writes_are_made_in_few_batches(make, inner, by_hand):
    store = make()
    store.set_many((f"k{number}", b"v", None) for number in range(100))
    store._writer.write_some()
    store._writer.write_some()
    assert [told[0] for told in inner.log] == ["set_many", "set_many"]
    assert sum(len(told) - 1 for told in inner.log) == 100


def test_a_batch_is_bounded_in_bytes(make, inner, by_hand):
    store = make()
    store.set_many((f"k{number}", bytes(5 << 20), None) for number in range(3))
    store._writer.write_some()
    assert inner.log == [("set", "k0", bytes(5 << 20))]


def test_a_newer_write_for_a_key_that_is_being_written_comes_after_it(make, inner, held):
    store = make()
    store.set("k", b"old", None)
    assert held.entered.wait(10)
    store.set("k", b"new", None)
    assert store.get("k").value == b"new"
    held.let.set()
    assert store.flush(10)
    assert inner.log[:2] == [("set", "k", b"old"), ("set", "k", b"new")]
    assert store.get("k").value == b"new"


def test_a_failed_write_does_not_come_back_over_a_newer_one(make, inner, by_hand):
    store = make()
    store.set("k", b"old", None)

    def fails(*_):
        store.set("k", b"new", None)
        raise ConnectionError

    inner.hook = fails
    store._writer.write_some()
    inner.hook = None
    assert store.get("k").value == b"new"
    while store._pending:
        store._writer.write_some()
    assert inner.get("k").value == b"new"
    assert store._pending.bytes == 0


def test_scanning_names_each_key_once_and_none_that_will_be_gone(make, inner, by_hand, clock):
    store = make()
    for key in ("both", "stored", "expires"):
        inner.set(key, b"1", None)
    store.set("both", b"2", None)
    store.set("expires", b"2", clock() - 1)
    assert list(store.scan("")) == ["both", "stored"]
    assert asyncio.run(store.ascan("")) == ["both", "stored"]


def test_a_changed_bytearray_does_not_change_what_was_promised(make, inner, by_hand):
    store = make()
    value = bytearray(b"one")
    store.set("k", value, None)
    value[:] = b"two"
    store._writer.write_some()
    assert inner.get("k").value == b"one"


# -- deleting ----------------------------------------------------------------------------------------


def test_deleting_takes_the_promise_back(make, inner, by_hand):
    store = make()
    store.set("k", b"v", None)
    assert store.delete("k") == 1
    assert store.get("k") is None
    store._writer.write_some()
    assert inner.get("k") is None


def test_deleting_counts_each_key_once_wherever_it_is(make, inner, by_hand):
    inner.set("both", b"1", None)
    inner.set("there", b"2", None)
    store = make()
    store.set("both", b"3", None)
    store.set("here", b"4", None)
    assert store.delete("both", "there", "here", "nowhere", "here") == 3
    assert list(inner.scan("")) == []


def test_deleting_does_not_count_a_value_that_an_expired_promise_has_replaced(make, inner, by_hand, clock):
    store = make()
    inner.set("k", b"older, with a longer life", None)
    store.set("k", b"newer", clock() + 1)
    clock.advance(2)
    assert store.get("k") is None
    assert store.delete("k") == 0
    assert inner.get("k") is None


def deleted(store, face, key):
    return store.delete(key) if face == "sync" else asyncio.run(store.adelete(key))


@pytest.mark.parametrize("face", ["sync", "async"])
def test_while_a_key_is_deleted_nobody_reads_what_its_promise_had_replaced(make, inner, by_hand, face):
    store = make()
    inner.set("k", b"overwritten", None)
    store.set("k", b"newer", None)
    seen = []
    inner.hook = lambda operation, *_: seen.append(store.get("k")) if operation == "delete" else None
    assert deleted(store, face, "k") == 1
    assert seen == [None]
    assert store.get("k") is None
    assert len(store._pending) == store._pending.bytes == 0, "a removal is left that is not needed"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_deletion_that_fails_brings_no_overwritten_value_back(make, inner, by_hand, face):
    store = make()
    inner.set("k", b"overwritten", None)
    store.set("k", b"newer", None)

    def fails(operation, *_):
        raise StoreError("away")

    inner.hook = fails
    with pytest.raises(StoreError, match="away"):
        deleted(store, face, "k")
    assert store.get("k") is None
    assert list(store.scan("")) == []
    inner.hook = None
    store.set("other", b"v", None)
    while store._pending:
        store._writer.write_some()
    assert inner.get("k") is None
    assert inner.get("other").value == b"v"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_deleting_what_is_being_written_waits_and_leaves_nothing(make, inner, held, face):
    store = make()
    store.set("k", b"v", None)
    assert held.entered.wait(10)
    threading.Timer(0.05, held.let.set).start()
    assert (store.delete("k") if face == "sync" else asyncio.run(store.adelete("k"))) == 1
    assert inner.get("k") is None
    assert store.flush(10)
    assert inner.get("k") is None


@pytest.mark.parametrize("face", ["sync", "async"])
def test_deleting_what_is_written_for_ever_says_so_and_comes_true_later(make, inner, held, face, monkeypatch):
    monkeypatch.setattr("askonce.stores._behind._PATIENCE", 0.03)
    store = make()
    store.set("k", b"v", None)
    assert held.entered.wait(10)
    with pytest.raises(StoreError, match="still being made"):
        _ = store.delete("k") if face == "sync" else asyncio.run(store.adelete("k"))
    assert store.get("k") is None
    held.let.set()
    assert store.flush(10)
    assert inner.get("k") is None


def test_what_was_deleted_while_its_write_failed_is_not_written_again(make, inner, by_hand):
    store = make()
    store.set("k", b"v", None)

    def fails(operation, *_):
        if operation == "set":
            store._pending.forget(["k"])
            raise ConnectionError

    inner.hook = fails
    store._writer.write_some()
    inner.hook = None
    while store._pending:
        store._writer.write_some()
    assert store.get("k") is None
    assert [told[0] for told in inner.log if told[0] != "get"] == ["set", "delete"]
