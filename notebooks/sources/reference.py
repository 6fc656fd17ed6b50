"""Builds the reference from the docstrings of all public names: `make docs`.

python notebooks/sources/reference.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path

import pdoc
import pdoc.render

MODULES = (
    "askonce", "askonce.doors", "askonce.endpoints", "askonce.events", "askonce.prefix", "askonce.report",
    "askonce.semantic", "askonce.stores", "askonce.telemetry", "askonce.testing", "askonce_openai",
    "askonce_httpx", "askonce_langchain",
)  # fmt: skip


def _whole(kind: type) -> None:
    """Show what a class has from private parts of this package as its own: nobody can look there."""
    for part in kind.__mro__[1:]:
        if part.__module__.startswith("askonce._"):
            for name, member in vars(part).items():
                if not name.startswith("_") and name not in vars(kind):
                    setattr(kind, name, member)


def build(folder: Path) -> None:
    """Write the pages; what pdoc does not find is an error."""
    for name in MODULES:
        module = import_module(name)
        for public in module.__all__:  # some are loaded when they are first asked for; pdoc does not ask
            thing = getattr(module, public)
            setattr(module, public, thing)
            if isinstance(thing, type):
                _whole(thing)
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Names that only type checkers import; they are shown as they are written.
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    build(target)
    sys.stdout.write(f"{target / 'index.html'}\n")
