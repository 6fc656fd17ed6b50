"""LangChain's models over LangChainCache: right where LangChain's own caches are wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseLLM
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

from askonce import Cache, ConfigurationError, OfflineMiss, Policy, track, using
from askonce._flights import leading
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock
from askonce.testing._provider import Fault
from askonce_httpx import wrap_client
from askonce_langchain import LangChainCache
from askonce_openai import disable_cache, enable_cache


@pytest.fixture
def chat(provider, models):
    def made(kind=ChatOpenAI, **options):
        options = {"model": "m", "api_key": "k", "max_retries": 0, **options}
        url = provider.url if kind is ChatAnthropic else provider.base_url
        models.append(kind(base_url=options.pop("base_url", url), **options))
        return models[-1]

    return made


@pytest.fixture
def door(cache):
    made = LangChainCache(cache)
    set_llm_cache(made)
    return made


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


# -- hits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ChatOpenAI, ChatAnthropic])
@pytest.mark.parametrize("ask", ["text", "tool"])
async def test_a_hit_says_what_the_first_answer_said_as_a_fresh_object(kind, ask, provider, chat, door):
    model = chat(kind)
    words = "hello"
    if ask == "tool":
        model, words = model.bind_tools([get_weather]), "use the tool get_weather"
    first, again = model.invoke(words), model.invoke(words)
    later = await model.ainvoke(words)
    for hit in (again, later):
        assert (hit.content, hit.tool_calls) == (first.content, first.tool_calls)
        assert hit.additional_kwargs == first.additional_kwargs
        assert hit.usage_metadata["input_tokens"] == first.usage_metadata["input_tokens"]
        said = hit.response_metadata.pop("askonce")
        assert (said["status"], said["age"] >= 0, bool(said["key"])) == ("hit", True, True)
        assert hit.response_metadata == first.response_metadata
    assert len({first.id, again.id, later.id}) == 3
    assert provider.calls == 1
    stats = door.cache.stats()
    assert (stats.hits, stats.misses, stats.stored) == (2, 1, 1)


async def test_every_kind_of_call(provider, chat, door):
    model = chat()
    model.invoke("hello")
    await model.ainvoke("hello")
    model.batch(["hello"] * 4)
    await model.abatch(["hello"] * 4)
    model.generate([[HumanMessage("hello")]])
    assert provider.calls == 1


def test_plain_models_too(provider, door, models):
    model = OpenAI(model="m", api_key="k", base_url=provider.base_url, max_retries=0)
    models.append(model)
    first = model.generate(["hello", "you"])
    again = model.generate(["you", "hello"])
    assert [row[0].text for row in again.generations] == [row[0].text for row in first.generations[::-1]]
    assert provider.calls == 1


def test_all_of_several_generations_are_kept(provider, chat, door):
    model = chat(n=3)
    first = model.generate([[HumanMessage("hello")]]).generations[0]
    again = model.generate([[HumanMessage("hello")]]).generations[0]
    assert [one.text for one in again] == [one.text for one in first]
    assert len({one.message.id for one in again}) == 3
    assert provider.calls == 1


def test_a_mutated_hit_changes_no_other(provider, chat, door):
    model = chat().bind_tools([get_weather])
    model.invoke("use the tool get_weather")
    spoilt = model.invoke("use the tool get_weather")
    city = spoilt.tool_calls[0]["args"]["city"]
    spoilt.tool_calls[0]["args"]["city"] = "elsewhere"
    spoilt.response_metadata.clear()
    spoilt.content = "changed"
    after = model.invoke("use the tool get_weather")
    assert (after.tool_calls[0]["args"]["city"], after.content) == (city, "")


def test_rich_answers_survive(door):
    answer = AIMessage(
        content=[
            {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}},
            {"type": "text", "text": "é🦊", "annotations": [{"type": "citation", "url": "u"}]},
            {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
        ],
        additional_kwargs={"reasoning_content": "hm", "big": 2**70},
        response_metadata={
            "logprobs": {"content": [{"token": "a", "logprob": -1e-7, "bytes": [97], "top_logprobs": []}]}
        },
        usage_metadata={
            "input_tokens": 1,
            "output_tokens": 2,
            "total_tokens": 3,
            "output_token_details": {"reasoning": 1},
        },
        invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "x", "type": "invalid_tool_call"}],
    )
    model = GenericFakeChatModel(messages=iter([answer, "second"]))
    first, again = model.invoke("hello"), model.invoke("hello")
    for hit in (first, again):
        hit.response_metadata.pop("askonce", None)
        hit.usage_metadata.pop("total_cost", None)
        hit.id = None
    assert first == again
    assert again.content == answer.content


def test_a_structured_output_is_parsed_again(provider, chat, door):
    class City(BaseModel):
        name: str
        people: int

    model = chat().with_structured_output(City)
    first, again = model.invoke("hello"), model.invoke("hello")
    assert first == again
    assert isinstance(again, City)
    assert provider.calls == 1


# -- other questions ------------------------------------------------------------------------------------


def test_two_schemas_of_one_name_never_meet(provider, chat, door):
    def asked(**fields):
        kind = type(
            "Out",
            (BaseModel,),
            {
                "__annotations__": {name: kind for name, (kind, _) in fields.items()},
                **{name: Field(description=text) for name, (_, text) in fields.items()},
            },
        )
        return [
            chat().with_structured_output(kind, method=method).invoke("hello")
            for method in ("json_schema", "function_calling")
        ]

    asked(a=(int, "x"))
    asked(a=(str, "x"))
    asked(a=(int, "y"))
    asked(b=(int, "x"))
    assert provider.calls == 8
    asked(b=(int, "x"))
    assert provider.calls == 8


def test_a_class_of_which_only_the_name_is_seen_is_not_cached_and_says_so_once(door, caplog):
    caplog.set_level(logging.WARNING, "askonce")
    model = '{"lc": 1, "id": ["x"], "kwargs": {}}---'
    model += "[('response_format', <class 'a.Out'>)]"
    for _ in range(3):
        assert door.lookup("hello", model) is None
        door.update("hello", model, [Generation(text="x")])
    assert door.cache.stats().stored == 0
    (said,) = [record.getMessage() for record in caplog.records if "not cached" in record.getMessage()]
    assert "enable_cache" in said


@pytest.mark.parametrize("shown", ["Thing()", "<a.Thing object at 0x7f00>", "<function f at 0x7f00>"])
def test_an_object_of_which_only_the_repr_is_seen_is_not_cached(shown, door, caplog):
    for text in (
        f"[('tool_choice', {shown})]",
        '{"lc": 1, "id": ["x"], "kwargs": {}}---' + f"[('a', {shown})]",
    ):
        assert door.lookup("hello", text) is None
        door.update("hello", text, [Generation(text="x")])
        assert door.lookup("hello", text) is None
    assert door.cache.stats().stored == 0
    assert "not cached" in caplog.text


def test_a_message_with_an_object_that_could_not_be_written_down_is_not_cached(door, caplog):
    hidden = {"lc": 1, "type": "not_implemented", "id": ["a", "Thing"], "repr": "Thing()"}
    human = {"lc": 1, "type": "constructor", "id": ["m", "HumanMessage"], "kwargs": {"content": "x"}}
    for prompt in (
        [hidden],
        [human, hidden],
        [{**human, "kwargs": {"content": [hidden]}}],
        [[{"a": hidden}]],
    ):
        text = json.dumps(prompt)
        door.update(text, "m", [Generation(text="x")])
        assert door.lookup(text, "m") is None
    assert door.cache.stats().stored == 0
    assert "not cached" in caplog.text


def test_a_message_may_call_itself_what_it_likes(provider, chat, door):
    for said in (
        HumanMessage("hello"), ChatMessage("hello", role="HumanMessage"), ChatMessage("hello", role="user"),
        ChatMessage("hello", role="developer"),
    ):  # fmt: skip
        dumped = dumps([said])
        assert door.lookup(dumped, "m") is None
        door.update(dumped, "m", [Generation(text=repr(said))])
    assert door.cache.stats().stored == 4


@pytest.mark.parametrize(
    "option", [{"output_version": "responses/v1"}, {"include_response_headers": True}, {"stream_usage": True}]
)
def test_a_setting_that_shapes_the_answer_is_another_question(option, provider, chat, door):
    chat().invoke("hello")
    chat(**option).invoke("hello")
    assert provider.calls == 2


class ByHand(BaseLLM):
    """Looks up for another model, from inside its own method."""

    found: list[Any] = Field(default_factory=list)
    other: str = ""

    @property
    def _llm_type(self):
        return "by hand"

    @classmethod
    def is_lc_serializable(cls):
        return True

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs):
        door = get_llm_cache()
        for text in ("n", "m"):
            llm_string = self.other.replace('"m"', f'"{text}"')
            self.found.append(door.lookup("by hand", llm_string))
            door.update("by hand", llm_string, [Generation(text=text)])
        return LLMResult(generations=[[Generation(text="x")] for _ in prompts])


def test_a_lookup_by_hand_inside_a_model_is_of_the_model_it_names(provider, chat, door):
    written = chat()._get_llm_string()
    model = ByHand(other=written)
    model.invoke("hello")
    assert model.found == [None, None]


def test_a_setting_changed_after_the_first_call_is_another_question(provider, chat, door):
    model = chat(temperature=0.0)
    model.invoke("hello")
    model.temperature = 0.9
    warm = model.invoke("hello")
    assert provider.calls == 2
    assert provider.requests[-1].json()["temperature"] == 0.9
    assert model.invoke("hello").content == warm.content
    model.model_kwargs = {"seed": 1}
    model.invoke("hello")
    model.model_kwargs["seed"] = 2
    model.invoke("hello")
    assert provider.calls == 4
    model.temperature, model.model_kwargs = 0.0, {}
    model.invoke("hello")
    assert provider.calls == 4


async def test_a_setting_changed_after_the_first_async_call_is_another_question(provider, chat, door):
    model = chat(temperature=0.0)
    await model.ainvoke("hello")
    model.temperature = 0.9
    await model.ainvoke("hello")
    assert provider.calls == 2
    await model.ainvoke("hello")
    assert provider.calls == 2


def test_another_base_url_model_tool_or_turn_is_another_question(provider, chat, door):
    chat().invoke("hello")
    chat(base_url=f"{provider.url}/other/v1").invoke("hello")
    chat(model="n").invoke("hello")
    chat().bind_tools([get_weather]).invoke("hello")
    chat().invoke([SystemMessage("s"), HumanMessage("hello")])
    chat().invoke("hello", stop=["x"])
    chat(default_headers={"a": "b"}).invoke("hello")
    chat().invoke([HumanMessage("hello", name="somebody")])
    assert provider.calls == 8


def test_how_a_model_is_called_is_no_other_question(provider, chat, door):
    chat().invoke("hello")
    chat(timeout=3, max_retries=5, api_key="other", streaming=False, verbose=True, tags=["t"]).invoke("hello")
    assert provider.calls == 1


def test_two_tenants_never_share(provider, chat, cache):
    for scope in ("a", "b", None):
        model = chat(cache=LangChainCache(cache, scope=scope))
        model.invoke("hello")
        model.invoke("hello")
    assert provider.calls == 3


def test_credentials_cannot_be_seen_so_a_cache_that_wants_them_is_refused():
    with Cache("memory://", scope="credential") as cache:
        with pytest.raises(ConfigurationError, match="credential"):
            LangChainCache(cache)
        LangChainCache(cache, scope="tenant")


@pytest.mark.parametrize(("option", "value"), [("cache", "memory://"), ("scope", 5)])
def test_bad_arguments_are_named(option, value):
    with pytest.raises(ConfigurationError, match=option):
        LangChainCache(**{option: value})


# -- conversations --------------------------------------------------------------------------------------


def test_a_hit_in_the_history_is_the_same_history(provider, chat, door):
    def talk():
        model = chat()
        messages: list[Any] = [HumanMessage("hello")]
        messages.append(model.invoke(messages))
        messages.append(HumanMessage("and then?"))
        messages.append(model.invoke(messages))
        messages.append(HumanMessage("and then??"))
        return model.invoke(messages)

    first = talk()
    for _ in range(3):
        assert talk().content == first.content
    assert provider.calls == 3


def test_tool_calls_in_the_history_count(provider, chat, door):
    def ask(call="1", said="sunny"):
        answer = AIMessage("", tool_calls=[{"name": "f", "args": {"a": 1}, "id": call, "type": "tool_call"}])
        return chat().invoke([HumanMessage("hello"), answer, ToolMessage(said, tool_call_id=call)])

    ask()
    ask()
    ask(said="rainy")
    ask(call="2")
    assert provider.calls == 3


async def test_an_agent_asked_again_asks_nothing_of_the_provider(provider, chat, door):
    pytest.importorskip("langgraph")
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = chat().bind_tools([get_weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    agent = graph.compile()

    def run():
        state: Any = {"messages": []}
        for words in ("use the tool get_weather", "thanks, now without"):
            state = agent.invoke({"messages": [*state["messages"], HumanMessage(words)]})
        return state["messages"]

    first = run()
    calls = provider.calls
    assert calls == 3
    with track() as tracked:
        again = run()
    assert provider.calls == calls
    assert [call.status for call in tracked] == ["hit"] * 3
    assert [(m.type, m.content) for m in again] == [(m.type, m.content) for m in first]
    assert len({message.id for message in again}) == len(again) == 6


async def test_tokens_of_a_hit_are_seen_through_the_lower_door(provider, chat, cache):
    pytest.importorskip("langgraph")
    from langgraph.graph import START, MessagesState, StateGraph

    enable_cache(cache)
    set_llm_cache(LangChainCache(cache))
    try:
        model = chat()

        async def node(state):
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("model", node)
        graph.add_edge(START, "model")
        agent = graph.compile()

        async def tokens():
            return [
                event["data"]["chunk"].content
                async for event in agent.astream_events({"messages": [HumanMessage("hello")]}, version="v2")
                if event["event"] == "on_chat_model_stream"
            ]

        first = await tokens()
        again = await tokens()
        assert "".join(first) == "".join(again) != ""
        assert provider.calls == 1
    finally:
        disable_cache()


# -- with a door beneath --------------------------------------------------------------------------------


async def test_with_the_openai_door_nothing_is_stored_or_counted_twice(provider, chat, cache):
    enable_cache(cache)
    set_llm_cache(LangChainCache(cache))
    try:
        model = chat()
        first, again = model.invoke("hello"), await model.ainvoke("hello")
        assert first.content == again.content
        stats = cache.stats()
        assert (stats.misses, stats.hits, stats.stored) == (1, 1, 1)
        assert len(list(cache.entries())) == 1
        assert "".join(chunk.content for chunk in model.stream("hello you")) == "".join(
            chunk.content for chunk in model.stream("hello you")
        )
        assert provider.calls == 2
    finally:
        disable_cache()


def test_an_answer_that_a_cache_beneath_gave_is_as_old_as_there(provider, chat):
    with Cache("memory://") as lower, Cache("memory://", ttl=100, policy=None) as upper:
        client = wrap_client(chat(), lower)
        client.invoke("hello")
        ((_, entry),) = lower.entries()
        set_llm_cache(LangChainCache(upper))
        lower_key, _ = next(iter(lower.entries()))
        client.invoke("hello")
        assert lower_key
        ((_, above),) = upper.entries()
        assert abs(above.meta.created_at - entry.meta.created_at) < 0.5
        assert provider.calls == 1


def test_a_callback_that_counts_what_was_paid_can_tell_a_hit(provider, chat, door):
    class Paid(BaseCallbackHandler):
        tokens = 0
        told = 0

        def on_llm_end(self, response, **kwargs):
            self.told += 1
            message = response.generations[0][0].message
            if message.response_metadata.get("askonce", {}).get("status") != "hit":
                self.tokens += message.usage_metadata["total_tokens"]

    paid, model = Paid(), chat()
    first = model.invoke("hello", config={"callbacks": [paid]})
    model.invoke("hello", config={"callbacks": [paid]})
    assert (paid.told, paid.tokens) == (2, first.usage_metadata["total_tokens"])


# -- what is not kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(finish_reason="length"), Fault(refusal=True), Fault(finish_reason="content_filter"),
        Fault(empty=True),
    ],
    ids=["length", "refusal", "filter", "empty"],
)  # fmt: skip
def test_half_and_refused_answers_are_given_once(fault, provider, chat, door):
    provider.always(fault)
    model = chat()
    for _ in range(2):
        model.invoke("hello")
    assert (provider.calls, door.cache.stats().stored) == (2, 0)


def test_an_error_is_the_callers_and_leaves_nothing(provider, chat, door):
    provider.script(Fault(status=400))
    with pytest.raises(Exception, match="400"):
        chat().invoke("hello")
    chat().invoke("hello")
    chat().invoke("hello")
    assert provider.calls == 2


@pytest.mark.parametrize("operation", ["get", "set"])
def test_a_failing_store_is_never_seen(operation, provider, chat):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        set_llm_cache(LangChainCache(cache))
        store.fail_with(RuntimeError, operations=[operation])
        assert chat().invoke("hello").content
        assert chat().invoke("hello").content


async def test_a_spoilt_store_is_never_seen(provider, chat):
    store = FlakyStore(MemoryStore())
    with Cache(store) as cache:
        set_llm_cache(LangChainCache(cache))
        await chat().ainvoke("hello")
        store.spoil("flipped")
        assert (await chat().ainvoke("hello")).content
    assert provider.calls == 2


def test_a_foreign_body_under_our_key_is_a_miss(provider, chat, door, cache, caplog):
    chat().invoke("hello")
    (key,) = cache.keys()
    from askonce import _codec

    entry = cache.entry(key)
    for body in (
        b"[]",
        b'{"generations":[{"kind":"pickle"}]}',
        b'{"generations":[{"kind":"chat","info":null,"message":{"type":"x","data":{}}}]}',
    ):
        from dataclasses import replace

        cache._backing.stores[0].set(key, _codec.encode(key, replace(entry, body=body), None), None)
        assert chat().invoke("hello").content
    assert provider.calls == 4
    assert "could not be read" in caplog.text


# -- settings -------------------------------------------------------------------------------------------


def test_modes_and_single_calls(provider, chat):
    with Cache("memory://", mode="offline") as cache, pytest.raises(OfflineMiss):
        chat(cache=LangChainCache(cache)).invoke("hello")
    assert provider.calls == 0
    with Cache("memory://") as cache:
        model = chat(cache=LangChainCache(cache))
        model.invoke("hello")
        with using(refresh=True):
            model.invoke("hello")
        with using(mode="off"):
            model.invoke("hello")
        with using(namespace="other"):
            model.invoke("hello")
        with using(sample=1):
            model.invoke("hello")
        with using(ttl=0):
            model.invoke("hello again")
            model.invoke("hello again")
        assert provider.calls == 7
        model.invoke("hello")
        assert provider.calls == 7
        with using(tags=["t"]):
            model.invoke("tagged")
        assert cache.invalidate(tag="t") == 1


def test_a_policy_sees_model_temperature_and_tools(provider, chat):
    with Cache("memory://", policy=Policy(max_temperature=0.5)) as cache:
        model = chat(cache=LangChainCache(cache), temperature=1.0)
        model.invoke("hello")
        model.invoke("hello")
        assert provider.calls == 2
        cool = chat(cache=LangChainCache(cache), temperature=0.1)
        cool.invoke("hello")
        cool.invoke("hello")
        assert provider.calls == 3
        ((_, entry),) = cache.entries()
        assert (entry.meta.model, entry.meta.surface) == ("m", "langchain")
        assert entry.meta.usage["output_tokens"] > 0
    with Cache("memory://") as cache:
        search = chat(cache=LangChainCache(cache)).bind_tools([{"type": "web_search_preview"}])
        for _ in range(2):
            search.invoke("hello")
        assert cache.stats().bypassed == {"hosted tool": 2}


def test_answers_expire(provider, chat):
    clock = ManualClock()
    with Cache("memory://", policy=Policy(ttl=10, jitter=0), clock=clock) as cache:
        model = chat(cache=LangChainCache(cache))
        model.invoke("hello")
        clock.advance(9)
        assert model.invoke("hello").response_metadata["askonce"]["age"] == 9
        clock.advance(2)
        model.invoke("hello")
        assert provider.calls == 2


async def test_clear_removes_what_this_door_stored_and_nothing_else(provider, chat, cache):
    enable_cache(cache)
    try:
        import openai

        with openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "kept"}])
    finally:
        disable_cache()
    door = LangChainCache(cache)
    model = chat(cache=door)
    for clear in (door.clear, door.aclear):
        model.invoke("hello")
        assert len(cache.keys()) == 2
        done = clear()
        if done is not None:
            await done
        assert len(cache.keys()) == 1


# -- secrecy --------------------------------------------------------------------------------------------


def test_neither_prompt_nor_settings_are_in_what_is_stored_or_said(provider, chat, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    class Spy(MemoryStore):
        def set(self, key, value, expires_at):
            seen.append(key.encode() + value)
            super().set(key, value, expires_at)

    with Cache(Spy()) as cache:
        door = LangChainCache(cache)
        model = chat(cache=door, default_headers={"x-secret": "hidden-header"}, api_key="hidden-key")
        model.invoke("hidden prompt")
        model.invoke("hidden prompt")
        (key,) = cache.keys()
        found = cache.entry(key)
        told = repr(door) + repr(found) + key + json.dumps(found.meta.fingerprint) + found.body.decode()
        told += "".join(record.getMessage() for record in caplog.records if record.name.startswith("askonce"))
    for secret in ("hidden prompt", "hidden-header", "hidden-key"):
        assert secret not in told
        assert seen
        assert not any(secret.encode() in one for one in seen)


# -- at one time ----------------------------------------------------------------------------------------


async def test_identical_calls_at_one_time_are_one_call(provider, chat, door):
    model = chat()
    provider.always(Fault(delay=0.3))
    answers = model.batch(["hello"] * 8)
    assert len({answer.content for answer in answers}) == 1
    assert provider.calls == 1
    answers = await model.abatch(["hello you"] * 8)
    assert len({answer.content for answer in answers}) == 1
    assert provider.calls == 2
    mixed = await asyncio.gather(
        *[model.ainvoke("mixed") for _ in range(10)],
        *[asyncio.to_thread(model.invoke, "mixed") for _ in range(10)],
    )
    assert len({answer.content for answer in mixed}) == 1
    assert provider.calls == 3
    assert door.cache.stats().coalesced > 20


def test_a_failed_leader_frees_the_others_at_once(provider, chat, door):
    """The leader's thread goes on living: only the stack says that its call is over."""
    model = chat()
    gate, end = threading.Event(), threading.Event()
    provider.script(Fault(hold=gate, status=400))

    def leader():
        with pytest.raises(Exception, match="400"):
            model.invoke("hello")
        end.wait(30)

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(leader)
        provider.wait_for_calls(1)
        others = [pool.submit(model.invoke, "hello") for _ in range(4)]
        gate.set()
        contents = {other.result(10).content for other in others}
        end.set()
        first.result(10)
    assert len(contents) == 1
    assert provider.calls == 2


