"""The store that fails on demand is a good store until it is told to fail."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from askonce import ConfigurationError, StoreError
from askonce.stores.memory import MemoryStore
from askonce.testing import FlakyStore, StoreContract


class TestContract(StoreContract):
    def make_store(self, clock):
        return FlakyStore(MemoryStore(clock=clock))


@pytest.fixture
def store():
    store = FlakyStore(MemoryStore())
    store.set("key", b"a value", None)
    return store


def test_every_operation_fails_when_all_are_told_to(store):
    store.fail_with(ConnectionError("down"))
    for operation in (
        lambda: store.get("key"),
        lambda: store.set("key", b"new", None),
        lambda: store.delete("key"),
        lambda: store.get_many(["key"]),
        lambda: store.set_many([]),
        lambda: list(store.scan("")),
        store.close,
    ):
        with pytest.raises(ConnectionError, match="down"):
            operation()
    assert not store.ping().ok
    store.recover()
    assert store.ping().ok


def test_only_the_named_operations_fail_as_often_as_told(store):
    store.fail_with(operations=["set"], times=2)
    for _ in range(2):
        with pytest.raises(StoreError):
            store.set("key", b"new", None)
    assert store.get("key").value == b"a value"
    store.set("key", b"new", None)
    assert store.get("key").value == b"new"


def test_a_mistyped_operation_or_damage_is_named(store):
    with pytest.raises(ConfigurationError, match="gets"):
        store.fail_with(operations=["gets"])
    with pytest.raises(ConfigurationError, match="shredded"):
        store.spoil("shredded")


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "empty", lambda value: value[::-1]])
def test_spoilt_values_differ_from_what_was_set(store, damage):
    store.spoil(damage)
    assert store.get("key").value != b"a value"
    assert store.get_many(["key"])["key"].value == store.get("key").value
    store.recover()
    assert store.get("key").value == b"a value"


def test_a_hanging_call_is_woken_by_recovery(store):
    store.slow_down(60.0, operations=["get"])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(store.get("key")))
    started = monotonic()
    thread.start()
    while not store.calls["get"]:
        pass
    store.recover()
    thread.join(10)
    assert answers[0].value == b"a value"
    assert monotonic() - started < 10


def test_a_delay_is_kept(store):
    slow = FlakyStore(MemoryStore(), delay=0.02)
    started = monotonic()
    slow.get("key")
    assert monotonic() - started >= 0.02


def test_calls_are_counted_failed_ones_too(store):
    store.fail_with(operations=["get"])
    for _ in range(3):
        with pytest.raises(StoreError):
            store.get("key")
    assert store.calls == {"set": 1, "get": 3}
    assert "failing=['get']" in repr(store)
