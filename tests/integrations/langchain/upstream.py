"""langchain-core's own unit tests of caching, with LangChainCache in place of their cache: `upstream.py`.

Takes the sources of the installed langchain-core from the package index into a temporary folder (its wheel
comes without tests; those of langchain-openai have none of caching), and runs the two files that try models
over a cache. The third one tries what langchain-core's InMemoryCache promises beyond the protocol, such as
`maxsize`, and is no business of ours. Fails when one of their tests does that is not explained below.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FILES = ("chat_models/test_cache.py", "llms/test_cache.py")
DOWNLOAD = ("--no-deps", "--no-binary", ":all:")
QUIET = ("-q", "-rfE", "-p", "ours", "-o", "asyncio_mode=auto", "-W", "ignore")
# What cannot hold here, and why.
EXPLAINED: dict[str, str] = {
    "test_can_swap_caches": "its model holds an iterator, of which LangChain writes down the class alone: "
    "two such models look the same, so they are not cached here; and it copies their cache's dict",
}
PLUGIN = '''
import sys
sys.path[:0] = {roots!r}
from askonce import Cache
from askonce_langchain import LangChainCache
from askonce_langchain._generations import read


class InMemoryCache(LangChainCache):
    """Theirs, as far as their tests look into it."""

    def __init__(self):
        super().__init__(Cache("memory://"))

    @property
    def _cache(self):
        return {{key: read(entry.body) for key, entry in self.cache.entries()}}

    def __len__(self):
        return len(self._cache)


def pytest_collection_modifyitems(items):
    for item in items:
        if hasattr(item.module, "InMemoryCache"):
            item.module.InMemoryCache = InMemoryCache
'''


def main() -> int:
    """Fetch, run, compare."""
    with tempfile.TemporaryDirectory() as place:
        wanted = f"langchain-core=={version('langchain-core')}"
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", *DOWNLOAD, "-d", place, wanted],
            check=True,
        )  # fmt: skip
        with tarfile.open(next(Path(place).glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
        folder = next(Path(place).glob("*/tests/unit_tests/language_models"))
        # Only these files: their other set-up wants further packages.
        taken = Path(place) / "taken"
        for name in FILES:
            file = taken / "tests/unit_tests/language_models" / name
            file.parent.mkdir(parents=True)
            file.write_text((folder / name).read_text())
            for above in list(file.parents)[:4]:
                (above / "__init__.py").touch()
        roots = [str(ROOT / name) for name in ("caching", "integrations")]
        (taken / "ours.py").write_text(PLUGIN.format(roots=roots))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *QUIET, "tests"],
            cwd=taken,
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(taken), "PATH": ""},
        )  # fmt: skip
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))
    sys.stdout.write(f"{wanted}: {done.stdout.strip().splitlines()[-1]}\n")
    for test in sorted(failed):
        sys.stdout.write(f"  {test}: {EXPLAINED.get(test, 'NOT EXPLAINED')}\n")
    return int(bool(failed - EXPLAINED.keys()) or "passed" not in done.stdout)


if __name__ == "__main__":
    sys.exit(main())
