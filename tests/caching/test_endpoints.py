"""Endpoints of a user's own: cached like the built-in ones, and only while they are registered."""

from __future__ import annotations

import re

import httpx
import pytest

from askonce import Cache, ConfigurationError, Policy, endpoints
from askonce.testing import FakeProvider
from askonce_httpx import CacheTransport

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "prompt": "hello"}


class Server(httpx.MockTransport):
    """A server of one's own: says each time something else."""

    def __init__(self, answer):
        super().__init__(self.answered)
        self.answer = answer
        self.calls = 0

    def answered(self, _):
        self.calls += 1
        return httpx.Response(200, json={"number": self.calls, **self.answer})


@pytest.fixture(autouse=True)
def pristine():
    yield
    for name in ("mine", "chat2"):
        endpoints.unregister(name)
    assert not {"mine", "chat2"} & set(endpoints.names())


def asked(server, path="/llm/generate", times=2, body=ASK, **options):
    with (
        Cache("memory://", **options) as cache,
        httpx.Client(transport=CacheTransport(cache, server)) as client,
    ):
        answers = [client.post("http://h" + path, json=body).json() for _ in range(times)]
        return server.calls, answers, [entry.meta for _, entry in cache.entries()]


def test_an_endpoint_is_cached_once_it_is_registered_and_no_longer_after():
    assert asked(Server({}))[0] == 2
    endpoints.register("mine", "/llm/generate")
    calls, answers, (meta,) = asked(Server({"text": "a"}))
    assert (calls, answers[0], meta.surface, meta.model) == (1, answers[1], "mine", "m")
    assert asked(Server({}), "/llm/generate/other")[0] == 2
    endpoints.unregister("mine")
    assert asked(Server({}))[0] == 2


def test_it_reads_its_answers_like_a_built_in_one():
    endpoints.register("chat2", "/llm/generate", like="chat")
    half = {"choices": [{"index": 0, "finish_reason": "length", "message": {"content": "h"}}]}
    whole = {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "h"}}],
        "usage": {"prompt_tokens": 3},
    }
    assert asked(Server(half))[0] == 2
    calls, _, (meta,) = asked(Server(whole))
    assert (calls, meta.usage) == (1, {"prompt_tokens": 3})
    assert asked(Server({"login": "please"}))[0] == 2


def test_a_function_of_the_users_says_what_is_wrong_with_an_answer():
    def read(answers):
        last = answers[-1]
        return endpoints.Reading({"tokens": last["spent"]}, {endpoints.TRUNCATED} if last["cut"] else set())

    endpoints.register("mine", "/llm/generate", read=read)
    calls, _, (meta,) = asked(Server({"spent": 5, "cut": False}))
    assert (calls, meta.usage) == (1, {"tokens": 5})
    assert asked(Server({"spent": 5, "cut": True}))[0] == 2
    assert asked(Server({"spent": 5, "cut": True}), policy=Policy(store_truncated=True))[0] == 1
    assert asked(Server({"no": "figures"}))[0] == 2  # a function that raises


def test_errors_and_empty_objects_are_not_stored():
    endpoints.register("mine", "/llm/generate")
    assert asked(Server({"error": {"message": "no"}}))[0] == 2


def test_the_body_must_have_the_shape():
    endpoints.register("mine", "/llm/generate", shape=["prompt"])
    assert asked(Server({}))[0] == 1
    assert asked(Server({}), body={"job": 1})[0] == 2


def test_a_pattern_finds_the_model_in_the_path():
    endpoints.register("mine", re.compile(r"/serve/(?P<model>\w+)/ask$"))
    calls, _, (meta,) = asked(Server({}), "/serve/tiny/ask", body={"prompt": "hello"})
    assert (calls, meta.model) == (1, "tiny")


def test_a_temperature_counts_unless_said_otherwise():
    policy = Policy(max_temperature=0.5)
    endpoints.register("mine", "/llm/generate")
    assert asked(Server({}), policy=policy)[0] == 2
    endpoints.register("mine", "/llm/generate", sampled=False)
    assert asked(Server({}), policy=policy)[0] == 1


def test_a_registered_endpoint_goes_before_a_built_in_one():
    endpoints.register(
        "mine", "/v1/chat/completions", read=lambda _: endpoints.Reading(flaws={endpoints.EMPTY})
    )
    with FakeProvider() as provider, Cache("memory://") as cache:
        with httpx.Client(transport=CacheTransport(cache)) as client:
            for _ in range(2):
                client.post(provider.base_url + "/chat/completions", json=ASK)
        assert provider.calls == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": ""}, "name=''"),
        ({"name": "a b"}, "name='a b'"),
        ({"path": "x"}, "path='x'"),
        ({"path": "/"}, "path='/'"),
        ({"like": "chatty"}, "like='chatty'"),
        ({"like": "chat", "read": lambda _: endpoints.Reading()}, "exclude each other"),
        ({"shape": "prompt"}, "a list of texts"),
    ],
)
def test_what_is_wrong_is_named(wrong, told):
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        endpoints.register(**{"name": "mine", "path": "/x", **wrong})


def test_an_endpoint_registered_while_calls_are_made_counts_from_then_on():
    server = Server({"text": "a"})
    with Cache("memory://") as cache, httpx.Client(transport=CacheTransport(cache, server)) as client:

        def ask():
            return client.post("http://h/v1/chat/completions", json=ASK).json()["number"]

        assert [ask(), ask()] == [1, 2]  # no chat, as far as anybody knows
        endpoints.register("mine", "/v1/chat/completions")
        assert [ask(), ask()] == [3, 3]
        endpoints.unregister("mine")
        assert [ask(), ask()] == [3, 3]  # an answer once kept is given
    assert server.calls == 3
