"""The suite that every index of the semantic layer passes; ships, for indexes of your own.

    class TestMyIndex(IndexContract):
        @pytest.fixture
        def index(self):
            index = MyIndex(...)
            yield index
            index.close()

Rows have eight dimensions. Partitions and names are new ones in each test, so an index may be shared.
"""

# ruff: noqa: S101, PLR2004 - a suite of tests

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from askonce.semantic import Index, Row

if TYPE_CHECKING:
    from collections.abc import Callable

_DIMENSIONS = 8
_LONG = 1000.0


class IndexContract:
    """Subclass it, and give it a fixture `index`. See the module's text."""

    def now(self) -> float:
        """The index's time; override it together with `pass_time`."""
        return time.time()

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the index; override it where a clock can be moved."""
        time.sleep(seconds)

    @pytest.fixture
    def partition(self) -> str:
        """A partition of the test's own."""
        return secrets.token_hex(32)

    @staticmethod
    def vector(*numbers: float, dimensions: int = _DIMENSIONS) -> Any:
        """A vector of length one that begins with these numbers."""
        found = np.zeros(dimensions, np.float32)
        found[: len(numbers)] = numbers
        return found / np.float32(np.linalg.norm(found))

    def row(self, *numbers: float, life: float | None = _LONG, facts: bytes = b"facts", **more: Any) -> Row:
        """A row with a new name."""
        expires = None if life is None else self.now() + life
        return Row(secrets.token_hex(32), self.vector(*numbers, **more), facts, expires)

    @staticmethod
    def names(found: list[Any]) -> list[str]:
        return [near.name for near in found]

    def test_an_empty_partition_has_nothing(self, index: Index, partition: str) -> None:
        assert index.search(partition, self.vector(1), 3) == []

    def test_what_is_nearest_comes_first_with_its_cosine_and_facts(
        self, index: Index, partition: str
    ) -> None:
        same, near, far = self.row(1, facts=b"\0\xff"), self.row(1, 0.5), self.row(0, 1)
        for row in (far, same, near):
            index.add(partition, row)
        found = index.search(partition, self.vector(1), 3)
        assert self.names(found) == [same.name, near.name, far.name]
        assert [one.similarity for one in found] == pytest.approx([1.0, 1 / 1.25**0.5, 0.0], abs=1e-5)
        assert found[0].facts == b"\0\xff"
        assert max(one.similarity for one in found) <= 1.0

    def test_no_more_are_given_than_asked_for(self, index: Index, partition: str) -> None:
        for number in range(6):
            index.add(partition, self.row(1, number))
        assert len(index.search(partition, self.vector(1), 4)) == 4

    def test_what_is_farther_than_asked_for_is_not_given(self, index: Index, partition: str) -> None:
        rows = [self.row(1), self.row(1, 0.5), self.row(0, 1), self.row(-1)]
        for row in rows:
            index.add(partition, row)
        for least, count in ((0.95, 1), (0.8, 2), (-0.1, 3), (-1.0, 4)):
            found = index.search(partition, self.vector(1), 9, least)
            assert self.names(found) == [row.name for row in rows[:count]]

    def test_partitions_never_meet(self, index: Index, partition: str) -> None:
        other = secrets.token_hex(32)
        mine, theirs = self.row(1, 0.5), self.row(1)
        index.add(partition, mine)
        index.add(other, theirs)
        assert self.names(index.search(partition, self.vector(1), 5)) == [mine.name]
        assert self.names(index.search(other, self.vector(1), 5)) == [theirs.name]

    def test_one_name_may_be_in_two_partitions(self, index: Index, partition: str) -> None:
        row = self.row(1)
        for place in (partition, other := secrets.token_hex(32)):
            index.add(place, row)
        index.remove(partition, row.name)
        assert index.search(partition, self.vector(1), 5) == []
        assert self.names(index.search(other, self.vector(1), 5)) == [row.name]

    def test_a_row_of_the_same_name_is_replaced(self, index: Index, partition: str) -> None:
        row = self.row(1)
        index.add(partition, row)
        index.add(partition, row._replace(vector=self.vector(0, 1), facts=b"new"))
        (found,) = index.search(partition, self.vector(0, 1), 5)
        assert (found.name, found.facts) == (row.name, b"new")
        assert found.similarity == pytest.approx(1.0, abs=1e-5)

    def test_a_removed_row_is_gone_and_the_others_are_not(self, index: Index, partition: str) -> None:
        rows = [self.row(1, number / 10) for number in range(5)]
        for row in rows:
            index.add(partition, row)
        index.remove(partition, rows[1].name)
        index.remove(partition, rows[1].name)
        index.remove(partition, secrets.token_hex(32))
        index.remove(secrets.token_hex(32), rows[0].name)
        left = [row.name for row in rows if row is not rows[1]]
        assert self.names(index.search(partition, self.vector(1), 9)) == left

    def test_a_row_past_its_life_is_gone(self, index: Index, partition: str) -> None:
        index.add(partition, self.row(1, life=-1))
        assert index.search(partition, self.vector(1), 5) == []

    def test_adding_a_row_past_its_life_removes_the_one_there(self, index: Index, partition: str) -> None:
        row = self.row(1)
        index.add(partition, row)
        index.add(partition, row._replace(expires_at=self.now() - 1))
        assert index.search(partition, self.vector(1), 5) == []

    def test_a_hit_never_extends_a_life(self, index: Index, partition: str) -> None:
        lasting, row = self.row(0, 1, life=None), self.row(1, life=0.4)
        index.add(partition, lasting)
        index.add(partition, row)
        for _ in range(5):
            index.search(partition, self.vector(1), 5)
            self.pass_time(0.1)
        assert self.names(index.search(partition, self.vector(1), 5)) == [lasting.name]

    def test_other_dimensions_are_never_compared(self, index: Index, partition: str) -> None:
        index.add(partition, self.row(1))
        assert index.search(partition, self.vector(1, dimensions=_DIMENSIONS * 2), 5) == []

    def test_what_a_caller_does_to_its_vector_later_changes_nothing(
        self, index: Index, partition: str
    ) -> None:
        row = self.row(1)
        index.add(partition, row)
        row.vector[:] = -1
        assert index.search(partition, self.vector(1), 1)[0].similarity == pytest.approx(1.0, abs=1e-5)

    def test_many_threads_add_search_and_remove(self, index: Index, partition: str) -> None:
        errors: list[Exception] = []
        kept: list[str] = []

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    row = self.row(1, number / 10, turn / 10)
                    index.add(partition, row)
                    found = index.search(partition, row.vector, 3)
                    assert found
                    assert found[0].similarity > 0.99
                    if turn % 2:
                        index.remove(partition, row.name)
                    else:
                        kept.append(row.name)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)

        _together(work, 4)
        assert errors == []
        assert sorted(self.names(index.search(partition, self.vector(1), 100))) == sorted(kept)

    def test_after_close_it_may_be_used_again(self, index: Index, partition: str) -> None:
        index.close()
        row = self.row(1)
        index.add(partition, row)
        assert self.names(index.search(partition, self.vector(1), 5)) == [row.name]


def _together(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
