"""Switching the cache on and off: which clients it serves, and that nothing is left behind."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from askonce import AskOnceError, Cache, ConfigurationError
from askonce.testing._provider import Fault
from askonce_openai import _patch as door
from askonce_openai import disable_cache, enable_cache

MESSAGES = [{"role": "user", "content": "hello"}]


def ask(client, **more):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES} | more)


def methods():
    """What each class has itself under the name that the door replaces."""
    return {
        owner: id(vars(owner)["_send_request"])  # wrappers compare equal to what they wrap
        for leaf in (openai.OpenAI, openai.AsyncOpenAI, openai.AzureOpenAI, openai.AsyncAzureOpenAI)
        for owner in leaf.__mro__
        if "_send_request" in vars(owner)
    }


@pytest.fixture
def off():
    """Whatever a test leaves enabled."""
    yield
    for _ in range(len(door._patch._everywhere)):
        disable_cache()


def test_enabling_returns_the_cache_in_use(cache, off):
    assert enable_cache(cache) is cache
    assert enable_cache() is cache
    other = Cache("memory://")
    assert enable_cache(other) is other
    assert enable_cache() is other


def test_enabling_without_a_cache_makes_one_over_the_store_of_the_environment(monkeypatch, off):
    monkeypatch.setenv("ASKONCE_STORE", "memory://")
    cache = enable_cache()
    assert isinstance(cache, Cache)
    assert "memory" in repr(cache)
    assert "disk" not in repr(cache)


def test_disabling_restores_the_identical_methods(cache):
    before = methods()
    enable_cache(cache)
    assert methods() != before
    disable_cache()
    assert methods() == before


def test_enabling_one_client_and_disabling_it_restores_the_identical_methods(cache, provider, side):
    before = methods()
    client = side.client(provider.base_url)
    enable_cache(cache, client=client)
    disable_cache(client=client)
    assert methods() == before
    assert not door._patch._single


def test_enabling_twice_patches_once_and_wants_to_be_disabled_twice(cache):
    before = methods()
    enable_cache(cache)
    once = methods()
    enable_cache(cache)
    assert methods() == once
    disable_cache()
    assert methods() == once
    disable_cache()
    assert methods() == before


async def test_a_call_counts_once_however_often_the_cache_is_enabled(side, provider, cache, enable):
    client = side.client(provider.base_url)
    for _ in range(3):
        enable(cache)
    enable(cache, client)
    await side.get(ask(client))
    await side.get(ask(client))
    stats = cache.stats()
    assert (provider.calls, stats.calls, stats.misses, stats.hits, stats.stored) == (1, 2, 1, 1, 1)


def test_disabling_when_nothing_is_enabled_does_nothing(sync_side, provider):
    before = methods()
    disable_cache()
    disable_cache(client=sync_side.client(provider.base_url))
    assert methods() == before


async def test_after_disabling_every_call_goes_to_the_provider(side, provider, cache):
    client = side.client(provider.base_url)
    enable_cache(cache)
    await side.get(ask(client))
    disable_cache()
    raw = await side.get(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert "cache-status" not in raw.headers
    assert provider.calls == 2
    assert cache.stats().calls == 1


async def test_enabling_again_finds_what_was_stored_before(side, provider, cache, enable):
    client = side.client(provider.base_url)
    for _ in range(3):
        enable_cache(cache)
        await side.get(ask(client))
        disable_cache()
    assert provider.calls == 1


async def test_clients_made_before_and_after_are_served(side, provider, cache, enable):
    before = side.client(provider.base_url)
    bound = before.chat.completions.create  # what resources captured at construction
    enable(cache)
    after = side.client(provider.base_url)
    await side.get(bound(model="m", messages=MESSAGES))
    await side.get(ask(before))
    await side.get(ask(after))
    assert provider.calls == 1


async def test_the_cache_enabled_last_answers(side, provider, cache, enable):
    client = side.client(provider.base_url)
    with Cache("memory://") as other:
        enable(cache)
        await side.get(ask(client))
        enable_cache(other)
        await side.get(ask(client))
        assert (cache.stats().calls, other.stats().calls) == (1, 1)
        disable_cache()
        await side.get(ask(client))
    assert (cache.stats().hits, provider.calls) == (1, 2)


# -- one client -------------------------------------------------------------------------------------


async def test_only_the_enabled_client_is_served(side, provider, cache, enable):
    mine, other = side.client(provider.base_url), side.client(provider.base_url)
    assert enable(cache, mine) is cache
    for _ in range(2):
        await side.get(ask(mine))
        await side.get(ask(other))
    assert provider.calls == 3
    assert cache.stats().calls == 2


@pytest.mark.parametrize("copy", ["with_options", "copy"])
async def test_copies_of_an_enabled_client_are_served(side, provider, cache, enable, copy):
    client = side.client(provider.base_url)
    early = getattr(client, copy)(max_retries=1)
    enable(cache, client)
    late = getattr(client, copy)(timeout=5)
    for one in (client, early, late, late.with_options(max_retries=3)):
        await side.get(ask(one))
    assert provider.calls == 1


async def test_a_client_can_be_enabled_through_its_copy(side, provider, cache, enable):
    client = side.client(provider.base_url)
    enable(cache, client.with_options(timeout=3))
    await side.get(ask(client))
    await side.get(ask(client))
    assert provider.calls == 1


async def test_a_client_of_its_own_cache_is_not_served_by_the_one_for_all(side, provider, cache, enable):
    mine, other = side.client(provider.base_url), side.client(provider.base_url)
    enable(cache)
    with Cache("memory://") as own:
        enable(own, mine)
        await side.get(ask(mine))
        await side.get(ask(other))
        assert (own.stats().calls, cache.stats().calls) == (1, 1)
        disable_cache(client=mine)
        await side.get(ask(mine))
        assert (own.stats().calls, cache.stats().calls) == (1, 2)
        enable_cache(own, client=mine)  # the fixture takes it back
    assert provider.calls == 2


def test_disabling_one_client_leaves_the_others(sync_side, provider, cache, enable):
    one, two = sync_side.client(provider.base_url), sync_side.client(provider.base_url)
    enable_cache(cache, client=one)
    enable(cache, two)
    ask(one)
    disable_cache(client=one)
    ask(one)
    ask(two)
    assert provider.calls == 2


def test_enabling_a_client_twice_wants_to_be_disabled_twice(sync_side, provider, cache):
    client = sync_side.client(provider.base_url)
    enable_cache(cache, client=client)
    enable_cache(client=client)
    disable_cache(client=client)
    ask(client)
    ask(client)
    assert provider.calls == 1
    disable_cache(client=client)
    ask(client)
    assert provider.calls == 2


def test_a_collected_client_leaves_nothing_in_the_table(provider, cache, off):
    before = methods()
    http = openai.DefaultHttpxClient(verify=False)
    client = openai.OpenAI(base_url=provider.base_url, api_key="k", http_client=http)
    enable_cache(cache, client=client)
    ask(client)
    assert len(door._patch._single) == 1
    gone = weakref.ref(http)
    http.close()
    del client, http
    gc.collect()
    assert gone() is None
    assert len(door._patch._single) == 0
    disable_cache()
    assert methods() == before


def test_many_clients_come_and_go_without_a_trace(provider, cache, enable):
    enable(cache)
    for _ in range(20):
        with openai.OpenAI(
            base_url=provider.base_url, api_key="k", http_client=openai.DefaultHttpxClient(verify=False)
        ) as client:
            enable_cache(cache, client=client)
            ask(client)
        del client
    gc.collect()
    assert len(door._patch._single) == 0
    assert provider.calls == 1


# -- others who wrap the same method ----------------------------------------------------------------


@pytest.fixture(params=["tells", "opaque"])
def wrap(request):
    """Wraps the method on top of whatever is there, as tracers do, and takes it back after the test.

    Some say what they wrap (`functools.wraps`, wrapt), others do not.
    """
    undos = []

    def on_top(kind):
        owner = next(owner for owner in kind.__mro__ if "_send_request" in vars(owner))
        below = vars(owner)["_send_request"]
        seen = []

        def send(self, request, **kwargs):
            seen.append(request)
            return below.__get__(self, type(self))(request, **kwargs)

        if request.param == "tells":
            send.__wrapped__ = below
        owner._send_request = send

        def undo():
            if vars(owner)["_send_request"] is send:
                owner._send_request = below

        def leave():
            owner._send_request = below

        undos.append(undo)
        return seen, leave

    yield on_top
    for undo in reversed(undos):
        undo()


async def test_a_tracer_installed_before_sees_only_what_reaches_the_provider(side, provider, cache, wrap):
    seen, _ = wrap(side.kind)
    enable_cache(cache)
    client = side.client(provider.base_url)
    await side.get(ask(client))
    await side.get(ask(client))
    disable_cache()
    assert (len(seen), provider.calls) == (1, 1)


async def test_a_tracer_installed_later_sees_every_call_and_all_is_served(side, provider, cache, wrap):
    enable_cache(cache)
    seen, leave = wrap(side.kind)
    client = side.client(provider.base_url)
    await side.get(ask(client))
    await side.get(ask(client))
    assert (len(seen), provider.calls) == (2, 1)
    leave()
    disable_cache()


async def test_disabling_beneath_a_tracer_passes_everything_through(side, provider, cache, wrap):
    enable_cache(cache)
    seen, _ = wrap(side.kind)
    disable_cache()
    client = side.client(provider.base_url)
    for _ in range(2):
        raw = await side.get(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
        assert "cache-status" not in raw.headers
    assert (len(seen), provider.calls, cache.stats().calls) == (2, 2, 0)


async def asked_of_everything(side, client):
    """A miss, a hit, a stream, its replay, and two bypasses."""
    for _ in range(2):
        await side.get(ask(client))
        await side.all(ask(client, stream=True))
        await side.get(client.get("/models", cast_to=object))


def counted_once(cache):
    stats = cache.stats()
    return (stats.misses, stats.hits, stats.bypasses, stats.coalesced, stats.stored) == (2, 2, 2, 0, 2)


async def test_enabling_again_beneath_a_tracer_serves_again_and_counts_once(side, provider, cache, wrap):
    enable_cache(cache)
    wrap(side.kind)
    disable_cache()
    enable_cache(cache)
    await asked_of_everything(side, side.client(provider.base_url))
    disable_cache()
    assert provider.calls == 2
    assert counted_once(cache)


async def test_enabling_again_after_the_tracer_on_top_has_left_serves_again_and_counts_once(
    side, provider, cache, wrap
):
    enable_cache(cache)
    _, leave = wrap(side.kind)
    disable_cache()
    leave()
    enable_cache(cache)
    client = side.client(provider.base_url)
    await asked_of_everything(side, client)
    disable_cache()
    assert provider.calls == 2
    assert counted_once(cache)


async def test_a_tracer_on_one_kind_of_client_does_not_keep_the_other_from_being_enabled_again(
    side, provider, cache, wrap
):
    """One method could be restored, the other not: enabling has to look at each."""
    other = openai.OpenAI if side.is_async else openai.AsyncOpenAI
    enable_cache(cache)
    wrap(other)
    disable_cache()
    enable_cache(cache)
    await asked_of_everything(side, side.client(provider.base_url))
    disable_cache()
    assert provider.calls == 2
    assert counted_once(cache)


async def test_enabling_works_after_somebody_else_restored_the_method_from_under_us(
    side, provider, cache, wrap
):
    """A tracer that was there first takes itself away, and us with it."""
    _, leave = wrap(side.kind)
    enable_cache(cache)
    leave()
    disable_cache()
    enable_cache(cache)
    await asked_of_everything(side, side.client(provider.base_url))
    disable_cache()
    assert provider.calls == 2
    assert counted_once(cache)


def test_the_method_is_restored_when_the_tracer_on_top_has_left(cache, wrap):
    before = methods()
    enable_cache(cache)
    _, leave = wrap(openai.OpenAI)
    disable_cache()
    leave()
    enable_cache(cache)
    disable_cache()
    assert methods() == before


# -- at the same time -------------------------------------------------------------------------------


def test_twenty_threads_enable_and_disable_at_once(sync_side, provider, cache):
    before = methods()
    client = sync_side.client(provider.base_url)
    start = threading.Barrier(20)

    def work(number):
        start.wait()
        assert enable_cache(cache) is cache
        answer = ask(client)
        disable_cache()
        return answer.id

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(work, range(20)))
    assert len(answers) == 1
    assert provider.calls == 1
    assert methods() == before


def test_threads_that_enable_without_a_cache_share_one(monkeypatch, off):
    monkeypatch.setenv("ASKONCE_STORE", "memory://")
    start = threading.Barrier(20)

    def work(_):
        start.wait()
        return enable_cache()

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(work, range(20)))) == 1


def test_calls_go_on_while_the_cache_is_switched_on_and_off(sync_side, provider, cache):
    client = sync_side.client(provider.base_url)
    stop = threading.Event()

    def switch():
        while not stop.is_set():
            enable_cache(cache)
            disable_cache()

    switcher = threading.Thread(target=switch)
    switcher.start()
    try:
        answers = [ask(client, messages=[{"role": "user", "content": str(n)}]) for n in range(30)]
    finally:
        stop.set()
        switcher.join()
    assert len({answer.id for answer in answers}) == 30


@pytest.mark.parametrize("hit", [False, True], ids=["miss", "hit"])
async def test_disabling_in_the_middle_of_a_stream_does_not_disturb_it(side, provider, cache, hit):
    client = side.client(provider.base_url)
    enable_cache(cache)
    if hit:
        await side.all(ask(client, stream=True))
    else:
        provider.script(Fault(hold_after=2))
    stream = await side.get(ask(client, stream=True))
    events = [await side.next(stream)]
    disable_cache()
    provider.release()
    events += await side.all(stream)
    assert len(events) > 5
    assert events[-1].choices[0].finish_reason == "stop"
    enable_cache(cache)
    again = await side.all(ask(client, stream=True))
    disable_cache()
    assert [item.to_dict() for item in again] == [item.to_dict() for item in events]
    assert provider.calls == 1


async def test_disabling_while_a_call_is_under_way_does_not_disturb_it(async_side, provider, cache):
    import asyncio

    client = async_side.client(provider.base_url)
    enable_cache(cache)
    provider.hold()
    call = asyncio.create_task(ask(client))
    await asyncio.to_thread(provider.wait_for_calls, 1)
    disable_cache()
    provider.release()
    assert (await call).choices[0].message.content
    assert cache.stats().stored == 1


# -- wrong arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"cache": "memory://"},
        {"cache": {}},
        {"cache": 3},
        {"cache": Cache},
        {"client": "client"},
        {"client": 3},
        {"client": openai.OpenAI},
        {"client": openai},
    ],
    ids=str,
)
def test_a_wrong_argument_is_a_configuration_error_that_names_it(arguments, off):
    before = methods()
    (name,) = arguments
    with pytest.raises(ConfigurationError, match=name) as raised:
        enable_cache(**arguments)
    assert isinstance(raised.value, AskOnceError | ValueError)
    assert "allowed" in str(raised.value)
    assert methods() == before


def test_a_client_given_in_the_place_of_the_cache_is_a_configuration_error(sync_side, provider, off):
    with pytest.raises(ConfigurationError, match="cache"):
        enable_cache(sync_side.client(provider.base_url))


def test_a_resource_given_as_the_client_is_a_configuration_error(sync_side, provider):
    with pytest.raises(ConfigurationError, match="client"):
        enable_cache(client=sync_side.client(provider.base_url).chat)
    with pytest.raises(ConfigurationError, match="client"):
        disable_cache(client=3)
