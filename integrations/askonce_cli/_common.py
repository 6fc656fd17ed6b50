"""What the commands share: the options of a store, and opening the cache that they name."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from askonce import Cache
from askonce.tools import folder_of, store_urls
from askonce_cli._console import one_line_for_errors
from askonce_cli._errors import misuse

StoreOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where the answers are; several times: front tier first. "
        "Default: $ASKONCE_STORE, else your user cache folder.",
    ),
]
NamespaceOption: TypeAlias = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="The cache's namespace.")
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else.")
]

_DIGEST: Final = 64
_LEAST: Final = 4
# A network that an operator looks through is given more time than a call would.
_PATIENCE: Final = 10.0


@contextmanager
def opened(
    stores: Sequence[str] | None, namespace: str, *, as_json: bool, makes: bool = False
) -> Generator[Cache]:
    """The cache that the options name, its stores reached; errors inside are one line.

    Args:
        stores: of `--store`.
        namespace: of `--namespace`.
        as_json: errors are told on stdout as well.
        makes: the command may make a store that is not there; others say that there is none.
    """
    with one_line_for_errors(as_json=as_json), cache_of(stores, namespace, makes=makes) as cache:
        for health in cache.ping():
            if not health.ok:
                raise misuse(f"the store cannot be used: {health.kind}: {'; '.join(health.warnings)}")
        yield cache


def cache_of(stores: Sequence[str] | None, namespace: str, *, makes: bool) -> Cache:
    """The cache that the options name. Its secret, if it has one, is `$ASKONCE_SECRET`.

    Raises:
        ConfigurationError: a URL or the namespace cannot be.
        CommandError: only a process's own memory is named, or a folder that is not there.
    """
    # The memory of the program that fills it is not to be seen from here; that of this process is empty.
    urls = [url for url in store_urls(stores) if not url.lower().startswith("memory:")]
    if not urls:
        raise misuse(
            "memory:// is the memory of one process, and cannot be looked into from another; "
            "name a store that lasts with --store or $ASKONCE_STORE"
        )
    cache = Cache(
        urls, namespace=namespace, secret=os.environ.get("ASKONCE_SECRET") or None, store_timeout=_PATIENCE
    )
    if not makes:
        for url in urls:
            folder = folder_of(url)
            if folder is not None and not Path(folder).is_dir():
                raise misuse(f"there is no cache in {folder}; name another with --store or $ASKONCE_STORE")
    return cache


def whole_key(cache: Cache, text: str) -> str:
    """The one key that begins with what was typed, with or without its namespace.

    Raises:
        CommandError: there is none, or more than one.
    """
    namespace, found, digest = text.rpartition(":")
    if found and namespace != cache.namespace:
        raise misuse(f"the key is of the namespace {namespace!r}: give --namespace {namespace}")
    if len(digest) < _LEAST:
        raise misuse(f"the key {text!r} is too short; allowed: at least its first {_LEAST} digits")
    key = f"{cache.namespace}:{digest}"
    if len(digest) == _DIGEST:
        return key
    known = cache.keys()
    matching = [one for one in known if one.startswith(key)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise misuse(f"{len(matching)} keys begin with {text!r}; give more of its digits")
    raise missing(cache, text)


def missing(cache: Cache, text: str) -> Exception:
    """The error for a key that is not there."""
    return misuse(
        f"no entry has the key {text!r} in the namespace {cache.namespace!r}; `askonce ls` shows the entries"
    )
