"""The suite that every store passes, through its sync face and through its async face.

Needs pytest. A new store's test file is this:

    from askonce.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, clock: ManualClock) -> MyStore:
            return MyStore(self.tmp_path / "data", clock=clock)
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import pytest

from askonce._bridge import async_port
from askonce.testing._clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path

    from askonce.stores.protocol import Health, Item, Store, Stored

T = TypeVar("T")

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


class _AsyncFace:
    """The async face, driven by an event loop of its own."""

    def __init__(self, store: Store) -> None:
        self._port = async_port(store)
        self._runner = asyncio.Runner()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def get(self, key: str) -> Stored | None:
        return self._run(self._port.get(key))

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:
        self._run(self._port.set(key, value, expires_at))

    def delete(self, *keys: str) -> int:
        return self._run(self._port.delete(*keys))

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        return self._run(self._port.get_many(keys))

    def set_many(self, items: Iterable[Item]) -> None:
        self._run(self._port.set_many(items))

    def scan(self, prefix: str) -> Iterable[str]:
        return self._run(self._port.scan(prefix))

    def ping(self) -> Health:
        return self._run(self._port.ping())

    def close(self) -> None:
        self._run(self._port.close())

    def finish(self) -> None:
        self.close()
        self._runner.close()


class StoreContract:
    """Subclass it, implement `make_store`, and pytest runs the suite.

    Attributes:
        tmp_path: an empty folder of this test's own, for stores that need one.
        large_value: bytes of the largest value tried; 0 leaves that test out.
        long_key: characters of the longest key tried.
        forks: whether the store promises to work in a forked child.
        loose_expiry: seconds by which `Stored.expires_at` may differ from what was set, where the
            medium rounds it.
    """

    tmp_path: Path
    large_value: ClassVar[int] = 5 << 20
    long_key: ClassVar[int] = 4096
    forks: ClassVar[bool] = True
    loose_expiry: ClassVar[float] = 0.0

    def make_store(self, clock: ManualClock) -> Store:
        """A new store, empty, with room for 16 MiB and 1,000 entries, whose time is `clock`."""
        raise NotImplementedError("a subclass of StoreContract makes the store")

    def pass_time(self, clock: ManualClock, seconds: float) -> None:
        """Let time pass; a store whose server keeps the time has to wait here, or move the server's."""
        clock.advance(seconds)

    # pytest collects a class by its name: subclasses called `Test...` are run, this one is not.

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The store's time."""
        return ManualClock()

    @pytest.fixture
    def raw_store(self, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
        """The store itself."""
        self.tmp_path = tmp_path
        store = self.make_store(clock)
        yield store
        store.close()

    @pytest.fixture(params=["sync", "async"])
    def open_face(self, request: pytest.FixtureRequest, raw_store: Store) -> Iterator[Callable[[], Face]]:
        """Opens another face of the store, for another thread or a child process."""
        opened: list[_AsyncFace] = []

        def open_face() -> Face:
            if request.param == "sync":
                return raw_store
            opened.append(_AsyncFace(raw_store))
            return opened[-1]

        yield open_face
        for face in opened:
            face.finish()

    @pytest.fixture
    def store(self, open_face: Callable[[], Face]) -> Face:
        """The store through the face under test."""
        return open_face()

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
        assert store.delete(*store.scan("ab:")) == 3  # noqa: PLR2004
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

    # -- life ------------------------------------------------------------------------------------

    def test_ping_finds_a_working_store(self, store: Face) -> None:
        health = store.ping()
        assert health.ok, health.warnings
        assert health.kind
        assert health.latency >= 0
        assert list(store.scan("")) == []

    def test_after_close_it_works_again(self, store: Face) -> None:
        store.set("key", b"value", None)
        store.close()
        store.close()
        store.set("other", b"value", None)
        assert store.get("other") is not None
        assert store.ping().ok

    def test_threads_at_once_never_see_a_wrong_value(self, open_face: Callable[[], Face]) -> None:
        keys = [f"key:{number}" for number in range(7)]
        wrong: list[object] = []

        def hammer(seed: int) -> None:
            try:
                store = open_face()
                chance = random.Random(seed)
                for step in range(40):
                    key = chance.choice(keys)
                    action = chance.randrange(6)
                    if action == 0:
                        store.set(key, _self_describing(key, chance.randrange(20_000)), None)
                    elif action == 1:
                        store.set_many((some, _self_describing(some, step), None) for some in keys[:3])
                    elif action == 2:  # noqa: PLR2004
                        store.delete(key)
                    elif action == 3:  # noqa: PLR2004
                        found = store.get_many(keys)
                        wrong.extend(some for some in found if not _describes(some, found[some].value))
                    else:
                        stored = store.get(key)
                        if stored is not None and not _describes(key, stored.value):
                            wrong.append((key, stored.value[:40]))
            except Exception:  # noqa: BLE001 - a thread's error has to reach the test
                wrong.append(traceback.format_exc())

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_a_forked_child_reads_and_writes(self, store: Face, open_face: Callable[[], Face]) -> None:
        if not (self.forks and hasattr(os, "fork")):
            pytest.skip("no fork here")
        store.set("parent", b"from the parent", None)
        with warnings.catch_warnings():
            # Worker threads of the async face are running: what Python warns of is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                mine = open_face()
                mine.set("child", b"from the child", None)
                stored, own = mine.get("parent"), mine.get("child")
                inherited = store.get("child")
                shared = stored is not None and stored.value == b"from the parent"
                code = 0 if shared and own == inherited and own is not None else 2
            except BaseException:  # noqa: BLE001 - nothing may escape into the parent's test run
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.set("after", b"fork", None)
        assert store.get("after") is not None
        assert store.get("parent") is not None


def _self_describing(key: str, size: int) -> bytes:
    """A value that says whose it is and how long it is."""
    return f"{key}|{size}|".encode() + b"." * size


def _describes(key: str, value: bytes) -> bool:
    owner, size, rest = value.split(b"|", 2)
    return owner == key.encode() and len(rest) == int(size)
