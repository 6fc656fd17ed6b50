"""What happens between an exact miss and the provider's call.

    whole question -> partition + text            None: exact means alone
    text           -> vector                      too slow, failed, no vector: exact means alone
    vector         -> what lies near, best first  below the threshold: no more
    near           -> guards                      a veto: the next one
                   -> its entry, by key           gone, expired, not this partition's: the next one, and the
                                                  row goes
                   -> serve it, or ask the provider all the same and have the two answers compared

The index holds no answers, and its word is taken for nothing: the answer is read from the store under the
exact key, with everything that holds there (expiry, deletion, seals, max-age), and has to carry the mark of
the row's own question in this very partition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from random import random
from typing import TYPE_CHECKING, Any, Final

from askonce._call import Call, Found
from askonce._entry import Entry
from askonce._events import fault
from askonce._fingerprint import TURN
from askonce._layer import Read, Similar
from askonce.semantic import _guards, _learning, _rows
from askonce.semantic._embedder import Embedder, ThroughCache, is_local
from askonce.semantic._embedding import Embedding, Patient
from askonce.semantic._figures import Figures, SemanticFigures
from askonce.semantic._index import AsyncIndex, Index, Near, Row
from askonce.semantic._learning import Learning
from askonce.semantic._notes import Notes, Scribe
from askonce.semantic._parts import Parts
from askonce.semantic._shelf import Shelf
from askonce.semantic._turn import Question

if TYPE_CHECKING:
    from askonce.semantic._layer import Options
    from askonce.semantic._vector import Vector

_LOOK_AT: Final = 8
_MARK_BYTES: Final = 16
_HALF: Final = 32
_MOST_ROWS: Final = 20_000


_NOTHING: Final = object()


class Consultant:
    """The layer of one cache at work. Implements `askonce._layer.Layer`."""

    def __init__(self, options: Options, embedder: Embedder, index: Index, parts: Parts) -> None:
        self._options = options
        self._index = index
        self._twin = index if isinstance(index, AsyncIndex) and index.native else None
        self._backing = parts.backing
        self._count: Callable[[str], None] = parts.counters.layer
        self._figures = Figures()
        self._embedder = embedder
        self._local = is_local(embedder)
        self._scribe = Scribe(options, embedder.name, parts.settings, self._count)
        self._embedding = Embedding(embedder, options.timeout, lambda why: self._count(f"embedder: {why}"))
        self._patient = Patient("index", options.timeout, lambda why: self._count(f"index: {why}"))
        self._shelf = (
            None
            if index.durable
            else Shelf(parts.backing, index, parts.seal, most=_MOST_ROWS, count=parts.counters.layer)
        )
        self._learning = Learning(options, embedder, parts, self._figures)
        self._draw = random

    # -- the Layer's face -----------------------------------------------------------------------

    async def consult(self, call: Call, read: Read) -> Similar | None:
        """See `Layer.consult`."""
        if call.decision.offline and not self._local:
            self._count("offline")  # the embedder may be a provider itself
            return None
        try:
            notes = self._notes(call)
            return None if notes is None else await self._consult(call, notes, read)
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, the provider can still be asked
            fault("the semantic layer was left out", error)
            self._count("internal error")
            return None

    def accepts(self, call: Call, similar: Similar) -> bool:
        """See `Layer.accepts`."""
        return similar.similarity >= max(self._options.threshold or 0.0, call.decision.semantic)

    def mark(self, call: Call) -> str:
        """See `Layer.mark`."""
        try:
            notes = self._notes(call)
        except Exception as error:  # noqa: BLE001
            fault("the semantic layer was left out", error)
            return ""
        return "" if notes is None else _mark(notes.question)

    async def remember(self, call: Call, entry: Entry) -> None:
        """See `Layer.remember`."""
        try:
            notes = self._notes(call)
            if notes is not None:
                await self._remember(call, notes, entry)
        except Exception as error:  # noqa: BLE001
            fault("a question was not remembered", error)
            self._count("internal error")

    def prefixes(self, namespace: str) -> tuple[str, ...]:
        """See `Layer.prefixes`."""
        return _rows.prefix_of(namespace), _learning.prefix_of(namespace)

    def keeper(self) -> Index | None:
        """See `Layer.keeper`."""
        return self._index if self._shelf is None else None

    def reread(self) -> None:
        """See `Layer.reread`."""
        if self._shelf is not None:
            self._shelf.forget()

    def figures(self) -> list[SemanticFigures]:
        """See `Layer.figures`."""
        return self._figures.snapshot()

    def close(self) -> None:
        """See `Layer.close`."""
        self._learning.close()
        if isinstance(self._embedder, ThroughCache):  # made for this cache, and nobody else's
            self._embedder.close()
        self._embedding.close()
        self._patient.close()
        if self._shelf is not None:
            self._shelf.close()
        self._index.close()

    # -- what is asked --------------------------------------------------------------------------

    def _notes(self, call: Call) -> Notes | None:
        """What the layer knows of a call; None when it stays out. Made once for each call."""
        if call.notes is None:
            call.notes = self._scribe.notes(call) or _NOTHING
        return None if call.notes is _NOTHING else call.notes

    async def _vector(self, call: Call, notes: Notes) -> Vector | None:
        if not notes.tried:
            notes.tried = True
            notes.vector = await self._embedding.vector(call, notes.question.text)
        return notes.vector

    # -- consulting -----------------------------------------------------------------------------

    async def _consult(self, call: Call, notes: Notes, read: Read) -> Similar | None:
        partition = notes.question.partition
        self._count("consulted")
        self._figures.add(partition, call.decision.model, "requests")
        vector = await self._vector(call, notes)
        if vector is None:
            return None
        space = _space(partition, vector)
        if self._shelf is not None:
            self._shelf.want(_namespace(call), space, notes.owner)
            if call.decision.offline:  # for want of a provider, rows are waited for
                await self._shelf.wanted(call, space, self._options.timeout)
        least = max(self._options.threshold or 0.0, call.decision.semantic)
        for near in await self._near(call, space, vector, least):
            if not near.similarity >= least:
                break
            vetoed = _guards.veto(notes.facts, near.facts[_MARK_BYTES:], self._options.guards)
            if vetoed:
                self._count(f"veto: {vetoed}")
                continue
            found = await self._found(call, notes, space, near, read)
            if found is not None:
                return await self._choose(call, notes, Similar(found, _key(call, near.name), near.similarity))
        return None

    async def _near(self, call: Call, space: str, vector: Vector, least: float) -> list[Near]:
        if not self._index.blocking:
            return self._index.search(space, vector, _LOOK_AT, least)
        search = partial(self._index.search, space, vector, _LOOK_AT, least)
        asearch = None if self._twin is None else partial(self._twin.asearch, space, vector, _LOOK_AT, least)
        return await self._patient.do(call, search, asearch) or []

    async def _found(self, call: Call, notes: Notes, space: str, near: Near, read: Read) -> Found | None:
        """The answer that a row points to, if it may be given to this caller."""
        found = await read(call, _key(call, near.name))
        if found is None:
            # Deleted, invalidated, expired or evicted: the row has nothing to point to. But maybe it is too
            # old for this caller alone, or the store is away.
            if call.decision.max_age is None and self._stores_answer():
                await self._forget(call, space, near.name)
            return None
        row = near.facts[:_MARK_BYTES].hex()
        if found.entry.meta.fingerprint.get(TURN) != notes.question.partition[:_HALF] + row:
            self._count("row does not fit")
            await self._forget(call, space, near.name)
            return None
        return found if found.fresh else None

    async def _choose(self, call: Call, notes: Notes, similar: Similar) -> Similar | None:
        """Serve it, or have the provider asked all the same and the answers compared."""
        partition, model = notes.question.partition, call.decision.model
        kept = call.decision.write  # what will not be stored is not compared
        if self._options.max_error is not None:
            learned = await self._learning.known(call, partition, similar.key)
            if self._draw() <= learned.explores(similar.similarity, self._options.max_error):
                notes.neighbour = similar if kept else None
                if call.decision.offline:  # there is nobody to ask, and the bound holds here, too
                    self._count("too uncertain offline")
                    return None
                self._count("explored")
                self._figures.add(partition, model, "explored")
                return None
        if kept and self._options.shadow and self._draw() < self._options.shadow:
            notes.neighbour, notes.would_serve = similar, True
            return None
        self._count("served")
        self._figures.add(partition, model, "served")
        return similar

    # -- remembering ----------------------------------------------------------------------------

    async def _remember(self, call: Call, notes: Notes, entry: Entry) -> None:
        vector = await self._vector(call, notes)
        if vector is None:
            return
        name = call.decision.key.rpartition(":")[2]
        facts = bytes.fromhex(notes.question.digest) + notes.facts
        row = Row(name, vector, facts, entry.meta.stale_until, notes.owner)
        partition = _space(notes.question.partition, vector)
        neighbour = notes.neighbour
        if neighbour is None:
            await self._add(call, partition, row)
            return
        verified = self._options.max_error is not None
        namespace = _namespace(call)

        def settled(right: bool | None) -> None:
            # An entry that is right here too needs no second one beside it: observations gather at few.
            if verified and not right:
                self._add_later(namespace, partition, row)

        self._learning.judge(
            call, notes.question, neighbour, entry, would_serve=notes.would_serve, settled=settled
        )
        if not verified:
            await self._add(call, partition, row)

    async def _add(self, call: Call, partition: str, row: Row) -> None:
        if self._index.blocking:
            aadd = None if self._twin is None else partial(self._twin.aadd, partition, row)
            await self._patient.do(call, lambda: self._index.add(partition, row), aadd)
        else:
            self._index.add(partition, row)
        if self._shelf is not None:
            await self._shelf.put(call, _namespace(call), partition, row)

    def _add_later(self, namespace: str, partition: str, row: Row) -> None:
        """`_add`, by a thread that nobody waits for."""
        self._index.add(partition, row)
        if self._shelf is not None:
            self._shelf.put_later(namespace, partition, row)

    def _stores_answer(self) -> bool:
        return all(state == "closed" for state in self._backing.breakers().values())

    async def _forget(self, call: Call, partition: str, name: str) -> None:
        self._count("rows forgotten")
        if self._index.blocking:
            aremove = None if self._twin is None else partial(self._twin.aremove, partition, name)
            await self._patient.do(call, lambda: self._index.remove(partition, name), aremove)
        else:
            self._index.remove(partition, name)
        if self._shelf is not None:
            await self._shelf.drop(call, _namespace(call), partition, name)


def _mark(question: Question) -> str:
    """What an entry says of its question: the partition, and the partition and text together."""
    return question.partition[:_HALF] + question.digest


def _namespace(call: Call) -> str:
    return call.decision.key.partition(":")[0]


def _key(call: Call, name: str) -> str:
    return f"{_namespace(call)}:{name}"


def _space(partition: str, vector: Any) -> str:
    """A partition of vectors of one number of dimensions: another number never meets it."""
    return sha256(f"{partition} {len(vector)}".encode()).hexdigest()
