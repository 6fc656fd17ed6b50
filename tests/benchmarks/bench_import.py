"""What importing costs, CPU milliseconds over bare Python: `python tests/benchmarks/bench_import.py`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7


def _cpu_ms(code: str) -> float:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("caching", "integrations")),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def run() -> dict[str, float]:
    """Milliseconds by name, the best of several runs each, taken in turn."""
    names = {
        "python": "pass",
        "askonce": "import askonce",
        "askonce_openai": "import askonce_openai",
        "openai": "import openai",
    }
    best = dict.fromkeys(names, float("inf"))
    for _ in range(ROUNDS):
        for name, code in names.items():
            best[name] = min(best[name], _cpu_ms(code))
    bare = best.pop("python")
    figures = {f"import {name}": cost - bare for name, cost in best.items()}
    figures["askonce / openai"] = figures["import askonce"] / figures["import openai"]
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:24} {figure:10.2f}")
