"""The `askonce` command keeps its word: to people, to programs, and when something is missing or broken."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import openai
import pytest
from rich.console import Console
from typer.testing import CliRunner

from askonce import __version__
from askonce.testing import FakeProvider
from askonce.testing._provider import Fault
from askonce_cli import _app, _child, _console, _demo
from askonce_cli._asks import ASKS, Plan, session
from askonce_cli._errors import CommandError
from askonce_cli._show import milliseconds, show, shown_url
from askonce_cli._troubles import told

SECRET = "sk-test-0123456789-do-not-show"
PROVIDER_VARIABLES = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_ADMIN_KEY",
)


def environment(**further):
    """This process's environment and import path, without a provider; 80 columns."""
    kept = {name: value for name, value in os.environ.items() if name not in PROVIDER_VARIABLES}
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PYTHONIOENCODING"):
        kept.pop(name, None)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**kept, "PYTHONPATH": path, "PYTHONUTF8": "1", "COLUMNS": "80", **further}


def started(*words, **further):
    return subprocess.Popen(
        [sys.executable, "-m", "askonce_cli", *words],
        env=environment(**further),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finished(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The demo as a person and as a program runs it, and with nobody at home: all at the same time."""
    folder = tmp_path_factory.mktemp("temporary")
    where = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")}
    nobody = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": SECRET}
    processes = {
        "json": started("demo", "--json", **where),
        "text": started("demo", PYTHONUTF8="0", PYTHONIOENCODING="ascii", **where),
        "nobody": started("demo", "--json", **nobody, **where),
    }
    results = {name: finished(process) for name, process in processes.items()}
    results["left"] = list(folder.iterdir())
    return results


@pytest.fixture
def alone(monkeypatch):
    """All in this process: no provider in the environment, and a stand-in that does not take its time.

    A second session stands for the new process: its memory is as empty, its disk the same.
    """
    for name in PROVIDER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_demo, "_DELAY", 0.0)
    monkeypatch.setattr(_demo, "_CHUNK_DELAY", 0.0)
    monkeypatch.setattr(_demo, "ask_in_new_process", once_more)
    return monkeypatch


def once_more(plan):
    with session(plan) as asking:
        return [asking.ask(ask, "new process")[0] for ask in ASKS]


def demo(*words):
    return CliRunner().invoke(_app.app, ["demo", *words])


# -- the promise -----------------------------------------------------------------------------------


def test_json_says_what_happened_and_nothing_else(runs):
    code, out, err = runs["json"]
    said = json.loads(out)
    assert (code, err, said["ok"], said["problems"]) == (0, "", True, [])
    assert said["asked"] == len(said["asks"]) == 12
    assert [one["turn"] for one in said["asks"]] == ["first", "again"] * 4 + ["new process"] * 4
    assert said["provider_calls"] == 4
    assert said["same_answers"] is True
    for name in ("chat", "async chat", "stream", "embedding"):
        first, again, anew = (one for one in said["asks"] if one["ask"] == name)
        assert [one["provider_calls"] for one in (first, again, anew)] == [1, 0, 0]
        assert [one["source"] for one in (first, again, anew)] == ["provider", "memory", "disk"]
        assert [one["same"] for one in (first, again, anew)] == [None, True, True]
        assert first["digest"] == again["digest"] == anew["digest"]
        assert first["seconds"] > 0.5
        assert first["tokens_spent"] == again["tokens_saved"] == anew["tokens_saved"] > 0
        assert (first["first_chunk"] is not None) == (name == "stream")
    assert said["tokens_saved"] == 2 * said["tokens_spent"]
    assert said["seconds_saved"] > 4


def test_text_fits_80_columns_of_a_console_that_knows_ascii_only(runs):
    code, out, err = runs["text"]
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "?" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "12 asks, 4 provider calls, " in out
    assert "Same answers: yes" in out
    assert "Stream: first chunk after " in out
    assert out.count("new process") == 4
    assert out.rstrip().endswith("enable_cache()")


def test_the_temporary_folder_is_removed(runs):
    assert [path for path in runs["left"] if path.name.startswith("askonce-demo")] == []


# -- when it does not work -------------------------------------------------------------------------


def test_a_provider_out_of_reach_is_one_line(runs):
    code, out, err = runs["nobody"]
    assert code == 1
    assert json.loads(out)["ok"] is False
    assert err.count("\n") == 1
    assert "127.0.0.1:9" in err
    assert "OPENAI_BASE_URL" in err
    assert "Traceback" not in err
    assert SECRET not in out + err


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["askonce", "demo"]
import askonce_cli
askonce_cli.main()
"""


@pytest.mark.parametrize(
    ("package", "extra"), [("typer", "cli"), ("rich", "cli"), ("openai", "openai"), ("wrapt", "openai")]
)
def test_a_missing_extra_is_one_line_with_its_install_command(package, extra):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(package=package)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f'pip install "askonce[{extra}]"' in done.stderr


def test_a_store_that_does_not_last_breaks_the_promise_and_says_so(alone):
    done = demo("--store", "memory://", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert said["ok"] is False
    assert said["provider_calls"] == 8
    assert said["same_answers"] is False
    assert len(said["problems"]) == 4
    assert "memory:// ends with its process" in said["problems"][0]
    assert done.stderr.count("asked the provider again") == 4


def test_an_answer_that_is_not_stored_breaks_the_promise_with_the_reason(alone):
    with FakeProvider() as provider:
        alone.setenv("OPENAI_BASE_URL", provider.base_url)
        provider.always(Fault(to="embeddings", oversize=20 * 2**20))
        done = demo()
    assert done.exit_code == 1
    assert "Embedding by OpenAI, again: asked the provider again (" in done.stderr
    assert "enable_cache" not in done.stdout


@pytest.mark.parametrize("url", ["nonsense://x", "memory://?max_bites=1", ""])
def test_a_store_that_is_none_is_a_usage_error(alone, url):
    done = demo("--store", url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "allowed: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401), ["refused the API key (401)", "OPENAI_API_KEY"]),
        (Fault(status=403), ["403", "OPENAI_API_KEY"]),
        (Fault(status=404), ["404", "--model", "--embedding-model"]),
        (Fault(status=400), ["answered 400: "]),
        (Fault(garbage=True), ["cannot be read"]),
        (Fault(cut_after=3), ["provider at"]),  # openai 2 passes the HTTP client's own error on
        (Fault(error_event_after=3), ["broke off"]),
    ],
)
def test_what_a_provider_does_wrong_is_one_line(alone, fault, words):
    with FakeProvider() as provider:
        alone.setenv("OPENAI_BASE_URL", provider.base_url)
        alone.setenv("OPENAI_API_KEY", SECRET)
        if fault.cut_after or fault.error_event_after:
            provider.script(Fault(), Fault())  # the chats that are not streamed
        provider.always(fault)
        done = demo()
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
    assert SECRET not in done.stderr


def test_a_web_server_that_is_no_provider_is_told_from_one(alone):
    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>Welcome!</p>")

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        alone.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        done = demo()
        server.shutdown()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "something that is no chat; check OPENAI_BASE_URL" in done.stderr


def test_a_key_that_no_header_carries_is_told_without_showing_it(alone):
    alone.setenv("OPENAI_API_KEY", f"{SECRET}\u00e9")
    alone.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    done = demo()
    assert done.exit_code == 1
    assert "OPENAI_API_KEY" in done.stderr
    assert SECRET not in done.stderr


def test_a_key_in_the_words_of_the_provider_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    answer = httpx.Response(400, request=httpx.Request("POST", "http://x"))
    error = openai.BadRequestError("", response=answer, body={"message": f"odd\nkey {SECRET} " + "x" * 999})
    text = str(told(error, "x"))
    assert "odd key ***" in text
    assert SECRET not in text
    assert len(text) < 400


def test_a_bug_of_ours_is_not_blamed_on_the_provider(alone):
    with FakeProvider() as provider, session(plan(provider.base_url)) as asking:

        def broken(text):
            raise KeyError(text)

        with pytest.raises(KeyError):
            asking.ask(ASKS[2], "first", broken)


# -- the new process -------------------------------------------------------------------------------


def plan(base_url, *stores):
    return Plan(
        stores=stores or ("memory://",),
        base_url=base_url,
        api_key="none",
        local=True,
        model="m",
        embedding_model="e",
    )


def test_trouble_in_the_new_process_is_told(alone):
    def run(command, *, input, **options):
        with alone.context() as patched, redirect_stdout(io.StringIO()) as out:
            patched.setattr("sys.stdin", io.StringIO(input))
            _child._main()
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    with FakeProvider() as provider:
        provider.always(Fault(status=404))
        alone.setattr(_child.subprocess, "run", run)
        with pytest.raises(CommandError, match=r"in the new process, the provider at .* answered 404"):
            _child.ask_in_new_process(plan(provider.base_url))


def test_a_new_process_that_dies_is_told_by_its_last_words(alone):
    alone.setattr(_child, "_MODULE", "askonce_cli._nothing")
    with pytest.raises(CommandError, match=r"the new process failed: .*askonce_cli\._nothing"):
        _child.ask_in_new_process(plan("http://127.0.0.1:9/v1"))


# -- a provider and a store of one's own -----------------------------------------------------------


def test_a_given_provider_and_store_are_used_and_the_store_stays(alone, tmp_path):
    url = f"memory:// {(tmp_path / 'my answers').as_uri().replace('file:', 'disk:', 1)}"
    with FakeProvider() as provider:
        alone.setenv("OPENAI_BASE_URL", f" {provider.base_url} ")
        alone.setenv("OPENAI_API_KEY", "")
        first = demo("--store", url, "--model", "mine", "--embedding-model", "mine-too", "--json")
        models = {request.json()["model"] for request in provider.requests}
        calls = provider.calls
        again = demo("--store", url, "--model", "mine", "--embedding-model", "mine-too")
        assert (first.exit_code, again.exit_code) == (0, 0)
        assert models == {"mine", "mine-too"}
        assert calls == provider.calls == json.loads(first.stdout)["provider_calls"] == 4
        assert json.loads(first.stdout)["provider"] == provider.base_url.split("/")[2]
    assert "12 asks, 0 provider calls" in again.stdout
    assert "had answers already" in again.stdout
    assert "disk:///" in again.stdout.replace("\n", "")


def test_keep_leaves_the_folder_and_names_it(alone, tmp_path):
    alone.setattr("tempfile.tempdir", str(tmp_path))
    done = demo("--keep", "--json")
    kept = json.loads(done.stdout)["kept"]
    assert done.exit_code == 0
    assert [str(path) for path in tmp_path.iterdir()] == [kept]
    assert list(Path(kept).iterdir())


# -- what it looks like ----------------------------------------------------------------------------


def test_a_terminal_shows_what_is_going_on_as_it_is_said(alone):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with _console.status(console) as progress:
        progress("Chat [/] by OpenAI")
    assert "Chat [/] by OpenAI" in console.file.getvalue()


def test_progress_repeats_the_stream_and_the_report_fits_narrow_terminals(alone):
    said = []
    report = _demo.run_demo(stores=(), model="m" * 60, embedding_model="e", keep=False, progress=said.append)
    assert any(text.startswith("Chat, streamed by OpenAI, first ask: This is") for text in said)
    assert said[-1] == "the same four once more, from a new process"
    for width in (60, 80, 200):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, legacy_windows=False)
        show(report, console)
        plain = Console(file=io.StringIO(), width=width)
        show(report, plain)
        assert max(map(len, plain.file.getvalue().splitlines())) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in plain.file.getvalue()


def test_version():
    done = CliRunner().invoke(_app.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"askonce {__version__}\n")


def test_help_gives_examples():
    top = CliRunner().invoke(_app.app, ["--help"])
    of_demo = CliRunner().invoke(_app.app, ["demo", "--help"])
    assert (top.exit_code, of_demo.exit_code) == (0, 0)
    assert "askonce demo" in top.stdout
    assert "askonce demo --json" in of_demo.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("disk:///tmp/a?max_bytes=1GiB", "disk:///tmp/a?max_bytes=1GiB"),
        ("redis://me:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis+sentinel://me:s@a:1,[::1]:2/it?prefix=p@q", "redis+sentinel://***@a:1,[::1]:2/it?prefix=p@q"),
        ("memory://", "memory://"),
    ],
)
def test_store_urls_are_shown_without_credentials(url, shown):
    assert shown_url(url) == shown


def test_times_are_short():
    assert [milliseconds(value) for value in (0.00123, 0.0999, 1.2345)] == ["1.2 ms", "100 ms", "1,234 ms"]
