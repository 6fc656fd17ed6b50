"""What the memory store promises beyond the contract: its bounds, what goes first, and what stays."""

from __future__ import annotations

import gc
import itertools
import math
import os
import random
import sys
import threading
import weakref
from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from askonce._errors import ConfigurationError
from askonce.stores._s3fifo import ENTRY_OVERHEAD
from askonce.stores.memory import MemoryStore
from askonce.testing import ManualClock

DAY = 86_400


@pytest.fixture
def clock():
    return ManualClock()


def room_for(entries, size):
    """max_bytes that holds exactly so many entries with a key of 4 characters and `size` bytes."""
    return entries * (4 + size + ENTRY_OVERHEAD)


def names(count, start=0):
    return [f"{number:04}" for number in range(start, start + count)]


def check_whole(store):
    """Recompute from the links what the store keeps count of."""
    queue, wheel = store._queue, store._wheel
    linked = list(queue)
    assert {entry.key: entry for entry in linked} == queue.entries
    assert len(linked) == len(queue.entries)
    charges = {entry.key: len(entry.key) + len(entry.value) + ENTRY_OVERHEAD for entry in linked}
    small = [entry.key for entry in linked if not entry.in_main]
    assert queue.bytes == sum(charges.values())
    assert (queue.small_count, queue.small_bytes) == (len(small), sum(charges[key] for key in small))
    assert sorted(entry.key for entry in wheel) == sorted(queue.entries)
    assert len(queue.entries) <= store._max_entries
    assert queue.bytes <= store._max_bytes
    for entry in linked:
        assert entry.before.after is entry is entry.after.before
        assert entry.prev.next is entry is entry.next.prev


class StoreAgainstModel(RuleBasedStateMachine):
    """Any sequence of calls, against a dictionary that forgets nothing."""

    keys = st.sampled_from("abcdefghijklmnop")

    def __init__(self):
        super().__init__()
        self.clock = ManualClock(1_000.0)
        self.store = MemoryStore(max_bytes=8 * (ENTRY_OVERHEAD + 300), max_entries=10, clock=self.clock)
        self.model = {}
        self.counter = itertools.count()

    @rule(key=keys, size=st.integers(0, 900), life=st.one_of(st.none(), st.floats(-5, 10_000_000)))
    def set(self, key, size, life):
        value = b"%d|" % next(self.counter) + bytes(size)
        expires_at = None if life is None else self.clock() + life
        self.store.set(key, value, expires_at)
        self.model[key] = (value, expires_at)
        stored = self.store.get(key)
        if expires_at is None or expires_at > self.clock():
            assert stored is not None
            assert (stored.value, stored.expires_at) == self.model[key]
        else:
            assert stored is None

    @rule(key=keys)
    def set_too_large(self, key):
        self.store.set(key, bytes(8 * (ENTRY_OVERHEAD + 300)), None)
        assert self.store.get(key) is None
        self.model.pop(key, None)

    @rule(keys=st.lists(keys, max_size=4))
    def delete(self, keys):
        there = [key for key in set(keys) if self.store.get(key) is not None]
        assert self.store.delete(*keys) == len(there)
        for key in keys:
            assert self.store.get(key) is None
            self.model.pop(key, None)

    @rule(seconds=st.one_of(st.floats(0, 100), st.floats(0, 10_000_000), st.floats(-1000, 0)))
    def move_the_clock(self, seconds):
        self.clock.advance(seconds)

    @rule(key=keys, times=st.integers(1, 4))
    def ask(self, key, times):
        for _ in range(times):
            self.store.get(key)

    @invariant()
    def never_wrong_never_expired(self):
        now = self.clock()
        for entry in self.store._queue.entries.copy().values():
            uses = entry.uses
            stored = self.store.get(entry.key)
            entry.uses = uses  # looking must not steer what is evicted next
            if stored is not None:
                assert (stored.value, stored.expires_at) == self.model[entry.key]
                assert stored.expires_at is None or now < stored.expires_at

    @invariant()
    def whole(self):
        check_whole(self.store)


TestAnySequence = StoreAgainstModel.TestCase
TestAnySequence.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "1"])
@pytest.mark.parametrize("option", ["max_bytes", "max_entries"])
def test_a_limit_that_cannot_work_is_refused_by_name(option, limit):
    with pytest.raises(ConfigurationError, match=f"{option}={limit!r}"):
        MemoryStore(**{option: limit})


