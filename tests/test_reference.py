"""The reference is built from docstrings: every public name is in it, and says something."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "notebooks" / "sources" / "reference.py"


def test_every_public_name_has_its_place_in_the_reference(tmp_path):
    pytest.importorskip("pdoc")
    done = subprocess.run(
        [sys.executable, str(SOURCE), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    modules = re.findall(r'"(askonce[\w.]*)"', SOURCE.read_text("utf-8").partition(")")[0])
    assert len(modules) > 10
    for name in modules:
        page = (tmp_path / f"{name.replace('.', '/')}.html").read_text("utf-8")
        for public in import_module(name).__all__:
            assert f'id="{public}"' in page, f"{name}.{public}"
    page = (tmp_path / "askonce.html").read_text("utf-8")
    assert "Arguments:" in page, "what the docstrings say of arguments is not laid out"
    assert "Answer one call of a sync door" in page
