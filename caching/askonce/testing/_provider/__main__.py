"""`python -m askonce.testing._provider --port 8080`: the fake provider as a process of its own.

Prints the base URL as its first line and answers until interrupted or terminated. For demos and
benchmarks, where the provider must not share the interpreter of what is being measured.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading

from askonce.testing._provider.server import FakeProvider


def main() -> int:
    """Serve until SIGINT or SIGTERM; the process's exit status."""
    parser = argparse.ArgumentParser(prog="askonce-fake-provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free port")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--chunk-delay", type=float, default=0.0, help="seconds between events of a stream")
    options = parser.parse_args()

    # Termination takes the same way out as an interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        FakeProvider(
            delay=options.delay,
            chunk_delay=options.chunk_delay,
            host=options.host,
            port=options.port,
            keep_requests=0,
        ) as provider,
    ):
        sys.stdout.write(f"{provider.base_url}\n")
        sys.stdout.flush()
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
