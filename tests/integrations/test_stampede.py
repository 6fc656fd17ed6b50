"""Two hundred identical calls of real OpenAI clients at one time: one reaches the provider."""

from __future__ import annotations

import asyncio
import faulthandler
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

openai = pytest.importorskip("openai")

from askonce import Cache, Policy  # noqa: E402
from askonce.stores import MemoryStore  # noqa: E402
from askonce.testing import FakeProvider  # noqa: E402
from askonce.testing._provider.faults import Fault  # noqa: E402
from askonce_openai import disable_cache, enable_cache  # noqa: E402

N = 200
QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
LIVE = pytest.mark.parametrize("live", [False, True], ids=["plain", "streamed"])
KINDS = pytest.mark.parametrize("kind", ["threads", "tasks", "two loops"])


@pytest.fixture
def provider():
    faulthandler.dump_traceback_later(30, exit=False)
    with FakeProvider(delay=0.05) as provider:
        yield provider
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def slow_provider():
    faulthandler.dump_traceback_later(30, exit=False)
    with FakeProvider(delay=0.3) as provider:
        yield provider
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def cache(tmp_path):
    cache = enable_cache(Cache(MemoryStore(), policy=Policy(ttl=60)))
    yield cache
    disable_cache()
    assert len(cache._flow.flights) == 0
    cache.close()


def until(condition, what, timeout=5.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.002)


async def auntil(condition, what):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.002)


def waiting(cache):
    """How many callers wait for the flight."""
    return sum(len(flight._wakers) for flight in list(cache._flow.flights._flying.values()))


def client_of(provider):
    """Loads no certificates: 90 ms each."""
    http = openai.DefaultHttpxClient(verify=False, timeout=10)
    return openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0, http_client=http)


def async_client_of(provider):
    http = openai.DefaultAsyncHttpxClient(verify=False, timeout=10)
    return openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0, http_client=http)


def ask(client, live, **more):
    """The whole answer as plain data."""
    found = client.chat.completions.create(**QUESTION, stream=live, **more)
    if not live:
        return found.model_dump()
    with found:
        return [chunk.model_dump() for chunk in found]


async def aask(client, live, **more):
    found = await client.chat.completions.create(**QUESTION, stream=live, **more)
    if not live:
        return found.model_dump()
    async with found:
        return [chunk.model_dump() async for chunk in found]


def attempt(work):
    try:
        return work()
    except Exception as error:
        return error


def in_threads(provider, number, live, timeout=20.0):
    with client_of(provider) as client, ThreadPoolExecutor(number) as pool:
        barrier = threading.Barrier(number, timeout=10)

        def one():
            barrier.wait()
            return attempt(lambda: ask(client, live))

        futures = [pool.submit(one) for _ in range(number)]
        return [future.result(timeout) for future in futures]


async def in_tasks(provider, number, live):
    async with async_client_of(provider) as client:
        calls = [aask(client, live) for _ in range(number)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)


