"""Every line of Python in the README runs, in order, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from askonce.testing import FakeProvider

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A reader's machine: an empty cache folder, and a provider that the environment names."""
    import askonce_openai

    with FakeProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "a key")
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
            monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.delenv("ASKONCE_STORE", raising=False)
        yield provider
    for _ in range(5):
        askonce_openai.disable_cache()


def test_the_readme_runs_from_top_to_bottom(reader, capsys):
    assert len(BLOCKS) >= 4
    said: dict[str, object] = {}
    exec(compile(BLOCKS[0], "README, first block", "exec"), said)
    assert reader.calls == 1, "the second ask was to come from the cache"
    for number, block in enumerate(BLOCKS[1:], 2):
        exec(compile(block, f"README, block {number}", "exec"), said)
    outcome = said["outcomes"][0]
    assert (outcome.status, outcome.tier) == ("hit", "memory")
    assert "hit memory" in capsys.readouterr().out
    assert said["cache"].stats().misses >= 1
    said["client"].close()
    said["cache"].close()


def test_the_readmes_first_answer_is_there_in_the_next_process(reader, tmp_path):
    import os
    import subprocess
    import sys

    import askonce

    roots = (str(Path(askonce.__file__).parents[1]), *filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", BLOCKS[0]], env=environment, check=True)
    assert reader.calls == 1
