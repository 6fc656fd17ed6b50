"""Tiers: read through with what is left of a life, written through, deleted everywhere, whatever overlaps."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest

from askonce import ConfigurationError
from askonce._bridge import async_port, step, sync_port
from askonce.stores import MemoryStore, TieredStore
from askonce.stores.protocol import Stored
from askonce.stores.tiered import Epochs, Tiers
from askonce.testing import FlakyStore, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


class Hooked(MemoryStore):
    """Runs what a test wants at a chosen moment: once, before or after one operation."""

    def __init__(self, clock, name="memory"):
        super().__init__(clock=clock)
        self.hooks = {}
        self.log = []

    def _run(self, moment):
        hook = self.hooks.pop(moment, None)
        if hook is not None:
            hook()

    def get(self, key):
        self.log.append("get")
        self._run("before get")
        found = super().get(key)
        self._run("after get")
        return found

    def get_many(self, keys):
        self.log.append(("get_many", tuple(keys)))
        self._run("before get_many")
        found = super().get_many(keys)
        self._run("after get_many")
        return found

    def set(self, key, value, expires_at):
        self.log.append("set")
        self._run("before set")
        super().set(key, value, expires_at)
        self._run("after set")

    def set_many(self, items):
        self.log.append("set_many")
        self._run("before set_many")
        super().set_many(items)
        self._run("after set_many")

    def delete(self, *keys):
        self.log.append("delete")
        self._run("before delete")
        found = super().delete(*keys)
        self._run("after delete")
        return found


@pytest.fixture
def front(clock):
    return Hooked(clock)


@pytest.fixture
def back(clock):
    return Hooked(clock)


@pytest.fixture
def tiered(front, back):
    return TieredStore(front, back)


def test_a_store_of_fewer_than_two_tiers_is_an_error(front):
    for tiers in ((), (front,)):
        with pytest.raises(ConfigurationError, match="two or more"):
            TieredStore(*tiers)


def test_what_the_back_has_comes_forward_with_the_rest_of_its_life(tiered, front, back, clock):
    back.set("k", b"v", clock() + 100)
    clock.advance(40)
    assert tiered.get("k").value == b"v"
    assert front.get("k") == Stored(b"v", clock() + 60, "memory")
    clock.advance(60)
    assert tiered.get("k") is None


def test_never_stays_never_on_the_way_forward(tiered, front, back):
    back.set("k", b"v", None)
    tiered.get("k")
    assert front.get("k").expires_at is None


def test_a_front_hit_does_not_touch_the_back(tiered, front, back):
    tiered.set("k", b"v", None)
    back.log.clear()
    tiered.get("k")
    tiered.get_many(["k"])
    assert back.log == []


def test_writing_reaches_every_tier_and_the_back_first(tiered, front, back):
    order = []
    front.hooks["before set"] = lambda: order.append("front")
    back.hooks["before set"] = lambda: order.append("back")
    tiered.set("k", b"v", None)
    assert order == ["back", "front"]
    assert front.get("k").value == back.get("k").value == b"v"


def test_deleting_reaches_every_tier_and_counts_once(tiered, front, back):
    tiered.set("a", b"1", None)
    tiered.set("b", b"2", None)
    back.set("c", b"3", None)
    assert tiered.delete("a", "b", "c", "d") == 3
    assert list(tiered.scan("")) == []


def test_deleting_counts_what_only_one_tier_had(tiered, front, back):
    front.set("a", b"1", None)
    back.set("b", b"2", None)
    assert tiered.delete("a", "b") == 2


def test_an_overwritten_value_is_never_seen_again(tiered, front, back, clock):
    tiered.set("k", b"old", clock() + 100)
    tiered.set("k", b"new", clock() + 10)
    assert tiered.get("k") == Stored(b"new", clock() + 10, "memory")
    clock.advance(10)
    assert tiered.get("k") is None


def test_scanning_names_each_key_once(tiered, front, back):
    tiered.set("a", b"1", None)
    front.set("b", b"1", None)
    back.set("c", b"1", None)
    assert sorted(tiered.scan("")) == ["a", "b", "c"]
    assert list(tiered.scan("a")) == ["a"]


# -- batches ----------------------------------------------------------------------------------------


def test_a_batch_asks_each_tier_only_for_what_is_missing(tiered, front, back, clock):
    front.set("a", b"1", None)
    back.set("b", b"2", clock() + 5)
    front.log.clear()
    back.log.clear()
    found = tiered.get_many(["a", "b", "c", "a"])
    assert {key: stored.value for key, stored in found.items()} == {"a": b"1", "b": b"2"}
    batches = [[one for one in store.log if isinstance(one, tuple)] for store in (front, back)]
    assert batches == [[("get_many", ("a", "b", "c"))], [("get_many", ("b", "c"))]]
    assert front.get("b").expires_at == clock() + 5


def test_an_empty_batch_asks_nobody_for_anything(tiered):
    assert tiered.get_many([]) == {}
    tiered.set_many([])


def test_a_batch_is_written_to_every_tier(tiered, front, back, clock):
    tiered.set_many((f"k{number}", b"v", clock() + number) for number in range(1, 4))
    for store in (front, back):
        assert sorted(store.scan("")) == ["k1", "k2", "k3"]
        assert store.get("k2").expires_at == clock() + 2


# -- overlapping ------------------------------------------------------------------------------------

MOMENTS = [
    ("back", "before get"),
    ("back", "after get"),
    ("front", "before set"),
    ("front", "after set"),
]


@pytest.mark.parametrize("what", ["delete", "overwrite", "overwrite many"])
@pytest.mark.parametrize("moment", MOMENTS, ids=" ".join)
def test_a_backfill_never_brings_back_what_was_deleted_or_replaced(tiered, front, back, moment, what):
    back.set("k", b"old", None)

    def meanwhile():
        front.hooks.clear()
        back.hooks.clear()
        if what == "delete":
            tiered.delete("k")
        elif what == "overwrite":
            tiered.set("k", b"new", None)
        else:
            tiered.set_many([("k", b"new", None)])

    store = front if moment[0] == "front" else back
    store.hooks[moment[1]] = meanwhile
    tiered.get("k")
    found = tiered.get("k")
    assert (found and found.value) == (None if what == "delete" else b"new")
    assert (front.get("k") or Stored(b"new", None, "")).value == b"new"


@pytest.mark.parametrize("what", ["delete", "overwrite"])
@pytest.mark.parametrize(
    "moment",
    [
        ("back", "before get_many"),
        ("back", "after get_many"),
        ("front", "before set_many"),
        ("front", "after set_many"),
    ],
    ids=" ".join,
)
def test_a_batch_backfill_never_brings_back_what_was_deleted_or_replaced(tiered, front, back, moment, what):
    back.set("k", b"old", None)
    back.set("other", b"other", None)

    def meanwhile():
        front.hooks.clear()
        back.hooks.clear()
        if what == "delete":
            tiered.delete("k")
        else:
            tiered.set("k", b"new", None)

    store = front if moment[0] == "front" else back
    store.hooks[moment[1]] = meanwhile
    tiered.get_many(["k", "other"])
    found = tiered.get_many(["k", "other"])
    assert found["other"].value == b"other"
    assert (found["k"].value if "k" in found else None) == (None if what == "delete" else b"new")


@pytest.mark.parametrize("moment", ["before delete", "after delete"])
@pytest.mark.parametrize("tier", ["front", "back"])
def test_a_read_in_the_middle_of_a_delete_does_not_undo_it(tiered, front, back, tier, moment):
    tiered.set("k", b"old", None)
    store = front if tier == "front" else back
    store.hooks[moment] = lambda: tiered.get("k")
    tiered.delete("k")
    assert tiered.get("k") is None
    assert front.get("k") is None


@pytest.mark.parametrize("moment", ["before set", "after set"])
@pytest.mark.parametrize("tier", ["front", "back"])
def test_a_read_in_the_middle_of_a_write_does_not_undo_it(tiered, front, back, tier, moment):
    back.set("k", b"old", None)
    store = front if tier == "front" else back
    store.hooks[moment] = lambda: tiered.get("k")
    tiered.set("k", b"new", None)
    assert tiered.get("k").value == b"new"
    front.delete("k")
    assert tiered.get("k").value == b"new"


def test_a_deleted_value_is_not_given_even_for_a_moment(tiered, front, back):
    """A reader that was in the middle of a backfill when the value was deleted."""
    back.set("k", b"old", None)
    seen = []

    def deleted_meanwhile():
        tiered.delete("k")
        # The backfill goes on now; whoever asks between it and its check must not see the old value.
        front.hooks["after set"] = lambda: seen.append(tiered.get("k"))

    back.hooks["after get"] = deleted_meanwhile
    tiered.get("k")
    assert seen in ([], [None])


def test_both_faces_share_what_they_know_of_writes(front, back, clock):
    """A task reads while a thread deletes."""
    tiered = TieredStore(front, back)
    back.set("k", b"old", None)
    back.hooks["after get"] = lambda: tiered.delete("k")
    assert asyncio.run(tiered.aget("k")).value == b"old"
    assert tiered.get("k") is None
    assert front.get("k") is None


def test_two_tierings_over_the_same_stores_share_epochs_when_told(front, back):
    epochs = Epochs()
    one = Tiers([sync_port(front), sync_port(back)], epochs)
    two = Tiers([async_port(front), async_port(back)], epochs)
    back.set("k", b"old", None)
    back.hooks["after get"] = lambda: step(one.delete("k"))
    asyncio.run(two.get("k"))
    assert front.get("k") is None


def test_threads_that_read_write_and_delete_end_up_agreeing(clock):
    front, back = MemoryStore(clock=clock), MemoryStore(clock=clock)
    tiered = TieredStore(front, back)
    keys = [f"k{number}" for number in range(5)]
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            for key in keys:
                found = tiered.get(key)
                if found is not None and not found.value.startswith(key.encode()):
                    wrong.append((key, found))
            front.delete(keys[0])

    def write(seed):
        for number in range(300):
            key = keys[(number + seed) % 5]
            if number % 7 == 0:
                tiered.delete(key)
            else:
                tiered.set(key, f"{key} {seed} {number}".encode(), None)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(seed,), daemon=True) for seed in range(2)]
    for one in readers + writers:
        one.start()
    for one in writers:
        one.join(10)
    stop.set()
    for one in readers:
        one.join(10)
    assert not any(one.is_alive() for one in readers + writers)
    assert wrong == []


# -- trouble ----------------------------------------------------------------------------------------


def test_a_tier_that_blocks_makes_the_whole_block(clock):
    assert not TieredStore(MemoryStore(clock=clock), MemoryStore(clock=clock)).blocking
    assert TieredStore(MemoryStore(clock=clock), FlakyStore(MemoryStore(clock=clock))).blocking


def test_ping_shows_the_tier_that_is_ill(clock):
    ill = FlakyStore(MemoryStore(clock=clock))
    tiered = TieredStore(MemoryStore(clock=clock), ill)
    assert tiered.ping().ok
    ill.fail_with(OSError("no"))
    health = tiered.ping()
    assert not health.ok
    assert health.warnings


def test_a_cache_over_a_tiered_store_uses_the_tiers_that_work(kit, k):
    front, back = FlakyStore(MemoryStore(clock=kit.clock)), MemoryStore(clock=kit.clock)
    cache = kit.cache(TieredStore(front, back))
    front.fail_with(OSError("no"))
    assert kit.ask(cache).body == k.chat(1)
    assert kit.ask(cache).body == k.chat(1)


def test_closing_reaches_every_tier_even_when_one_fails(clock):
    first, second = FlakyStore(MemoryStore(clock=clock)), FlakyStore(MemoryStore(clock=clock))
    first.fail_with(OSError("no"), operations=["close"])
    with pytest.raises(OSError, match="no"):
        TieredStore(first, second).close()
    assert second.calls["close"] == 1


def test_closing_a_cache_reaches_every_tier_even_when_one_fails(kit):
    first, second = FlakyStore(MemoryStore(clock=kit.clock)), FlakyStore(MemoryStore(clock=kit.clock))
    cache = kit.cache([first, second])
    first.fail_with(OSError("no"), operations=["close"])
    with suppress(OSError):
        cache.close()
    first.recover()
    assert second.calls["close"] == 1