def test_it_says_what_it_is():
    store = MemoryStore(max_entries=5, max_bytes=10_000)
    assert (store.name, store.blocking) == ("memory", False)
    store.set("secret-key", b"secret-value", None)
    assert (
        repr(store) == f"MemoryStore(entries=1, bytes={22 + ENTRY_OVERHEAD}, max_entries=5, max_bytes=10000)"
    )


def test_an_empty_store_is_not_false():
    store = MemoryStore()
    assert len(store) == 0
    assert store


# -- bounds ------------------------------------------------------------------------------------------


def test_entries_are_bounded():
    store = MemoryStore(max_entries=10)
    for key in names(100):
        store.set(key, b"value", None)
        check_whole(store)
    assert len(store) == 10


def test_bytes_are_bounded_and_used_up():
    store = MemoryStore(max_bytes=room_for(10, 100))
    for key in names(100):
        store.set(key, bytes(100), None)
    assert len(store) == 10
    assert store.ping().detail["bytes"] == room_for(10, 100)


def test_a_value_larger_than_the_room_is_not_kept_and_removes_the_older_one():
    store = MemoryStore(max_bytes=room_for(10, 100))
    store.set("0000", b"old", None)
    store.set("0001", b"other", None)
    store.set("0000", bytes(room_for(10, 100)), None)
    assert store.get("0000") is None
    assert store.get("0001") is not None
    check_whole(store)


@pytest.mark.parametrize("hot", [False, True])
def test_a_value_as_large_as_the_room_is_kept_alone(hot):
    store = MemoryStore(max_bytes=room_for(10, 100))
    for key in names(10):
        store.set(key, bytes(100), None)
        if hot:
            for _ in range(4):
                store.get(key)
    store.set("huge", bytes(room_for(10, 100) - 4 - ENTRY_OVERHEAD), None)
    assert store.get("huge") is not None
    assert len(store) == 1
    check_whole(store)


def test_an_entry_that_grows_is_not_evicted_by_its_own_growth():
    store = MemoryStore(max_bytes=room_for(10, 100))
    for key in names(10):
        store.set(key, bytes(100), None)
    for key in names(10)[1:]:
        for _ in range(4):
            store.get(key)
    store.set("0000", bytes(2000), None)
    stored = store.get("0000")
    assert stored is not None
    assert len(stored.value) == 2000
    check_whole(store)


def test_overwriting_charges_the_new_size_only():
    store = MemoryStore()
    for size in (10, 1000, 0, 500):
        store.set("0000", bytes(size), None)
        assert store.ping().detail["bytes"] == room_for(1, size)
    store.delete("0000")
    assert store.ping().detail["bytes"] == 0


def test_values_are_bytes_of_their_own():
    store = MemoryStore()
    source = bytearray(b"before")
    store.set("array", source, None)
    store.set("view", memoryview(source), None)
    source[:] = b"after!"
    for key in ("array", "view"):
        stored = store.get(key)
        assert stored is not None
        assert type(stored.value) is bytes
        assert stored.value == b"before"
    exact = b"exactly bytes"
    store.set("exact", exact, None)
    assert store.get("exact").value is exact


# -- expiry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("life", [1, 63, 64, 65, 5000, 300_000, 20 * DAY, 400 * DAY])
def test_expired_entries_go_before_live_ones(clock, life):
    store = MemoryStore(max_entries=100, clock=clock)
    for key in names(50):
        store.set(key, b"live", None)
    for key in names(50, 50):
        store.set(key, b"short", clock() + life)
        for _ in range(5):
            store.get(key)  # well loved, expired none the less
    clock.advance(life)
    for key in names(50, 100):
        store.set(key, b"new", clock() + DAY)
    assert all(store.get(key) for key in names(50))
    assert all(store.get(key) for key in names(50, 100))
    assert store.ping().detail["evictions"] == 0
    assert store.ping().detail["expired"] == 50


def test_expired_entries_give_back_their_room_without_pressure(clock):
    store = MemoryStore(clock=clock)
    for number, key in enumerate(names(1000)):
        store.set(key, b"value", clock() + number + 1)
    clock.advance(600)
    assert len(store) == 400
    check_whole(store)
    clock.advance(DAY)
    detail = store.ping().detail
    assert (detail["entries"], detail["bytes"], detail["expired"]) == (0, 0, 1000)


