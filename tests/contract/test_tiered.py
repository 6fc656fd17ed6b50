"""The tiered store passes the suite, over two memories and over memory and disk."""

from __future__ import annotations

from askonce.stores import DiskStore, MemoryStore, TieredStore
from askonce.testing import StoreContract


class Contract(StoreContract):
    def test_an_answer_says_which_store_gave_it(self, store, raw_store):
        """The tier that had it, not "tiered"."""
        store.set("key", b"value", None)
        assert store.get("key").tier == "memory"
        raw_store.tiers[0].delete("key")
        assert store.get("key").tier == raw_store.tiers[1].name


class TestMemoryOverMemory(Contract):
    def make_store(self, clock):
        return TieredStore(MemoryStore(clock=clock), MemoryStore(clock=clock))


class TestMemoryOverDisk(Contract):
    def make_store(self, clock):
        disk = DiskStore(self.tmp_path / "cache", clock=clock, timeout=5.0)
        return TieredStore(MemoryStore(clock=clock), disk)


class TestThree(Contract):
    def make_store(self, clock):
        return TieredStore(*[MemoryStore(clock=clock) for _ in range(3)])
