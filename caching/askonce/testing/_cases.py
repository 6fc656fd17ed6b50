"""What every store has to give back, and until when. Cases of `StoreContract`, which says how they run."""

# ruff: noqa: S101, S311, PLR2004 - tests assert, need no cryptographic chance, and figures are their point

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from askonce.stores.protocol import Health, Item, Store, Stored
    from askonce.testing._clock import ManualClock

_NASTY_KEYS = (
    "ns:0123456789abcdef",
    "",
    " ",
    "a b\tc\nd",
    "käse/日本語/🧀",
    "e\u0301 is not \u00e9",
    "nul\0inside",
    "\0",
    "\ud7ff\ue000\uffff\U0010ffff",
    "../../etc/passwd",
    "percent%under_score*star?[set]'quote\"--;",
)
_NASTY_VALUES = (b"", b"\0", b"x", b"\x80\x04K\x01.", b"text \xff\xfe\0 more", bytes(range(256)) * 17)


class Face(Protocol):
    """A store as the tests call it: in sync shape, whichever face is behind it."""

    def get(self, key: str) -> Stored | None: ...
    def set(self, key: str, value: bytes, expires_at: float | None) -> None: ...
    def delete(self, *keys: str) -> int: ...
    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]: ...
    def set_many(self, items: Iterable[Item]) -> None: ...
    def scan(self, prefix: str) -> Iterable[str]: ...
    def ping(self) -> Health: ...
    def close(self) -> None: ...


