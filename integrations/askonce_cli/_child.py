"""The new process of the demo: asks everything once more and writes down what came of it.

`python -m askonce_cli._child` reads a Plan from its standard input as JSON, and writes
`{"asked": [...]}` or `{"error": "..."}` to its standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any, Final

from askonce_cli._asks import ASKS, Answered, Plan, session
from askonce_cli._errors import CommandError

_MODULE: Final = "askonce_cli._child"


def ask_in_new_process(plan: Plan) -> list[Answered]:
    """Start the new process and wait for what it noted.

    Raises:
        CommandError: when it did not get its answers.
    """
    # It shall import what this process does, and nothing that happens to lie in the current folder.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", _MODULE],
        input=json.dumps(asdict(plan)),
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CommandError(f"the new process failed: {last}") from None
    sys.stderr.write(done.stderr)
    if "error" in said:
        raise CommandError(f"in the new process, {said['error']}")
    return [Answered(**one) for one in said["asked"]]


def _main() -> None:
    read: dict[str, Any] = json.load(sys.stdin)
    stores: tuple[str, ...] = tuple(read.pop("stores"))
    plan = Plan(stores=stores, **read)
    try:
        with session(plan) as asking:
            said: dict[str, Any] = {"asked": [asdict(asking.ask(ask, "new process")[0]) for ask in ASKS]}
    except CommandError as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    _main()
