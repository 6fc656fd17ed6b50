"""`PrefixAffinity`: which deployment to ask."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from askonce._cache import Cache
from askonce._errors import ConfigurationError, not_allowed
from askonce._fork import renew_after_fork
from askonce._units import Duration, seconds
from askonce.prefix._annotate import Provider, annotate
from askonce.prefix._blocks import blocks_of, chain
from askonce.prefix._sightings import decode, encode, tag_of

_LOOK_BACK: Final = 20
"""Blocks before the end at which a known prefix may end: as far as Anthropic looks."""
_HOUR: Final = 3600
_SHARED: Final = 4
"""Of the blocks that many conversations share (tools, system), the last so many are noted too."""


class Prompt(NamedTuple):
    """A prompt's prefixes as digests, shortest first, and how many of them many conversations share."""

    prefixes: tuple[str, ...]
    shared: int

    @property
    def noted(self) -> list[str]:
        """Those of which is noted who saw them: the last shared ones, and what conversations go on from."""
        first = max(self.shared, len(self.prefixes) - _LOOK_BACK)
        return [*self.prefixes[max(0, self.shared - _SHARED) : self.shared], *self.prefixes[first:]]


@dataclass(slots=True, eq=False)
class Pick:
    """The deployment for one request.

    A context manager: its end says that the call is over, an exception that it failed. Without `with`, call
    `done()` or `failed()`.

    Attributes:
        name: the candidate to ask.
        known: blocks of the request that it has seen lately; 0 for a cold prefix.
        blocks: blocks of the request.
    """

    name: str
    known: int
    blocks: int
    affinity: PrefixAffinity = field(repr=False)
    prompt: Prompt = field(repr=False)
    seen: Mapping[str, dict[bytes, float]] = field(repr=False)
    over: bool = field(default=False, repr=False)

    def done(self) -> None:
        """The deployment has answered: it knows these prefixes now."""
        self.affinity.done(self)

    async def adone(self) -> None:
        """`done`, for event loops."""
        await self.affinity.adone(self)

    def knows(self) -> None:
        """The deployment has begun to answer: it knows these prefixes now. The call is still under way."""
        self.affinity.knows(self)

    async def aknows(self) -> None:
        """`knows`, for event loops."""
        await self.affinity.aknows(self)

    def failed(self, pause: float = 0.0) -> None:
        """The deployment did not answer: it is left alone for a while; for `pause` seconds at least."""
        self.affinity.failed(self, pause)

    def left(self) -> None:
        """The call is over, and that says nothing about the deployment."""
        self.affinity.left(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.done()
        elif issubclass(kind, Exception):
            self.failed()
        else:  # cancelled, or interrupted: that is not the deployment's doing
            self.left()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.adone()
        else:
            self.__exit__(kind, error, trace)


class PrefixAffinity:
    """Picks, among deployments, the one that last saw the longest prefix of a request.

    What was seen is kept in the cache's stores for `ttl`, so a fleet knows it together. A conversation that
    nobody has seen goes where rendezvous hashing of its beginning says: the same place in every process, and
    when a deployment comes or goes only its own share moves. Tools and a system prompt alone, which many
    conversations share, draw nobody: they would draw all to one place. A deployment that failed is left
    alone for `cooldown`; one that has more calls under way than `load` times its share passes new ones on.

    No text is stored: digests of prefixes, keyed with the cache's secret, and digests of the candidates'
    names. A store that fails costs warmth, never a call.

    Args:
        cache: whose stores, namespace and secret are used.
        candidates: names, as your program knows the deployments by: regions, base URLs.
        ttl: for how long a provider keeps a prefix: 300 s for most, 1 h where that was asked for.
        cooldown: for how long a deployment that failed is left alone.
        load: how many times its even share of the calls under way a deployment may have; at least 1.

    Raises:
        ConfigurationError: for a bad argument.
    """

    def __init__(
        self,
        cache: Cache,
        candidates: Sequence[str],
        *,
        ttl: Duration = 300,
        cooldown: Duration = 10,
        load: float = 2.0,
    ) -> None:
        names = list(candidates) if not isinstance(candidates, str) else []
        if (
            not names
            or len(set(names)) < len(names)
            or not all(isinstance(one, str) and one for one in names)
        ):
            raise not_allowed("candidates", f"{len(names)} names", "one or more different names")
        if isinstance(load, bool) or not load >= 1:
            raise not_allowed("load", load, "1 or more")
        self._ttl, self._cooldown = _positive("ttl", ttl), _positive("cooldown", cooldown)
        self._clock = cache.clock
        self._notes = cache.side_store("prefix")
        self._key = cache.digest_key("prefix")
        self._names = tuple(names)
        self._tags = {name: tag_of(name) for name in names}
        self._load = load
        self._lock = threading.RLock()  # a forgotten answer may be collected while this thread holds it
        self._under_way = dict.fromkeys(names, 0)
        self._out_until = dict.fromkeys(names, 0.0)
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child nothing is under way, and the lock is new."""
        self._lock = threading.RLock()
        self._under_way = dict.fromkeys(self._names, 0)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names of the deployments."""
        return self._names

    def pick(self, body: Mapping[str, Any], *, scope: str = "", tried: Collection[str] = ()) -> Pick:
        """Where to send a request.

        Args:
            body: the request's JSON: OpenAI chat or responses, or Anthropic messages.
            scope: whose it is; what one tenant asked says nothing about another's prompts.
            tried: names that are picked only when there is no other.
        """
        prompt = self._prompt(body, scope)
        return self._chosen(prompt, self._notes.get_many(prompt.noted), tried)

    async def apick(self, body: Mapping[str, Any], *, scope: str = "", tried: Collection[str] = ()) -> Pick:
        """`pick`, for event loops."""
        prompt = self._prompt(body, scope)
        return self._chosen(prompt, await self._notes.aget_many(prompt.noted), tried)

    def annotated(self, body: Mapping[str, Any], *, provider: Provider) -> dict[str, Any]:
        """`askonce.prefix.annotate` with this one's `ttl`, and the cache's secret in the digest."""
        return annotate(body, provider=provider, ttl="1h" if self._ttl >= _HOUR else "5m", key=self._key)

    # -- what a Pick tells ------------------------------------------------------------------------

    def done(self, pick: Pick) -> None:
        """See `Pick.done`."""
        if self.left(pick):
            self._notes.set_many(self._written(pick), self._ttl)

    async def adone(self, pick: Pick) -> None:
        """See `Pick.adone`."""
        if self.left(pick):
            await self._notes.aset_many(self._written(pick), self._ttl)

    def knows(self, pick: Pick) -> None:
        """See `Pick.knows`."""
        self._notes.set_many(self._written(pick), self._ttl)

    async def aknows(self, pick: Pick) -> None:
        """See `Pick.aknows`."""
        await self._notes.aset_many(self._written(pick), self._ttl)

    def failed(self, pick: Pick, pause: float = 0.0) -> None:
        """See `Pick.failed`."""
        if self.left(pick):
            until = self._clock() + max(self._cooldown, pause)
            self._out_until[pick.name] = max(self._out_until[pick.name], until)

    def left(self, pick: Pick) -> bool:
        """The call is not under way any more; True the first time."""
        with self._lock:
            if pick.over:
                return False
            pick.over = True
            self._under_way[pick.name] -= 1
            return True

    # -- choosing ---------------------------------------------------------------------------------

    def _prompt(self, body: Mapping[str, Any], scope: str) -> Prompt:
        start = f"{len(scope)}:{scope}{body.get('model')}".encode("utf-8", "surrogatepass")
        try:
            blocks = blocks_of(body)
        except (TypeError, ValueError, RecursionError):  # no JSON: it goes wherever there is room
            return Prompt((), 0)
        return Prompt(tuple(chain(blocks.said, start, self._key)), blocks.shared)

    def _chosen(self, prompt: Prompt, notes: Mapping[str, bytes], tried: Collection[str]) -> Pick:
        now = self._clock()
        seen = {name: decode(name, value) for name, value in notes.items()}
        with self._lock:
            able = self._able(now, tried)
            name = self._warmest(prompt, seen, able, now) or self._cold(prompt, able)
            self._under_way[name] += 1
        known = next((blocks for blocks, warm in self._warm(prompt, seen, now) if name in warm), 0)
        return Pick(name, known, len(prompt.prefixes), self, prompt, seen)

    def _able(self, now: float, tried: Collection[str]) -> list[str]:
        """Who may be asked: not tried, not out, and with room; when nobody is, everybody."""
        fresh = [name for name in self._names if name not in tried] or list(self._names)
        well = [name for name in fresh if self._out_until[name] <= now] or fresh
        most = self._load * (sum(self._under_way.values()) + 1) / len(well)
        return [name for name in well if self._under_way[name] + 1 <= max(1.0, most)] or well

    def _warm(
        self, prompt: Prompt, seen: Mapping[str, dict[bytes, float]], now: float
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """From the longest prefix on: its blocks, and when each deployment that may know it saw it."""
        for blocks in range(len(prompt.prefixes), 0, -1):
            sightings = seen.get(prompt.prefixes[blocks - 1])
            if sightings:
                found = {name: sightings.get(tag, -self._ttl) for name, tag in self._tags.items()}
                yield blocks, {name: when for name, when in found.items() if now - when < self._ttl}

    def _warmest(
        self, prompt: Prompt, seen: Mapping[str, dict[bytes, float]], able: list[str], now: float
    ) -> str | None:
        for blocks, warm in self._warm(prompt, seen, now):
            if blocks <= prompt.shared:
                return None
            best = [name for name in able if name in warm]
            if best:
                return min(best, key=lambda name: (self._under_way[name], -warm[name]))
        return None

    def _cold(self, prompt: Prompt, able: list[str]) -> str:
        about = prompt.prefixes[: prompt.shared + 1][-1] if prompt.prefixes else ""
        return max(able, key=lambda name: blake2b(self._tags[name] + about.encode(), digest_size=8).digest())

    def _written(self, pick: Pick) -> dict[str, bytes]:
        """The sightings with this one added, of all prefixes that a later request may share."""
        now, tag = self._clock(), self._tags[pick.name]
        return {name: encode(name, {**pick.seen.get(name, {}), tag: now}) for name in pick.prompt.noted}


def _positive(name: str, value: Duration) -> float:
    found = seconds(name, value)
    if found <= 0:
        raise ConfigurationError(f"{name}={value!r} is not allowed; allowed: more than 0 seconds")
    return found
