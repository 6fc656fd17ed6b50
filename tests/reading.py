"""What is written for readers runs as they would type it: the Python in Markdown, on a reader's machine."""

from __future__ import annotations

import re

import pytest

from askonce.testing import FakeProvider


def blocks(page):
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run(page, said, *, first=1):
    """Execute the blocks of a page from the `first` on, each with what those before it have said."""
    for number, block in enumerate(blocks(page)[first - 1 :], first):
        exec(compile(block, f"{page.stem}, block {number}", "exec"), said)


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
        monkeypatch.chdir(tmp_path)
        yield provider
    for _ in range(5):
        askonce_openai.disable_cache()
