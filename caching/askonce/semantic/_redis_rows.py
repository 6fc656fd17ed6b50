"""What a Redis index writes and reads: the hashes, the search index over them, and the query.

Layout: for every number of dimensions a search index `NAME-DIMENSIONS` over hashes

    NAME-DIMENSIONS:<32 digits of the partition>:<the answer's key>
        partition  tag
        vector     float32, cosine
        facts      hexadecimal
        owner      tag

A hash lives as long as its entry: HSET and PEXPIREAT in one transaction, and nothing extends it. (redisvl's
own SemanticCache sets a new life with every hit.) Where a scope may have only so many rows, its keys stand in
a sorted set besides, the oldest first:

    ~NAME-DIMENSIONS:<owner>
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from askonce._errors import ConfigurationError
from askonce.semantic._index import Near, Place, Row
from askonce.semantic._vector import of_bytes

if TYPE_CHECKING:
    from askonce.semantic._vector import Vector

_HALF: Final = 32
_NOBODY: Final = "none"
_LONG: Final = 10 * 365 * 86400.0
_SOON: Final = 60.0


class Layout:
    """The names of one index's keys, and what is done to them.

    Args:
        name: of the search indexes, and in front of the keys.
        algorithm: of the search.
        most_owned: rows that one owner may have; None: as many as there are.
    """

    def __init__(self, name: str, algorithm: str, most_owned: int | None) -> None:
        self.name = name
        self._algorithm = algorithm
        self._most_owned = most_owned
        self.pattern = f"{name}-*:*"
        self._key = re.compile(rf"{re.escape(name)}-(\d{{1,5}}):([0-9a-f]{{32}}):([0-9a-f]{{64}})")

    def label(self, dimensions: int) -> str:
        """The name of a search index."""
        return f"{self.name}-{dimensions}"

    def key(self, dimensions: int, partition: str, name: str) -> str:
        """Of a row."""
        return f"{self.label(dimensions)}:{partition[:_HALF]}:{name}"

    def place(self, key: str | bytes) -> Place | None:
        """Which row a key that matches the `pattern` is of; None: none."""
        said = self._key.fullmatch(key if isinstance(key, str) else key.decode("utf-8", "replace"))
        return None if said is None else Place(said[2], said[3], int(said[1]))

    def schema(self, dimensions: int) -> dict[str, Any]:
        """Of a search index, as redisvl takes it."""
        label = self.label(dimensions)
        return {
            "index": {"name": label, "prefix": label, "storage_type": "hash"},
            "fields": [
                {"name": "partition", "type": "tag"},
                {"name": "owner", "type": "tag"},
                {
                    "name": "vector",
                    "type": "vector",
                    "attrs": {
                        "dims": dimensions,
                        "algorithm": self._algorithm,
                        "distance_metric": "cosine",
                        "datatype": "float32",
                    },
                },
            ],
        }

    def write(self, pipe: Any, partition: str, row: Row) -> None:
        """Queue the writing of a row on a pipeline of redis-py, sync or async."""
        key = self.key(len(row.vector), partition, row.name)
        pipe.delete(key)
        pipe.hset(
            key,
            mapping={
                "partition": partition[:_HALF],
                "vector": row.vector.tobytes(),
                "facts": row.facts.hex(),
                "owner": row.owner or _NOBODY,
            },
        )
        if row.expires_at is not None:
            pipe.pexpireat(key, _milliseconds(row.expires_at))

    def enter(self, pipe: Any, partition: str, row: Row) -> bool:
        """Queue the entry of a row among its owner's, and their number; False where that does not matter."""
        if self._most_owned is None:
            return False
        mine, now = self._mine(row), time.time()
        ends = _milliseconds(now + _LONG if row.expires_at is None else max(row.expires_at, now + _SOON))
        pipe.zadd(mine, {self.key(len(row.vector), partition, row.name): now})
        pipe.pexpireat(mine, ends, nx=True)
        pipe.pexpireat(mine, ends, gt=True)
        pipe.zcard(mine)
        return True

    def excess(self, row: Row, answers: list[Any]) -> tuple[str, int]:
        """From what `enter`'s pipeline answered: the owner's set, and how many have to go."""
        return self._mine(row), max(0, int(answers[-1]) - (self._most_owned or 0))

    def excesses(self, rows: Sequence[Row], answers: list[Any]) -> dict[str, int]:
        """Likewise for several rows of as many dimensions: each owner's set, and how many have to go."""
        each = len(answers) // len(rows)
        last = {self._mine(row): (row, answers[: (at + 1) * each]) for at, row in enumerate(rows)}
        return dict(self.excess(*found) for found in last.values())

    def query(self, partition: str, vector: Vector, limit: int) -> Any:
        """What is nearest in a partition."""
        return import_module("redisvl.query").VectorQuery(
            vector=vector.tobytes(),
            vector_field_name="vector",
            return_fields=["facts"],
            filter_expression=import_module("redisvl.query.filter").Tag("partition") == partition[:_HALF],
            num_results=limit,
            dtype="float32",
        )

    def _mine(self, row: Row) -> str:
        return f"~{self.label(len(row.vector))}:{row.owner or _NOBODY}"


def found(hits: list[Any], least: float) -> list[Near]:
    """The rows of a query's answer that are near enough."""
    rows = [
        Near(
            str(hit["id"]).rpartition(":")[2],
            bytes.fromhex(hit["facts"]),
            min(1.0, 1.0 - float(hit["vector_distance"])),
        )
        for hit in hits
    ]
    return [row for row in rows if row.similarity >= least]


def row_of(place: Place, fields: list[Any]) -> Row | None:
    """A row from what HMGET says of its vector and facts; None for what is none."""
    vector, facts = fields
    if not isinstance(vector, bytes) or not isinstance(facts, bytes) or len(vector) != 4 * place.dimensions:
        return None
    try:
        return Row(place.name, of_bytes(vector), bytes.fromhex(facts.decode()))
    except ValueError:
        return None


def popped(members: list[Any]) -> list[Any]:
    """The keys of a ZPOPMIN's answer."""
    return [member[0] for member in members]


def check(wanted: Any, there: Any, label: str) -> None:
    """See that the search index that is there is the one that is wanted.

    Raises:
        ConfigurationError: it is another.
    """
    want, have = (_shape(index.schema.to_dict()) for index in (wanted, there))
    if want != have:
        differing = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
        raise ConfigurationError(
            f"the search index {label!r} is there with another schema ({', '.join(differing)}); nothing "
            "was overwritten. Choose another name=, or drop that index"
        )


def _milliseconds(moment: float) -> int:
    return max(1, int(moment * 1000))


def _shape(schema: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of two schemas."""
    found: dict[str, Any] = {
        "prefix": schema["index"]["prefix"],
        "storage": str(schema["index"]["storage_type"]),
    }
    for field in schema["fields"]:
        attributes: dict[str, Any] = field.get("attrs") or {}
        found[field["name"]] = (
            field["type"],
            *(
                str(attributes.get(name, "")).lower()
                for name in ("dims", "algorithm", "distance_metric", "datatype")
            ),
        )
    return found
