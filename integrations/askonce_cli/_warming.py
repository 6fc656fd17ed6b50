"""Asking a list of requests through the OpenAI client with the cache beneath it, several at once."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import openai

from askonce import Cache, Outcome, track
from askonce_cli._errors import CommandError, misuse
from askonce_cli._requests import Wanted
from askonce_cli._troubles import is_providers, told
from askonce_openai import disable_cache, enable_cache

_MOST_TOLD: Final = 20
_OK: Final = 200


@dataclass(slots=True, kw_only=True)
class Warmed:
    """What came of a list.

    Attributes:
        lines: requests read, bad ones included.
        stored: asked, and the answer is stored now.
        present: answered from the cache: nothing was asked.
        not_stored: asked, and the answer must not be stored; by reason.
        failed: what did not work, by line; the first twenty.
        failures: how many did not.
        usage: the provider's figures of what was asked.
    """

    lines: int = 0
    stored: int = 0
    present: int = 0
    failures: int = 0
    not_stored: dict[str, int] = field(default_factory=dict[str, int])
    failed: list[str] = field(default_factory=list[str])
    usage: dict[str, int] = field(default_factory=dict[str, int])

    def fail(self, text: str) -> None:
        """Note a failure."""
        self.failures += 1
        if len(self.failed) < _MOST_TOLD:
            self.failed.append(text)

    def note(self, outcome: Outcome) -> None:
        """Note a call that has its answer."""
        if outcome.served:
            self.present += 1
            return
        if outcome.stored:
            self.stored += 1
        else:
            why = outcome.not_stored or outcome.reason
            self.not_stored[why] = self.not_stored.get(why, 0) + 1


def warm(
    cache: Cache,
    requests: Iterator[Wanted | CommandError],
    *,
    base: str,
    at_once: int,
    progress: Callable[[int], None],
) -> Warmed:
    """Ask every request, at most `at_once` at the same time.

    The list is read as it is asked: it may be longer than memory. An answer that is stored is not asked
    for again, so a list that broke off is simply begun again.

    Raises:
        CommandError: no client can be made.
    """
    try:
        # The client of a program's own: key, organisation and project come from the environment, and the
        # SDK waits and retries when the provider throttles.
        client = openai.OpenAI(base_url=base, max_retries=5)
    except openai.OpenAIError as error:
        raise misuse("OPENAI_API_KEY is not set; a provider of your own may take any text as key") from error
    found = Warmed()
    lock = threading.Lock()

    def ask(wanted: Wanted) -> None:
        trouble, outcome = _ask(client, wanted, base)
        with lock:
            if outcome is None:
                found.fail(f"line {wanted.line}: {trouble}")
            else:
                found.note(outcome)
            progress(wanted.line)

    enable_cache(cache, client=client)
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="askonce-warm")
    try:
        running: set[Future[None]] = set()
        for wanted in requests:
            found.lines += 1
            if isinstance(wanted, CommandError):
                with lock:
                    found.fail(str(wanted))
                continue
            # What using(...) says here holds in the pool's threads only when it is carried there.
            running.add(pool.submit(contextvars.copy_context().run, ask, wanted))
            if len(running) >= at_once * 2:
                running = _reaped(running)
        while running:
            running = _reaped(running)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        disable_cache(client=client)
        client.close()
    found.usage = cache.stats().usage_spent
    return found


def _reaped(running: set[Future[None]]) -> set[Future[None]]:
    done, left = wait(running, return_when=FIRST_COMPLETED)
    for one in done:
        one.result()
    return left


def _ask(client: openai.OpenAI, wanted: Wanted, base: str) -> tuple[str, Outcome | None]:
    """Ask once: what went wrong, or the outcome."""
    if wanted.method != "POST":
        return f"method {wanted.method}: only POST is cached", None
    place, home = urlsplit(wanted.url), urlsplit(base)
    host = place.hostname or "no host at all"
    if (place.scheme, place.netloc) != (home.scheme, home.netloc):
        # The client would send this provider's key there.
        return f"{host} is not the provider; ask another provider's requests with its --base-url", None
    body: Any = wanted.body
    if not isinstance(body, dict):
        return '"body" is not a JSON object', None
    fields = cast("dict[str, Any]", body)
    if wanted.url.endswith("/embeddings") and "encoding_format" not in fields:
        fields = {**fields, "encoding_format": "base64"}  # what the SDK's own embeddings.create() asks for
    try:
        with track() as outcomes:
            client.post(
                wanted.url, body=fields, cast_to=object, options={"headers": wanted.headers}, stream=False
            )
    except Exception as error:
        if is_providers(error):
            return str(told(error, host)), None
        raise
    if not outcomes or outcomes[-1].status == "error":
        return "it got no answer", None
    return "", outcomes[-1]