def test_many_that_run_out_at_once_are_not_all_paid_for_by_one_write(clock):
    store = MemoryStore(clock=clock)
    for key in names(5000):
        store.set(key, b"value", clock() + 10)
    clock.advance(11)
    store.set("new", b"value", None)
    assert len(store._queue.entries) > 4000
    for key in names(200):
        store.set(key, b"value", None)
    assert len(store._queue.entries) == 201


@pytest.mark.parametrize("expires_at", [math.inf, math.nan, 1e300, sys.float_info.max])
def test_an_expiry_beyond_all_calendars_is_kept(clock, expires_at):
    store = MemoryStore(max_entries=3, clock=clock)
    store.set("far", b"value", expires_at)
    clock.advance(1e9)
    assert store.get("far") is not None
    for key in names(10):
        store.set(key, b"value", expires_at)
    check_whole(store)


def test_a_clock_going_backwards_revives_nothing_wrong_and_breaks_nothing(clock):
    store = MemoryStore(max_entries=50, clock=clock)
    for number, key in enumerate(names(40)):
        store.set(key, key.encode(), clock() + 100 + number)
    clock.advance(90)
    store.set("at 90", b"value", clock() + 1000)
    clock.advance(-5000)
    store.set("back", b"value", clock() + 10)
    assert all(store.get(key).value == key.encode() for key in names(40))
    clock.advance(10)
    assert store.get("back") is None
    assert len(store) == 41
    clock.advance(5010 + 15)
    assert sorted(store.scan("")) == [*names(14, 26), "at 90"]
    assert len(store) == 15
    check_whole(store)


def test_a_clock_that_starts_before_the_epoch_works():
    clock = ManualClock(-1000.5)
    store = MemoryStore(clock=clock)
    store.set("key", b"value", -900.25)
    clock.advance(100)
    assert store.get("key") is not None
    clock.advance(1.25)
    assert len(store) == 0


# -- what stays --------------------------------------------------------------------------------------


def test_a_scan_over_one_time_keys_does_not_evict_the_hot_set():
    store = MemoryStore(max_entries=1000)
    hot = names(500)
    for key in hot:
        store.set(key, b"hot", None)
        store.get(key)
    for number in range(20_000):
        store.set(f"once:{number}", b"cold", None)
    assert all(store.get(key) for key in hot)


def test_a_key_that_comes_back_soon_goes_to_main():
    store = MemoryStore(max_entries=100)
    for key in names(101):
        store.set(key, b"value", None)
    assert store.get("0000") is None
    store.set("0000", b"again", None)
    assert store._queue.entries["0000"].in_main
    assert not store._queue.entries["0100"].in_main
    for key in names(1000, 1000):
        store.set(key, b"value", None)
    assert store.get("0000") is not None


def test_what_was_deleted_or_expired_leaves_no_ghost(clock):
    store = MemoryStore(max_entries=100, clock=clock)
    store.set("gone", b"value", None)
    store.delete("gone")
    store.set("out", b"value", clock() + 1)
    clock.advance(2)
    assert len(store) == 0
    for key in ("gone", "out"):
        store.set(key, b"value", None)
        assert not store._queue.entries[key].in_main


def test_eviction_looks_at_a_bounded_number_of_entries():
    store = MemoryStore(max_entries=5000)
    for key in names(5000):
        store.set(key, b"value", None)
        for _ in range(3):
            store.get(key)
    store.set("new", b"value", None)
    moved = sum(entry.in_main for entry in store._queue)
    assert moved <= 128
    check_whole(store)


def zipf(requests, keys=5000, exponent=0.8, scans=0.0):
    chance = random.Random(20)
    weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(keys)))
    once = itertools.count()
    for rank in chance.choices(range(keys), cum_weights=weights, k=requests):
        yield f"once:{next(once)}" if chance.random() < scans else f"key:{rank}"


def lru_hits(trace, room):
    kept = OrderedDict()
    hits = 0
    for key in trace:
        if key in kept:
            kept.move_to_end(key)
            hits += 1
        else:
            kept[key] = True
            if len(kept) > room:
                kept.popitem(last=False)
    return hits


