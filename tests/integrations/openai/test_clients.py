"""Every kind of client is served, and no two that must not share an answer do."""

from __future__ import annotations

import openai
import pytest

from askonce import Cache, Policy

OLD = int(openai.__version__.partition(".")[0]) < 3
MESSAGES = [{"role": "user", "content": "hello"}]


def ask(client, **more):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES} | more)


async def answers(side, *calls):
    """The ids of several calls, one after the other."""
    return [(await side.get(call)).id for call in calls]


async def shared(side, *clients, **more):
    """Whether the clients got one answer among them."""
    return len({(await side.get(ask(client, **more))).id for client in clients}) == 1


# -- kinds of clients -------------------------------------------------------------------------------


async def test_azure_is_served_by_deployment_and_version(side, provider, enabled):
    def azure(version="2024-10-21", **more):
        return side.client(provider.url, kind=side.azure, api_version=version, **more)

    first = await side.get(ask(azure(), model="dep"))
    assert "/openai/deployments/dep/chat/completions" in provider.requests[0].path
    assert (await side.get(ask(azure(), model="dep"))).id == first.id
    assert (await side.get(ask(azure(api_key="other"), model="dep"))).id == first.id
    assert provider.calls == 1
    assert (await side.get(ask(azure(), model="dep2"))).id != first.id
    assert (await side.get(ask(azure("2025-01-01"), model="dep"))).id != first.id
    assert provider.calls == 3


async def test_azure_with_a_deployment_of_its_own_is_keyed_by_it(side, provider, enabled):
    clients = [
        side.client(provider.url, kind=side.azure, api_version="v", azure_deployment=name)
        for name in ("one", "two", "one")
    ]
    ids = [(await side.get(ask(client))).id for client in clients]
    assert ids[0] == ids[2] != ids[1]
    assert provider.calls == 2


async def test_azure_streams_and_embeds(side, provider, enabled):
    client = side.client(provider.url, kind=side.azure, api_version="v")
    first = await side.all(ask(client, stream=True))
    again = await side.all(ask(client, stream=True))
    assert [item.to_dict() for item in again] == [item.to_dict() for item in first]
    vectors = [await side.get(client.embeddings.create(model="e", input="x", dimensions=4)) for _ in range(2)]
    assert vectors[0] == vectors[1]
    assert provider.calls == 2


async def test_azure_with_a_token_that_changes_is_served(side, provider, enabled):
    tokens = iter("abcdef")
    client = side.azure(
        azure_endpoint=provider.url,
        api_version="v",
        azure_ad_token_provider=lambda: next(tokens),
        http_client=side.client(provider.base_url)._client,
        max_retries=0,
    )
    assert len(set(await answers(side, ask(client), ask(client)))) == 1
    assert provider.calls == 1


async def test_azure_and_openai_at_one_host_do_not_share(side, provider, enabled):
    azure = side.client(provider.url, kind=side.azure, api_version="v")
    assert not await shared(side, azure, side.client(provider.base_url))


@pytest.mark.parametrize("way", ["with_options", "copy"])
async def test_copies_with_other_options_share(side, provider, enabled, way):
    client = side.client(provider.base_url)
    copies = [
        getattr(client, way)(**options)
        for options in (
            {"max_retries": 5},
            {"timeout": 3},
            {"api_key": "another"},
            {"default_headers": {"x-trace": "1"}},
        )
    ]
    assert await shared(side, client, *copies)
    assert provider.calls == 1


async def test_a_copy_to_another_place_does_not_share(side, provider, enabled):
    client = side.client(provider.base_url)
    assert not await shared(side, client, client.with_options(base_url=f"{provider.url}/other/v1"))
    assert provider.calls == 2


async def test_a_subclass_is_served(side, provider, enabled):
    class Mine(side.kind):
        """Adds nothing."""

    client = side.client(provider.base_url, kind=Mine)
    assert await shared(side, client, client, side.client(provider.base_url))
    assert provider.calls == 1


async def test_a_subclass_with_a_send_of_its_own_is_served_once(side, provider, enabled):
    seen = []
    if side.is_async:

        class Mine(side.kind):
            async def _send_request(self, request, **kwargs):
                seen.append(request)
                request.headers["x-mine"] = "1"
                return await super()._send_request(request, **kwargs)
    else:

        class Mine(side.kind):
            def _send_request(self, request, **kwargs):
                seen.append(request)
                request.headers["x-mine"] = "1"
                return super()._send_request(request, **kwargs)

    client = side.client(provider.base_url, kind=Mine)
    await side.get(ask(client))
    await side.get(ask(client))
    assert (len(seen), provider.calls) == (2, 1)
    assert provider.requests[0].header("x-mine") == "1"
    assert (enabled.stats().calls, enabled.stats().stored) == (2, 1)


