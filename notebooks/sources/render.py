"""Executes the notebooks' sources and writes them, with what they show: `make notebooks`.

A source is Python. `# %%` begins a cell, `# %% [markdown]` one of text, whose lines are comments.

    python notebooks/sources/render.py [TARGET_FOLDER [NAME...]]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent


def cells(source: str) -> list[nbformat.NotebookNode]:
    """The cells of a source."""
    found = []
    for number, part in enumerate(re.split(r"^# %%", source, flags=re.MULTILINE)[1:], 1):
        head, _, text = part.partition("\n")
        text = text.strip()
        if "[markdown]" in head:
            cell = new_markdown_cell(re.sub(r"^# ?", "", text, flags=re.MULTILINE))
        else:
            cell = new_code_cell(text)
        cell["id"] = f"cell-{number}"
        found.append(cell)
    return found


def render(source: Path, target: Path) -> None:
    """Execute a source and write the notebook."""
    notebook = new_notebook(cells=cells(source.read_text("utf-8")))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.clear()
    nbformat.validate(notebook)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent
    for path in sorted(HERE.glob("[0-9]*.py")):
        if not sys.argv[2:] or path.stem in sys.argv[2:]:
            render(path, folder / f"{path.stem}.ipynb")
