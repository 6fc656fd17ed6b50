"""askonce beside its peers, all in one run: `make bench-peers`, or `run.py [--json] [--rounds N]`.

Each cache sits in an environment and a process of its own; they take turns, round by round, over the same
requests to the same provider on loopback. Written to PEERS.md with two plots, ratios first. Environments are
kept, so that a second run starts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("caching", "integrations", "tests")]

from contestants import ALL
from rich.console import Console
from rich.progress import Progress
from servers.redis import redis_server

from askonce.testing import FakeProvider

SPECS = {
    "askonce": ["-e .[openai,redis]"],
    "litellm": ["litellm[proxy]", "redis"],
    "langchain": ["langchain-openai", "langchain-community", "-e .[langchain,redis]"],
    "dspy": ["dspy"],
    "the store alone": ["diskcache", "cachetools", "redis"],
}
CASES: dict[str, dict[str, Any]] = {
    "chat, 1 KB": {"case": "chat", "store": "memory", "calls": 30},
    "chat, 1 KB, asyncio": {"case": "chat", "store": "memory", "calls": 30, "async": True},
    "chat, 30 KB": {"case": "30 KB", "store": "memory", "calls": 20},
    "chat, 40 messages and 10 tools": {"case": "40 turns", "store": "memory", "calls": 10},
    "stream of 40 chunks": {"case": "stream", "store": "memory", "calls": 4},
    "64 embeddings of 1536": {"case": "embeddings", "store": "memory", "calls": 2},
    "chat, 1 KB, disk": {"case": "chat", "store": "disk", "calls": 20},
    "chat, 1 KB, Redis": {"case": "chat", "store": "redis", "calls": 20},
}
RATES: dict[str, dict[str, Any]] = {
    "1,000 tasks": {"case": "chat", "store": "memory", "async": True, "tasks": 1000},
    "16 threads": {"case": "chat", "store": "memory", "threads": 16, "calls": 30},
}
NOT_MEASURED = (
    "GPTCache does not work with openai 1.0 and later; hishel takes no POST again. Neither is measured."
)


class Peer:
    """A contestant's process."""

    def __init__(self, name: str, url: str, redis: str, folder: Path) -> None:
        python = ROOT / _environment(name) / "bin" / "python"
        folder.mkdir()
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [str(python), str(HERE / "contestants.py"), name, url, redis, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **quiet},
        )

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have an order carried out; a process that has ended cannot."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        found: dict[str, Any] = json.loads(line) if line else {"why_not": "its process ended"}
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _environment(name: str) -> str:
    return f".venv-peer-{name.split(',', maxsplit=1)[0].replace(' ', '-')}"


def installed(console: Console) -> list[str]:
    """The contestants that could be installed, each in its environment."""
    ready: list[str] = []
    for name, specs in SPECS.items():
        with console.status(f"installing {name}"):
            made = subprocess.run(
                [".ci/setup", _environment(name), *specs], cwd=ROOT, capture_output=True, check=False
            )
        if made.returncode == 0:
            ready.append(name)
        else:
            console.print(f"{name} does not install here and is left out")
    return [name for name in ALL if name.split(",")[0] in ready]


def measured(names: list[str], rounds: int, console: Console) -> dict[str, Any]:
    """Medians by case and contestant, and why one is missing."""
    found: dict[str, dict[str, list[float]]] = {
        case: {name: [] for name in names} for case in (*CASES, *RATES)
    }
    why_not: dict[str, dict[str, str]] = {case: {} for case in found}
    with ExitStack() as stack:
        provider = stack.enter_context(FakeProvider())
        provider.reply(" ".join(["word"] * 38))
        redis = stack.enter_context(redis_server("valkey"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = {
            name: stack.enter_context(Peer(name, provider.base_url, redis.url, folder / str(number)))
            for number, name in enumerate(names)
        }
        versions = {name: peer.do({"case": "version"}).get("version", "") for name, peer in peers.items()}
        with Progress(console=console) as progress:
            task = progress.add_task("measuring", total=len(found) * (rounds + 1))
            for case, order in {**CASES, **RATES}.items():
                for round_ in range(rounds + 1):
                    for name, peer in peers.items():
                        if name in why_not[case]:
                            continue
                        before = provider.calls
                        said = peer.do(order)
                        if "why_not" in said:
                            why_not[case][name] = said["why_not"]
                        elif round_ and provider.calls > before:  # the first round is for getting ready
                            why_not[case][name] = "asks the provider again"
                        elif round_:
                            found[case][name].append(said.get("us", said.get("per_second")))
                    progress.advance(task)
    medians = {
        case: {
            name: statistics.median(figures)
            for name, figures in rows.items()
            if figures and name not in why_not[case]
        }
        for case, rows in found.items()
    }
    return {"versions": versions, "medians": medians, "why_not": why_not}


def page(results: dict[str, Any]) -> str:
    """PEERS.md."""
    names = list(results["versions"])
    medians, why_not = results["medians"], results["why_not"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    python = f"Python {platform.python_version()}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {python}"
    lines = [
        "# Beside its peers",
        "",
        f"{machine}; {packages}.",
        "Written by `make bench-peers`. Each in an environment and a process of its own, in turns, in one",
        f"run; medians of wall time. {NOT_MEASURED}",
        "",
        "![how many times as long a hit takes](peers_hits.png)",
        "",
        "## How many times as long as askonce a hit takes",
        "",
    ]
    lines += _table(names, {case: medians[case] for case in CASES}, why_not, _ratio)
    lines += ["", "## Microseconds a hit", ""]
    lines += _table(names, {case: medians[case] for case in CASES}, why_not, lambda one, _: f"{one:,.1f}")
    lines += ["", "![hits per second](peers_rates.png)", "", "## Hits per second, in memory", ""]
    lines += _table(names, {case: medians[case] for case in RATES}, why_not, lambda one, _: f"{one:,.0f}")
    return "\n".join(lines) + "\n"


def _ratio(one: float, ours: float | None) -> str:
    return "" if ours is None else f"{one / ours:,.2f}"


def _table(
    names: list[str], rows: dict[str, dict[str, float]], why_not: dict[str, dict[str, str]], show: Any
) -> list[str]:
    lines = ["| case | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for case, figures in rows.items():
        ours = figures.get("askonce")
        cells = [
            show(figures[name], ours) if name in figures else why_not[case].get(name, "") for name in names
        ]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return lines


def plots(results: dict[str, Any]) -> None:
    """Two pictures beside the page."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = list(results["versions"])
    for file, cases, label, logarithmic in (
        ("peers_hits.png", list(CASES), "microseconds a hit (log)", True),
        ("peers_rates.png", list(RATES), "hits per second (log)", True),
    ):
        figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            heights = [results["medians"][case].get(name, 0.0) for case in cases]
            places = [place + number * width for place in range(len(cases))]
            axes.bar(places, heights, width, label=name)
        axes.set_xticks(
            [place + 0.4 - width / 2 for place in range(len(cases))], cases, rotation=20, ha="right"
        )
        if logarithmic:
            axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        figure.savefig(HERE.parent / file, dpi=110)
        plt.close(figure)


def main() -> int:
    """Install, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and write no page")
    parser.add_argument("--rounds", type=int, default=9, help="how often each takes its turn (default: 9)")
    options = parser.parse_args()
    console = Console(stderr=True)
    results = measured(installed(console), options.rounds, console)
    if options.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
        return 0
    (HERE.parent / "PEERS.md").write_text(page(results), "utf-8")
    plots(results)
    console.print(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
