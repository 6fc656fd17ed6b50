"""Which requests take part in the cache, which pass through, and why."""

from __future__ import annotations

import json

import pytest

from askonce import Cache, Policy, Request, Rule, using
from askonce._body import parse
from askonce._control import current_control
from askonce._decision import decide, model_of
from askonce._surfaces import surface_of, surfaces_of

CHAT = "https://api.openai.com/v1/chat/completions"


def decided(
    body=None,
    *,
    url=CHAT,
    method="POST",
    headers=(),
    policy=None,
    mode="on",
    said=None,
    content_type="application/json",
    **cache,
):
    body = {"model": "gpt-4o", "messages": []} if body is None else body
    if isinstance(body, dict):
        body = {"input": "x", "prompt": "x", **body}  # the shape of a question, at whatever endpoint
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(method, url, ((b"content-type", content_type.encode()), *headers), raw)
    settings = Cache("memory://", policy=policy, mode=mode, **cache)._settings
    with using(**(said or {})):
        return decide(settings, request, parse(content_type, raw), current_control())


def bypass(body=None, **how):
    return decided(body, **how).bypass


KNOWN = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/openai/deployments/gpt/chat/completions": "chat",
    "/openai/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/moderations": "moderations",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
    "/v1/images/variations": "images",
    "/v1/audio/speech": "speech",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
}


@pytest.mark.parametrize(("path", "name"), KNOWN.items())
def test_questions_to_known_endpoints_take_part(path, name):
    made = decided(url="https://h" + path)
    assert (made.bypass, made.surface.name, made.read, made.write, made.coalesce) == (
        "",
        name,
        True,
        True,
        True,
    )


UNKNOWN = [
    "/v1/files", "/v1/uploads", "/v1/uploads/u/parts", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/threads",
    "/v1/threads/runs",
    "/v1/threads/t/messages", "/v1/vector_stores", "/v1/vector_stores/v/search", "/v1/assistants",
    "/v1/realtime/sessions",
    "/v1/realtime/client_secrets", "/v1/conversations", "/v1/conversations/c/items", "/v1/responses/r/cancel",
    "/v1/evals",
    "/v1/containers", "/v1/models", "/v1/organization/usage", "/oauth/token", "/", "",
    "/v1/chat/completions/c", "/v1/chat",
    "/login", "/v1/videos", "/v1/Chat/Completions", "/v1/myembeddings",
]  # fmt: skip

SHARED = ("/", "/v1/chat")  # paths that others may use too: there the body has to be a question


@pytest.mark.parametrize("path", UNKNOWN)
def test_other_endpoints_pass_through(path):
    assert bypass(url="https://h" + path) == "endpoint"
    assert not Cache("memory://").considers("POST", path) or path in SHARED


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "post"])
def test_methods_other_than_post_pass_through(method):
    assert bypass(method=method) == "method"
    assert not Cache("memory://").considers(method, "/v1/responses")


