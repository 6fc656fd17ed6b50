"""Notebooks and guides run without a key, and show what they showed when they were written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reading import blocks, reader, run

import askonce
import askonce_openai

__all__ = ["reader"]

FOLDER = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted((FOLDER / "sources").glob("[0-9]*.py"))
GUIDES = sorted(FOLDER.glob("*.md"))


def sources_of(notebook):
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def shown(notebook):
    """All that a notebook shows, but for its pictures."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            yield "".join(output.get("text", ""))
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "".join(data)


def test_the_notebooks_and_guides_are_there():
    assert [path.stem for path in SOURCES] == [
        "01_quickstart", "02_doors_and_stores", "03_semantic", "04_savings", "05_record_replay",
    ]  # fmt: skip
    assert {path.stem for path in GUIDES} == {
        "migrating", "sharing_safely", "what_is_never_cached", "which_door",
    }  # fmt: skip


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_source_and_is_committed_as_it_runs(source, tmp_path):
    roots = [Path(module.__file__).parents[1] for module in (askonce, askonce_openai)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "ASKONCE_", "COVERAGE_"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(map(str, roots))
    for name in ("HOME", "XDG_CACHE_HOME"):
        environment[name] = str(tmp_path)
    render = FOLDER / "sources" / "render.py"
    done = subprocess.run(
        [sys.executable, str(render), str(tmp_path), source.stem],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    now = json.loads((tmp_path / f"{source.stem}.ipynb").read_text("utf-8"))
    committed = json.loads((FOLDER / f"{source.stem}.ipynb").read_text("utf-8"))
    assert sources_of(committed) == sources_of(now), "run `make notebooks`"
    for notebook in (now, committed):
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
        kinds = [output["output_type"] for output in outputs]
        assert "error" not in kinds
        assert [output for output in outputs if output.get("name") == "stderr"] == []
        assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_shows_no_path_address_or_credential(source):
    text = "\n".join(shown(json.loads((FOLDER / f"{source.stem}.ipynb").read_text("utf-8"))))
    assert len(text) > 100
    assert re.findall(r"(?:^|[\s'\"(=:])/(?:\w+/)+|[A-Z]:\\|127\.0\.0\.1|localhost|sk-\w+|Bearer", text) == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_python_of_a_guide_runs(guide, reader):
    assert blocks(guide)
    said: dict[str, object] = {}
    try:
        run(guide, said)
    finally:
        for thing in said.values():
            if isinstance(thing, askonce.Cache):
                thing.close()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_links_of_a_guide_lead_somewhere(guide):
    for link in re.findall(r"\]\(([^)#]+)\)", guide.read_text("utf-8")):
        assert (FOLDER / link).exists(), link
