"""Whatever goes wrong in the layer itself, the caller gets the provider's answer, and it is counted."""

from __future__ import annotations

import asyncio

import pytest
from core_kit import until

from askonce.semantic import _consult, _notes
from askonce.semantic._figures import Figures
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore

ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"


def fails(*_, **__):
    raise ZeroDivisionError("a secret prompt")


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("where", ["find_turn", "question_of", "_space", "_mark"])
def test_a_fault_of_the_layer_costs_no_answer(kit, layered, monkeypatch, caplog, *, face, where):
    cache = layered()
    kit.ask(cache, ASKED)
    monkeypatch.setattr(_notes if hasattr(_notes, where) else _consult, where, fails)
    for prompt in (SAME, f"{SAME} again"):
        result = kit.ask(cache, prompt) if face == "sync" else asyncio.run(kit.aask(cache, prompt))
        assert result.outcome.status in ("miss", "semantic")
        assert result.outcome.stored in (True, False)
    assert "secret" not in caplog.text
    monkeypatch.undo()
    assert kit.ask(cache, SAME).outcome.status in ("hit", "semantic")


@pytest.mark.parametrize("method", ["search", "add", "remove"])
def test_an_index_that_fails_costs_no_answer(kit, layered, monkeypatch, method):
    cache = layered()
    key = kit.ask(cache, ASKED).outcome.key
    monkeypatch.setattr(cache._layer._index, method, fails)
    if method == "remove":
        cache.delete(key)
    result = kit.ask(cache, SAME)
    assert result.outcome.status in ("miss", "semantic")
    assert kit.ask(cache, SAME).outcome.status in ("hit", "semantic")


def test_a_store_that_fails_while_rows_are_read_costs_no_answer(kit, layered, caplog):
    store = FlakyStore(MemoryStore(clock=kit.clock), blocking=False)
    cache = layered(store)
    store.scan = fails
    kit.ask(cache, ASKED)
    assert kit.ask(cache, SAME).outcome.status == "semantic"
    until(lambda: "could not be read from the store" in caplog.text, "the warning")
    assert "secret" not in caplog.text


def test_rows_that_are_none_are_deleted(kit, layered):
    store = MemoryStore(clock=kit.clock)
    kit.ask(layered(store), ASKED)
    (row,) = store.scan("default~rows:")
    store.set(row, b"\0" + store.get(row).value[1:], None)
    again = layered(store)
    kit.ask(again, "What is the capital of France?")
    until(lambda: store.get(row) is None, "the damaged row to go")
    assert kit.ask(again, SAME).outcome.status == "miss"


def test_judges_that_are_all_busy_cost_no_answer(kit, layered):
    from askonce import StoreError

    class Busy:
        def submit(self, work, items):
            raise StoreError("busy")

        def close(self):
            """Nothing to close."""

    cache = layered(shadow=1.0)
    cache._layer._learning._crew = Busy()
    kit.ask(cache, ASKED)
    assert kit.ask(cache, SAME).outcome.status == "miss"
    assert cache.stats().layer["judges busy"] == 1


def test_figures_of_many_partitions_are_bounded_and_none_is_lost():
    figures = Figures()
    for number in range(1500):
        figures.add(f"{number:08x}", "m", "requests")
        figures.add(f"{number:08x}", "m", "served")
    total, *rows = figures.snapshot()
    assert (total.requests, total.served) == (1500, 1500)
    assert len(rows) <= 1001
    assert sum(row.requests for row in rows) == 1500