def in_two_loops(provider, number, live):
    found = []
    barrier = threading.Barrier(2, timeout=10)

    def run():
        async def main():
            barrier.wait()
            return await in_tasks(provider, number // 2, live)

        found.extend(asyncio.run(main()))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
        assert not thread.is_alive(), "a loop hangs"
    return found


def crowd(kind, provider, number, live):
    if kind == "threads":
        return in_threads(provider, number, live)
    if kind == "tasks":
        return asyncio.run(in_tasks(provider, number, live))
    return in_two_loops(provider, number, live)


# -- one call ---------------------------------------------------------------------------------------


@LIVE
@KINDS
def test_two_hundred_identical_calls_reach_the_provider_once(slow_provider, cache, kind, live):
    provider = slow_provider
    found = crowd(kind, provider, N, live)
    assert [one for one in found if isinstance(one, Exception)] == []
    assert provider.calls == 1
    assert len(found) == N
    assert all(one == found[0] for one in found)
    stats = cache.stats()
    assert stats.misses == 1
    assert stats.coalesced + stats.hits == N - 1
    assert stats.stored == 1
    until(lambda: provider.in_flight == 0, "an idle provider")
    assert provider.hangups == 0


@LIVE
def test_threads_and_tasks_share_one_call(provider, cache, live):
    found = []
    threads = threading.Thread(target=lambda: found.extend(in_threads(provider, 50, live)), daemon=True)
    tasks = threading.Thread(
        target=lambda: found.extend(asyncio.run(in_tasks(provider, 50, live))), daemon=True
    )
    for one in (threads, tasks):
        one.start()
    for one in (threads, tasks):
        one.join(25)
        assert not one.is_alive()
    assert len(found) == 100
    assert all(one == found[0] for one in found)
    assert provider.calls == 1


def test_followers_objects_are_their_own(provider, cache):
    found = in_threads(provider, 10, live=False)
    found[0]["choices"][0]["message"]["content"] = "changed"
    assert all(one["choices"][0]["message"]["content"] != "changed" for one in found[1:])


@LIVE
def test_a_stampede_after_a_fresh_answer_asks_nobody(provider, cache, live):
    with client_of(provider) as client:
        first = ask(client, live)
    found = in_threads(provider, 50, live)
    assert all(one == first for one in found)
    assert provider.calls == 1


def test_followers_know_that_they_followed(provider, cache):
    async def main():
        async with async_client_of(provider) as client:
            raw = client.chat.completions.with_raw_response
            return await asyncio.gather(*[raw.create(**QUESTION) for _ in range(10)])

    found = asyncio.run(asyncio.wait_for(main(), 10))
    said = sorted("collapsed" in one.headers["cache-status"] for one in found)
    assert len(said) == 10
    assert len({one.headers["cache-status"].partition(";")[0] for one in found}) == 1
    assert len({one.request_id for one in found}) == 1


# -- leaders that fail ------------------------------------------------------------------------------


@LIVE
@pytest.mark.parametrize(("kind", "status"), [("threads", 500), ("tasks", 429), ("two loops", 500)])
def test_a_failed_leader_is_one_callers_error_and_one_more_call(provider, cache, kind, live, status):
    provider.script(Fault(status=status))
    found = crowd(kind, provider, 20, live)
    errors = [one for one in found if isinstance(one, Exception)]
    assert len(errors) == 1
    assert errors[0].status_code == status
    good = [one for one in found if not isinstance(one, Exception)]
    assert all(one == good[0] for one in good)
    assert provider.calls == 2


@LIVE
@KINDS
def test_two_failed_leaders_and_everybody_asks_alone(provider, cache, kind, live):
    provider.script(Fault(status=500), Fault(status=500))
    started = time.monotonic()
    found = crowd(kind, provider, 20, live)
    assert time.monotonic() - started < 3.0
    assert len([one for one in found if isinstance(one, Exception)]) == 2
    assert 3 <= provider.calls <= 20


@KINDS
def test_a_connection_that_drops_is_one_callers_error(provider, cache, kind):
    provider.script(Fault(disconnect=True))
    found = crowd(kind, provider, 20, live=False)
    errors = [one for one in found if isinstance(one, Exception)]
    assert [type(one) for one in errors] == [openai.APIConnectionError]
    assert provider.calls == 2


@KINDS
@pytest.mark.parametrize("fault", [Fault(cut_after=2), Fault(silent_end_after=2)], ids=["cut", "silent"])
def test_a_stream_cut_in_the_middle_is_never_half_an_answer(provider, cache, kind, fault):
    provider.script(fault)
    found = crowd(kind, provider, 20, live=True)
    whole = [one for one in found if isinstance(one, list) and one[-1]["choices"][0]["finish_reason"]]
    partial = [one for one in found if isinstance(one, list) and one not in whole]
    # The caller whose call it was sees what it would have seen alone; nobody else sees half an answer.
    assert len(partial) <= (1 if fault.silent_end_after else 0)
    assert all(one == whole[0] for one in whole)
    assert provider.calls <= 1 + 20
    with client_of(provider) as client:
        again = ask(client, live=True)
    assert again[-1]["choices"][0]["finish_reason"]


@KINDS
def test_truncated_answers_do_not_queue(provider, cache, kind):
    provider.always(Fault(finish_reason="length"))
    started = time.monotonic()
    found = crowd(kind, provider, 20, live=False)
    assert time.monotonic() - started < 3.0
    assert not [one for one in found if isinstance(one, Exception)]
    assert len({one["id"] for one in found}) == 20
    assert cache.stats().stored == 0


# -- leaders that leave -----------------------------------------------------------------------------


@LIVE
def test_a_cancelled_leader_hands_over(provider, cache, live):
    provider.hold()

    async def main():
        async with async_client_of(provider) as client:
            leader = asyncio.create_task(aask(client, live))
            await asyncio.to_thread(provider.wait_for_calls, 1)
            others = [asyncio.create_task(aask(client, live)) for _ in range(50)]
            await auntil(lambda: waiting(cache) == 50, "50 waiting callers")
            leader.cancel()
            await asyncio.to_thread(provider.wait_for_calls, 2)
            provider.release()
            found = await asyncio.gather(*others, return_exceptions=True)
            return leader, found

    leader, found = asyncio.run(asyncio.wait_for(main(), 15))
    assert leader.cancelled()
    assert [one for one in found if isinstance(one, BaseException)] == []
    assert all(one == found[0] for one in found)
    assert provider.calls == 2


def test_a_leader_that_stops_reading_leaves_the_stream_to_the_others(provider, cache):
    provider.hold(after=2)
    with client_of(provider) as client:
        stream = client.chat.completions.create(**QUESTION, stream=True)
        next(stream)
        with ThreadPoolExecutor(20) as pool:
            futures = [pool.submit(ask, client, True) for _ in range(20)]
            until(lambda: cache.stats().coalesced == 20, "20 followers")
            stream.close()
            provider.release()
            found = [future.result(10) for future in futures]
        assert all(one == found[0] for one in found)
        assert found[0][-1]["choices"][0]["finish_reason"] == "stop"
        assert provider.calls == 1
        assert ask(client, True) == found[0]
    assert provider.calls == 1
    assert provider.hangups == 0


def test_a_leader_that_stops_reading_on_a_loop_leaves_the_stream_to_the_others(provider, cache):
    provider.hold(after=2)

    async def main():
        async with async_client_of(provider) as client:
            stream = await client.chat.completions.create(**QUESTION, stream=True)
            await anext(stream)
            others = [asyncio.create_task(aask(client, True)) for _ in range(20)]
            await auntil(lambda: cache.stats().coalesced == 20, "20 followers")
            await stream.close()
            provider.release()
            return await asyncio.gather(*others)

    found = asyncio.run(asyncio.wait_for(main(), 15))
    assert all(one == found[0] for one in found)
    assert provider.calls == 1
    assert provider.hangups == 0


def test_a_leader_that_leaves_alone_lets_go_of_the_connection(provider, cache):
    provider.hold(after=2)
    with client_of(provider) as client:
        stream = client.chat.completions.create(**QUESTION, stream=True)
        next(stream)
        stream.close()
        provider.wait_until(lambda: provider.hangups == 1)
    assert cache.stats().stored == 0
    assert cache.stats().dropped == {"closed early": 1}
    provider.release()


def test_a_leader_cancelled_alone_lets_go_of_the_connection(provider, cache):
    provider.hold(after=2)

    async def main():
        async with async_client_of(provider) as client:
            task = asyncio.create_task(aask(client, True))
            await auntil(lambda: cache.stats().misses, "the leader")
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled()
            await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
            assert pooled(client) == 0

    asyncio.run(asyncio.wait_for(main(), 15))
    assert cache.stats().stored == 0
    provider.release()


def test_a_leader_in_a_cancelled_scope_lets_go_of_the_connection(provider, cache):
    """A web framework that cancels the scope of a request whose client has gone."""
    anyio = pytest.importorskip("anyio")
    provider.hold(after=2)

    async def main():
        async with async_client_of(provider) as client:
            with anyio.move_on_after(0.5) as scope:
                await aask(client, True)
            assert scope.cancelled_caught
            await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1)
            assert pooled(client) == 0

    asyncio.run(asyncio.wait_for(main(), 15))
    provider.release()


