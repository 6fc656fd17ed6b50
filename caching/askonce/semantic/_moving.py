"""What the layer keeps beside entries, moved with them: rows, and what was learned of answers.

Whatever the index, these travel in the form that the store has them in (see `askonce.semantic._rows`), sealed
where the cache has a secret. So rows of the store and of an index that keeps its rows itself go to either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final, Protocol

from askonce import _codec
from askonce._backing import Backing
from askonce._bridge import step
from askonce._events import warn
from askonce._export_file import Beside
from askonce._fingerprint import SCOPE
from askonce._layer import Layer
from askonce._seal import Seal
from askonce.semantic import _rows
from askonce.semantic._index import Index, Place, Portable, Row
from askonce.semantic._learning import prefix_of as lessons_of
from askonce.semantic._notes import owner_of
from askonce.stores.protocol import Item

_HALF: Final = 32
_DIGITS: Final = frozenset("0123456789abcdef")
_PLACE: Final = 2 * _HALF

Kept = Sequence[tuple[Beside, Item]]
"""What is to be stored, each with the entry that it belongs to as the store has that."""


class Mover:
    """Takes what is kept beside a namespace's entries, and puts it where it belongs.

    Args:
        namespace: of the entries.
        backing: the stores.
        seal: of the cache.
        layer: of the cache, if it has one.
        index: where rows are; None: where the layer has them, without one the store.
    """

    def __init__(
        self, namespace: str, backing: Backing, seal: Seal | None, layer: Layer | None, index: Index | None
    ) -> None:
        if index is None and layer is not None:
            index = layer.keeper()
        self._layer = layer
        self._lessons = _InStore(backing, lessons_of(namespace))
        self._rows: _Home = _InStore(backing, _rows.prefix_of(namespace))
        if index is not None and index.durable:
            if isinstance(index, Portable):
                self._rows = _InIndex(index, namespace, seal)
            else:
                warn(
                    "semantic",
                    "a %s keeps its rows itself and is not Portable: they are not moved with the entries",
                    type(index).__name__,
                )
                self._rows = _Nowhere(_rows.prefix_of(namespace))
        self._homes: tuple[_Home, ...] = (self._lessons, self._rows)

    def keys(self, wanted: Callable[[str], bool]) -> list[str]:
        """The keys of what there is, in order.

        Args:
            wanted: told the first 32 digits of an entry's key: whether what belongs to it is asked for.

        Raises:
            Exception: whatever the store or the index raises.
        """
        return sorted(key for home in self._homes for key in home.keys(wanted))

    def read(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        """What is kept under these of the `keys`, a few hundred; what is gone or damaged is left out.

        Raises:
            Exception: whatever the store or the index raises.
        """
        found: dict[str, bytes] = {}
        for home in self._homes:
            mine = [key for key in keys if key.startswith(home.prefix)]
            if mine:
                found |= home.read(mine)
        return [(key, found[key]) for key in keys if key in found and self._is_sound(key, found[key])]

    @staticmethod
    def entry_digits(key: str) -> str:
        """The first 32 digits of the entry's key, from the key of what is kept beside it."""
        return key[-_HALF:]

    def check(self, row: Beside) -> None:
        """See that this is what a layer keeps beside the entry that it names.

        Raises:
            ValueError: it is something else.
        """
        place = row.key.removeprefix(self._home(row.key).prefix)
        if len(place) != _PLACE or not _DIGITS.issuperset(place):
            raise ValueError("its key is none of a row")
        if row.of.rpartition(":")[2][:_HALF] != self.entry_digits(row.key):
            raise ValueError("it belongs to another entry")
        if not self._is_sound(row.key, row.value):
            raise ValueError("it is no row of its key")

    def write(self, kept: Kept, *, overwrite: bool) -> int:
        """Store what belongs to entries that are stored; how many were written. Each lives as its entry.

        Raises:
            Exception: whatever the store or the index raises.
        """
        written = 0
        for home in self._homes:
            mine = [(row, entry) for row, entry in kept if row.key.startswith(home.prefix)]
            if mine:
                written += home.write(mine, overwrite=overwrite)
        return written

    def finish(self) -> None:
        """After writing: have the cache's own layer look at its rows anew."""
        if self._layer is not None:
            self._layer.reread()

    def _home(self, key: str) -> _Home:
        for home in self._homes:
            if key.startswith(home.prefix):
                return home
        raise ValueError("its key is none of a row")

    def _is_sound(self, key: str, value: bytes) -> bool:
        return key.startswith(self._lessons.prefix) or _rows.is_sound(key, value)


