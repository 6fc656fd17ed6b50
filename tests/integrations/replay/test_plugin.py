"""The pytest plugin: a file for each test, and a test for each miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import askonce
import askonce_openai
from askonce.testing import FakeProvider

pytest_plugins = ["pytester"]

KEY = "sk-a-credential-1234567890"
TESTS = """
import openai, pytest

@pytest.fixture
def ask():
    client = openai.OpenAI(base_url={base_url!r}, api_key={key!r}, max_retries=0)
    yield lambda text: client.chat.completions.create(
        model="gpt-4o", messages=[{{"role": "user", "content": text}}]).choices[0].message.content
    client.close()

{tests}
"""


@pytest.fixture(scope="module")
def provider():
    with FakeProvider() as provider:
        yield provider


# Only these: other plugins that happen to be installed take seconds to load.
PLUGINS = ("askonce.pytest_plugin", "xdist", "pytest_asyncio.plugin")


@pytest.fixture
def project(pytester, provider, monkeypatch):
    """A project of somebody's, with the plugin."""
    provider.reset()
    roots = [Path(module.__file__).parents[1] for module in (askonce, askonce_openai)]
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, roots), *([known] if known else [])]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    # The same name is another file each time, and may be as long as before within a second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    class Project:
        path = pytester.path
        folder = pytester.path / "recordings"

        def write(self, tests, name="test_app"):
            source = TESTS.format(base_url=provider.base_url, key=KEY, tests=tests)
            pytester.makepyfile(**{name: source})

        def run(self, *arguments, alone=False):
            known = [word for name in PLUGINS for word in ("-p", name)]
            run = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
            return run(*known, "-p", "no:cacheprovider", *arguments)

        def files(self, folder=None):
            folder = folder or self.folder
            return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

        def abouts(self, name):
            said = json.loads((self.folder / name).read_text())
            return [one["request"]["about"] for one in said["recordings"]]

    return Project()


def passed(result, number, **others):
    result.assert_outcomes(passed=number, **others)


TWO = """
def test_one(ask):
    assert ask("one") == ask("one")

class TestGroup:
    @pytest.mark.parametrize("text", ["two", "a/b: c?"])
    def test_two(self, ask, text):
        assert ask(text)
"""


def test_record_writes_a_file_a_test_and_replay_asks_nobody(project, provider):
    project.write(TWO)
    passed(project.run("--askonce=record"), 3)
    names = project.files()
    assert names[2:] == ["test_app/test_one.json"]
    assert names[1] == "test_app/TestGroup.test_two[two].json"
    assert names[0].startswith("test_app/TestGroup.test_two[a-b-c-]-")
    assert provider.calls == 3
    assert all(KEY not in (project.folder / name).read_text() for name in names)
    provider.close()
    try:
        passed(project.run("--askonce=replay"), 3)
    finally:
        provider.start()


def test_replay_fails_a_test_without_a_recording_and_says_what_to_do(project, provider):
    project.write("def test_one(ask):\n    ask('one')\n")
    result = project.run("--askonce=replay")
    passed(result, 0, failed=1)
    result.stdout.fnmatch_lines(
        ["E *OfflineMiss*: *test_one.json has no answer*Record it with*--askonce=auto*"]
    )
    assert provider.calls == 0
    assert not project.folder.exists()


def test_a_changed_prompt_fails_naming_the_part_also_when_the_program_swallows_the_error(project, provider):
    project.write("def test_one(ask):\n    ask('one')\n")
    passed(project.run("--askonce=record"), 1)
    project.write("""
def test_one(ask):
    try:
        ask('another')
    except Exception:
        pass
""")
    result = project.run("--askonce=replay")
    passed(result, 0, failed=1)
    result.stdout.fnmatch_lines(["*OfflineMiss:*messages?0?.content changed*"])
    assert provider.calls == 1


@pytest.mark.parametrize("way", ["pytest.skip('no provider')", "pytest.xfail('no provider')", "assert False"])
def test_a_miss_cannot_be_skipped_over(project, way):
    project.write(f"""
def test_one(ask):
    try:
        ask('one')
    except Exception:
        {way}
""")
    result = project.run("--askonce=replay")
    passed(result, 0, failed=1)
    result.stdout.fnmatch_lines(["*OfflineMiss:*no answer is recorded there yet*"])