@pytest.mark.parametrize(("scans", "lead"), [(0.0, 1.25), (0.2, 1.4)])
def test_hit_ratio_is_above_lru(scans, lead):
    trace = list(zipf(60_000, scans=scans))
    store = MemoryStore(max_entries=100)
    hits = 0
    for key in trace:
        if store.get(key) is None:
            store.set(key, b"", None)
        else:
            hits += 1
    assert hits > lead * lru_hits(trace, 100)


# -- life --------------------------------------------------------------------------------------------


def test_churn_leaves_nothing_behind(clock):
    store = MemoryStore(max_entries=200, clock=clock)
    chance = random.Random(3)
    for number in range(100_000):
        store.set(f"key:{number}", b"value", clock() + 30 * DAY)
        if number % 3 == 0:
            store.delete(f"key:{number - chance.randrange(150)}")
        if number % 50 == 0:
            clock.advance(60)
    check_whole(store)
    wheel, queue = store._wheel, store._queue
    assert sum(1 for _ in wheel) == len(queue.entries) <= 200
    assert len(wheel.pending) <= 64
    assert len(queue._ghost) <= 512
    assert sys.getsizeof(queue.entries) < 50_000


def test_a_dropped_store_gives_its_memory_back_at_once():
    store = MemoryStore(max_entries=10)
    keys = [f"key:{number}" for number in range(20)]
    free = [sys.getrefcount(key) for key in keys]
    for key in keys:
        store.set(key, b"value", 1e11)
    gone = weakref.ref(store)
    gc.disable()
    try:
        del store, key
        assert gone() is None
        assert [sys.getrefcount(key) for key in keys] == free
    finally:
        gc.enable()


def test_scan_holds_no_lock_and_lists_live_keys_only(clock):
    store = MemoryStore(clock=clock)
    for key in names(10):
        store.set(key, b"value", clock() + 10 if key < "0005" else None)
    seen = []
    for key in store.scan("000"):
        seen.append(key)
        store.set(f"000x{key}", b"added meanwhile", None)
        store.delete("0007")
        clock.advance(4)
    assert seen == ["0000", "0001", "0002", "0005", "0006", "0008", "0009"]


def test_health_tells_the_figures():
    store = MemoryStore(max_entries=2, max_bytes=10_000)
    for key in names(5):
        store.set(key, b"value", None)
    health = store.ping()
    assert (health.ok, health.kind, health.warnings) == (True, "memory", ())
    assert health.detail == {
        "entries": 2,
        "bytes": room_for(2, 5),
        "max_bytes": 10_000,
        "max_entries": 2,
        "evictions": 3,
        "expired": 0,
    }


def test_threads_hammering_a_full_store_never_get_a_wrong_value():
    clock = ManualClock()
    store = MemoryStore(max_entries=40, max_bytes=30_000, clock=clock)
    keys = names(80)
    wrong = []

    def hammer(seed):
        chance = random.Random(seed)
        try:
            for _ in range(3000):
                key = chance.choice(keys)
                action = chance.random()
                if action < 0.4:
                    stored = store.get(key)
                    if stored is not None and not stored.value.startswith(key.encode()):
                        wrong.append((key, stored))
                elif action < 0.9:
                    life = chance.choice([None, 1, 5, 100])
                    value = key.encode() + bytes(chance.randrange(900))
                    store.set(key, value, None if life is None else clock() + life)
                elif action < 0.97:
                    store.delete(key)
                elif action < 0.98:
                    wrong.extend(key for key in store.scan("") if key not in keys)
                else:
                    clock.advance(chance.choice([0.1, 1, 3, -2]))
        except Exception as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    check_whole(store)


def test_a_key_that_is_always_there_is_found_at_every_moment():
    store = MemoryStore(max_entries=50)
    store.set("steady", b"value", None)
    missed, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            if store.get("steady") is None:
                missed.append(1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(5000):
            store.set(f"key:{number % 30}", b"value", None)
            store.set("steady", b"value", None)
    finally:
        stop.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert missed == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_works_even_when_a_thread_was_writing(held):
    store = MemoryStore(max_entries=10)
    store.set("parent", b"value", None)
    if held:
        store._lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # A change that was under way may have left anything behind: then it starts empty.
            kept = store.get("parent") is not None
            store.set("child", b"value", None)
            check_whole(store)
            code = 0 if kept is not held and store.get("child") is not None else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if held:
        store._lock.release()
    assert store.get("child") is None
    assert store.get("parent") is not None
