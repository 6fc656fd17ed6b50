"""A store that is written behind is as good a store as before."""

from __future__ import annotations

from askonce.stores import DiskStore, MemoryStore
from askonce.stores._behind import WriteBehind
from askonce.testing import FlakyStore, StoreContract


class Contract(StoreContract):
    # What waits at the moment of a fork is the parent's: see tests/caching/test_write_behind.py.
    test_a_forked_child_reads_and_writes = None


class TestOverMemory(Contract):
    def make_store(self, clock):
        return WriteBehind(MemoryStore(clock=clock), clock=clock)


class TestOverDisk(Contract):
    def make_store(self, clock):
        return WriteBehind(DiskStore(self.tmp_path / "cache", clock=clock, timeout=5.0), clock=clock)


class TestOverASlowStore(Contract):
    """Most operations find their key still waiting, or being written."""

    def make_store(self, clock):
        slow = FlakyStore(MemoryStore(clock=clock))
        slow.slow_down(0.02, operations=["set", "set_many"])
        return WriteBehind(slow, clock=clock)


class TestNothingIsWritten(Contract):
    """The queue alone: the store behind is down for writing."""

    def make_store(self, clock):
        down = FlakyStore(MemoryStore(clock=clock))
        down.fail_with(ConnectionError, operations=["set", "set_many"])
        return WriteBehind(down, clock=clock, flush_timeout=0.05)

    def test_after_close_it_works_again(self, store):
        store.set("key", b"value", None)
        store.close()
        store.close()
        store.set("other", b"value", None)
        assert store.get("other") is not None
