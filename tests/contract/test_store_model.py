"""Whatever one does to a store, in whatever order, it answers like a dictionary with expiries."""

from __future__ import annotations

import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from askonce.stores._behind import WriteBehind
from askonce.stores.disk import DiskStore
from askonce.stores.diskcache import DiskCacheStore
from askonce.stores.memory import MemoryStore
from askonce.testing import ManualClock

ROOM = 64 << 20

MAKERS = {
    "memory": lambda _, clock: MemoryStore(max_bytes=ROOM, max_entries=1000, clock=clock),
    "disk": lambda folder, clock: DiskStore(folder, max_bytes=ROOM, clock=clock, timeout=5.0),
    "behind": lambda _, clock: WriteBehind(MemoryStore(clock=clock), clock=clock),
    "diskcache": lambda folder, clock: DiskCacheStore(folder, max_bytes=ROOM, clock=clock, timeout=5.0),
}

# Few keys, so that they meet again; some odd ones, so that nothing depends on their shape.
KEYS = st.sampled_from(["a:1", "a:2", "ab:1", "a%:1", "a_:1", "b*:1", "\0", "é:1", "🧀"]) | st.text(
    "ab:%_é\0", max_size=3
)
VALUES = st.binary(max_size=40) | st.integers(0, 9).map(lambda byte: bytes([byte]) * 40_000)
LIVES = st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 100.0])
PREFIXES = st.sampled_from(["", "a", "a:", "a%", "a_", "b*", "é", "%", "\0"])


class Machine(RuleBasedStateMachine):
    """The store beside its model: key -> (value, expiry)."""

    kind = ""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.clock = ManualClock()
        self.store = MAKERS[self.kind](f"{self.folder}/cache", self.clock)
        self.model = {}

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def expiry(self, life):
        return None if life is None else self.clock() + life

    def live(self):
        now = self.clock()
        return {key: pair for key, pair in self.model.items() if pair[1] is None or now < pair[1]}

    @rule(key=KEYS, value=VALUES, life=LIVES)
    def set(self, key, value, life):
        self.store.set(key, value, self.expiry(life))
        self.model[key] = value, self.expiry(life)

    @rule(items=st.lists(st.tuples(KEYS, VALUES, LIVES), max_size=6))
    def set_many(self, items):
        batch = [(key, value, self.expiry(life)) for key, value, life in items]
        self.store.set_many(iter(batch))
        self.model.update({key: (value, expires_at) for key, value, expires_at in batch})

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete(self, keys):
        assert self.store.delete(*keys) == len(self.live().keys() & set(keys))
        for key in keys:
            self.model.pop(key, None)

    @rule(key=KEYS)
    def get(self, key):
        stored = self.store.get(key)
        assert (stored and stored[:2]) == self.live().get(key)

    @rule(keys=st.lists(KEYS, max_size=6))
    def get_many(self, keys):
        live = self.live()
        found = {key: stored[:2] for key, stored in self.store.get_many(keys).items()}
        assert found == {key: live[key] for key in keys if key in live}

    @rule(prefix=PREFIXES)
    def scan(self, prefix):
        assert sorted(self.store.scan(prefix)) == sorted(key for key in self.live() if key.startswith(prefix))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 50.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def close(self):
        before = self.live()
        self.store.close()
        if self.kind == "memory":  # what it has may go with it
            self.model = {key: before[key] for key in self.store.scan("")}

    @invariant()
    def nothing_else_is_there(self):
        assert set(self.store.scan("")) == set(self.live())


@pytest.mark.parametrize("kind", MAKERS)
def test_a_store_answers_like_its_model(kind):
    if kind == "diskcache":
        pytest.importorskip("diskcache")
    machine = type(f"{kind.title()}Machine", (Machine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
