"""The suite that every store passes, through its sync face and through its async face.

Needs pytest. A new store's test file is this:

    from askonce.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, clock: ManualClock) -> MyStore:
            return MyStore(self.tmp_path / "data", clock=clock)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from askonce._bridge import async_port
from askonce.testing._clock import ManualClock

# Before their import: failures then show figures.
pytest.register_assert_rewrite("askonce.testing._cases", "askonce.testing._cases_life")

from askonce.testing._cases import DataCases, Face  # noqa: E402
from askonce.testing._cases_life import LifeCases  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path

    from askonce.stores.protocol import Health, Item, Store, Stored

T = TypeVar("T")


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


class StoreContract(DataCases, LifeCases):
    """Subclass it, implement `make_store`, and pytest runs the suite.

    A test that says more than the store promises is left out by name, such as
    `test_a_forked_child_reads_and_writes = None`.

    Attributes:
        tmp_path: an empty folder of this test's own, for stores that need one.
        large_value: bytes of the largest value tried; 0 leaves that test out.
        long_key: characters of the longest key tried.
        loose_expiry: seconds by which `Stored.expires_at` may differ from what was set, where the
            medium rounds it.
    """

    tmp_path: Path

    def make_store(self, clock: ManualClock) -> Store:
        """A new store, empty, with room for 16 MiB and 1,000 entries, whose time is `clock`."""
        raise NotImplementedError("a subclass of StoreContract makes the store")

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
