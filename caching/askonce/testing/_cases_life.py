"""What every store has to survive: being closed, many threads at once, a fork. Cases of `StoreContract`."""

# ruff: noqa: S101, S311, PLR2004 - tests assert, need no cryptographic chance, and figures are their point

from __future__ import annotations

import os
import random
import threading
import traceback
import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from askonce.testing._cases import Face


class LifeCases:
    """The tests. `store` and `open_face` are fixtures of `StoreContract`."""

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
                    elif action == 2:
                        store.delete(key)
                    elif action == 3:
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
        if not hasattr(os, "fork"):
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
