"""httpx's own tests, and httpx2's, with our transport under every client: `upstream.py [httpx] [httpx2]`.

Takes their sources from the package index into a temporary folder, in an environment of their own, and runs
them as they are, with every client's transports wrapped in pass-through mode, and with the cache on. Fails
when a test fails with ours that does not fail without. The sources of httpx2 come without tests: it is tried
with those of httpx, its name put in.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NEEDS = (
    "pytest", "trio", "anyio", "uvicorn", "trustme", "chardet", "cryptography", "h2", "brotli", "zstandard",
    "socksio", "click", "rich", "pygments", "typing_extensions", "pytest-trio",
    # to unpack the sources:
    "pip", "hatchling", "hatch-fancy-pypi-readme", "hatch-vcs", "uv-dynamic-versioning",
)  # fmt: skip
# Asks whether the transport in use *is* the one it mounted; ours stands before it.
BY_IDENTITY = {"tests/client/test_proxies.py::test_proxy_with_mounts"}
PLUGIN = """
import importlib
package = importlib.import_module({name!r})
from askonce import Cache
from askonce_httpx import wrap_client

CACHE = Cache("memory://", mode={mode!r})
COUNT = [0]


def wrapped(kind):
    original = kind.__init__

    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        wrap_client(self, CACHE)
        COUNT[0] += 1

    kind.__init__ = __init__


def pytest_configure(config):
    for kind in (package.Client, package.AsyncClient):
        wrapped(kind)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"clients wrapped: {{COUNT[0]}}")
"""


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a command prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def tried(name: str, folder: Path, python: Path, *, mode: str | None) -> tuple[set[str], str]:
    """The failed tests, and the last lines."""
    plugin: list[str] = []
    if mode is not None:
        (folder / "ours.py").write_text(PLUGIN.format(name=name, mode=mode))
        plugin = ["-p", "ours"]
    quiet = ("-q", "-rfE", "-p", "no:cacheprovider", "-W", "ignore")
    said = run(str(python), "-m", "pytest", "tests", *quiet, *plugin, cwd=folder)
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE))
    return failed, "\n".join(said.strip().splitlines()[-2:])


def look(name: str) -> bool:
    """Compare; whether ours fails no more."""
    with tempfile.TemporaryDirectory() as place:
        environment = Path(place) / "venv"
        made = run(".ci/setup", str(environment), "-e .[httpx]", "httpx", name, *NEEDS)
        python = environment / "bin" / "python"
        number = run(str(python), "-c", f"import {name}; print({name}.__version__)").strip()
        source = run(str(python), "-c", "import httpx; print(httpx.__version__)").strip()
        download = ("download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-d", place)
        fetched = run(str(python), "-m", "pip", *download, f"httpx=={source}")
        archives = list(Path(place).glob("*.tar.gz"))
        if not archives:
            sys.stdout.write(f"{name} {number}: no sources to be had\n{made[-500:]}{fetched[-1500:]}\n")
            return False
        with tarfile.open(archives[0]) as archive:
            archive.extractall(place, filter="data")
        folder = next(path for path in Path(place).iterdir() if (path / "tests").is_dir())
        (folder / "httpx").rename(folder / "unpacked")  # the installed one is tested
        for file in (folder / "tests").rglob("*.py"):
            file.write_text(re.sub(r"\bhttpx\b", name, file.read_text()))
        bare, end = tried(name, folder, python, mode=None)
        sys.stdout.write(f"{name} {number} as it is:\n{end}\n")
        good = True
        for mode in ("off", "on"):
            ours, end = tried(name, folder, python, mode=mode)
            more = sorted(ours - bare - BY_IDENTITY)
            sys.stdout.write(f"{name} {number}, every client wrapped, mode {mode}:\n{end}\n")
            for test in more:
                sys.stdout.write(f"  fails with ours only: {test}\n")
            good = good and not more
        return good


if __name__ == "__main__":
    results = [look(name) for name in sys.argv[1:] or ("httpx", "httpx2")]
    sys.exit(0 if all(results) else 1)
