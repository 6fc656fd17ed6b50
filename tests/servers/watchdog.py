"""Ends the servers, and removes their folders, when the test run is gone, however it went."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class _Watchdog:
    """A process of its own that reads a pipe: the pipe's end is the run's end.

    The kernel's parent-death signal would end servers with the thread that started them, and exists on
    Linux only.
    """

    _CODE = """if True:
        import os, shutil, sys
        folders = {}
        for line in sys.stdin:
            pid, _, folder = line[1:].rstrip("\\n").partition(" ")
            if line[0] == "+":
                folders[int(pid)] = folder
            else:
                folders.pop(int(pid), None)
        for pid, folder in folders.items():
            try:
                os.kill(pid, int(sys.argv[1]))
            except OSError:
                pass
            shutil.rmtree(folder, ignore_errors=True)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def add(self, pid: int, folder: Path) -> None:
        self._tell(f"+{pid} {folder}\n")

    def remove(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", self._CODE, str(int(_SIGKILL))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                atexit.register(self._close)
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def _close(self) -> None:
        # A forked child has a copy of this object; the servers are its parent's.
        if self._process is not None and os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A forked child that lives on keeps the pipe open, and the watchdog with it.
                self._process.wait(2)


_watchdog = _Watchdog()
add, remove = _watchdog.add, _watchdog.remove
