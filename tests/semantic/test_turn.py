"""Only the text of the last user turn may differ; where there is none for certain, nothing may."""

from __future__ import annotations

import copy

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askonce import Policy, Request
from askonce._body import parse
from askonce._control import NOTHING_SAID
from askonce._decision import Settings, decide
from askonce.semantic._turn import find_turn, question_of

SETTINGS = Settings(policy=Policy(), namespace="default", scope="shared", mode="on", secret=None)
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/gemini:generateContent"


def user(content, **more):
    return {"role": "user", "content": content, **more}


def text_of(path, fields):
    turn = find_turn(path, fields)
    return None if turn is None else turn.text


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        (CHAT, {"messages": [user("hi")]}, "hi"),
        (CHAT, {"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]}, "c"),
        (CHAT, {"messages": [user([{"type": "text", "text": "hi"}])]}, "hi"),
        (CHAT, {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]}, "b"),
        (CHAT, {"messages": [user([{"type": "text", "text": "a"}, {"type": "image_url"}])]}, "a"),
        ("/openai/deployments/d/chat/completions", {"messages": [user("hi")]}, "hi"),
        (RESPONSES, {"input": "hi"}, "hi"),
        (RESPONSES, {"input": [user("hi")]}, "hi"),
        (RESPONSES, {"input": [user([{"type": "input_text", "text": "hi"}], type="message")]}, "hi"),
        (MESSAGES, {"messages": [user("hi")], "system": "s"}, "hi"),
        (MESSAGES, {"messages": [user([{"type": "tool_result"}, {"type": "text", "text": "hi"}])]}, "hi"),
        (GEMINI, {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}, "hi"),
        (GEMINI, {"contents": [{"parts": [{"text": "hi"}]}]}, "hi"),
        ("/v1beta/models/g:streamGenerateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, "hi"),
        ("/api/chat", {"messages": [user("hi", images=["AAAA"])]}, "hi"),
        ("/v2/chat", {"messages": [user("hi")]}, "hi"),
        ("/v1/completions", {"prompt": "hi"}, "hi"),
        ("/v1/completions", {"prompt": "Translate.\nQ: hi\n"}, "Q: hi"),
    ],
)
def test_the_last_users_turn_is_found_on_every_surface(path, fields, text):
    assert text_of(path, fields) == text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {}),
        (CHAT, {"messages": []}),
        (CHAT, {"messages": "hi"}),
        (CHAT, {"messages": {"role": "user", "content": "hi"}}),
        (CHAT, {"messages": [user("a"), None]}),
        (CHAT, {"messages": ["a", user("b")]}),
        (CHAT, {"messages": [user("a"), {"role": "assistant", "content": "b"}]}),
        (CHAT, {"messages": [user("a"), {"role": "tool", "content": "b"}]}),
        (CHAT, {"messages": [{"content": "no role"}]}),
        (CHAT, {"messages": [user(None)]}),
        (CHAT, {"messages": [user(5)]}),
        (CHAT, {"messages": [user("")]}),
        (CHAT, {"messages": [user("  ")]}),
        (CHAT, {"messages": [user([])]}),
        (CHAT, {"messages": [user([{"type": "image_url"}])]}),
        (CHAT, {"messages": [user([{"type": "new_kind", "text": "hi"}])]}),
        (CHAT, {"messages": [user([{"type": "text", "text": 5}])]}),
        (CHAT, {"messages": [user(["text", {"type": "text", "text": "hi"}])]}),
        (RESPONSES, {"input": []}),
        (RESPONSES, {"input": [user("a"), {"type": "function_call_output", "output": "b"}]}),
        (RESPONSES, {"input": [user("a", type="other")]}),
        (MESSAGES, {"messages": [user("a"), {"role": "assistant", "content": "prefill"}]}),
        (MESSAGES, {"messages": [user([{"type": "tool_result", "content": "x"}])]}),
        (GEMINI, {"contents": [{"role": "model", "parts": [{"text": "hi"}]}]}),
        (GEMINI, {"contents": "hi"}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": [1, 2]}),
        ("/v1/completions", {"prompt": "\n"}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/moderations", {"input": "hi"}),
        ("/v1/anything", {"messages": [user("hi")]}),
    ],
)
def test_where_it_is_not_certain_there_is_no_turn(path, fields):
    assert find_turn(path, fields) is None