class DataCases:
    """The tests. `store`, `raw_store` and `clock` are fixtures of `StoreContract`."""

    large_value: ClassVar[int] = 5 << 20
    long_key: ClassVar[int] = 4096
    loose_expiry: ClassVar[float] = 0.0

    def pass_time(self, clock: ManualClock, seconds: float) -> None:
        """Let time pass; a store whose server keeps the time has to wait here, or move the server's."""
        clock.advance(seconds)

    # -- values and keys -------------------------------------------------------------------------

    @pytest.mark.parametrize("key", _NASTY_KEYS)
    def test_any_key_comes_back(self, store: Face, key: str) -> None:
        store.set(key, key.encode(), None)
        stored = store.get(key)
        assert stored is not None
        assert stored.value == key.encode()
        assert list(store.get_many([key])) == [key]
        assert list(store.scan(key)) == [key]
        assert store.delete(key) == 1
        assert store.get(key) is None

    @pytest.mark.parametrize("value", _NASTY_VALUES)
    def test_any_value_comes_back_as_bytes(self, store: Face, value: bytes) -> None:
        store.set("key", value, None)
        stored = store.get("key")
        assert stored is not None
        assert stored.value == value
        assert type(stored.value) is bytes

    def test_keys_that_look_alike_are_different_keys(self, store: Face) -> None:
        keys = [*_NASTY_KEYS, "Key", "key", "key ", "key\0", "\u00e9", "e\u0301", "1", "1.0", "01"]
        store.set_many((key, f"value of {key!r}".encode(), None) for key in keys)
        for key in keys:
            stored = store.get(key)
            assert stored is not None
            assert stored.value == f"value of {key!r}".encode()
        assert sorted(store.scan("")) == sorted(keys)

    def test_long_keys_are_told_apart_to_their_last_character(self, store: Face) -> None:
        stem = "k" * (self.long_key - 1)
        store.set(stem + "1", b"one", None)
        store.set(stem + "2", b"two", None)
        one, two = store.get(stem + "1"), store.get(stem + "2")
        assert one is not None
        assert two is not None
        assert (one.value, two.value) == (b"one", b"two")
        assert store.get(stem) is None

    def test_a_large_value_comes_back_whole(self, store: Face) -> None:
        if not self.large_value:
            pytest.skip("this store takes no large values")
        value = random.Random(5).randbytes(self.large_value)
        store.set("large", value, None)
        stored = store.get("large")
        assert stored is not None
        assert stored.value == value
        store.set("large", b"small", None)
        stored = store.get("large")
        assert stored is not None
        assert stored.value == b"small"

    def test_a_missing_key_is_none(self, store: Face) -> None:
        assert store.get("missing") is None

    def test_an_answer_says_which_store_gave_it(self, store: Face, raw_store: Store) -> None:
        store.set("key", b"value", None)
        stored = store.get("key")
        assert stored is not None
        assert stored.tier == raw_store.name

    # -- expiry ----------------------------------------------------------------------------------

    def test_expiry_is_absolute_and_comes_back(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"value", clock() + 100.25)
        self.pass_time(clock, 2)
        stored = store.get("key")
        assert stored is not None
        assert stored.expires_at is not None
        assert abs(stored.expires_at - (clock() + 98.25)) <= self.loose_expiry
        many = store.get_many(["key"])["key"]
        assert many == stored

    def test_without_expiry_it_stays(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"value", None)
        self.pass_time(clock, 2)
        stored = store.get("key")
        assert stored is not None
        assert stored.expires_at is None

    def test_alive_just_before_its_expiry_and_gone_exactly_at_it(
        self, store: Face, clock: ManualClock
    ) -> None:
        store.set("key", b"value", clock() + 2)
        self.pass_time(clock, 1.5)
        assert store.get("key") is not None
        self.pass_time(clock, 0.5)
        assert store.get("key") is None
        assert store.get_many(["key"]) == {}
        assert list(store.scan("key")) == []
        assert store.delete("key") == 0

    @pytest.mark.parametrize("seconds", [0.0, -1.0, -1e9])
    def test_an_expiry_that_is_past_removes_the_key(
        self, store: Face, clock: ManualClock, seconds: float
    ) -> None:
        store.set("key", b"old", None)
        store.set("key", b"new", clock() + seconds)
        assert store.get("key") is None
        assert list(store.scan("")) == []

    def test_reading_never_extends_a_life(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"value", clock() + 3)
        for _ in range(2):
            self.pass_time(clock, 1)
            assert store.get("key") is not None
            assert store.get_many(["key"])
            assert list(store.scan("key")) == ["key"]
        self.pass_time(clock, 1)
        assert store.get("key") is None

    def test_setting_again_replaces_value_and_expiry(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"first", clock() + 10)
        store.set("key", b"second, longer", clock() + 20.5)
        stored = store.get("key")
        assert stored is not None
        assert stored.value == b"second, longer"
        assert stored.expires_at is not None
        assert abs(stored.expires_at - (clock() + 20.5)) <= self.loose_expiry

    def test_an_expiry_can_be_taken_away(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"first", clock() + 1)
        store.set("key", b"second", None)
        self.pass_time(clock, 2)
        stored = store.get("key")
        assert stored is not None
        assert (stored.value, stored.expires_at) == (b"second", None)

    def test_an_expiry_can_be_added(self, store: Face, clock: ManualClock) -> None:
        store.set("key", b"first", None)
        store.set("key", b"second", clock() + 1)
        assert store.get("key") is not None
        self.pass_time(clock, 1)
        assert store.get("key") is None

    # -- delete, batches -------------------------------------------------------------------------

    def test_delete_counts_what_was_there(self, store: Face) -> None:
        store.set_many([("a", b"1", None), ("b", b"2", None), ("c", b"3", None)])
        assert store.delete() == 0
        assert store.delete("missing") == 0
        assert store.delete("a") == 1
        assert store.delete("a") == 0
        assert store.delete("a", "b", "missing", "b") == 1
        assert [key for key in "abc" if store.get(key)] == ["c"]

    def test_get_many_returns_what_is_there(self, store: Face) -> None:
        store.set_many([("a", b"1", None), ("b", b"2", None)])
        assert store.get_many([]) == {}
        assert store.get_many(["missing"]) == {}
        found = store.get_many(["a", "missing", "b", "a"])
        assert {key: stored.value for key, stored in found.items()} == {"a": b"1", "b": b"2"}

    def test_batches_may_be_large(self, store: Face) -> None:
        items = [(f"many:{number:04}", str(number).encode(), None) for number in range(700)]
        store.set_many(iter(items))
        found = store.get_many([key for key, _, _ in items])
        assert {key: stored.value for key, stored in found.items()} == {key: value for key, value, _ in items}
        assert sorted(store.scan("many:")) == [key for key, _, _ in items]
        assert store.delete(*found) == len(items)
        assert list(store.scan("")) == []

    def test_set_many_takes_each_item_by_its_own_expiry(self, store: Face, clock: ManualClock) -> None:
        store.set("gone", b"old", None)
        store.set_many([])
        store.set_many(
            [
                ("stays", b"1", None),
                ("short", b"2", clock() + 1),
                ("gone", b"3", clock() - 1),
                ("twice", b"4", None),
                ("twice", b"5", None),
            ]
        )
        assert sorted(store.scan("")) == ["short", "stays", "twice"]
        assert store.get_many(["twice"])["twice"].value == b"5"
        self.pass_time(clock, 1)
        assert sorted(store.scan("")) == ["stays", "twice"]

    # -- scan ------------------------------------------------------------------------------------

    def test_scan_takes_the_prefix_by_the_letter(self, store: Face) -> None:
        keys = ["a%b:1", "axb:1", "a_b:1", "a*b:1", "a[xy]b:1", "a?b:1", "a\\b:1", "A%B:1", "a%b"]
        store.set_many((key, b"value", None) for key in keys)
        for prefix in ("a%b:", "a_b:", "a*b:", "a[xy]b:", "a?b:", "a\\b:", "A%", "a%b"):
            assert sorted(store.scan(prefix)) == sorted(key for key in keys if key.startswith(prefix))
        for prefix in ("%", "*", "_", "a%b:1%", "b"):
            assert list(store.scan(prefix)) == []

    @pytest.mark.parametrize("prefix", ["é", "日", "🧀", "\uffff", "\U0010ffff", "z\0"])
    def test_scan_knows_prefixes_of_any_script(self, store: Face, prefix: str) -> None:
        others = ["", "a", "~", "e", "\u00ea", "z", "z\x01", "\ud7ff", "\ue000"]
        store.set_many(
            (key, b"value", None) for key in [*others, prefix, prefix + "1", prefix + "\U0010ffff"]
        )
        assert sorted(store.scan(prefix)) == sorted([prefix, prefix + "1", prefix + "\U0010ffff"])

    def test_namespaces_do_not_see_each_other(self, store: Face) -> None:
        store.set_many(
            (f"{name}:{digit}", name.encode(), None) for name in ("ab", "a", "abc") for digit in "123"
        )
        assert sorted(store.scan("ab:")) == ["ab:1", "ab:2", "ab:3"]
        assert store.delete(*store.scan("ab:")) == 3
        assert sorted(store.scan("")) == ["a:1", "a:2", "a:3", "abc:1", "abc:2", "abc:3"]

    def test_scanning_while_deleting_ends_and_misses_nothing_else(self, store: Face) -> None:
        keys = [f"key:{number:03}" for number in range(600)]
        store.set_many((key, b"value", None) for key in keys)
        seen: list[str] = []
        for key in store.scan("key:"):
            seen.append(key)
            store.delete(key)
        assert sorted(seen) == keys
        assert list(store.scan("key:")) == []
