"""`askonce export` and `import` with the rows of a semantic layer, in the store and in its own index."""

from __future__ import annotations

import json
import secrets
import time

import pytest
from typer.testing import CliRunner

from askonce import Cache, Request
from askonce._exchange import Opened
from askonce.semantic import FunctionEmbedder, RedisIndex, SemanticLayer
from askonce_cli import _app

ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"
ANSWER = json.dumps({
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "So."}}]
}).encode()  # fmt: skip


class Ask:
    """A call of a door whose provider says the same to everybody."""

    live = False
    patience = None

    def __init__(self, text):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
        headers = ((b"content-type", b"application/json"),)
        self.request = Request("POST", "https://api.test/v1/chat/completions", headers, body)

    def open(self):
        headers = [(b"content-type", b"application/json")]
        return Opened(status=200, headers=headers, native=ANSWER, body=ANSWER, framed=True)


def layered(url, index=None):
    alike = FunctionEmbedder(lambda texts: [[1.0, 2.0] for _ in texts], name="alike")
    return Cache(url, semantic=SemanticLayer(alike, shadow=0, index=index, timeout=5), store_timeout=5)


def status(cache, text):
    return cache.ask(Ask(text)).outcome.status


def askonce(*words, code=0):
    done = CliRunner().invoke(_app.app, list(map(str, words)))
    assert done.exit_code == code, done.output
    assert "hunter2" not in done.output
    return done


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.delenv("ASKONCE_SECRET", raising=False)
    return f"disk://{tmp_path}/here", f"disk://{tmp_path}/there", tmp_path / "answers.jsonl"


def test_rows_in_the_store_move_without_being_asked_for(places):
    here, there, file = places
    with layered(here) as cache:
        status(cache, ASKED)
    assert "1 entry and 1 row of the semantic layer" in askonce("export", file, "--store", here).stdout
    told = askonce("import", file, "--store", there).stdout
    assert "1 entry stored in the namespace 'default', 1 row of the semantic layer" in told
    with layered(there) as cache:
        status(cache, "What is the capital of France?")
        end = time.monotonic() + 10
        while not cache.stats().layer.get("rows read"):
            assert time.monotonic() < end, "the rows were not read"
            time.sleep(0.001)
        assert status(cache, SAME) == "semantic"


def test_an_index_is_named_with_what_the_program_gives_it(places, redis_query):
    pytest.importorskip("redisvl")
    here, there, file = places
    name, other = f"c{secrets.token_hex(4)}", f"c{secrets.token_hex(4)}"
    with layered(here, RedisIndex(redis_query.url, name=name)) as cache:
        status(cache, ASKED)
    plain = json.loads(askonce("export", file, "--store", here, "--json").stdout)
    assert plain["rows"] == 0
    index = f"{redis_query.url}?name={name}"
    done = askonce("export", file, "--store", here, "--index", index, "--json", "--force")
    assert json.loads(done.stdout)["rows"] == 1
    target = f"{redis_query.url}?name={other}&algorithm=flat&max_rows_per_scope=9"
    done = askonce("import", file, "--store", there, "--index", target, "--json")
    assert json.loads(done.stdout)["rows_written"] == 1
    made = RedisIndex(redis_query.url, name=other, algorithm="flat", max_rows_per_scope=9)
    with layered(there, made) as cache:
        assert status(cache, SAME) == "semantic"


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("http://user:hunter2@h", 2, "redis://"),
        ("redis://user:hunter2@h?name=a:b", 2, "name='a:b' is not allowed"),
        ("redis://user:hunter2@h?algorithm=ivf", 2, "algorithm='ivf' is not allowed"),
        ("redis://user:hunter2@h?max_rows_per_scope=few", 2, "allowed: a whole number of rows"),
        ("redis://user:hunter2@127.0.0.1:1", 1, "the store or the network failed (ConnectionError)"),
    ],
)
def test_an_index_that_cannot_be_is_one_line_without_its_password(places, url, code, told):
    pytest.importorskip("redisvl")
    here, _, file = places
    with layered(here) as cache:
        status(cache, ASKED)
    done = askonce("export", file, "--store", here, "--index", url, code=code)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