async def test_a_failed_or_cancelled_async_leader_frees_the_others_at_once(provider, chat, door):
    model = chat()
    for fault in (Fault(status=400, delay=0.3), Fault(hang=True)):
        provider.reset()
        provider.script(fault)
        words = repr(fault.status)
        first = asyncio.ensure_future(model.ainvoke(words))
        await asyncio.to_thread(provider.wait_for_calls, 1)
        others = [asyncio.ensure_future(model.ainvoke(words)) for _ in range(4)]
        await asyncio.sleep(0.05)
        if fault.hang:
            first.cancel()
        done = await asyncio.wait_for(asyncio.gather(*others), 10)
        assert len({one.content for one in done}) == 1
        assert provider.calls == 2
        await asyncio.gather(first, return_exceptions=True)


def test_failed_calls_leave_nothing_behind(provider, chat, door):
    model = chat()
    provider.always(Fault(status=400))
    for number in range(5):
        with pytest.raises(Exception, match="400"):
            model.invoke(f"hello {number}")
    provider.clear()
    model.invoke("well")
    assert len(door._open) == 0
    assert len(door.cache._flow.flights) == 0


def test_a_thread_whose_calls_fail_again_and_again_keeps_nothing_of_them(provider, chat, door):
    model = chat()
    provider.always(Fault(status=400))
    for number in range(20):
        with pytest.raises(Exception, match="400"):
            model.invoke(f"hello {number}")
        assert len(leading.get()) <= 1
    provider.clear()
    model.invoke("well")
    assert leading.get() == ()