BYPASSES = [
    ({"background": True}, "background"),
    ({"background": False}, ""),
    ({"background": None}, ""),
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"conversation": None}, ""),
    ({"previous_response_id": "resp_1"}, ""),
    ({"store": True}, ""),
    ({"tools": [{"type": "web_search"}]}, "hosted tool"),
    ({"tools": [{"type": "web_search_preview"}]}, "hosted tool"),
    ({"tools": [{"type": "web_search_2025_08_26"}]}, "hosted tool"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "hosted tool"),
    ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, "hosted tool"),
    ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "hosted tool"),
    ({"tools": [{"type": "computer_use_preview"}]}, "hosted tool"),
    ({"tools": [{"type": "computer"}]}, "hosted tool"),
    ({"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, "hosted tool"),
    ({"tools": [{"type": "function", "name": "web_search"}]}, ""),
    ({"tools": [{"type": "custom", "name": "x"}]}, ""),
    ({"tools": [{"type": "image_generation"}]}, ""),
    ({"tools": []}, ""),
    ({"tools": None}, ""),
    ({"tools": {"type": "web_search"}}, ""),
    ({"tools": ["web_search", 5, None, {"type": 5}, {"type": ["web_search"]}, {}]}, ""),
    ({"web_search_options": {}}, "hosted tool"),
    ({"web_search_options": {"search_context_size": "low"}}, "hosted tool"),
    ({"web_search_options": None}, ""),
    ({"model": "gpt-4o-search-preview"}, "hosted tool"),
    ({"model": "gpt-5-search-api"}, "hosted tool"),
    ({"model": "o3-deep-research"}, "hosted tool"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "reason"), BYPASSES, ids=lambda value: json.dumps(value)[:60])
def test_questions_that_cannot_be_repeated_pass_through_and_say_why(fields, reason):
    for url in (CHAT, "https://h/v1/responses"):
        made = decided({"model": "gpt-4o", "messages": []} | fields, url=url)
        assert made.bypass == reason
        assert bool(made.key) == (not reason)


def test_a_rule_with_a_life_opens_hosted_tools_and_unknown_endpoints():
    policy = Policy(rules=[Rule(url="*/messages", ttl="1h"), Rule(model="gpt*", ttl="1h")])
    assert bypass({"model": "gpt-4o", "tools": [{"type": "web_search"}]}, policy=policy) == ""
    assert bypass({"model": "claude"}, url="https://h/v1/messages", policy=policy) == ""
    assert bypass({"model": "claude"}, url="https://h/v1/other", policy=policy) == "endpoint"
    assert decided({"model": "claude"}, url="https://h/v1/messages", policy=policy).surface.name == "other"


def test_a_rule_opens_neither_conversations_nor_background_work_nor_other_methods():
    policy = Policy(rules=[Rule(url="*", ttl="1h")])
    assert bypass({"conversation": "c"}, policy=policy) == "conversation"
    assert bypass({"background": True}, policy=policy) == "background"
    assert bypass(method="GET", policy=policy) == "method"


def test_using_a_life_does_not_open_what_is_closed():
    assert bypass(url="https://h/v1/files", said={"ttl": "1h"}) == "endpoint"
    assert bypass({"tools": [{"type": "web_search"}]}, said={"ttl": "1h"}) == "hosted tool"


@pytest.mark.parametrize(
    ("body", "url", "most", "reason"),
    [
        ({"temperature": 0}, CHAT, 0, ""),
        ({"temperature": 0.0}, CHAT, 0, ""),
        ({"temperature": 0.1}, CHAT, 0, "temperature"),
        ({"temperature": 0.5}, CHAT, 0.5, ""),
        ({}, CHAT, 0.5, "temperature"),
        ({"temperature": None}, CHAT, 0.5, "temperature"),
        ({}, CHAT, 1, ""),
        ({}, "https://h/v1/responses", 0, "temperature"),
        ({}, "https://h/v1/completions", 0, "temperature"),
        ({}, "https://h/v1/embeddings", 0, ""),
        ({"temperature": 2}, CHAT, None, ""),
        ({"temperature": "hot"}, CHAT, 0, ""),
    ],
)
def test_questions_above_the_temperature_of_the_policy_pass_through(body, url, most, reason):
    assert bypass(body, url=url, policy=Policy(max_temperature=most)) == reason


def test_the_temperature_of_a_form_counts_too():
    raw = b'--x\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n0.9\r\n--x--\r\n'
    how = {"url": "https://h/v1/audio/transcriptions", "content_type": "multipart/form-data; boundary=x"}
    assert bypass(raw, policy=Policy(max_temperature=0), **how) == "temperature"
    assert bypass(raw, policy=Policy(max_temperature=0.9), **how) == ""


# -- modes -----------------------------------------------------------------------------------------

MODES = {  # read, write, offline, coalesce
    "on": (True, True, False, True),
    "refresh": (False, True, False, False),
    "read_only": (True, False, False, False),
    "offline": (True, False, True, False),
}


@pytest.mark.parametrize(("mode", "expected"), MODES.items())
def test_each_mode_reads_and_writes_what_it_says(mode, expected):
    for made in (decided(mode=mode), decided(said={"mode": mode}), decided(mode="off", said={"mode": mode})):
        assert (made.read, made.write, made.offline, made.coalesce) == expected


def test_mode_off_passes_everything_through():
    assert bypass(mode="off") == bypass(said={"mode": "off"}) == "mode off"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"no-cache", (False, True, False)),
        (b"no-store", (True, False, False)),
        (b"no-cache, no-store", (False, False, False)),
        (b"only-if-cached", (True, False, True)),
        (b"only-if-cached, no-cache", (True, False, True)),
        (b"max-age=5", (True, True, False)),
    ],
)
def test_each_directive_does_what_it_says(header, expected):
    made = decided(headers=((b"cache-control", header),))
    assert (made.read, made.write, made.offline) == expected