def test_auto_replays_what_is_there_and_records_what_is_missing(project, provider):
    project.write("def test_one(ask):\n    ask('one')\n")
    passed(project.run("--askonce=auto"), 1)
    project.write("def test_one(ask):\n    ask('one')\n    ask('two')\n")
    passed(project.run("--askonce=auto"), 1)
    assert provider.calls == 2
    assert project.abouts("test_app/test_one.json") == ["one", "two"]
    passed(project.run("--askonce=replay"), 1)


def test_record_asks_anew_and_drops_what_is_no_longer_asked(project, provider):
    project.write("def test_one(ask):\n    ask('one')\n    ask('two')\n")
    passed(project.run("--askonce=record"), 1)
    project.write("def test_one(ask):\n    ask('two')\n")
    passed(project.run("--askonce=record"), 1)
    assert provider.calls == 3
    assert project.abouts("test_app/test_one.json") == ["two"]


@pytest.mark.parametrize("ending", ["assert False", "pytest.skip()", "pytest.xfail()"])
def test_a_test_that_does_not_pass_leaves_the_old_file(project, ending):
    project.write("def test_one(ask):\n    ask('one')\n")
    passed(project.run("--askonce=record"), 1)
    before = (project.folder / "test_app/test_one.json").read_bytes()
    project.write(f"def test_one(ask):\n    ask('two')\n    {ending}\n")
    for mode in ("record", "auto"):
        project.run(f"--askonce={mode}")
        assert (project.folder / "test_app/test_one.json").read_bytes() == before


@pytest.mark.parametrize("spread", [(), ("-n", "2")])
def test_unused_recordings_are_told_at_the_end(project, spread):
    project.write("def test_one(ask):\n    ask('one')\n    ask('two')\n")
    passed(project.run("--askonce=record"), 1)
    project.write("def test_one(ask):\n    ask('two')\n")
    result = project.run("--askonce=replay", *spread)
    passed(result, 1)
    result.stdout.fnmatch_lines([
        "*askonce recordings*",
        "recordings/test_app/test_one.json: recordings not used",
        "    chat gpt-4o default:*",
    ])  # fmt: skip


def test_what_could_not_be_recorded_is_told_at_the_end(project, provider):
    from askonce.testing._provider import Fault

    provider.script(Fault(status=400))
    project.write("""
def test_one(ask):
    with pytest.raises(openai.BadRequestError):
        ask('one')
""")
    result = project.run("--askonce=record")
    passed(result, 1)
    result.stdout.fnmatch_lines(["*test_one.json: asks not recorded", "    chat gpt-4o: status 400"])


def test_tests_of_several_processes_keep_to_their_own_files(project, provider):
    project.write("""
@pytest.mark.parametrize("number", range(8))
def test_one(ask, number):
    assert ask(f"question {number}") == ask(f"question {number}")
    assert ask("shared")
""")
    passed(project.run("--askonce=record", "-n", "2"), 8)
    assert len(project.files()) == 8
    assert provider.calls == 16
    passed(project.run("--askonce=replay", "-n", "2"), 8)
    assert provider.calls == 16


def test_marked_tests_are_served_without_an_option_and_others_are_left_alone(project, provider):
    project.write("""
@pytest.mark.askonce
def test_marked(ask, askonce_recording):
    assert ask('one') == ask('one')
    assert askonce_recording.new == 1

def test_unmarked(ask, askonce_recording):
    ask('two')
    assert askonce_recording is None

@pytest.mark.askonce("replay", path="shared/one.json")
def test_replayed(ask):
    ask('three')
""")
    passed(project.run("--strict-markers"), 2, failed=1)
    assert provider.calls == 2
    assert project.files() == ["test_app/test_marked.json"]
    passed(project.run("--askonce=record"), 2, failed=1)  # the second is marked by the option now
    assert (project.path / "shared/one.json").exists()


def test_tests_that_share_a_file_add_to_it(project, provider):
    project.write("""
@pytest.mark.askonce(path="shared.json")
@pytest.mark.parametrize("text", ["one", "two", "one"])
def test_one(ask, text):
    ask(text)
""")
    for calls in (2, 4):
        passed(project.run("--askonce=record"), 3)
        said = json.loads((project.path / "shared.json").read_text())
        assert [one["request"]["about"] for one in said["recordings"]] == ["one", "two"]
        assert provider.calls == calls
    passed(project.run("--askonce=replay"), 3)


def test_a_mark_can_leave_a_test_alone_in_any_case(project, provider):
    project.write("""
@pytest.mark.askonce("off")
def test_one(ask):
    ask('one')
""")
    passed(project.run("--askonce=replay"), 1)
    assert provider.calls == 1


