"""A fault of our own, wherever it may hide, never costs a caller the answer."""

from __future__ import annotations

import logging
import sys

import orjson
import pytest

from askonce import OfflineMiss, using
from askonce._decider import Decider
from askonce._keeper import Keeper
from askonce._request import Request


class Broken(Exception):
    """With somebody's prompt in its text."""


def breaks(*_args, **_options):
    raise Broken("hello, this is a prompt")


@pytest.fixture
def undecidable(monkeypatch):
    monkeypatch.setattr("askonce._decider.decide", breaks)


@pytest.fixture
def unjudgeable(monkeypatch):
    monkeypatch.setattr(Keeper, "judge", breaks)


def test_a_request_that_cannot_be_decided_goes_to_the_provider(kit, k, undecidable):
    cache = kit.cache()
    reply = cache.ask(k.Ask(kit.upstream))
    assert reply.entry is None  # the door calls the provider itself
    assert reply.native is None
    assert (reply.outcome.status, reply.outcome.reason) == ("bypass", "internal error")
    assert cache.stats().bypassed == {"internal error": 1}


@pytest.mark.parametrize("how", ["cache", "call"])
def test_offline_it_does_not_even_then(kit, k, undecidable, how):
    cache = kit.cache(mode="offline" if how == "cache" else "on")
    with pytest.raises(OfflineMiss), using(mode="offline"):
        cache.ask(k.Ask(kit.upstream))
    assert kit.upstream.calls == 0


def test_an_answer_that_cannot_be_judged_reaches_its_caller(kit, unjudgeable):
    cache = kit.cache()
    for calls in (1, 2):
        result = kit.ask(cache)
        assert result.body
        assert (result.outcome.stored, result.outcome.not_stored) == (False, "internal error")
        assert kit.upstream.calls == calls
    assert cache.stats().dropped == {"internal error": 2}


def test_so_does_a_stream(kit, unjudgeable):
    cache = kit.cache()
    result = kit.ask(cache, live=True)
    assert result.body
    assert (result.outcome.stored, result.outcome.not_stored) == (False, "internal error")
    assert len(cache._flow.flights) == 0


def test_the_warning_says_where_and_not_what_was_asked(kit, unjudgeable, caplog, monkeypatch):
    monkeypatch.setattr("askonce._events._last", {})
    with caplog.at_level(logging.WARNING, "askonce"):
        kit.ask(kit.cache())
    (said_,) = [record.getMessage() for record in caplog.records]
    assert "Broken in breaks" in said_
    assert "prompt" not in said_


def test_a_body_too_deep_for_what_is_left_of_the_stack_is_asked_without_the_cache():
    """orjson writes 254 levels; a caller deep in its own recursion has no room for us to follow."""
    body = orjson.dumps({"model": "m", "deep": None}).decode().replace("null", "[" * 240 + "]" * 240)
    request = Request("POST", "https://api.openai.com/v1/chat/completions", (), body.encode())
    decider = decider_of()
    assert not decider.decide(request, said())[0].bypass

    def deep(levels):
        return deep(levels - 1) if levels else decider_of().decide(request, said())[0]

    assert deep(sys.getrecursionlimit() - _depth() - 120).bypass == "internal error"


def _depth():
    """Of the stack, here."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def decider_of():
    from askonce import Policy
    from askonce._decision import Settings

    return Decider(Settings(policy=Policy(), namespace="n", scope="shared", mode="on", secret=None))


def said():
    from askonce._control import current_control

    return current_control()