def test_a_cache_that_is_off_stays_off_whatever_a_header_says():
    for header in (b"only-if-cached", b"no-cache", b"max-age=5"):
        assert bypass(mode="off", headers=((b"cache-control", header),)) == "mode off"


def test_a_bound_on_age_is_not_shared_with_callers_who_have_none():
    made = decided(said={"max_age": 5})
    assert (made.max_age, made.coalesce) == (5, False)


def test_refresh_and_store_of_a_block():
    assert decided(said={"refresh": True}).read is False
    assert decided(said={"store": False}).write is False
    assert decided(mode="read_only", said={"store": True}).write is False
    assert decided(mode="refresh", said={"refresh": False}).read is False


def test_tags_and_windows_reach_the_decision():
    made = decided(
        said={"tags": ["a", "b"]}, policy=Policy(stale_while_revalidate=5, stale_if_error=6),
        headers=((b"cache-control", b"stale-while-revalidate=0"),),
    )  # fmt: skip
    assert (made.tags, made.stale_while_revalidate, made.stale_if_error) == (("a", "b"), 0, 6)


# -- the caller's last word ------------------------------------------------------------------------


def test_cacheable_has_the_last_word_before_a_lookup():
    seen = []

    def cacheable(request, entry):
        seen.append((request.method, entry))
        return b"secret" not in request.body

    policy = Policy(cacheable=cacheable)
    assert bypass(policy=policy) == ""
    assert bypass({"model": "gpt-4o", "messages": "secret"}, policy=policy) == "policy"
    assert seen == [("POST", None)] * 2


def test_a_cacheable_that_fails_has_not_said_yes():
    def cacheable(request, entry):
        raise KeyError("prompt")

    assert bypass(policy=Policy(cacheable=cacheable)) == "policy"


def test_cacheable_is_not_asked_about_what_passes_through_anyway():
    assert bypass(method="GET", policy=Policy(cacheable=lambda request, entry: 1 / 0)) == "method"


# -- scope -----------------------------------------------------------------------------------------


def test_a_tenant_whose_name_is_a_word_of_ours_shares_with_nobody_else():
    shared = decided().key
    assert decided(said={"scope": "shared"}).key != shared
    by_credential = decided(scope="credential").key
    assert decided(said={"scope": "credential"}).key not in {shared, by_credential}


def test_a_scope_function_that_fails_shares_nothing_and_breaks_nothing():
    def scope(request):
        raise KeyError("no tenant")

    assert bypass(scope=scope) == "scope"


# -- the model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/chat/completions", {"model": "gpt-4o"}, "gpt-4o"),
        ("/openai/deployments/my-gpt/chat/completions", {}, "my-gpt"),
        ("/openai/deployments/my-gpt/chat/completions", {"model": "gpt-4o"}, "gpt-4o"),
        ("/openai/deployments/", {}, ""),
        ("/v1/chat/completions", {}, ""),
        ("/v1/chat/completions", {"model": None}, ""),
        ("/v1/chat/completions", {"model": 5}, ""),
        ("/v1/chat/completions", [], ""),
    ],
)
def test_the_model_is_the_field_or_the_azure_deployment(path, body, model):
    read = parse("", json.dumps(body).encode())
    assert model_of(path, read, surface_of(path, read)) == model


def test_a_model_in_a_form_is_found():
    raw = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x--\r\n'
    made = decided(
        raw, url="https://h/v1/audio/transcriptions", content_type="multipart/form-data; boundary=x"
    )
    assert (made.model, made.bypass) == ("whisper-1", "")


def test_only_whole_path_endings_are_known():
    assert surfaces_of("/v1/chat/completions")[0].name == "chat"
    assert surfaces_of("/v1/xcompletions") == ()
    assert surfaces_of("/v1/chat/completions/") == ()