def test_a_last_follower_in_another_thread_lets_go_of_the_connection(provider, cache):
    """A task leads and leaves; the thread that reads along leaves half-way as well."""
    provider.hold(after=2)
    left = threading.Event()
    outcome = SimpleNamespace(error=None)

    def follow():
        try:
            with client_of(provider) as client:
                stream = client.chat.completions.create(**QUESTION, stream=True)
                next(stream)
                assert left.wait(10)
                stream.close()
        except BaseException as error:
            outcome.error = error

    async def main():
        async with async_client_of(provider) as client:
            stream = await client.chat.completions.create(**QUESTION, stream=True)
            await anext(stream)
            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            await auntil(lambda: cache.stats().coalesced, "the follower")
            await stream.close()
            left.set()
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()
            await asyncio.to_thread(provider.wait_until, lambda: provider.hangups == 1, timeout=2)
            assert pooled(client) == 0

    asyncio.run(asyncio.wait_for(main(), 15))
    assert outcome.error is None
    provider.release()


def pooled(client):
    """Connections of the client's HTTP pool that are in use."""
    pool = client._client._transport._pool
    return len([one for one in pool.connections if not one.is_idle() and not one.is_closed()])


def test_an_abandoned_stream_does_not_stop_its_followers(provider, cache):
    with client_of(provider) as client:
        stream = client.chat.completions.create(**QUESTION, stream=True)
        next(stream)
        found = in_threads(provider, 20, live=True)
        assert all(one == found[0] for one in found)
        assert provider.calls == 1
        stream.close()


def test_a_slow_leader_gets_its_whole_answer_after_the_others_have_theirs(provider, cache):
    with client_of(provider) as client:
        stream = client.chat.completions.create(**QUESTION, stream=True)
        first = next(stream)
        found = ask(client, True)
        mine = [first.model_dump(), *[chunk.model_dump() for chunk in stream]]
    assert mine == found
    assert provider.calls == 1


def test_plain_and_streaming_responses_of_one_question_share_a_call(provider, cache):
    """`with_streaming_response` of a plain question, while a plain call waits."""
    with client_of(provider) as client, ThreadPoolExecutor(2) as pool:

        def live():
            with client.chat.completions.with_streaming_response.create(**QUESTION) as response:
                return response.parse().model_dump()

        first = pool.submit(live)
        second = pool.submit(ask, client, False)
        assert first.result(10) == second.result(10)
    assert provider.calls == 1
