"""`askonce doctor`: is everything in order?"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from askonce import Cache, __version__
from askonce.stores import Health
from askonce.tools import store_urls
from askonce_cli._common import JsonOption, NamespaceOption, StoreOption, cache_of
from askonce_cli._console import one_line_for_errors, write_json
from askonce_cli._words import plain

HELP: Final = (
    "Check the store (reachable, what server, memory policy, clock) and what is installed: extras, and the "
    "SDKs with the doors that serve them.\n\n"
    "Exit status 1: a store cannot be used. Warnings leave it 0."
)
EXAMPLES: Final = (
    ("askonce doctor", "your user cache folder, or $ASKONCE_STORE"),
    ("askonce doctor --store rediss://user@cache:6380/0 --json", "for a program"),
)


class _Sdk(NamedTuple):
    """A package, the door that serves it, the least version, and an endpoint that it calls."""

    package: str
    door: str
    least: tuple[int, ...]
    path: str


_CHAT: Final = "/v1/chat/completions"
_SDKS: Final = (
    _Sdk("openai", "askonce_openai.enable_cache()", (2, 31), _CHAT),
    _Sdk("langchain-openai", "askonce_openai.enable_cache()", (1,), _CHAT),
    _Sdk("openai-agents", "askonce_openai.enable_cache()", (0, 20), "/v1/responses"),
    _Sdk("pydantic-ai-slim", "askonce_openai.enable_cache(), for OpenAI's models", (2,), _CHAT),
    _Sdk("anthropic", "askonce_httpx.wrap_client()", (1,), "/v1/messages"),
    _Sdk("google-genai", "askonce_httpx.wrap_client()", (2,), "/v1beta/models/a:generateContent"),
    _Sdk("mistralai", "askonce_httpx.CacheTransport", (3,), _CHAT),
    _Sdk("groq", "askonce_httpx.wrap_client()", (1,), "/openai/v1/chat/completions"),
    _Sdk("together", "askonce_httpx.wrap_client()", (2,), _CHAT),
    _Sdk("cohere", "askonce_httpx.CacheTransport", (5,), "/v2/chat"),
    _Sdk("ollama", "askonce_httpx.CacheTransport", (0, 6), "/api/chat"),
    _Sdk("huggingface-hub", "askonce_httpx.CacheTransport", (2,), _CHAT),
)
_EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("openai", "wrapt"),
    "httpx": ("httpx",),
    "langchain": ("langchain-core",),
    "redis": ("redis",),
    "s3": ("boto3",),
    "diskcache": ("diskcache",),
    "secret": ("cryptography",),
    "prices": ("genai-prices",),
    "cli": ("typer", "rich"),
}


def run(
    *, store: StoreOption = None, namespace: NamespaceOption = "default", json_: JsonOption = False
) -> None:
    """See HELP."""
    # A store that is not there yet is what the first call would make: no reason to complain.
    with one_line_for_errors(as_json=json_), cache_of(store, namespace, makes=True) as cache:
        healths = cache.ping()
        sdks = [found for one in _SDKS if (found := _sdk(one, cache))]
    problems = [f"{one.kind}: {'; '.join(one.warnings)}" for one in healths if not one.ok]
    said: dict[str, Any] = {
        "ok": not problems,
        "problems": problems,
        "askonce": __version__,
        "python": platform.python_version(),
        "secret": bool(os.environ.get("ASKONCE_SECRET")),
        "memory_tier": any(url.lower().startswith("memory:") for url in store_urls(store)),
        "stores": [asdict(one) for one in healths],
        "extras": {extra: {one: _version(one) for one in packages} for extra, packages in _EXTRAS.items()},
        "sdks": sdks,
    }
    if json_:
        write_json(said)
    else:
        _show(said, healths, Console())
    if problems:
        for problem in problems:
            sys.stderr.write(f"askonce doctor: {plain(problem)}\n")
        raise typer.Exit(1)


def _sdk(one: _Sdk, cache: Cache) -> dict[str, Any] | None:
    """What is to say about an SDK that is installed; None when it is not."""
    found = _version(one.package)
    if found is None:
        return None
    note = ""
    if _numbers(found) < one.least:
        note = f"too old; {'.'.join(map(str, one.least))} or later is needed"
    elif not cache.considers("POST", one.path):
        note = f"passes uncached: the endpoint {one.path} needs a Rule with a ttl"
    return {"package": one.package, "version": found, "door": one.door, "works": not note, "note": note}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _show(said: dict[str, Any], healths: Sequence[Health], console: Console) -> None:
    console.print(Text(f"askonce {said['askonce']}, Python {said['python']}", "bold"))
    if said["memory_tier"]:
        console.print(Text("A memory tier stands in front; it lives in the programs themselves.", "dim"))
    for health in healths:
        _line(console, health.ok, f"{health.kind}, answered in {health.latency * 1000:.1f} ms")
        told = [f"{name} {value}" for name, value in health.detail.items() if value not in {None, ""}]
        if told:
            console.print(Text(f"    {plain(', '.join(told))}", "dim"), soft_wrap=True)
        for warning in health.warnings:
            console.print(Text(f"    ! {plain(warning)}", "yellow"), soft_wrap=True)
    console.print(Text("Extras", "bold"))
    extras: dict[str, dict[str, str | None]] = said["extras"]
    for extra, packages in extras.items():
        there = all(packages.values())
        text = ", ".join(f"{name} {found}" for name, found in packages.items() if found)
        text = f"{extra}: {text}" if there else f'{extra}: pip install "askonce[{extra}]"'
        _line(console, there, text, missing="-")
    console.print(Text("SDKs", "bold"))
    for one in said["sdks"]:
        note = f"  {one['note']}" if one["note"] else f"  {one['door']}"
        _line(console, one["works"], f"{one['package']} {one['version']}{note}", missing="!")
    if not said["sdks"]:
        console.print("  none of those that have a door is installed here")


def _line(console: Console, good: bool, text: str, *, missing: str = "x") -> None:
    mark = Text("ok", "green") if good else Text(missing.ljust(2), "yellow" if missing != "x" else "bold red")
    console.print(Text.assemble("  ", mark, " ", plain(text)), soft_wrap=True)
