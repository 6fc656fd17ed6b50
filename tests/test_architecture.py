"""The structure holds: imports run one way, the core stays light, the public surface is what it says."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import askonce
import askonce.doors
import askonce.events
import askonce.prefix
import askonce.report
import askonce.semantic
import askonce.stores
import askonce.telemetry
import askonce.testing
import askonce.tools
import askonce_httpx
import askonce_langchain
import askonce_openai

CORE = Path(askonce.__file__).parent
DOORS = Path(askonce_openai.__file__).parent.parent
THIRD_PARTY = (
    "openai",
    "httpx",
    "httpx2",
    "langchain_core",
    "redis",
    "boto3",
    "diskcache",
    "redisvl",
    "numpy",
    "usearch",
    "sentence_transformers",
    "wrapt",
    "pydantic",
    "opentelemetry",
)


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", files(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_knows_no_door(path):
    assert not {name for name in imports_of(path) if name.split(".")[0].startswith("askonce_")}


@pytest.mark.parametrize("path", files(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_third_party_packages_are_imported_only_where_their_subject_is(path):
    homes = {
        "diskcache": {"stores/diskcache.py"},
        "redis": {"stores/_redis_async.py", "stores/_redis_sync.py"},
        "numpy": {
            "semantic/_vector.py",
            "semantic/_partition.py",
            "semantic/_rows.py",
            "semantic/_graph.py",
            "semantic/_tune.py",
            "testing/_index_contract.py",
        },
        "opentelemetry": {
            "telemetry/_board.py",
            "telemetry/_instrument.py",
            "telemetry/_spans.py",
        },
    }
    here = path.relative_to(CORE).as_posix()
    for name in imports_of(path):
        package = name.split(".")[0]
        if package in THIRD_PARTY:
            assert here in homes.get(package, ()), f"{here} imports {name}"


@pytest.mark.parametrize("door", ["askonce_openai", "askonce_httpx", "askonce_langchain"])
def test_doors_use_public_names_only(door):
    for path in files(DOORS / door):
        for name in imports_of(path):
            if name.split(".")[0] == "askonce":
                assert not any(part.startswith("_") for part in name.split(".")), (
                    f"{path.name} imports {name}"
                )
            elif name.startswith("askonce_"):
                assert name.split(".")[0] == door, f"{path.name} imports another door: {name}"


def test_no_folder_shadows_a_real_package():
    assert (
        not {"openai", "httpx", "httpx2", "langchain", "redis", "diskcache"}
        & {path.name for path in DOORS.iterdir() if path.is_dir()}
        or "site-packages" in DOORS.parts
    )


@pytest.mark.parametrize(
    "package",
    [
        askonce,
        askonce.doors,
        askonce.events,
        askonce.prefix,
        askonce.report,
        askonce.semantic,
        askonce.stores,
        askonce.telemetry,
        askonce.testing,
        askonce.tools,
        askonce_openai,
        askonce_httpx,
        askonce_langchain,
    ],
    ids=lambda package: package.__name__,
)
def test_all_is_what_is_visible(package):
    submodules = {module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))}
    # With "@" begins what pytest adds to the modules of a package that has a plugin.
    visible = {name for name in dir(package) if name[0] not in "_@"} - submodules - {"annotations"}
    helpers = {"dataclass", "TypeAlias", "Outcome"} if package is askonce.events else set()
    assert visible - helpers == set(package.__all__) - {"__version__"}
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    for package in (askonce, askonce.stores, askonce.testing):
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = package.no_such_name


def test_every_module_imports_on_its_own():
    for module in pkgutil.walk_packages(askonce.__path__, "askonce."):
        if not module.name.endswith("__main__") and "_contract" not in module.name:
            import_module(module.name)


def test_importing_askonce_loads_no_sdk():
    code = "import sys, json; from askonce import *; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment()
        ).stdout
    )
    assert not set(THIRD_PARTY) & set(loaded)
    assert "asyncio" not in loaded
    assert "sqlite3" not in loaded


def environment() -> dict[str, str]:
    import os

    # Children that measure coverage import half the library for themselves.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**bare, "PYTHONPATH": os.pathsep.join((str(CORE.parent), str(DOORS)))}