async def test_a_subclass_that_never_calls_super_is_left_alone(side, provider, enabled):
    if side.is_async:

        class Mine(side.kind):
            async def _send_request(self, request, **kwargs):
                return await self._client.send(request, stream=kwargs["stream"])
    else:

        class Mine(side.kind):
            def _send_request(self, request, **kwargs):
                return self._client.send(request, stream=kwargs["stream"])

    client = side.client(provider.base_url, kind=Mine)
    assert not await shared(side, client, client)
    assert enabled.stats().calls == 0


@pytest.fixture
def module_client(provider):
    """`openai.chat...` at the fake provider; put back afterwards."""
    names = ("api_key", "base_url", "max_retries", "http_client")
    before = {name: getattr(openai, name) for name in names}
    http = openai.DefaultHttpxClient(verify=False)
    openai._reset_client()
    openai.api_key, openai.base_url, openai.max_retries = "module", provider.base_url + "/", 0
    openai.http_client = http
    yield openai
    http.close()
    for name, value in before.items():
        setattr(openai, name, value)
    openai._reset_client()


def test_the_module_client_is_served(module_client, sync_side, provider, enabled):
    first = openai.chat.completions.create(model="m", messages=MESSAGES)
    again = openai.chat.completions.create(model="m", messages=MESSAGES)
    assert again.model_dump() == first.model_dump()
    assert ask(sync_side.client(provider.base_url)).id == first.id
    events = [list(openai.chat.completions.create(model="m", messages=MESSAGES, stream=True)) for _ in "12"]
    assert [item.id for item in events[0]] == [item.id for item in events[1]]
    assert len(openai.embeddings.create(model="e", input="x").data[0].embedding) == 1536
    openai.embeddings.create(model="e", input="x")
    assert provider.calls == 3


