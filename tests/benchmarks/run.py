"""All benchmarks, or those named: `python tests/benchmarks/run.py [--json] [NAME...]`.

Prints each figure with the bound it is held against. When everything ran, writes RESULTS.md beside itself,
a figure that misses its bound included and marked.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / name) for name in ("caching", "integrations"))]

from rich.console import Console
from rich.progress import track
from rich.table import Table

BENCHES = {
    "import": "Import, CPU ms over bare Python",
    "hit": "A hit, CPU us",
    "fast": "Known calls by the short way, CPU us; in situ: wall us; ratios",
    "miss": "A miss, us: CPU where hot, wall in situ",
    "memory_store": "Memory store, CPU us a call; memory and hit ratios",
    "recorder": "Recorder, CPU us a chunk",
    "redis": "Redis on loopback, wall us; ratios",
    "semantic": "Semantic layer without its embedder, wall us; ratios",
    "s3": "S3 on loopback, wall ms; ratios",
    "httpx": "The httpx door, CPU us",
    "langchain": "LangChain's invoke(), CPU us; ratios",
    "embeddings": "Lists of embeddings, CPU ms; ratio",
}
# At most, or at least where the figure is a hit ratio; names are those that the benchmarks return.
BOUNDS = {
    "askonce / openai": 0.1,
    "key, 30 KB prompt": 40.0,
    "hit in memory, own share": 40.0,
    "hit on disk above memory": 150.0,
    "chat, 1 KB, short way": 45.0,
    "chat, 1 KB, short / whole": 1 / 15,
    "chat, 1 KB, asyncio, short way": 60.0,
    "chat, 1 KB, in situ, short way": 60.0,
    "chat, 1 KB, disk, short way": 150.0,
    "chat, 30 KB, short way": 100.0,
    "chat, 40 messages and 10 tools, short way": 80.0,
    "chat, 40 messages and 10 tools, short / whole": 1 / 80,
    "stream of 40 chunks, short way": 700.0,
    "miss with memory, own share, hot": 150.0,
    "chat, miss with memory adds, in situ": 150.0,
    "chat, miss with disk adds, in situ": 150.0,
    "memory over bytes stored, 100k entries": 1.3,
    "recorder, chat": 3.0,
    "layer adds to a miss, 1k rows": 150.0,
    "layer adds to a miss, 10k rows": 1_500.0,
    "layer adds to a miss, 100k rows": 3_000.0,
    "memory over the vectors, 1k rows": 1.2,
    "memory over the vectors, 10k rows": 1.2,
    "memory over the vectors, 100k rows": 1.2,
    "recorder, responses": 3.0,
    "store get above redis-py GET": 60.0,
    "store get above redis-py GET, asyncio": 120.0,
    "hit in Redis, own share above redis-py GET": 60.0,
    "hit in Redis, decoded anew, own share above redis-py GET": 60.0,
    "get_many(500) / MGET": 2.0,
    "get_many(500) / MGET, asyncio": 2.0,
    "tiered hit in memory above it": 5.0,
    "ms until another memory drops a key, p95": 100.0,
    "transport hit above it": 45.0,
    "untouched request above it": 5.0,
    "LangChainCache in memory / InMemoryCache": 1.3,
    "LangChainCache on disk / SQLiteCache": 1.0,
    "64 embeddings, all stored / the SDK alone": 2.0,
    "S3 get / raw get_object": 1.15,
    "S3 get / raw get_object, asyncio": 1.15,
}


def bound_of(name: str) -> float | None:
    """What a figure is held against, if anything."""
    if name in BOUNDS:
        return BOUNDS[name]
    return 3.0 if name.startswith(("get", "set")) else None


def verdict(name: str, figure: float) -> str:
    """ "" without a bound, else whether it holds."""
    bound = bound_of(name)
    return "" if bound is None else "yes" if figure <= bound else "NO"


def machine() -> str:
    """One line on what was measured where."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("openai", "orjson"))
    python = f"Python {platform.python_version()}"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {python}, {packages}"


def main() -> int:
    """Run, show, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHES)} (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHES.keys()
    if unknown:
        parser.error(f"not known: {', '.join(sorted(unknown))}; allowed: {', '.join(BENCHES)}")
    names = options.names or list(BENCHES)
    console = Console(stderr=options.json)
    results = {
        name: importlib.import_module(f"bench_{name}").run()
        for name in track(names, description="measuring", console=console)
    }
    if options.json:
        print(json.dumps({"machine": machine(), "results": results}, indent=2))
    else:
        show(console, results)
    if set(names) == set(BENCHES):
        (HERE / "RESULTS.md").write_text(report(results), "utf-8")
    return 0


def show(console: Console, results: dict[str, dict[str, float]]) -> None:
    """Tables for people."""
    console.print(machine())
    for name, figures in results.items():
        table = Table(title=BENCHES[name], title_justify="left")
        table.add_column("what")
        table.add_column("figure", justify="right")
        table.add_column("at most", justify="right")
        table.add_column("holds")
        for what, figure in figures.items():
            bound = bound_of(what)
            table.add_row(
                what, f"{figure:,.2f}", "" if bound is None else f"{bound:g}", verdict(what, figure)
            )
        console.print(table)


def report(results: dict[str, dict[str, float]]) -> str:
    """RESULTS.md."""
    lines = [
        "# Results",
        "",
        f"{machine()}. Written by `make bench`; medians unless said otherwise.",
        "",
        "The yardstick in the hit table is sha256 of 1 KB in the same run. The bounds were set on a machine",
        "where it takes 0.9 us; a figure divided by (yardstick / 0.9) is what to compare them with.",
        "",
    ]
    for name, figures in results.items():
        lines += [f"## {BENCHES[name]}", "", "| what | figure | at most | holds |", "|---|---:|---:|---|"]
        for what, figure in figures.items():
            bound = bound_of(what)
            most = "" if bound is None else f"{bound:g}"
            lines.append(f"| {what} | {figure:,.2f} | {most} | {verdict(what, figure)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