class _Home(Protocol):
    """Where things of one kind are."""

    prefix: str

    def keys(self, wanted: Callable[[str], bool]) -> Iterator[str]: ...
    def read(self, keys: Sequence[str]) -> dict[str, bytes]: ...
    def write(self, kept: Kept, *, overwrite: bool) -> int: ...


class _InStore:
    """In the cache's store."""

    def __init__(self, backing: Backing, prefix: str) -> None:
        self.prefix = prefix
        self._backing = backing

    def keys(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        length = len(self.prefix) + _PLACE
        for key in step(self._backing.sync_tiers.scan(self.prefix)):
            if len(key) == length and wanted(key[-_HALF:]):
                yield key

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        found = step(self._backing.sync_tiers.get_many(keys, copy_up=False))
        return {key: stored.value for key, stored in found.items()}

    def write(self, kept: Kept, *, overwrite: bool) -> int:
        tiers = self._backing.direct()
        items: list[Item] = [(row.key, row.value, entry[2]) for row, entry in kept]
        if not overwrite:
            present = step(tiers.get_many([key for key, _, _ in items], copy_up=False))
            items = [item for item in items if item[0] not in present]
        if items:
            step(tiers.set_many(items))
        return len(items)


class _InIndex:
    """In an index that keeps its rows itself."""

    def __init__(self, index: Portable, namespace: str, seal: Seal | None) -> None:
        self.prefix = _rows.prefix_of(namespace)
        self._index = index
        self._namespace = namespace
        self._seal = seal
        self._places: dict[str, Place] = {}

    def keys(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        for place in self._index.places():  # of all namespaces: a row names none, but its entry's digest
            if wanted(place.name[:_HALF]):
                key = _rows.key_of(self._namespace, place.partition, place.name)
                self._places[key] = place
                yield key

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for place, row in self._index.take([self._places[key] for key in keys]):
            key = _rows.key_of(self._namespace, place.partition, place.name)
            found[key] = _rows.encode(key, row, self._seal)
        return found

    def write(self, kept: Kept, *, overwrite: bool) -> int:
        rows: list[tuple[str, Row]] = []
        for row, entry in kept:
            content = _rows.decode(row.key, row.value, self._seal)
            owner = self._owner(entry)
            # An index cannot keep what is sealed: it goes in only with the secret that opens it.
            if content is None or owner is None or content[0] != entry[0].rpartition(":")[2]:
                continue
            name, facts, vector = content
            rows.append((_rows.partition_in(row.key), Row(name, vector, facts, entry[2], owner)))
        return self._index.add_many(rows, overwrite=overwrite) if rows else 0

    def _owner(self, entry: Item) -> str | None:
        """Whose row it is. An entry tells scopes apart, but does not name them: so a quota of its own."""
        try:
            told = _codec.decode_meta(entry[0], entry[1], self._seal).fingerprint.get(SCOPE)
        except _codec.Undecodable:
            return None
        if told is None:
            return owner_of("")
        return sha256(f"{self._namespace} moved {told}".encode()).hexdigest()[:_HALF]


class _Nowhere:
    """In an index that cannot hand them over."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def keys(self, wanted: Callable[[str], bool]) -> Iterator[str]:  # noqa: ARG002
        return iter(())

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:  # noqa: ARG002
        return {}

    def write(self, kept: Kept, *, overwrite: bool) -> int:  # noqa: ARG002
        return 0