@pytest.mark.skipif(OLD, reason="httpx is the family of openai 2 itself")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_legacy_httpx_client_is_served_with_responses_of_its_own_family(side, provider, enabled):
    httpx = pytest.importorskip("httpx")
    http = httpx.AsyncClient(timeout=10) if side.is_async else httpx.Client(timeout=10)
    client = side.client(provider.base_url, http=http)
    first = await side.get(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    again = await side.get(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert type(first.http_response) is type(again.http_response) is httpx.Response
    assert again.parse().model_dump() == first.parse().model_dump()
    events = [await side.all(ask(client, stream=True)) for _ in "12"]
    assert [item.to_dict() for item in events[0]] == [item.to_dict() for item in events[1]]
    text = [
        await side.get(client.audio.transcriptions.create(model="t", file=("a.wav", b"x" * 99))) for _ in "12"
    ]
    assert text[0].text == text[1].text
    assert provider.calls == 3
    # And with a client of the other family there is still one answer.
    assert (await side.get(ask(side.client(provider.base_url)))).id == first.parse().id
    assert provider.calls == 3


@pytest.mark.skipif(OLD, reason="httpx is the family of openai 2 itself")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_legacy_stream_is_followed_by_a_client_of_the_other_family(side, provider, enabled):
    from askonce.testing._provider import Fault

    httpx = pytest.importorskip("httpx")
    http = httpx.AsyncClient(timeout=10) if side.is_async else httpx.Client(timeout=10)
    legacy, modern = side.client(provider.base_url, http=http), side.client(provider.base_url)
    provider.script(Fault(hold_after=2))
    one, two = await side.get(ask(legacy, stream=True)), await side.get(ask(modern, stream=True))
    provider.release()
    assert [item.to_dict() for item in await side.all(two)] == [
        item.to_dict() for item in await side.all(one)
    ]
    assert provider.calls == 1


async def test_a_client_with_hooks_and_limits_of_its_own_is_served(side, provider, enabled):
    seen = []

    async def on_response(response):
        seen.append(response)

    hook = on_response if side.is_async else seen.append
    http = side.http(verify=False, event_hooks={"response": [hook]}, headers={"x-base": "1"})
    client = side.client(provider.base_url, http=http)
    assert await shared(side, client, client)
    assert (provider.calls, len(seen)) == (1, 1)


async def test_a_key_given_as_a_function_is_served(side, provider, enabled):
    keys = iter("abcdef")

    async def next_key():
        return next(keys)

    client = side.client(provider.base_url, api_key=next_key if side.is_async else lambda: next(keys))
    assert await shared(side, client, client)
    assert provider.calls == 1


# -- who shares with whom ---------------------------------------------------------------------------


async def test_two_providers_never_share(side, provider, fresh, enabled):
    other = fresh()
    await side.get(ask(side.client(provider.base_url)))
    await side.get(ask(side.client(other.base_url)))
    assert (provider.calls, other.calls) == (1, 1)


async def test_two_paths_at_one_host_never_share(side, provider, enabled):
    assert not await shared(side, *(side.client(f"{provider.url}/{path}/v1") for path in ("a", "b")))


async def test_a_trailing_slash_of_the_base_url_makes_no_difference(side, provider, enabled):
    assert await shared(side, side.client(provider.base_url), side.client(provider.base_url + "/"))


async def test_keys_share_by_default(side, provider, enabled):
    assert await shared(side, *(side.client(provider.base_url, api_key=key) for key in ("a", "b")))
    assert provider.calls == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_keys_do_not_share_with_scope_credential(side, provider, enable, stream):
    clients = [side.client(provider.base_url, api_key=key) for key in ("a", "b", "a", "b")]
    with Cache("memory://", scope="credential") as cache:
        enable(cache)
        for client in clients:
            answer = await side.get(ask(client, stream=stream))
            if stream:
                await side.all(answer)
        assert cache.stats().hits == 2
    assert provider.calls == 2


async def test_azure_keys_do_not_share_with_scope_credential(side, provider, enable):
    with Cache("memory://", scope="credential") as cache:
        enable(cache)
        for key in ("a", "b", "a"):
            client = side.client(provider.url, kind=side.azure, api_version="v", api_key=key)
            await side.get(ask(client))
    assert provider.calls == 2


async def test_a_scope_of_the_callers_own_separates(side, provider, enable):
    with Cache("memory://", scope=lambda request: request.header(b"x-tenant")) as cache:
        enable(cache)
        for tenant in ("a", "b", "a"):
            client = side.client(provider.base_url, default_headers={"x-tenant": tenant})
            await side.get(ask(client))
    assert provider.calls == 2


def workload(side, provider, subject):
    """A client that logs in by workload identity: its token is exchanged below `_send_request`."""
    identity = {
        "client_id": "c",
        "identity_provider_id": "p",
        "service_account_id": subject,
        "provider": {"token_type": "jwt", "get_token": lambda: subject},
    }
    client = side.kind(
        base_url=provider.base_url,
        workload_identity=identity,
        max_retries=0,
        http_client=side.client(provider.base_url)._client,
    )
    auth = client._workload_identity_auth

    async def token_async():
        return subject

    auth.get_token = lambda: subject
    auth.get_token_async = token_async
    return client


async def test_workload_identities_share_by_default(side, provider, enabled):
    assert await shared(side, *(workload(side, provider, subject) for subject in ("one", "two")))
    assert provider.requests[0].header("authorization") == "Bearer one"


async def test_workload_identities_do_not_share_with_scope_credential(side, provider, enable):
    """Their credential is not in the request yet when the cache sees it."""
    with Cache("memory://", scope="credential") as cache:
        enable(cache)
        for subject in ("one", "two"):
            await side.get(ask(workload(side, provider, subject)))
    assert [request.header("authorization") for request in provider.requests] == ["Bearer one", "Bearer two"]


async def test_credentials_of_an_http_auth_do_not_share_with_scope_credential(side, provider, enable):
    """httpx adds these below `_send_request`, too."""
    with Cache("memory://", scope="credential") as cache:
        enable(cache)
        for user in ("one", "two"):
            http = side.http(verify=False, auth=(user, "password"))
            await side.get(ask(side.client(provider.base_url, http=http)))
    assert provider.calls == 2


@pytest.mark.parametrize("option", ["organization", "project"])
async def test_organizations_and_projects_do_not_share(side, provider, enabled, option):
    clients = [side.client(provider.base_url, **{option: name}) for name in ("a", "b")]
    plain = side.client(provider.base_url)
    ids = [(await side.get(ask(client))).id for client in (*clients, plain, *clients, plain)]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3
    assert provider.calls == 3


# -- what makes another question --------------------------------------------------------------------


async def test_extra_body_is_part_of_the_question(side, provider, client):
    for more in ({"a": 1}, {"a": 2}, {}, {"a": 1}, {"b": 1}):
        await side.get(ask(client, extra_body=more))
    assert provider.calls == 4


async def test_extra_query_is_part_of_the_question(side, provider, client):
    for more in ({"a": "1"}, {"a": "2"}, {}, {"a": "1"}, {"b": "2", "a": "1"}, {"a": "1", "b": "2"}):
        await side.get(ask(client, extra_query=more))
    assert provider.calls == 4


async def test_credentials_in_the_query_are_not_part_of_the_question(side, provider, client):
    for key in ("one", "two"):
        await side.get(ask(client, extra_query={"api-key": key}))
    assert provider.calls == 1


async def test_default_query_is_part_of_the_question(side, provider, enabled):
    clients = [side.client(provider.base_url, default_query={"v": version}) for version in "12"]
    assert not await shared(side, *clients)


async def test_extra_headers_are_not_part_of_the_question(side, provider, client):
    for headers in ({"x-trace": "1"}, {"x-trace": "2"}, {"traceparent": "3"}, {"idempotency-key": "4"}, {}):
        await side.get(ask(client, extra_headers=headers))
    assert provider.calls == 1


@pytest.mark.parametrize("name", ["OpenAI-Beta", "OpenAI-Organization", "openai-project"])
async def test_headers_that_steer_the_answer_are_part_of_the_question(side, provider, client, name):
    for value in ("a", "b", "a"):
        await side.get(ask(client, extra_headers={name: value}))
    assert provider.calls == 2


async def test_vary_headers_of_the_policy_are_part_of_the_question(side, provider, enable):
    client = side.client(provider.base_url)
    with Cache("memory://", policy=Policy(vary_headers=frozenset({"X-Region"}))) as cache:
        enable(cache)
        for headers in ({"x-region": "eu"}, {"x-region": "us"}, {"X-Region": "eu"}, {}, {"x-other": "1"}):
            await side.get(ask(client, extra_headers=headers))
    assert provider.calls == 3


async def test_fields_that_do_not_change_the_answer_are_not_part_of_the_question(side, provider, client):
    for more in (
        {},
        {"user": "u"},
        {"safety_identifier": "s"},
        {"metadata": {"a": "b"}},
        {"prompt_cache_key": "k"},
        {"service_tier": "flex"},
        {"stream": False},
        {"tools": []},
        {"extra_body": {"seed": None}},
        {"timeout": 5},
    ):
        await side.get(ask(client, **more))
    assert provider.calls == 1


DIFFERENT = {
    "model": {"model": "m2"},
    "content": {"messages": [{"role": "user", "content": "hello "}]},
    "role": {"messages": [{"role": "system", "content": "hello"}]},
    "a turn more": {"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]},
    "temperature": {"temperature": 0.5},
    "seed": {"seed": 1},
    "n": {"n": 2},
    "max tokens": {"max_tokens": 5},
    "stop": {"stop": ["x"]},
    "format": {"response_format": {"type": "json_object"}},
    "logprobs": {"logprobs": True},
    "effort": {"reasoning_effort": "low"},
    "store": {"store": True},
    "stream": {"stream": True},
    "stream options": {"stream": True, "stream_options": {"include_usage": True}},
}


@pytest.mark.parametrize("more", DIFFERENT.values(), ids=list(DIFFERENT))
def test_any_other_change_asks_again(sync_side, provider, enabled, more):
    client = sync_side.client(provider.base_url)
    ask(client)
    for _ in range(2):
        answer = ask(client, **more)
        if more.get("stream"):
            list(answer)
    assert provider.calls == 2


async def test_property_order_of_a_schema_is_part_of_the_question(side, provider, client):
    def schema(*names):
        properties = {name: {"type": "string"} for name in names}
        body = {
            "type": "object",
            "properties": properties,
            "required": ["a", "b"],
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": body}}

    for names in ("ab", "ba", "ab"):
        await side.get(ask(client, response_format=schema(*names)))
    assert provider.calls == 2


async def test_temperature_zero_is_zero_however_it_is_written(side, provider, client):
    await side.get(ask(client, temperature=0))
    await side.get(ask(client, temperature=0.0))
    assert provider.calls == 1


@pytest.mark.parametrize("more", [{"timeout": 3}, {"timeout": None}, {"max_retries": 7}], ids=str)
async def test_timeouts_and_retries_are_not_part_of_the_question(side, provider, client, more):
    await side.get(ask(client))
    await side.get(ask(client.with_options(**more)))
    assert provider.calls == 1


async def test_no_prompt_and_no_credential_is_in_keys_logs_or_reprs(side, provider, enabled, caplog):
    caplog.set_level("DEBUG", logger="askonce")
    client = side.client(provider.base_url, api_key="sk-very-secret")
    await side.get(ask(client, messages=[{"role": "user", "content": "my private prompt"}]))
    shown = [repr(enabled), caplog.text, repr(enabled.stats())]
    shown += [f"{key} {entry!r} {entry.meta!r}" for key, entry in enabled.entries()]
    assert len(shown) == 4
    for text in shown:
        assert "sk-very-secret" not in text
        assert "private" not in text
