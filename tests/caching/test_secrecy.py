"""No prompt, answer, credential or secret in a log line, a repr, a key, an error or an event."""

from __future__ import annotations

import copy
import json
import logging

import pytest

from askonce import Cache, ConfigurationError, OfflineMiss, Policy, Request, Rule, using
from askonce.doors import Opened, cache_status
from askonce.stores.memory import MemoryStore
from askonce.testing import FlakyStore

PROMPT, ANSWER, CREDENTIAL, SECRET = (
    "PROMPTmarker",
    "ANSWERmarker",
    "sk-CREDENTIALmarker",
    "SECRETmarker0123456",
)
HEADER, QUERY, TENANT, FAULT, USERINFO = (
    "HEADERmarker",
    "QUERYmarker",
    "TENANTmarker",
    "FAULTmarker",
    "USERINFOmarker",
)
MARKERS = (PROMPT, ANSWER, CREDENTIAL, SECRET, HEADER, QUERY, TENANT, FAULT, USERINFO)

URL = f"https://user:{USERINFO}@h/v1/chat/completions?api_key={CREDENTIAL}&q={QUERY}&sig={CREDENTIAL}"
HEADERS = (
    (b"authorization", b"Bearer " + CREDENTIAL.encode()),
    (b"x-api-key", CREDENTIAL.encode()),
    (b"cookie", CREDENTIAL.encode()),
    (b"x-other", HEADER.encode()),
    (b"openai-organization", HEADER.encode()),
    (b"content-type", b"application/json"),
)
BODY = {
    "model": "gpt-4o",
    "messages": [
        {"role": "user", "content": PROMPT},
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
    ],
    "tools": [{"type": "function", "function": {"name": PROMPT}}],
    "user": PROMPT,
    "stop": [PROMPT],
    "metadata": {PROMPT: PROMPT},
    "logit_bias": {PROMPT: 1},
    "temperature": 0.25,
}
GOOD = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}


class Ask:
    live, patience = False, None

    def __init__(self, answer=GOOD, *, status=200, body=BODY, error=None, url=URL, headers=HEADERS):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.request = Request("POST", url, headers, raw)
        self.opened = Opened(
            status=status, native=object(), body=json.dumps(answer).encode(), framed=True,
            headers=[(b"content-type", b"application/json"), (b"set-cookie", ANSWER.encode())],
        )  # fmt: skip
        self._error = error

    def open(self):
        if self._error is not None:
            raise self._error
        return self.opened

    again = open  # noqa: A003


def told(*things):
    """Everything a program could print of these."""
    return "\n".join(f"{thing!r} {thing!s}" for thing in things)


def assert_silent(text, *, but=()):
    found = [marker for marker in MARKERS if marker not in but and marker in text]
    assert found == [], found


@pytest.fixture
def logged():
    """All that is logged at DEBUG while a test runs, by whomever."""
    lines = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(
                f"{record.name} {record.getMessage()} {record.args!r} {record.exc_text} {record.exc_info!r}"
            )

    handler, root = Handler(0), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    from askonce import _events

    _events._last.clear()
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


def fail(*_):
    raise RuntimeError(FAULT + PROMPT)


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "with a secret"])
def test_a_life_full_of_trouble_says_nothing_of_what_was_said(secret, logged):
    store = FlakyStore(MemoryStore())
    seen, replies = [], []
    policy = Policy(
        cacheable=lambda request, entry: True, rules=[Rule(model="x", ttl=1)], stale_if_error="1h"
    )
    cache = Cache(store, policy=policy, secret=secret, scope=lambda request: TENANT)
    cache.subscribe(seen.append)
    cache.subscribe(fail)
    with cache, using(tags=["tag"]):
        replies += [cache.ask(Ask()), cache.ask(Ask())]
        replies.append(cache.ask(Ask({"error": {"message": ANSWER}}, body={**BODY, "seed": 1})))
        replies.append(cache.ask(Ask(status=500, body={**BODY, "seed": 2})))
        replies.append(cache.ask(Ask(body=b'{"model":"m","a":NaN,"b":"' + PROMPT.encode() + b'"}')))
        with pytest.raises(ConnectionError):
            cache.ask(Ask(error=ConnectionError(FAULT), body={**BODY, "seed": 3}))
        for damage in ("garbage", "truncated", "flipped", "empty"):
            store.spoil(damage)
            replies.append(cache.ask(Ask()))
        store.recover()
        replies.append(cache.ask(Ask()))
        for operation in ("get", "set", "delete", "scan", "get_many"):
            store.fail_with(OSError(FAULT + PROMPT), operations=[operation])
            replies.append(cache.ask(Ask(body={**BODY, "operation": len(operation)})))
            store.recover()
        things = [cache, cache.stats(), cache.policy, store, *seen, *cache.ping()]
        for reply in replies:
            things += [reply, reply.outcome, cache_status(reply.outcome), reply.entry]
        for key, entry in cache.entries():
            things += [key, entry, entry.meta, entry.meta.fingerprint]
        things.append(cache.explain(Ask(body={**BODY, "temperature": 0.5}).request))
        things.append(Ask().request)
    assert {reply.outcome.status for reply in replies} >= {"hit", "miss", "error"}
    assert logged
    assert_silent("\n".join(logged))
    assert_silent(told(*things))