def question(fields, path=CHAT, **said):
    request = Request("POST", f"https://api.test{path}", (), orjson.dumps(fields))
    body = parse("application/json", request.body)
    settings = said.pop("settings", SETTINGS)
    decision = decide(settings, request, body, NOTHING_SAID)
    turn = find_turn(path, body.fields)
    return question_of(turn, request, decision, settings, said.pop("also", ("model",)))


def test_a_turn_changes_the_request_that_it_is_of_in_nothing():
    fields = {"messages": [user("a"), user([{"type": "text", "text": "b"}])], "model": "m"}
    before = copy.deepcopy(fields)
    find_turn(CHAT, fields)
    assert fields == before


def test_a_text_and_the_hole_where_texts_were_are_never_mistaken():
    for hole in (True, "True", "true", "", "\0"):
        other = {"model": "m", "messages": [user(hole), user("x")]}
        assert (
            question({"model": "m", "messages": [user("hi"), user("x")]}).partition
            != question(other).partition
        )


def test_what_is_ignored_in_keys_is_ignored_here_too():
    one = question({"model": "m", "messages": [user("hi")], "user": "1", "temperature": 0.0, "stream": False})
    two = question({"model": "m", "messages": [user("ho")], "temperature": 0, "seed": None})
    assert one.partition == two.partition
    assert one.digest != two.digest


def test_the_mark_says_partition_and_text():
    one = question({"model": "m", "messages": [user("hi")]})
    assert question({"model": "n", "messages": [user("hi")]}).digest != one.digest
    assert question({"model": "m", "messages": [user("hi")]}) == one
    assert "hi" not in repr(one)


def test_a_secret_keeps_guesses_from_being_tested():
    secret = Settings(policy=Policy(), namespace="default", scope="shared", mode="on", secret=b"s" * 20)
    fields = {"model": "m", "messages": [user("hi")]}
    one, two = question(fields), question(fields, settings=secret)
    assert one.partition != two.partition
    assert one.digest != two.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {"model": st.sampled_from("ab"), "messages": st.lists(JSON, max_size=2)},
    optional={"tools": st.lists(JSON, max_size=2), "temperature": st.sampled_from([0, 0.5]), "x": JSON},
)


@given(FIELDS, FIELDS, st.text(max_size=5), st.text(max_size=5))
def test_partitions_are_equal_exactly_when_keys_with_the_same_text_are(one, two, first, second):
    """So no partition ever holds two requests that differ in more than the text."""
    fields = []
    for base, text in ((one, first), (two, second)):
        said = [item for item in base["messages"] if isinstance(item, dict)]
        fields.append({**base, "messages": [*said, user("t" + text)]})
    same_text = [{**each, "messages": [*each["messages"][:-1], user("t")]} for each in fields]
    keys = []
    for each in same_text:
        request = Request("POST", f"https://api.test{CHAT}", (), orjson.dumps(each))
        keys.append(decide(SETTINGS, request, parse("application/json", request.body), NOTHING_SAID).key)
    if all(keys):
        partitions = [question(each).partition for each in fields]
        assert (partitions[0] == partitions[1]) == (keys[0] == keys[1])


@given(JSON, st.sampled_from([CHAT, RESPONSES, MESSAGES, GEMINI, "/v1/completions", "/api/chat"]))
def test_whatever_is_sent_finding_the_turn_never_raises(value, path):
    for name in ("messages", "input", "contents", "prompt"):
        turn = find_turn(path, {name: value})
        assert turn is None or turn.text.strip()
        turn = find_turn(path, {name: [value]})
        assert turn is None or turn.text.strip()
