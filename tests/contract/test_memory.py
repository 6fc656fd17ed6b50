"""The memory store passes the suite."""

from __future__ import annotations

from askonce.stores.memory import MemoryStore
from askonce.testing import StoreContract


class TestContract(StoreContract):
    def make_store(self, clock):
        return MemoryStore(max_bytes=16 << 20, max_entries=1000, clock=clock)
