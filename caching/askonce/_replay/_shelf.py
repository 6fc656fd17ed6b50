"""A store for the recordings of one block: a dict, without bounds and without expiry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from askonce.stores.protocol import Health, Item, Stored

_NAME = "recording"


class Shelf:
    """Values in memory until the block ends. Each step is one operation on a dict: threads need no lock."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        """Always "recording"."""
        return _NAME

    @property
    def blocking(self) -> bool:
        """Always False."""
        return False

    def get(self, key: str) -> Stored | None:
        """The value under `key`, or None."""
        value = self.values.get(key)
        return None if value is None else Stored(value, None, _NAME)

    def set(self, key: str, value: bytes, expires_at: float | None) -> None:  # noqa: ARG002 - recordings stay
        """Keep `value` under `key`."""
        self.values[key] = bytes(value)

    def delete(self, *keys: str) -> int:
        """Remove keys; the number that were there."""
        return sum(self.values.pop(key, None) is not None for key in keys)

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The values among `keys`."""
        return {key: stored for key in keys if (stored := self.get(key)) is not None}

    def set_many(self, items: Iterable[Item]) -> None:
        """Set several."""
        for key, value, expires_at in items:
            self.set(key, value, expires_at)

    def scan(self, prefix: str) -> Iterator[str]:
        """The keys that start with `prefix`."""
        return iter([key for key in list(self.values) if key.startswith(prefix)])

    def ping(self) -> Health:
        """Always well."""
        return Health(ok=True, kind=_NAME, latency=0.0, detail={"entries": len(self.values)})

    def close(self) -> None:
        """Nothing to give back."""
