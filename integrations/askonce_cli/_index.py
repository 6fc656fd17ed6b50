"""The option that names a semantic layer's own index, for commands that move rows with the answers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import typer

from askonce_cli._errors import misuse

if TYPE_CHECKING:
    from askonce.semantic import RedisIndex

IndexOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="URL",
        help="The Redis of a RedisIndex, where that has the semantic layer's rows: redis://host, and what "
        "the program gives it: ?name=, algorithm=, max_rows_per_scope=. Without it rows are in the store.",
    ),
]

# As for stores: whoever operates has more patience than a call.
_PATIENCE: Final = 10.0
_OPTIONS: Final = ("name", "algorithm", "max_rows_per_scope")


@contextmanager
def index_of(url: str | None) -> Generator[RedisIndex | None]:
    """The index that `--index` names, closed at the end; None without the option.

    Raises:
        ConfigurationError: the URL or one of its options cannot be, or redisvl is missing.
        CommandError: a number is none.
    """
    if url is None:
        yield None
        return
    from askonce.semantic import RedisIndex  # noqa: PLC0415 - needs an extra

    parts = urlsplit(url)
    said = parse_qsl(parts.query)
    own = {name: value for name, value in said if name in _OPTIONS}
    rest = urlencode([(name, value) for name, value in said if name not in _OPTIONS])
    most = own.get("max_rows_per_scope")
    if most is not None and not most.isdecimal():
        raise misuse(f"max_rows_per_scope={most} in --index; allowed: a whole number of rows")
    index = RedisIndex(
        urlunsplit(parts._replace(query=rest)),
        name=own.get("name", "askonce-rows"),
        algorithm=own.get("algorithm", "hnsw"),
        max_rows_per_scope=None if most is None else int(most),
        timeout=_PATIENCE,
    )
    try:
        yield index
    finally:
        index.close()
