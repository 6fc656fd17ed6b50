"""Which SDKs and frameworks work through the doors: `make matrix`, or `run.py [--json] [NAME...]`.

Each is installed into an environment of its own beside askonce, asked, and written to MATRIX.md, whatever
was seen. Environments are kept, so that a second run takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from frameworks import ALL, Framework
from rich.console import Console
from rich.progress import Progress

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KINDS = ("sync", "async", "stream")
AT_ONCE = 2


def seen(one: Framework) -> dict[str, Any]:
    """Install one, ask it, and give its row."""
    folder = f".venv-matrix-{one.name.replace(' ', '-').strip('()').replace('(', '')}"
    made = subprocess.run(
        [".ci/setup", folder, "-e .[openai,httpx]", "httpx2", *one.specs],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        return {
            "name": one.name,
            "version": "",
            "plug": one.plug,
            "seen": {},
            "why_not": "does not install here",
        }
    try:
        done = subprocess.run(
            [f"{folder}/bin/python", "-W", "ignore", str(HERE / "frameworks.py"), one.name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    except subprocess.TimeoutExpired:
        return {
            "name": one.name,
            "version": "",
            "plug": one.plug,
            "seen": {},
            "why_not": "did not end in 180 s",
        }
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"name": one.name, "version": "", "plug": one.plug, "seen": {}, "why_not": last[:160]}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def written(rows: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# What works through the doors",
        "",
        "Written by `make matrix`. Each SDK or framework, in an environment of its own, asks a provider on",
        "loopback the same twice. *yes*: one provider call, one hit, the second answer equal to the first.",
        "",
        "| SDK or framework | version | sync | async | stream | plugged in by |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["seen"].get(kind, row.get("why_not") or "has none") for kind in KINDS]
        if row.get("why_not"):
            cells = [row["why_not"], "", ""]
        plug = f"`{row['plug']}`" if row["plug"] and not row.get("why_not") else ""
        lines.append(f"| {row['name']} | {row['version']} | " + " | ".join(cells) + f" | {plug} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, show, write; 1 when something that can be plugged in does not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in ALL]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(ALL)}")
    chosen = [ALL[name] for name in options.names] or list(ALL.values())
    console = Console(stderr=True)
    with Progress(console=console) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        task = progress.add_task("matrix", total=len(chosen))

        def one(which: Framework) -> dict[str, Any]:
            row = seen(which)
            progress.advance(task)
            progress.console.print(f"{row['name']} {row['version']}: {row['seen'] or row.get('why_not')}")
            return row

        rows = list(pool.map(one, chosen))
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    if not options.names:
        (HERE.parent / "MATRIX.md").write_text(written(rows))
    return int(any(said != "yes" for row in rows for said in row["seen"].values()))


if __name__ == "__main__":
    sys.exit(main())