def test_nobody_waits_longer_for_another_than_for_the_provider(provider, chat, door):
    slow, quick = chat(), chat(timeout=0.3)
    gate = threading.Event()
    provider.script(Fault(hold=gate))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.invoke, "hello")
        provider.wait_for_calls(1)
        assert quick.invoke("hello").content
        assert not first.done()
        gate.set()
        first.result(10)
    assert provider.calls == 2


class Nested(BaseLLM):
    """Asks another model from inside its own call."""

    inner: Any

    @property
    def _llm_type(self):
        return "nested"

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs):
        return LLMResult(
            generations=[[Generation(text=self.inner.invoke(prompt).content)] for prompt in prompts]
        )


def test_a_model_inside_a_model_waits_for_nobody(provider, chat, door):
    inner = chat()
    outer = Nested(inner=inner)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(model.invoke, "hello") for model in (outer, inner, outer, inner)]
        texts = {getattr(result.result(20), "content", None) or result.result(20) for result in results}
    assert 1 <= len(texts) <= 2


def test_a_generation_of_a_class_nobody_knows_is_not_stored(door):
    class Mine(Generation):
        pass

    door.update("p", "l", [Mine(text="x")])
    door.update("p", "l", [ChatGeneration(message=AIMessage("x", additional_kwargs={"a": object()}))])
    assert door.lookup("p", "l") is None
