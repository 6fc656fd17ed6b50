"""For tests: a provider, a clock you can move, a store that fails on demand, suites for stores and indexes.

Each is imported when it is used; only `StoreContract` and `IndexContract` need pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from askonce.testing._clock import ManualClock as ManualClock
    from askonce.testing._contract import StoreContract as StoreContract
    from askonce.testing._flaky import FlakyStore as FlakyStore
    from askonce.testing._index_contract import IndexContract as IndexContract
    from askonce.testing._provider import FakeProvider as FakeProvider

__all__ = ["FakeProvider", "FlakyStore", "IndexContract", "ManualClock", "StoreContract"]

_HOMES = {
    "FakeProvider": "_provider",
    "FlakyStore": "_flaky",
    "IndexContract": "_index_contract",
    "ManualClock": "_clock",
    "StoreContract": "_contract",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when it is asked for

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
