"""Where a prompt may be cut: at most four marks, never another text, and the same when said twice."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import Cache, ConfigurationError
from askonce.prefix import PrefixAffinity, annotate
from askonce.stores import MemoryStore

LONG = "word " * 1000  # 1,250 tokens
MARK = {"type": "ephemeral"}


def talk(*turns, **more):
    said = [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]
    return {"model": "claude-sonnet-4-5", "messages": said, **more}


def marks(value):
    if isinstance(value, dict):
        own = [value["cache_control"]] if value.get("cache_control") else []
        return own + [mark for name, one in value.items() if name != "cache_control" for mark in marks(one)]
    return [mark for one in value for mark in marks(one)] if isinstance(value, list) else []


def unmarked(value):
    """Without marks, and a text as the block it is."""
    if isinstance(value, dict):
        made = {name: unmarked(one) for name, one in value.items() if name != "cache_control"}
        for name in ("content", "system"):
            if isinstance(made.get(name), str):
                made[name] = [{"type": "text", "text": made[name]}]
        return made
    return [unmarked(one) for one in value] if isinstance(value, list) else value


def test_tools_system_and_both_turns_are_marked_once_a_conversation_goes_on():
    body = talk("one", "two", "three", system=LONG, tools=[{"name": "t", "description": LONG}])
    before = copy.deepcopy(body)
    made = annotate(body, provider="anthropic")
    assert body == before
    assert made["tools"][0]["cache_control"] == MARK
    assert made["system"] == [{"type": "text", "text": LONG, "cache_control": MARK}]
    assert made["messages"][0]["content"] == [{"type": "text", "text": "one", "cache_control": MARK}]
    assert made["messages"][1]["content"] == "two"
    assert made["messages"][2]["content"] == [{"type": "text", "text": "three", "cache_control": MARK}]
    assert unmarked(made) == unmarked(body)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_what_is_no_json_is_returned_as_it_is(provider, number):
    body = talk(LONG, "yes", "and?", system=LONG, temperature=number)
    made = annotate(body, provider=provider)
    assert made["temperature"] is number
    assert made == body


def test_a_first_question_gets_no_mark_of_its_own():
    made = annotate(talk("one", system=LONG), provider="anthropic")
    assert made["messages"] == talk("one")["messages"]
    assert len(marks(made)) == 1


@pytest.mark.parametrize(("model", "marked"), [("claude-sonnet-4-5", 1), ("claude-haiku-4-5", 0)])
def test_a_prompt_that_is_too_short_for_its_model_is_not_marked(model, marked):
    assert len(marks(annotate(talk("one", model=model, system=LONG), provider="anthropic"))) == marked
    assert marks(annotate(talk("one", model=model, system="short"), provider="anthropic")) == []
    assert len(marks(annotate(talk("one", system="short"), provider="anthropic", least=0))) == 1


def test_what_cannot_carry_a_mark_gets_none():
    thought = {"type": "thinking", "thinking": LONG, "signature": "s"}
    said = {"type": "text", "text": "x"}
    made = annotate(
        talk(
            "one",
            [said, thought, {"type": "text", "text": " "}],
            tools=[{"name": "a"}, {"name": "b", "defer_loading": True}],
        ),
        provider="anthropic",
        least=0,
    )
    assert made["messages"][1]["content"] == [
        {**said, "cache_control": MARK},
        thought,
        {"type": "text", "text": " "},
    ]
    assert made["tools"] == [{"name": "a", "cache_control": MARK}, {"name": "b", "defer_loading": True}]


def test_an_hour_is_never_said_after_five_minutes():
    system = [{"type": "text", "text": LONG, "cache_control": MARK}]
    body = talk("one", "two", "three", system=system, tools=[{"name": "t", "description": LONG}])
    made = annotate(body, provider="anthropic", ttl="1h")
    assert marks(made["tools"]) == [{"type": "ephemeral", "ttl": "1h"}]  # only the tools stand before it
    assert marks(made["system"]) == [MARK]
    assert made["messages"] == body["messages"]


def test_the_mark_for_the_whole_request_counts_and_stands_for_the_last_block():
    made = annotate(talk("one", "two", "three", system=LONG, cache_control=MARK), provider="anthropic")
    assert made["messages"][2]["content"] == "three"
    assert len(marks(made)) == 3


@pytest.mark.parametrize("had", range(6))
def test_there_are_four_marks_at_most_with_those_that_were_there(had):
    parts = [{"type": "text", "text": "x", "cache_control": MARK} for _ in range(had)]
    content = [{"type": "tool_result", "tool_use_id": "t", "content": parts}]
    body = talk("one", "two", content, "three", "four", system=LONG, tools=[{"name": "t"}])
    made = annotate(body, provider="anthropic", least=0)
    assert len(marks(made)) == max(4, had)
    assert [message["content"] for message in made["messages"][:2]] == ["one", "two"]


def test_openai_gets_a_key_for_what_conversations_share_and_it_tells_nothing():
    ask = {"model": "gpt-4o", "messages": [{"role": "system", "content": "be brief"}]}
    one = {**ask, "messages": [*ask["messages"], {"role": "user", "content": "a"}]}
    two = {**ask, "messages": [*ask["messages"], {"role": "user", "content": "b"}]}
    key = annotate(one, provider="openai")["prompt_cache_key"]
    assert key == annotate(two, provider="openai")["prompt_cache_key"]
    assert len(key) == 32
    assert int(key, 16)
    others = [
        annotate({**one, "model": "gpt-5"}, provider="openai"),
        annotate({**one, "tools": [{"name": "t"}]}, provider="openai"),
        annotate(one, provider="openai", key=b"secret"),
    ]
    assert len({key, *(other["prompt_cache_key"] for other in others)}) == 4
    assert annotate({**one, "prompt_cache_key": "mine"}, provider="openai")["prompt_cache_key"] == "mine"
    alone = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]}
    assert annotate(alone, provider="openai") == alone  # or all strangers would meet under one key


@pytest.mark.parametrize("bad", [{"provider": "other"}, {"provider": "anthropic", "ttl": "2h"}], ids=str)
def test_what_is_not_known_is_an_error(bad):
    with pytest.raises(ConfigurationError, match="allowed"):
        annotate({}, **bad)


BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, st.sampled_from(["", " ", "a", LONG])),
    st.just({"type": "thinking", "thinking": LONG, "signature": "s"}),
    st.just({"type": "image", "source": {"type": "base64", "data": "A" * 9000}}),
    st.just({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": LONG}]}),
    st.just({"type": "tool_use", "id": "t", "name": "t", "input": {"cache_control": "of the tool"}}),
)
MARKED = st.one_of(
    BLOCKS,
    st.builds(
        lambda block, hour: {**block, "cache_control": {**MARK, **({"ttl": "1h"} if hour else {})}},
        BLOCKS,
        st.booleans(),
    ),
)
CONTENT = st.one_of(st.sampled_from(["", "a", LONG]), st.lists(MARKED, max_size=4))
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": CONTENT}), max_size=6
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["claude-sonnet-4-5", "claude-haiku-4-5", "gpt-4o"]), "messages": MESSAGES},
    optional={
        "system": CONTENT,
        "tools": st.lists(st.just({"name": "t", "description": LONG}), max_size=3),
        "cache_control": st.just(MARK),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    BODIES,
    st.sampled_from(["anthropic", "openai"]),
    st.sampled_from(["5m", "1h"]),
    st.sampled_from([0, None]),
)
def test_said_twice_is_said_once_and_no_text_is_changed(body, provider, ttl, least):
    once = annotate(body, provider=provider, ttl=ttl, least=least)
    assert annotate(once, provider=provider, ttl=ttl, least=least) == once
    had = json.dumps(body).count('"type": "ephemeral"')
    assert json.dumps(once).count('"type": "ephemeral"') <= max(4, had)
    plain = {name: value for name, value in once.items() if name != "prompt_cache_key"}
    assert unmarked(plain) == unmarked(body)


@settings(max_examples=60, deadline=None)
@given(BODIES, st.sampled_from(["anthropic", "openai"]))
def test_the_same_deployment_is_picked_with_marks_and_without(body, provider):
    with Cache(MemoryStore()) as cache:
        affinity = PrefixAffinity(cache, [str(number) for number in range(8)])
        with affinity.pick(body) as bare:
            pass
        marked = affinity.pick(affinity.annotated(body, provider=provider))
        marked.left()
    assert (marked.name, marked.known) == (bare.name, bare.blocks)
