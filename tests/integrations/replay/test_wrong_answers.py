"""How a recording could answer another question, another ask, or from somewhere else: and does not."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import httpx2
import openai
import pytest

import askonce_httpx
import askonce_openai
from askonce import Cache, OfflineMiss, replay, using
from askonce.testing import FakeProvider
from askonce.testing._provider import Fault

pytestmark = pytest.mark.filterwarnings("ignore:.*recordings not used:UserWarning")

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("first", "second")
]


def question(text="Why is the sky blue?", **more):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (question("Why is the sky red?", temperature=0.5, tools=TOOLS), r"messages\[0\]\.content changed"),
        (question(temperature=0.7, tools=TOOLS), r"temperature 0\.5 -> 0\.7"),
        (question(temperature=0.5, tools=TOOLS[::-1]), "tools in another order"),
        (question(temperature=0.5, tools=TOOLS, seed=1), "seed added"),
        (question(temperature=0.5, tools=TOOLS) | {"model": "gpt-4o-mini"}, "model gpt-4o -> gpt-4o-mini"),
        (question(temperature=0.5), "tools.* removed"),
        (question(temperature=0.5, tools=TOOLS, stream=True), "stream added"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_a_changed_ask_fails_and_says_which_part_differs(client, provider, path, changed, named):
    with replay(path):
        client.chat.completions.create(**question(temperature=0.5, tools=TOOLS))
    with pytest.raises(OfflineMiss, match=named) as caught, replay(path, "replay"):
        client.chat.completions.create(**changed)
    assert str(path) in str(caught.value)
    assert "sky" not in str(caught.value), "no prompt in an error"
    assert caught.value.differences
    assert provider.calls == 1


def test_another_sample_and_another_namespace_are_other_asks(ask, path):
    with replay(path):
        ask()
    for said, named in (({"sample": 1}, "sample added"), ({"namespace": "other"}, "nothing near")):
        with pytest.raises(OfflineMiss, match=named), replay(path, "replay"), using(**said):
            ask()


def test_another_address_is_another_ask(client, path, provider):
    with replay(path):
        client.chat.completions.create(**question())
    elsewhere = client.with_options(base_url=f"{provider.url}/elsewhere/v1")
    with pytest.raises(OfflineMiss, match="url changed"), replay(path, "replay"):
        elsewhere.chat.completions.create(**question())


@pytest.mark.parametrize("swallow", [True, False])
def test_an_error_that_an_sdk_disguises_or_a_program_swallows_still_fails_the_block(provider, path, swallow):
    http = httpx2.Client(verify=False)
    client = anthropic.Anthropic(base_url=provider.url, api_key="k" * 20, max_retries=1, http_client=http)
    asked = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with replay(path):
        client.messages.create(**asked)
    with pytest.raises(OfflineMiss, match="max_tokens 9 -> 8") as caught, replay(path, "replay"):
        try:
            client.messages.create(**asked | {"max_tokens": 8})
        except anthropic.APIConnectionError:
            if not swallow:
                raise
    assert isinstance(caught.value.__cause__, anthropic.APIConnectionError) is not swallow
    assert "more ask" not in str(caught.value), "a retry is no further ask"
    assert provider.calls == 1
    http.close()


def test_what_ends_a_program_is_never_replaced_by_a_miss(ask, path):
    with pytest.raises(KeyboardInterrupt), replay(path, "replay"):
        with pytest.raises(OfflineMiss):
            ask()
        raise KeyboardInterrupt


def test_a_replay_asks_nobody_whatever_callers_say(client, provider, path):
    said = {"Cache-Control": "no-cache, no-store, max-age=0"}
    with replay(path), using(mode="off", store=False, ttl=0):
        client.chat.completions.create(**question(), extra_headers=said)
    assert provider.calls == 1
    for block in (using(mode="off"), using(mode="on"), using(refresh=True), using(max_age=0)):
        with replay(path, "replay"), block:
            client.chat.completions.create(**question(), extra_headers=said)
        with pytest.raises(OfflineMiss), replay(path, "replay"), block:
            client.chat.completions.create(**question("Another?"), extra_headers=said)
    assert provider.calls == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.models.list(),
        lambda client: client.responses.create(model="gpt-4o", input="Hi", background=True),
        lambda client: client.files.create(file=b"content", purpose="batch"),
    ],
    ids=["models", "background", "files"],
)
def test_a_replay_refuses_what_is_never_recorded(client, provider, path, ask):
    seen = len(provider.requests)
    with pytest.raises(OfflineMiss, match="never recorded"), replay(path, "replay"):
        ask(client)
    assert len(provider.requests) == seen


def test_a_replay_lets_nothing_else_reach_a_host_that_was_recorded(raw, provider, path):
    with replay(path):
        raw.post("/v1/chat/completions", json=question())
    with pytest.raises(OfflineMiss, match="GET request"), replay(path, "replay"):
        raw.get("/v1/models")


def test_what_is_no_question_and_goes_elsewhere_is_none_of_our_business(provider, path):
    mine = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, text="mine")))
    with replay(path, "replay"):
        assert mine.get("http://my-service/health").text == "mine"


def test_an_expired_entry_of_a_recording_does_not_exist_however_old_it_is(ask, provider, path):
    with replay(path):
        first = ask()
    said = json.loads(path.read_text())
    said["recordings"][0]["answer"]["recorded"] = "1999-01-01T00:00:00+00:00"
    path.write_text(json.dumps(said))
    with replay(path, "replay"):
        assert ask() == first
    with replay(path, "replay"), using(max_age="1h"):
        assert ask() == first


def test_the_programs_own_cache_is_not_used_inside_and_learns_nothing(client, provider, path, cache):
    askonce_openai.enable_cache(cache)
    try:
        first = client.chat.completions.create(**question())
        with replay(path) as recording:
            second = client.chat.completions.create(**question())
        assert recording.new == 1
        assert second.id != first.id, "an answer that only this machine has would be missing elsewhere"
        assert provider.calls == 2
        with replay(path, "replay"):
            client.chat.completions.create(**question())
            with pytest.raises(OfflineMiss):
                client.chat.completions.create(**question("Another?"))
            recording = None
    except OfflineMiss:
        assert client.chat.completions.create(**question()).id == first.id, "outside it is as before"
        assert len(cache.keys()) == 1
    else:
        pytest.fail("the miss was to be raised")
    finally:
        askonce_openai.disable_cache()


def test_a_client_with_a_cache_of_its_own_is_served_by_the_block(provider, path, cache):
    with httpx.Client(verify=False, base_url=provider.url) as http:
        askonce_httpx.wrap_client(http, cache)
        with replay(path):
            first = http.post("/v1/chat/completions", json=question()).content
        with replay(path, "replay"):
            assert http.post("/v1/chat/completions", json=question()).content == first
        assert provider.calls == 1
        assert cache.keys() == []


def test_half_answers_are_not_recorded_and_are_told(client, provider, path):
    with pytest.warns(UserWarning, match="asks not recorded"), replay(path) as recording:
        stream = client.chat.completions.create(**question(), stream=True)
        next(iter(stream))
        stream.close()
    assert len(recording) == 0
    assert len(recording.not_recorded) == 1
    assert not path.exists()


def test_an_answer_cut_by_a_limit_is_recorded_since_a_test_shows_what_happened(client, provider, path):
    provider.script(Fault(finish_reason="length"))
    with replay(path):
        first = client.chat.completions.create(**question(max_tokens=1))
    assert first.choices[0].finish_reason == "length"
    with replay(path, "replay"):
        assert client.chat.completions.create(**question(max_tokens=1)) == first


def test_blocks_of_two_threads_are_told_apart_by_who_asks(provider, tmp_path):
    """Each thread asks through a pool of its own, while both blocks are open."""
    both_open = threading.Barrier(2, timeout=10)
    client = openai.OpenAI(base_url=provider.base_url, api_key="k" * 20, max_retries=0)

    def run(name):
        with replay(tmp_path / name) as recording, ThreadPoolExecutor(1) as pool:
            both_open.wait()
            pool.submit(client.chat.completions.create, **question(name)).result()
            client.chat.completions.create(**question(f"{name}, directly"))
            both_open.wait()
            return len(recording)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, ["a.json", "b.json"])) == [2, 2]
    for name in ("a.json", "b.json"):
        abouts = {one["request"]["about"] for one in json.loads((tmp_path / name).read_text())["recordings"]}
        assert abouts == {name, f"{name}, directly"}
    client.close()


def test_blocks_that_are_open_over_one_file_keep_what_the_other_records(ask, path):
    with replay(path) as outer:
        ask("one")
        with replay(path):
            ask("two")
        ask("three")
    assert len(outer) == 2
    with replay(path, "replay") as recording:
        ask("one"), ask("two"), ask("three")
    assert len(recording) == 3


def test_an_inner_block_answers_before_an_outer_one(ask, provider, tmp_path):
    with replay(tmp_path / "outer.json") as outer:
        ask("outer")
        with replay(tmp_path / "inner.json") as inner:
            ask("inner")
        ask("outer again")
    assert (len(outer), len(inner)) == (2, 1)


def test_a_failed_block_leaves_the_old_file_and_a_good_one_replaces_it(ask, provider, path):
    with replay(path, "record"):
        ask("old")
        ask("kept")
    old = path.read_bytes()
    with pytest.raises(ZeroDivisionError), replay(path, "record"):
        ask("new")
        _ = 1 / 0
    assert path.read_bytes() == old
    with replay(path, "record") as recording:
        ask("kept")
    assert provider.calls == 4, "record asks anew"
    assert [one["request"]["about"] for one in json.loads(path.read_text())["recordings"]] == ["kept"]
    assert len(recording) == 1
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def test_a_recording_that_ends_after_the_block_changes_nothing(provider, path):
    with FakeProvider(delay=0.3) as slow, ThreadPoolExecutor(1) as pool:
        client = openai.OpenAI(base_url=slow.base_url, api_key="k" * 20, max_retries=0)
        with replay(path):
            late = pool.submit(client.chat.completions.create, **question())
            deadline = time.monotonic() + 10
            while not slow.in_flight and time.monotonic() < deadline:
                time.sleep(0.01)
        assert late.result().choices
        client.close()
    assert not path.exists()


def test_a_replay_works_where_the_provider_is_gone(path):
    with FakeProvider() as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="k" * 20, max_retries=0)
        with replay(path):
            first = client.chat.completions.create(**question())
    with replay(path, "replay"):
        assert client.chat.completions.create(**question()) == first
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(**question())
    client.close()


def test_a_fleet_of_misses_is_told_as_one(ask, path):
    with pytest.raises(OfflineMiss, match="2 more asks failed so"), replay(path, "replay"):
        for text in "abc":
            try:
                ask(text)
            except openai.OpenAIError:
                continue


def test_a_cache_made_inside_is_not_used_either(provider, path):
    with replay(path) as recording, Cache("memory://") as cache:
        client = httpx.Client(transport=askonce_httpx.CacheTransport(cache))
        client.post(f"{provider.base_url}/chat/completions", json=question())
        client.close()
        assert cache.keys() == []
    assert len(recording) == 1


@pytest.mark.parametrize("mode", ["auto", "record", "replay"])
def test_whoever_says_offline_himself_is_not_asked_for_and_has_the_miss_to_himself(
    client, provider, path, mode
):
    for said, header in (({"mode": "offline"}, {}), ({}, {"Cache-Control": "only-if-cached"})):
        with replay(path, mode), using(**said), pytest.raises(OfflineMiss):
            client.chat.completions.create(**question(), extra_headers=header)
    assert provider.calls == 0
