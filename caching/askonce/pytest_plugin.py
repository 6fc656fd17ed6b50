"""The pytest plugin: one file of recordings for each test.

    pytest --askonce=record     asks providers anew and writes the files of tests that pass
    pytest --askonce=replay     asks nobody: a missing recording fails its test
    pytest --askonce=auto       replays what is there, records what is missing

The option holds for all tests. Without it, tests marked `@pytest.mark.askonce` are served, in mode "auto"
or the one the mark names; `@pytest.mark.askonce("off")` leaves a test alone in any case. Fixtures of a
wider scope than a function are outside: they may open `askonce.replay` for themselves.

Nothing but pytest is imported until the first test is served.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from askonce._replay._block import Session
    from askonce._replay._recording import Recording

_MODES: Final = ("auto", "record", "replay")
_FOLDER: Final = "recordings"
_UNSAFE: Final = re.compile(r"[^\w.,=+\[\]-]+")
_LONGEST: Final = 120

_session: Final = pytest.StashKey["Session"]()
_passed: Final = pytest.StashKey[bool]()
_written: Final = pytest.StashKey[set[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--askonce` and `--askonce-dir`."""
    group = parser.getgroup("askonce", "recorded answers of language models")
    group.addoption(
        "--askonce",
        choices=_MODES,
        help="answer all tests' asks of language models from recordings: record them anew, replay them "
        "without asking anybody, or replay what is there and record what is missing (auto)",
    )
    group.addoption(
        "--askonce-dir",
        metavar="DIR",
        help=f"where recordings are kept; by default in a folder {_FOLDER!r} beside each test file",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, and have unused recordings told at the end."""
    config.addinivalue_line(
        "markers",
        'askonce(mode="auto", path=None): answer the test\'s asks of language models from a recording; '
        'modes: "auto", "record", "replay", "off"',
    )
    config.pluginmanager.register(_Summary(), "askonce-summary")


@pytest.fixture(autouse=True)
def askonce_recording(request: pytest.FixtureRequest) -> Generator[Recording | None]:
    """The recording of this test, an `askonce` Recording; None for a test that is not served."""
    item = request.node
    served = _served(item)
    if served is None:
        yield None
        return
    from askonce._replay._block import Session  # noqa: PLC0415 - only for tests that are served

    path, mode = served
    written = item.config.stash.setdefault(_written, set[Path]())
    if mode == "record" and path in written:
        mode = "auto"  # tests that share a file add to what the first of them has recorded in this run
    session = item.stash[_session] = Session(path, mode)
    item.stash[_passed] = False
    told = len(session.recording.misses)
    yield session.recording
    session.end(keep=item.stash[_passed])
    if item.stash[_passed]:
        written.add(path)
    if item.stash[_passed] and len(session.recording.misses) > told:  # in the teardown of other fixtures
        raise session.recording.failure()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that missed a recording, whatever became of the error."""
    __tracebackhide__ = True
    session = item.stash.get(_session, None)
    try:
        result = yield
    except BaseException as error:
        if session is not None and _hides_a_miss(session, error):
            raise session.recording.failure() from error
        raise
    if session is not None and _hides_a_miss(session, None):
        raise session.recording.failure()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of a test, and hand its figures to whoever writes the summary."""
    report = yield
    session = item.stash.get(_session, None)
    if session is None:
        return report
    if call.when == "call":
        item.stash[_passed] = report.passed
    elif call.when == "teardown":
        recording = session.recording
        del item.stash[_session]
        if item.stash[_passed]:
            # An attribute of plain values: it travels with the report from other processes, too.
            path = str(_shortest(recording.path, item))
            vars(report)["askonce"] = [[path, what, list(which)] for what, which in recording.troubles()]
    return report


class _Summary:
    """Tells, at the end, which recordings nobody used and which answers are missing from them."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str, list[str]]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for path, what, which in getattr(report, "askonce", ()):
            self._told.append((path, what, which))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._told:
            return
        terminalreporter.section("askonce recordings")
        for path, what, which in sorted(self._told):
            terminalreporter.line(f"{path}: {what}")
            for one in which:
                terminalreporter.line(f"    {one}")


def _hides_a_miss(session: Session, error: BaseException | None) -> bool:
    from askonce._replay._block import hides_a_miss  # noqa: PLC0415 - loaded by now

    return hides_a_miss(session.recording, error)


def _served(item: pytest.Item) -> tuple[Path, Any] | None:
    """File and mode of a test; None for one that is not served."""
    mark = item.get_closest_marker("askonce")
    said = _said(mark) if mark is not None else {}
    mode = said.get("mode", "auto")
    if mode not in (*_MODES, "off"):
        from askonce._errors import not_allowed  # noqa: PLC0415

        raise not_allowed("pytest.mark.askonce: mode", mode, (*_MODES, "off"))
    asked = item.config.getoption("--askonce")
    if mode == "off" or (mark is None and asked is None):
        return None
    path = said.get("path")
    return (_path(item) if path is None else item.path.parent / path), asked or mode


def _said(mark: pytest.Mark) -> dict[str, Any]:
    names = ("mode", "path")
    said = {**dict(zip(names, mark.args, strict=False)), **mark.kwargs}
    if len(mark.args) > len(names) or not set(said) <= set(names):
        from askonce._errors import not_allowed  # noqa: PLC0415

        raise not_allowed("pytest.mark.askonce", (*mark.args, *mark.kwargs), "mode and path")
    return said


def _path(item: pytest.Item) -> Path:
    """Where the recordings of a test are: a folder for its file, a file for the test."""
    folder = item.config.getoption("--askonce-dir")
    beside = item.path.parent
    if folder is None:
        base = beside / _FOLDER
    else:
        base = item.config.invocation_params.dir / folder
        if beside.is_relative_to(item.config.rootpath):
            base /= beside.relative_to(item.config.rootpath)
    name = item.nodeid.partition("::")[2].replace("::", ".") or item.name
    return base / item.path.stem / f"{_file_name(name)}.json"


def _file_name(name: str) -> str:
    """A test's name as every file system takes it; two names never become one."""
    safe = _UNSAFE.sub("-", name)
    if safe == name and len(name) <= _LONGEST:
        return name
    mark = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[:_LONGEST]}-{mark}"


def _shortest(path: Path, item: pytest.Item) -> Path:
    root = item.config.rootpath
    return path.relative_to(root) if path.is_relative_to(root) else path