@pytest.mark.parametrize("mark", ['"sometimes"', 'mode="sometimes"', 'file="a.json"', '"auto", "a", "b"'])
def test_a_mark_that_cannot_be_is_an_error(project, mark):
    project.write(f"@pytest.mark.askonce({mark})\ndef test_one():\n    pass\n")
    result = project.run()
    passed(result, 0, errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: pytest.mark.askonce*is not allowed; allowed:*"])


def test_a_damaged_file_fails_its_test_and_is_named(project):
    project.write("def test_one(ask):\n    ask('one')\n\ndef test_two():\n    pass\n")
    path = project.folder / "test_app" / "test_one.json"
    path.parent.mkdir(parents=True)
    path.write_text("<<<<<<< HEAD")
    result = project.run("--askonce=auto")
    passed(result, 1, errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: *test_one.json cannot be replayed*"])
    assert path.read_text() == "<<<<<<< HEAD"


def test_files_go_where_the_option_says(project):
    project.write("def test_one(ask):\n    ask('one')\n", name="tests/test_app")
    passed(project.run("--askonce=record", "--askonce-dir=kept"), 1)
    assert project.files(project.path / "kept") == ["tests/test_app/test_one.json"]
    passed(project.run("--askonce=replay", "--askonce-dir=kept"), 1)


def test_what_fixtures_of_a_test_ask_belongs_to_its_file_and_those_of_a_module_open_their_own(
    project, provider
):
    project.write(f"""
import askonce

@pytest.fixture(scope="module")
def wide():
    client = openai.OpenAI(base_url={provider.base_url!r}, api_key="k" * 20, max_retries=0)
    with askonce.replay("wide.json"):
        yield client.chat.completions.create(
            model="gpt-4o", messages=[{{"role": "user", "content": "wide"}}]).id
    client.close()

@pytest.fixture
def narrow(ask):
    yield ask("before")
    ask("after")

def test_one(wide, narrow, ask):
    ask("within")
""")
    passed(project.run("--askonce=record"), 1)
    assert project.abouts("test_app/test_one.json") == ["after", "before", "within"]
    passed(project.run("--askonce=replay"), 1)
    assert provider.calls == 4


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_miss_in_a_fixture_is_no_success_either(project, place):
    ask = "try:\n        ask('hidden')\n    except Exception:\n        pass"
    project.write(f"""
@pytest.fixture
def hiding(ask):
    {ask if place == "before" else "pass"}
    yield
    {ask if place == "after" else "pass"}

def test_one(hiding):
    pass
""")
    result = project.run("--askonce=replay")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*OfflineMiss:*no answer is recorded there yet*"])


def test_async_tests_and_unittest_cases_are_served(project, provider):
    project.write(f"""
import unittest

def client(kind):
    return kind(base_url={provider.base_url!r}, api_key="k" * 20, max_retries=0)

@pytest.mark.asyncio
async def test_async():
    async with client(openai.AsyncOpenAI) as one:
        assert (await one.chat.completions.create(
            model="gpt-4o", messages=[{{"role": "user", "content": "async"}}])).id

class TestCase(unittest.TestCase):
    def test_case(self):
        with client(openai.OpenAI) as one:
            one.chat.completions.create(model="gpt-4o", messages=[{{"role": "user", "content": "case"}}])
""")
    passed(project.run("--askonce=record"), 2)
    assert project.files() == ["test_app/TestCase.test_case.json", "test_app/test_async.json"]
    passed(project.run("--askonce=replay"), 2)
    assert provider.calls == 2


def test_the_plugin_loads_nothing_until_a_test_is_served(project):
    project.write("")
    (project.path / "test_app.py").write_text("""
import sys

def test_nothing_is_loaded(request):
    heavy = {"openai", "httpx", "httpx2", "langchain_core", "wrapt", "orjson", "askonce._cache"}
    heavy |= {"askonce_openai", "askonce_httpx", "askonce._replay"}
    assert request.config.pluginmanager.hasplugin("askonce.pytest_plugin")
    assert not heavy & set(sys.modules)
""")
    passed(project.run(alone=True), 1)


def test_installing_makes_plugin_and_doors_known():
    from importlib.metadata import entry_points

    (plugin,) = entry_points(group="pytest11", name="askonce")
    assert plugin.value == "askonce.pytest_plugin"
    assert {door.value for door in entry_points(group="askonce.doors")} == {"askonce_openai", "askonce_httpx"}


def test_the_plugin_stays_out_of_a_program_that_only_imports_askonce():
    code = "import sys, askonce; print('pytest' in sys.modules, 'askonce._replay' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
