"""What importing costs, CPU milliseconds over bare Python: `python tests/benchmarks/bench_import.py`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7


def _cpu_ms(code: str, bytecode: str) -> float:
    roots = (str(ROOT / name) for name in ("caching", "integrations"))
    # Everybody's bytecode is cached in the same fresh place, whatever this shell is set to.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def run() -> dict[str, float]:
    """Milliseconds by name, medians of runs taken in turn."""
    names = {
        "python": "pass",
        "askonce": "import askonce",
        "askonce, Cache and all": "from askonce import *",
        "askonce_openai": "import askonce_openai",
        "openai": "import openai",
    }
    costs: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as bytecode:
        for turn in range(ROUNDS + 1):
            for name, code in names.items():
                cost = _cpu_ms(code, bytecode)
                if turn:  # the first compiles
                    costs[name].append(cost)
    medians = {name: statistics.median(found) for name, found in costs.items()}
    bare = medians.pop("python")
    figures = {f"import {name}": cost - bare for name, cost in medians.items()}
    figures["askonce / openai"] = figures["import askonce"] / figures["import openai"]
    return figures


if __name__ == "__main__":
    for name, figure in run().items():
        print(f"{name:24} {figure:10.2f}")