def test_an_offline_miss_says_nothing_of_what_was_asked():
    with Cache("memory://", scope=lambda request: TENANT) as cache:
        cache.ask(Ask())
        other = {**BODY, "messages": [{"role": "user", "content": PROMPT * 2}], "stop": PROMPT, "seed": 5}
        with using(mode="offline"), pytest.raises(OfflineMiss) as caught:
            cache.ask(Ask(body=other))
    error = caught.value
    assert error.differences
    assert_silent(told(error, error.args, vars(error), error.key, error.differences))
    assert error.__context__ is None
    assert error.__cause__ is None


def test_a_bad_cache_control_of_the_callers_shows_itself_and_nothing_else():
    headers = (*HEADERS, (b"cache-control", b"max-age=soon"))
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match="max-age='soon'") as caught:
        cache.ask(Ask(headers=headers))
    assert_silent(told(caught.value))


def test_the_reprs_of_what_doors_handle_show_nothing():
    ask = Ask()
    assert_silent(told(ask.request, copy.copy(ask.request), ask.request.target, ask.opened, [ask.request]))


def test_what_debuggers_and_error_reporters_print_of_local_variables_shows_nothing():
    # Sentry and pytest print the repr of every local variable of every frame of a traceback.
    class Lost(Exception):
        pass

    def scope(request):
        return TENANT

    frames = []
    with Cache("memory://", secret=SECRET, scope=scope) as cache:
        try:
            cache.ask(Ask(error=Lost()))
        except Lost as error:
            trace = error.__traceback__
            while trace is not None:
                if "/askonce/" in trace.tb_frame.f_code.co_filename:
                    frames.append(trace.tb_frame)
                trace = trace.tb_next
        assert len(frames) >= 3
        for frame in frames:
            for name, value in frame.f_locals.items():
                if name != "exchange":  # the door's own object
                    assert_silent(f"{name} {value!r}")
        assert_silent(told(cache._settings, cache._flow._offline._seal, cache._flow))


def test_what_is_stored_holds_no_prompt_no_credential_and_no_cookie():
    store = MemoryStore()
    with Cache(store) as cache:
        key = cache.ask(Ask()).outcome.key
        value = store.get(key).value
    assert_silent(value.decode("latin-1") + key, but=[ANSWER])
    assert value.count(ANSWER.encode()) == 1  # the answer, not the cookie


def test_with_a_secret_what_is_stored_holds_no_answer_either():
    store = MemoryStore()
    with Cache(store, secret=SECRET) as cache:
        key = cache.ask(Ask()).outcome.key
        assert_silent(store.get(key).value.decode("latin-1") + key)
        assert b"gpt-4o" not in store.get(key).value


def test_only_these_headers_of_an_answer_are_stored():
    from askonce._entry import kept_headers

    kept = [
        (b"Content-Type", b"a"),
        (b"date", b"b"),
        (b"OpenAI-Version", b"c"),
        (b"x-request-id", b"d"),
        (b"request-id", b"e"),
    ]
    left = [
        b"set-cookie", b"authorization", b"x-ratelimit-remaining-tokens", b"retry-after", b"retry-after-ms",
        b"content-encoding",
        b"content-length", b"transfer-encoding", b"www-authenticate", b"server", b"cf-ray", b"alt-svc",
        b"connection",
    ]  # fmt: skip
    found = kept_headers([*kept, *[(name, b"x") for name in left]])
    assert found == (
        ("content-type", "a"),
        ("date", "b"),
        ("openai-version", "c"),
        ("x-request-id", "d"),
        ("request-id", "e"),
    )


@pytest.mark.parametrize("option", ["secret", "store", "policy"])
def test_a_bad_option_does_not_show_a_secret_given_beside_it(option):
    options = {"store": "memory://", "secret": SECRET} | {option: 5}
    with pytest.raises(ConfigurationError) as caught:
        Cache(**options)
    assert_silent(told(caught.value))
