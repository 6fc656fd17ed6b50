"""Logging: one logger for each part, silent until a program wants it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import askonce
from askonce._events import logger, warn

ROOTS = [Path(askonce.__file__).parent]
PROGRAM = "from askonce._events import warn; {setup}warn('stores', 'MARKER %s', 'x')"


@pytest.mark.parametrize(
    ("setup", "heard"),
    [("", False), ("import logging; logging.basicConfig(); ", True)],
    ids=["no logging set up", "logging set up"],
)
def test_a_program_hears_of_warnings_only_when_it_has_set_up_logging(setup, heard):
    code = PROGRAM.format(setup=setup)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("MARKER" in said.stderr) is heard
    assert said.stdout == ""


def test_each_part_has_a_logger_of_its_own(caplog):
    warn("stores", "from stores %s", object())
    warn("flow", "from flow %s", object())
    names = [record.name for record in caplog.records]
    assert names == ["askonce.stores", "askonce.flow"]
    assert logger("stores").parent.name == "askonce"


def test_a_handler_of_the_programs_own_is_left_alone():
    import logging

    family = logging.getLogger("askonce")
    before, family.handlers = family.handlers, [mine := logging.StreamHandler()]
    try:
        logger("stores")
        assert family.handlers == [mine]
    finally:
        family.handlers = before


def test_nothing_logs_past_the_one_place_that_does_so_quietly():
    loggers = []
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in {"getLogger", "basicConfig"}:
                    loggers.append(path.relative_to(root).as_posix())
    assert set(loggers) == {"_events.py"}
