"""`askonce demo`: ask, ask again, ask from a new process, and check that the answers are the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from askonce.testing import FakeProvider
from askonce_cli._asks import ASKS, Answered, Ask, Plan, Session, Turn, session
from askonce_cli._child import ask_in_new_process

Progress: TypeAlias = Callable[[str], None]

_OPENAI: Final = "https://api.openai.com/v1"
# Slow enough to see the difference, and to see a stream arrive.
_DELAY: Final = 0.6
_CHUNK_DELAY: Final = 0.03
_STAND_IN_SAYS: Final = (
    "This is the stand-in for a provider, on your own machine. "
    "Set OPENAI_API_KEY, and the same demo asks a real model."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the demo saw.

    Attributes:
        provider: the host, or "local stand-in".
        plan: whom was asked, and where answers were kept.
        kept: the folder that was kept, if any.
        own_store: the store was made for this run alone.
        asked: every ask, in order.
        provider_calls: calls that the provider got; counted by the stand-in itself where it is one.
        different: the asks (their place in `asked`) whose answer was not the first one.
        problems: what broke the demo's promise, a line each; empty when it held.
    """

    provider: str
    plan: Plan
    kept: str | None
    own_store: bool
    asked: tuple[Answered, ...]
    provider_calls: int
    different: frozenset[int]
    problems: tuple[str, ...]


def run_demo(
    *, stores: Sequence[str], model: str, embedding_model: str, keep: bool, progress: Progress
) -> Report:
    """Run the demo.

    Args:
        stores: store URLs, front tier first; none: memory over disk in a fresh folder.
        model: for chats.
        embedding_model: for the embedding.
        keep: leave the fresh folder where it is.
        progress: is told what is going on, a short text at a time.

    Raises:
        CommandError: when the provider does not answer.
        ConfigurationError: for a store URL that is none.
    """
    with ExitStack() as stack:
        fake = None if _provider_is_set() else stack.enter_context(_stand_in())
        folder = None
        if not stores:
            folder = tempfile.mkdtemp(prefix="askonce-demo-")
            if not keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stores = ("memory://", Path(folder).as_uri().replace("file:", "disk:", 1))
        plan = Plan(
            stores=tuple(stores),
            base_url=_base_url() if fake is None else fake.base_url,
            api_key=_placeholder_key(fake),
            local=fake is not None,
            model=model,
            embedding_model=embedding_model,
        )
        first: dict[str, tuple[Answered, Any]] = {}
        asked: list[Answered] = []
        different: set[int] = set()
        with session(plan) as asking:
            host = asking.host
            for ask in ASKS:
                first[ask.name] = _told(asking, ask, "first", progress)
                asked.append(first[ask.name][0])
                noted, answer = _told(asking, ask, "again", progress)
                if answer != first[ask.name][1]:
                    different.add(len(asked))
                asked.append(noted)
        progress("the same four once more, from a new process")
        for noted in ask_in_new_process(plan):
            if noted.digest != first[noted.ask][0].digest:
                different.add(len(asked))
            asked.append(noted)
        calls = sum(one.provider_calls for one in asked) if fake is None else fake.calls
        return Report(
            provider=host if fake is None else "local stand-in",
            plan=plan,
            kept=folder if keep else None,
            own_store=folder is not None,
            asked=tuple(asked),
            provider_calls=calls,
            different=frozenset(different),
            problems=_problems(plan, asked, different, calls),
        )


def _stand_in() -> FakeProvider:
    provider = FakeProvider(delay=_DELAY, chunk_delay=_CHUNK_DELAY)
    provider.reply(_STAND_IN_SAYS)
    return provider


def _told(asking: Session, ask: Ask, turn: Turn, progress: Progress) -> tuple[Answered, Any]:
    what = f"{ask.title} by {ask.door}, {'first ask' if turn == 'first' else 'asked again'}"
    progress(what)
    said = ""

    def on_text(text: str) -> None:
        nonlocal said
        said += text
        progress(f"{what}: {' '.join(said.split())[-40:]}")

    return asking.ask(ask, turn, on_text)


def _provider_is_set() -> bool:
    return any(os.environ.get(name, "").strip() for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"))


def _base_url() -> str:
    """The SDK would take an empty variable for a URL."""
    return os.environ.get("OPENAI_BASE_URL", "").strip() or _OPENAI


def _placeholder_key(fake: FakeProvider | None) -> str | None:
    """The SDK insists on some key; servers of one's own need none."""
    if fake is not None or not os.environ.get("OPENAI_API_KEY", "").strip():
        return "none"
    return None


def _problems(plan: Plan, asked: list[Answered], different: set[int], calls: int) -> tuple[str, ...]:
    titles = {ask.name: f"{ask.title} by {ask.door}" for ask in ASKS}
    unstored = {one.ask: one.not_stored for one in asked if one.turn == "first"}
    found: list[str] = []
    for place, one in enumerate(asked):
        what = f"{titles[one.ask]}, {one.turn}"
        if one.turn != "first" and one.provider_calls:
            why = unstored[one.ask] or one.reason
            if one.turn == "new process" and all(url.startswith("memory:") for url in plan.stores):
                why = "memory:// ends with its process; name a store that lasts"
            found.append(f"{what}: asked the provider again ({why})")
        elif place in different:
            found.append(f"{what}: the answer differs from the first one")
    noted = sum(one.provider_calls for one in asked)
    if calls != noted:
        found.append(f"the provider counted {calls} calls where askonce noted {noted}")
    return tuple(found)
