"""Prompt-prefix affinity on a simulated fleet: `python tests/benchmarks/prefix.py [--json]`.

Eight deployments, each with a prompt cache as providers have them: prefixes in blocks of 128 tokens, kept for
five minutes from their last use, from 1024 tokens on. Conversations of several turns, of two kinds: such as
share one of four long system prompts, and such as have a document of their own. Counted are the tokens that
a deployment's prompt cache knew, for four ways of routing: at random, in turns, by affinity, and by an oracle
that sees into all eight caches before it chooses.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / name) for name in ("caching", "integrations")]

from rich.console import Console
from rich.table import Table

from askonce import Cache
from askonce.prefix import PrefixAffinity
from askonce.stores import MemoryStore
from askonce.testing import ManualClock

NAMES = [f"deployment {number}" for number in range(8)]
BLOCK = 128
LEAST = 1024
KEPT = 300.0
CONVERSATIONS = 400
SECONDS = 3600.0


class Deployment:
    """One prompt cache: when each block of tokens, with all before it, was last used."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}

    def known(self, prompt: list[int], now: float) -> int:
        """Tokens of a prompt that are there."""
        found = 0
        for end in range(BLOCK, len(prompt) + 1, BLOCK):
            if now - self._used.get(hash(tuple(prompt[:end])), -KEPT) >= KEPT:
                break
            found = end
        return found if found >= LEAST else 0

    def use(self, prompt: list[int], now: float) -> None:
        """It has answered this one."""
        for end in range(BLOCK, len(prompt) + 1, BLOCK):
            self._used[hash(tuple(prompt[:end]))] = now


def traffic(seed: int, *, shared: bool) -> list[tuple[float, dict[str, Any], list[int]]]:
    """(when, request, its tokens), in order of time."""
    chance = random.Random(seed)
    count = 4 if shared else CONVERSATIONS
    systems = [[chance.randrange(50_000) for _ in range(chance.randrange(1200, 2400))] for _ in range(count)]
    found = []
    for number in range(CONVERSATIONS):
        which = chance.randrange(4) if shared else number
        prompt = list(systems[which])
        messages: list[dict[str, Any]] = [{"role": "system", "content": f"system {which}"}]
        when = chance.random() * SECONDS
        for turn in range(chance.randrange(2, 12)):
            question = [chance.randrange(50_000) for _ in range(chance.randrange(30, 400))]
            messages = [*messages, {"role": "user", "content": f"{number} {turn}"}]
            prompt = [*prompt, *question]
            found.append((when, {"model": "m", "messages": messages}, prompt))
            answer = [chance.randrange(50_000) for _ in range(chance.randrange(50, 600))]
            messages = [*messages, {"role": "assistant", "content": f"answer {number} {turn}"}]
            prompt = [*prompt, *answer]
            when += 5 + chance.expovariate(1 / 40)
    return sorted(found, key=lambda one: one[0])


Route = Callable[[float, dict[str, Any], list[int], dict[str, Deployment]], str]


def tokens_known(asks: list[tuple[float, dict[str, Any], list[int]]], route: Route) -> int:
    """Tokens that were found in prompt caches, over all requests."""
    fleet = {name: Deployment() for name in NAMES}
    total = 0
    for when, body, prompt in asks:
        name = route(when, body, prompt, fleet)
        total += fleet[name].known(prompt, when)
        fleet[name].use(prompt, when)
    return total


def by_affinity(clock: ManualClock, affinity: PrefixAffinity) -> Route:
    """Ask, and say that it is done."""
    start = clock()

    def route(when: float, body: dict[str, Any], _: list[int], __: dict[str, Deployment]) -> str:
        clock.advance(max(0.0, start + when - clock()))
        with affinity.pick(body) as pick:
            return pick.name

    return route


def run(seed: int = 7) -> dict[str, dict[str, float]]:
    """Tokens found, by way of routing, and the two ratios; by kind of traffic."""
    return {
        "shared system prompts": _run(seed, shared=True),
        "documents of their own": _run(seed, shared=False),
    }


def _run(seed: int, *, shared: bool) -> dict[str, float]:
    asks, chance = traffic(seed, shared=shared), random.Random(seed)
    turns = iter(range(len(asks)))
    ways: dict[str, Route] = {
        "at random": lambda *_: chance.choice(NAMES),
        "in turns": lambda *_: NAMES[next(turns) % 8],
        "an oracle": lambda when, _, prompt, fleet: max(
            NAMES, key=lambda one: fleet[one].known(prompt, when)
        ),
    }
    found: dict[str, float] = {
        "requests": len(asks),
        "tokens asked": sum(len(prompt) for _, _, prompt in asks),
    }
    for name, route in ways.items():
        found[name] = tokens_known(asks, route)
    clock = ManualClock()
    with Cache(MemoryStore(clock=clock), clock=clock) as cache:
        found["by affinity"] = tokens_known(asks, by_affinity(clock, PrefixAffinity(cache, NAMES)))
    found["affinity / oracle"] = found["by affinity"] / found["an oracle"]
    found["affinity / random"] = found["by affinity"] / found["at random"]
    return found


def main() -> None:
    """Simulate and show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--seed", type=int, default=7, help="of the traffic (default: 7)")
    options = parser.parse_args()
    found = run(options.seed)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    table = Table("tokens found in prompt caches", *found)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in next(iter(found.values())):
        figures = [kind[name] for kind in found.values()]
        table.add_row(name, *[f"{one:,.2f}" if "/" in name else f"{one:,.0f}" for one in figures])
    Console().print(table)


if __name__ == "__main__":
    main()
