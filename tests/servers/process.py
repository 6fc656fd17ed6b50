"""A server process: started, paused, killed, and started again on the same port."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from servers import watchdog

LOOPBACK = "127.0.0.1"
PORTS = range(11_000, 22_000)
"""Below the ports that systems give to outgoing connections, else a restart may find its port taken; the
bus of a cluster (port + 10000) is below them as well."""
BUS = 10_000


def free_port() -> int:
    """A port nobody listens on, nor on its bus port; never the same twice in one run."""
    while True:
        port = random.choice(PORTS)
        if port not in _GIVEN and all(_free(each) for each in (port, port + BUS)):
            _GIVEN.add(port)
            return port


_GIVEN: set[int] = set()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Server(ABC):
    """A server on loopback. `start` returns when it answers; `stop` leaves nothing behind."""

    host = LOOPBACK

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="askonce-"))
        self.port = free_port()
        self.paused = False
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the process that was started (not another one on its port) serves requests."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process; while none runs, the one that ran last."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs. A paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    def log(self) -> str:
        """What the process printed, of all its starts."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self, *, timeout: float = 20.0) -> None:
        """Start, and wait for the first answer."""
        if self.alive:
            return
        # A tool for coverage would measure servers that are Python programs, and slow them.
        env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        with (self.folder / "log").open("ab") as log:
            # A session of its own: Ctrl-C ends the tests first, and they end their servers.
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.paused = False
        watchdog.add(self.pid, self.folder)
        try:
            wait_until(self._settled, f"an answer of {self!r}", timeout=timeout)
        except Exception as failure:
            self.kill()
            failure.add_note(self.log()[-2000:])
            raise

    def pause(self) -> None:
        """Stop the process where it is: connections stay open and nothing answers."""
        if self.paused:
            return
        self._signal("SIGSTOP")
        wait_until(self._stopped, f"{self!r} to stop")
        self.paused = True

    def resume(self) -> None:
        """Go on after a pause."""
        self._signal("SIGCONT")
        self.paused = False

    def kill(self) -> None:
        """End the process without a warning, paused or not."""
        if self._process is None:
            return
        if self.alive:
            self._process.kill()
        self._process.wait(10)
        self.paused = False
        watchdog.remove(self.pid)

    def restart(self) -> None:
        """Kill and start again, on the same port and in the same folder."""
        self.kill()
        self.start()

    def heal(self) -> None:
        """Run again and answer, whatever a test did."""
        if self.paused:
            self.resume()
        self.start()

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, name: str) -> None:
        if not hasattr(signal, name):
            pytest.skip(f"{sys.platform} has no {name}")
        self.process.send_signal(getattr(signal, name))

    def _settled(self) -> bool:
        if not self.alive:
            raise RuntimeError(f"{self!r} ended with {self.process.returncode}")
        return self.answers()

    def _stopped(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
        return bool(pid) and os.WIFSTOPPED(status)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.host}:{self.port}>"


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Start these servers; stop them all at the end, also when one does not start."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


def wait_until(
    condition: Callable[[], Any], what: str, *, timeout: float = 10.0, every: float = 0.02
) -> None:
    """Return when the condition holds; raise TimeoutError naming `what` when it does not in time."""
    end = monotonic() + timeout
    while not condition():
        if monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what}")
        sleep(every)
