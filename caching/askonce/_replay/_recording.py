"""What a replay block has, hears and leaves behind: answers on a shelf, misses, and the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from askonce import _codec
from askonce._errors import OfflineMiss
from askonce._outcome import Outcome
from askonce._replay._file import Recorded, check_is_ours, read, write
from askonce._replay._shelf import Shelf

Mode: TypeAlias = Literal["auto", "record", "replay"]
MODES: Final[tuple[str, ...]] = get_args(Mode)

_ASKED: Final = frozenset({"miss", "bypass", "error"})
_NOBODY_ASKED: Final = "offline miss"
_MOST_TOLD: Final = 20
_CREDENTIAL: Final = "the answer holds the caller's credential"


class Recording:
    """The recordings of one open block, and what became of them.

    Attributes:
        path: the file.
        mode: "auto", "record" or "replay".
        misses: asks that could not be replayed, in order. One is enough to fail the block.
        outcomes: of every call in the block.

    Raises:
        ConfigurationError: the file is damaged, or something else.
    """

    def __init__(self, path: Path, mode: Mode) -> None:
        self.path = path
        self.mode: Mode = mode
        self.misses: list[OfflineMiss] = []
        self.outcomes: list[Outcome] = []
        self._secret_answers = 0
        # For the cache of the block, which fills them. Appended to from any thread: sums come later.
        self.shelf = Shelf()
        self.abouts: dict[str, str] = {}
        self.asked: list[str] = []
        self.secrets: set[str] = set()
        self._loaded: dict[str, Recorded] = {}
        if mode == "record":
            check_is_ours(path)
            return
        for recorded in read(path):
            self._loaded[recorded.key] = recorded
            self.shelf.values[recorded.key] = _codec.encode(recorded.key, recorded.entry)

    def __repr__(self) -> str:
        return f"<Recording {self.path}, {self.mode}, {len(self.shelf.values)} answers>"

    def __len__(self) -> int:
        """How many answers there are."""
        return len(self.shelf.values)

    def __bool__(self) -> bool:
        # Having a length must not make an empty recording false.
        return True

    @property
    def unused(self) -> tuple[str, ...]:
        """The recordings in the file that nobody has asked for: surface, model and key of each."""
        asked = set(self.asked)
        return tuple(str(one) for key, one in self._loaded.items() if key not in asked)

    @property
    def new(self) -> int:
        """How many answers there are that the file does not have."""
        return len(self.shelf.values.keys() - self._loaded.keys())

    @property
    def not_recorded(self) -> tuple[str, ...]:
        """Why answers of the provider's could not be recorded: they will be missing in a replay."""
        found: Counter[str] = Counter()
        for outcome in self.outcomes:
            if (
                outcome.status in _ASKED
                and not outcome.stored
                and outcome.reason != _NOBODY_ASKED
                and outcome.key not in self.shelf.values
            ):
                why = outcome.not_stored or outcome.reason
                why = "not read to its end" if outcome.stored is None else why
                found[f"{outcome.surface} {outcome.model}".strip() + f": {why}"] += 1
        if self._secret_answers:
            found[_CREDENTIAL] = self._secret_answers
        return tuple(what if many == 1 else f"{what} ({many} times)" for what, many in found.items())

    def troubles(self) -> list[tuple[str, tuple[str, ...]]]:
        """What people should know of a block that succeeded: in words, and which answers it is about."""
        told = (("recordings not used", self.unused), ("asks not recorded", self.not_recorded))
        return [(what, _first(which)) for what, which in told if which]

    @property
    def hosts(self) -> frozenset[str]:
        """Hosts that the recordings come from."""
        urls = [one.entry.meta.url for one in self._loaded.values()]
        return frozenset(url.partition("://")[2].partition("/")[0].rpartition(":")[0] for url in urls)

    def superseded(self, key: str) -> None:
        """A door above keeps the answer to an ask that only it has caused."""
        if self.asked.count(key) <= 1:
            self.shelf.delete(key)

    def failure(self) -> OfflineMiss:
        """The error of a block with misses."""
        first = self.misses[0]
        more = len({miss.key or str(miss) for miss in self.misses}) - 1  # SDKs ask again what failed
        text = str(first) if not more else f"{first} ({more} more {'asks' if more > 1 else 'ask'} failed so)"
        return OfflineMiss(text, key=first.key, differences=first.differences)

    def save(self) -> None:
        """Write the file, where there is something new to write.

        Raises:
            OSError: when it cannot be written.
        """
        if self.mode == "replay":
            return
        values = dict(self.shelf.values)
        if values.keys() == self._loaded.keys() and (self.mode == "auto" or not self.path.exists()):
            return
        kept: list[Recorded] = []
        for key, value in values.items():
            recorded = self._loaded.get(key)
            if recorded is None:
                entry = _codec.decode(key, value)
                recorded = Recorded(key=key, entry=entry, about=self.abouts.get(key, ""))
                if self._shows_a_secret(recorded):
                    self._secret_answers += 1
                    continue
            kept.append(recorded)
        if self.mode == "auto":  # what another block has added to the file meanwhile stays
            known = values.keys() | self._loaded.keys()
            kept += [one for one in read(self.path) if one.key not in known]
        write(self.path, kept)

    def _shows_a_secret(self, recorded: Recorded) -> bool:
        entry = recorded.entry
        shown = [entry.meta.url, entry.meta.model, *(value for _, value in entry.headers)]
        return any(
            secret.encode("utf-8", "replace") in entry.body or any(secret in text for text in shown)
            for secret in self.secrets
        )


def _first(which: tuple[str, ...]) -> tuple[str, ...]:
    """As many as somebody reads."""
    left = len(which) - _MOST_TOLD
    return which if left <= 0 else (*which[:_MOST_TOLD], f"and {left} more")
