"""The commands that work on a store, as people and programs type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid

import openai
import pytest
from typer.testing import CliRunner

from askonce import Cache
from askonce.testing import FakeProvider
from askonce.testing._provider import Fault
from askonce_cli import _app
from askonce_cli._requests import read_request, whole_url
from askonce_cli._words import money_text, plain, size_text, span
from askonce_openai import disable_cache, enable_cache

PROMPT = "MARKER, whatever it is"
SECRET = "sk-test-0123456789-do-not-show"


@pytest.fixture(scope="module")
def running():
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(running, monkeypatch):
    running.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ASKONCE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return running


@pytest.fixture
def url(tmp_path, monkeypatch):
    url = f"disk://{tmp_path}/cache"
    monkeypatch.setenv("ASKONCE_STORE", url)
    return url


def askonce(*words, code=0, given=None):
    """Run a command: what it printed, and what it said on the side."""
    done = CliRunner().invoke(_app.app, list(map(str, words)), input=given)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert SECRET not in done.output
    return done


def said(*words, **how):
    return json.loads(askonce(*words, "--json", **how).stdout)


def chat(text="hello", model="gpt-4o-mini", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def line(body, path="/v1/chat/completions", **more):
    return json.dumps({"url": path, "body": body, **more})


def warm(tmp_path, *lines, options=(), **how):
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(f"{one}\n" for one in lines), "utf-8")
    return said("warm", file, *options, **how)


@pytest.fixture
def filled(provider, url, tmp_path):
    """Three chats of one model, one of another, and an embedding."""
    lines = [line(chat(f"question {number}")) for number in range(3)]
    lines += [line(chat("question", "gpt-4o")), line({"model": "e", "input": "x"}, "/v1/embeddings")]
    assert warm(tmp_path, *lines, options=("--tag", "nightly"))["stored"] == 5
    return url


# -- warm ------------------------------------------------------------------------------------------


def test_what_was_warmed_answers_the_sdks_own_calls(provider, url, tmp_path):
    lines = [
        line(chat()),
        line(chat("streamed", stream=True, stream_options={"include_usage": True})),
        line({"model": "e", "input": "x"}, "/v1/embeddings"),
        line({"model": "gpt-4o", "input": "hello"}, "/v1/responses", custom_id="1", method="POST"),
    ]
    assert warm(tmp_path, *lines)["stored"] == 4
    assert provider.calls == 4
    with Cache(url) as cache, openai.OpenAI() as client:
        enable_cache(cache, client=client)
        client.chat.completions.create(**chat())
        events = list(
            client.chat.completions.create(
                **chat("streamed"), stream=True, stream_options={"include_usage": True}
            )
        )
        client.embeddings.create(model="e", input="x")
        client.responses.create(model="gpt-4o", input="hello")
        disable_cache(client=client)
        assert cache.stats().hits == 4
    assert len(events) > 1
    assert provider.calls == 4


def test_warming_again_asks_for_what_is_missing_only(provider, url, tmp_path):
    first = warm(tmp_path, line(chat("a")), line(chat("b")))
    again = warm(tmp_path, line(chat("a")), line(chat("b")), line(chat("c")))
    assert (first["stored"], first["present"]) == (2, 0)
    assert (again["stored"], again["present"]) == (1, 2)
    assert provider.calls == 3
    assert again["usage"]["total_tokens"] > 0


def test_life_and_labels_hold_in_every_thread(filled, tmp_path):
    warm(tmp_path, *(line(chat(f"more {number}")) for number in range(9)), options=("--ttl", "never"))
    entries = said("ls", "--limit", "0")["entries"]
    assert sum(one["ttl"] is None for one in entries) == 9
    assert sum(one["tags"] == ["nightly"] for one in entries) == 5


def test_bad_lines_are_named_and_the_others_asked(provider, url, tmp_path):
    found = warm(
        tmp_path,
        line(chat()),
        "",
        "{not json",
        line(chat(), "https://elsewhere.example/v1/chat/completions"),
        line(chat(), method="GET"),
        line("a text"),
        '{"url": "/v1/chat/completions", "bodi": {}}',
        code=1,
    )
    assert (found["ok"], found["stored"], found["failures"]) == (False, 1, 5)
    told = "\n".join(sorted(found["failed"]))
    assert "line 3: it is not JSON" in told
    assert "line 4: elsewhere.example is not the provider" in told
    assert "line 5: method GET" in told
    assert 'line 6: "body" is not' in told
    assert "line 7: unknown field 'bodi'" in told
    assert provider.calls == 1


def test_the_key_goes_to_the_provider_only(provider, url, tmp_path):
    with FakeProvider() as stranger:
        found = warm(tmp_path, line(chat(), f"{stranger.base_url}/chat/completions"), code=1)
        assert stranger.calls == 0
    assert found["failures"] == 1


def test_a_request_that_the_provider_refuses_is_told_and_not_stored(provider, url, tmp_path):
    provider.script(Fault(status=400))
    found = warm(tmp_path, line(chat()), code=1)
    assert (found["stored"], found["failures"]) == (0, 1)
    assert "answered 400" in found["failed"][0]
    assert warm(tmp_path, line(chat()))["stored"] == 1


def test_a_list_that_is_not_there_is_one_line(provider, url):
    assert "there is no file" in askonce("warm", "nowhere.jsonl", code=2).stderr


def test_warming_without_a_key_is_one_line(provider, url, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    file = tmp_path / "one.jsonl"
    file.write_text(line(chat()))
    assert "OPENAI_API_KEY is not set" in askonce("warm", file, code=2).stderr


# -- ls, show, rm, clear ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "matching"),
    [
        ((), 5),
        (("--model", "gpt-4o"), 1),
        (("--model", "gpt-4o*"), 4),
        (("--tag", "nightly"), 5),
        (("--tag", "other"), 0),
        (("--url", "*/embeddings"), 1),
        (("--older-than", "1h"), 0),
        (("--newer-than", "1h"), 5),
        (("--larger-than", "2KiB"), 1),
        (("--smaller-than", "2KiB", "--model", "gpt-4o"), 1),
        (("--namespace", "other"), 0),
    ],
)
def test_conditions_of_a_list_add_up(filled, words, matching):
    found = said("ls", *words)
    assert found["matching"] == len(found["entries"]) == matching


def test_a_list_is_ordered_bounded_and_says_what_it_left_out(filled):
    by_age = said("ls", "--limit", "2")
    assert (by_age["matching"], len(by_age["entries"])) == (5, 2)
    ages = [one["age"] for one in said("ls", "--limit", "0")["entries"]]
    assert ages == sorted(ages)
    by_size = said("ls", "--sort", "size", "--limit", "1")["entries"]
    assert by_size[0]["surface"] == "embeddings"
    assert "5 entries in 'default', 3 more: --limit 5 shows all" in askonce("ls", "--limit", "2").stdout


def test_the_first_digits_of_a_key_are_enough(filled):
    key = said("ls", "--model", "gpt-4o")["entries"][0]["key"]
    digest = key.partition(":")[2]
    for text in (key, digest, digest[:8], f"default:{digest[:8]}"):
        assert said("show", text)["key"] == key
    assert "too short" in askonce("show", digest[:2], code=2).stderr
    assert "no entry has the key" in askonce("show", "f" * 64, code=2).stderr
    assert "give --namespace other" in askonce("show", f"other:{digest}", code=2).stderr


def test_a_body_is_shown_byte_for_byte(filled):
    key = said("ls", "--model", "gpt-4o")["entries"][0]["key"]
    with Cache(filled) as cache:
        body = cache.entry(key).body
    assert askonce("show", key, "--body").stdout_bytes == body
    assert said("show", key, "--body")["body"].encode() == body
    assert "body" not in said("show", key)
    assert json.loads(body)["object"] == "chat.completion"


def test_showing_says_what_it_cost_and_nothing_of_what_was_asked(provider, url, tmp_path):
    warm(tmp_path, line(chat(PROMPT)))
    key = said("ls")["entries"][0]["key"]
    for words in (("show", key), ("show", key, "--json"), ("ls",), ("ls", "--json"), ("stats",)):
        assert PROMPT not in askonce(*words).stdout
    assert "prompt_tokens" in askonce("show", key).stdout


def test_removing_takes_keys_or_conditions(filled):
    keys = [one["key"] for one in said("ls", "--model", "gpt-4o-mini")["entries"]]
    assert said("rm", keys[0], keys[1])["removed"] == 2
    assert "one of the two" in askonce("rm", code=2).stderr
    assert "one of the two" in askonce("rm", keys[2], "--model", "x", "--yes", code=2).stderr
    assert said("rm", "--model", "gpt-4o*", "--yes")["removed"] == 2
    assert said("ls")["matching"] == 1


def test_a_key_that_is_not_there_removes_nothing(filled):
    key = said("ls")["entries"][0]["key"]
    assert "no entry" in askonce("rm", key, "0" * 64, code=2).stderr
    assert said("ls")["matching"] >= 4


def test_what_cannot_be_undone_is_confirmed_and_scripts_have_to_say_so(filled):
    for words in (("clear",), ("rm", "--tag", "nightly")):
        assert "add --yes" in askonce(*words, code=2).stderr
    assert said("ls")["matching"] == 5
    assert said("clear", "--namespace", "other", "--yes")["removed"] == 0
    assert said("clear", "--yes")["removed"] == 5


# -- why -------------------------------------------------------------------------------------------


def test_why_names_what_differs(filled, tmp_path):
    file = tmp_path / "request.json"
    file.write_text(line(chat("question 1", temperature=0.5)))
    found = said("why", file)
    assert (found["verdict"], found["differences"]) == ("miss", ["temperature added"])
    assert found["looked_at"] <= found["entries"] == 5
    shown = askonce("why", "-", given=line(chat("question 1", temperature=0.5))).stdout
    assert "- temperature added" in shown
    assert "entries were compared" in shown


@pytest.mark.parametrize(
    ("request_", "verdict", "reason"),
    [
        (line(chat("question 1")), "hit", ""),
        (line(chat("question 1"), "chat/completions"), "hit", ""),
        (line(chat("question 1"), headers={"Authorization": f"Bearer {SECRET}"}), "hit", ""),
        (line(chat(), "/v1/files"), "bypass", "endpoint"),
        (line(chat(), method="get"), "bypass", "method"),
        (line(chat(tools=[{"type": "web_search"}])), "bypass", "hosted tool"),
    ],
)
def test_why_gives_the_verdict(filled, request_, verdict, reason):
    found = said("why", "-", given=request_)
    assert (found["verdict"], found["reason"]) == (verdict, reason)


def test_why_knows_scopes_and_samples(filled):
    given = line(chat("question 1"))
    assert said("why", "-", "--sample", "2", given=given)["differences"] == ["sample added"]
    assert said("why", "-", "--scope", "tenant", given=given)["differences"] == ["scope changed"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", '"url" is missing'),
        ('{"url": "x", "headers": {"a": 1}}', "has to be an object of ASCII texts"),
        ('{"url": "x", "headers": 3}', '"headers" an object of texts'),
    ],
)
def test_a_request_that_is_none_is_one_line(filled, text, told):
    assert told in askonce("why", "-", code=2, given=text).stderr


def test_paths_belong_to_the_provider_with_or_without_its_version():
    for path in ("/v1/chat/completions", "/chat/completions", "chat/completions"):
        assert whole_url(path, "https://h/v1") == "https://h/v1/chat/completions"
    assert whole_url("https://g/x", "https://h/v1") == "https://g/x"
    assert read_request('{"url": "/x", "body": "raw"}', "https://h").request().body == b"raw"


# -- export, import --------------------------------------------------------------------------------


def test_answers_move_to_another_store_and_answer_there(filled, provider, tmp_path):
    file = tmp_path / "answers.jsonl"
    there = f"disk://{tmp_path}/there"
    assert said("export", file)["entries"] == 5
    found = said("import", file, "--store", there)
    assert (found["written"], found["complete"], found["namespace"]) == (5, True, "default")
    with Cache(there) as cache, openai.OpenAI() as client:
        enable_cache(cache, client=client)
        client.chat.completions.create(**chat("question 1"))
        disable_cache(client=client)
        assert cache.stats().hits == 1
    assert provider.calls == 5


def test_an_import_needs_no_namespace_for_a_file_has_one(filled, tmp_path):
    warm(tmp_path, line(chat()), options=("--namespace", "evals"))
    file = tmp_path / "answers.jsonl"
    said("export", file, "--namespace", "evals")
    there = f"disk://{tmp_path}/there"
    assert said("import", file, "--store", there)["namespace"] == "evals"
    assert said("ls", "--store", there, "--namespace", "evals")["matching"] == 1
    told = askonce("import", file, "--store", there, "--namespace", "default", code=1).stderr
    assert "which is part of every key" in told


def test_a_file_without_its_end_is_imported_and_told(filled, tmp_path):
    file = tmp_path / "answers.jsonl"
    said("export", file)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    done = askonce("import", file, "--store", f"disk://{tmp_path}/there", code=1)
    assert "2 entries stored" in done.stdout
    assert "has no end" in done.stderr


def test_files_that_are_none_are_one_line(filled, tmp_path):
    file = tmp_path / "thesis.txt"
    file.write_text("my thesis")
    assert "no export of askonce" in askonce("import", file, code=1).stderr
    assert "no export of askonce" in askonce("export", file, code=1).stderr
    assert "there is no file" in askonce("import", "nowhere", code=2).stderr
    assert "both the standard output" in askonce("export", "-", "--json", code=2).stderr


# -- stats, doctor ---------------------------------------------------------------------------------


def test_stats_add_up_what_all_processes_did(filled, tmp_path):
    warm(tmp_path, line(chat("question 1")))
    found = said("stats")
    assert (found["misses"], found["hits"], found["calls"], found["stored"]) == (5, 1, 6, 5)
    assert found["stores"][0]["entries"] == 5
    shown = askonce("stats").stdout
    assert "1 (17% of what can be cached): 1 hit" in shown


def test_stats_of_a_namespace_that_nobody_used(filled):
    assert "none counted yet" in askonce("stats", "--namespace", "other").stdout


def test_the_doctor_knows_store_extras_and_sdks(filled):
    found = said("doctor")
    assert found["ok"] is True
    assert found["stores"][0]["kind"].startswith("sqlite")
    assert found["extras"]["openai"]["openai"] == openai.__version__
    assert {one["package"]: one["works"] for one in found["sdks"]}["openai"] is True
    shown = askonce("doctor").stdout
    assert "ok openai" in shown


def test_the_doctor_of_a_store_that_is_away_says_so_and_fails(url):
    found = said("doctor", "--store", f"redis://user:{SECRET}@127.0.0.1:1", code=1)
    assert found["ok"] is False
    assert "check host, port" in found["problems"][0]


def test_the_doctor_knows_a_redis(valkey, url):
    found = said("doctor", "--store", valkey.url)
    assert found["stores"][0]["kind"].startswith("valkey")
    assert abs(found["stores"][0]["detail"]["clock_skew"]) < 60


# -- mistakes --------------------------------------------------------------------------------------

ANY = [
    ("ls",),
    ("show", "abcd"),
    ("stats",),
    ("clear", "--yes"),
    ("rm", "abcd"),
    ("export", "x"),
    ("why", "-"),
]


@pytest.mark.parametrize("words", ANY, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("ftp://x", "store URL ftp:// is not known"),
        ("disk:///x?colour=red", "option 'colour' is not known"),
        ("memory://", "is the memory of one process"),
        (f"redis://user:{SECRET}@127.0.0.1:1", "the store cannot be used: redis: no answer"),
        ("disk://nowhere/at/all", "there is no cache in nowhere/at/all"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(words, store, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = askonce(*words, "--store", store, code=2, given=line(chat()))
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert json.loads(askonce(*words, "--store", store, "--json", code=2, given=line(chat())).stdout) == {
        "ok": False,
        "problems": [done.stderr.removeprefix("askonce: ").rstrip("\n")],
    }
    assert list(tmp_path.iterdir()) == []


def test_looking_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ASKONCE_STORE", raising=False)
    assert "there is no cache in" in askonce("ls", code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_namespace_or_time_is_one_line(filled):
    assert "namespace='a:b' is not allowed" in askonce("ls", "--namespace", "a:b", code=2).stderr
    assert "--older-than='soon' is not a duration" in askonce("ls", "--older-than", "soon", code=2).stderr
    assert "--larger-than='big' is not a size" in askonce("ls", "--larger-than", "big", code=2).stderr


def test_sealed_answers_are_seen_with_their_secret_only(provider, url, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKONCE_SECRET", "s" * 16)
    warm(tmp_path, line(chat()))
    assert said("ls")["matching"] == 1
    monkeypatch.delenv("ASKONCE_SECRET")
    assert said("ls")["matching"] == 0


def test_an_error_that_nobody_foresaw_is_one_line_without_its_text(filled, monkeypatch):
    def broken(cache):
        raise RuntimeError(PROMPT)

    monkeypatch.setattr(Cache, "entries", broken)
    done = askonce("ls", code=1)
    assert done.stderr == "askonce: the store or the network failed (RuntimeError); try `askonce doctor`\n"


def test_a_reader_who_has_enough_is_no_error(filled):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-m", "askonce_cli", "ls", "--json"],
        env={**os.environ, "PYTHONPATH": path, "ASKONCE_STORE": filled},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert said == b""


COMMANDS = ["stats", "report", "ls", "show", "why", "rm", "clear", "export", "import", "warm", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command):
    shown = askonce(command, "--help").stdout
    assert "Examples:" in shown
    assert f"askonce {command}" in shown
    assert "--json" in shown


def test_completion_is_there_for_the_usual_shells():
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-m", "askonce_cli"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "_ASKONCE_COMPLETE": f"complete_{shell}",
                "_TYPER_COMPLETE_ARGS": "askonce ls --",
                "COMP_WORDS": "askonce ls --",
                "COMP_CWORD": "2",
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "--older-than" in done.stdout, done


def test_figures_are_words():
    assert [span(value) for value in (0, 59, 61, 3600, 90_061)] == ["0s", "59s", "1m", "1h", "1d 1h"]
    assert span(90_061, 1) == "1d"
    assert [size_text(value) for value in (0, 1023, 1024, 5 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [money_text(value) for value in (None, 0, 0.01234, 1234.5)] == [
        "no price", "$0.00", "$0.0123", "$1,234.50",
    ]  # fmt: skip
    assert plain("a\x1b[31mb\n") == "a?[31mb?"


# -- report ----------------------------------------------------------------------------------------


def test_a_report_counts_what_commands_and_programs_did(filled, tmp_path):
    warm(tmp_path, line(chat("question 1")), line(chat("question 2")))
    found = said("report", "--days", "2")
    total = found["total"]
    assert (total["served"], total["misses"], total["calls"]) == (2, 5, 7)
    stats = said("stats")
    assert total["saved"]["input"] + total["saved"]["output"] == stats["tokens_saved"]
    assert {row["name"] for row in found["by_tag"]} == {"nightly"}
    shown = askonce("report").stdout
    assert "29% of 7 calls came from the cache" in shown
    assert "gpt-4o-mini" in shown


def test_a_report_takes_prices_and_writes_a_page(filled, tmp_path):
    prices, page = tmp_path / "prices.json", tmp_path / "report.html"
    prices.write_text('{"gpt-4o*": {"input": 1000000, "output": 0}}')
    found = said("report", "--prices", prices, "--html", page)
    models = {row["name"]: row for row in found["by_model"]}
    assert models["gpt-4o-mini"]["money_spent"] == models["gpt-4o-mini"]["spent"]["input"]
    assert "e" in found["total"]["unpriced"]
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert f"The page is in {page}" in askonce("report", "--html", page).stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "has no prices"),
        ('{"a": {"price": 3}}', "the price of 'a' is none"),
        ('{"a": 3}', "the price of 'a' is none"),
        ('{"a": {"input": -1, "output": 1}}', "Price: input=-1 is not allowed"),
    ],
)
def test_prices_that_are_none_are_one_line(filled, tmp_path, text, told):
    prices = tmp_path / "prices.json"
    prices.write_text(text)
    assert told in askonce("report", "--prices", prices, code=2).stderr


def test_a_page_that_cannot_be_written_is_one_line(filled, tmp_path):
    done = askonce("report", "--html", tmp_path / "no" / "such" / "folder.html", code=1)
    assert "No such file or directory" in done.stderr


def test_a_browser_shows_the_page(filled, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    askonce("report", "--html", page)
    quiet = (
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    common = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet)
    done = subprocess.run(
        [chromium, *common, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
         "--window-size=1000,1600", f"--screenshot={shot}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    picture = shot.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000, "a page with plots is no empty one"
    assert "Content Security Policy" not in done.stderr, "the page asked for what its own policy forbids"


def test_answers_move_between_redis_and_s3_unchanged(provider, valkey, s3, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    redis = f"{valkey.url}?prefix={uuid.uuid4().hex}:"
    bucket = f"s3://{s3.create_bucket()}/answers?endpoint_url={s3.endpoint_url}"
    warm(tmp_path, *(line(chat(str(number))) for number in range(30)), options=("--store", redis))
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert said("export", first, "--store", redis)["entries"] == 30
    # S3 is written behind calls; an import returns when everything is there.
    assert said("import", first, "--store", bucket)["written"] == 30
    assert said("export", second, "--store", bucket)["entries"] == 30
    assert first.read_bytes() == second.read_bytes()
    for command in ("stats", "ls", "doctor", "report"):
        askonce(command, "--store", bucket)
    assert said("clear", "--yes", "--store", bucket)["removed"] == 30
