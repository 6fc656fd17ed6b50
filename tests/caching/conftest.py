"""A provider in memory, callers of every kind, and a table of flights that must be empty afterwards."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import orjson
import pytest

from askonce import Cache, Policy, Request
from askonce._exchange import Opened
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock

TIMEOUT = 10.0
"""Longer than anything here takes; after it a test fails instead of hanging."""


def chat(number=1, *, content="answer", finish="stop", **more):
    """A plain answer of the chat endpoint, a different one for each number."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": f"{content} {number}"},
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return orjson.dumps({"id": f"c{number}", "choices": [choice], "usage": usage, **more})


def event(content=None, finish=None):
    """One chunk of a streamed chat answer."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def events(number=1, *, finish="stop"):
    """A streamed answer, complete."""
    return [event(f"answer {number}"), event("more"), event(finish=finish), DONE]


@dataclass
class Answer:
    """What one call gets. In `chunks`, an Event is waited for, and an exception or a callable is run."""

    body: bytes | None = None
    chunks: list | None = None
    status: int = 200
    error: BaseException | None = None
    content_type: str | None = None
    headers: list = field(default_factory=list)
    framed: bool = True
    before: object = None
    close_error: BaseException | None = None


class Upstream:
    """The provider. Counts what reaches it; holds calls while `gate` is not set."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = 0
        self.refreshes = 0
        self.closed = []
        self.pulls = 0
        self.script = deque()
        self.always = None
        self.gate = threading.Event()
        self.gate.set()
        self.delay = 0.0

    def hold(self):
        self.gate.clear()

    def release(self):
        self.gate.set()

    def enter(self):
        with self.lock:
            self.calls += 1
            number = self.calls
            answer = self.script.popleft() if self.script else self.always
        if answer is None:
            answer = Answer()
        elif callable(answer):
            answer = answer(number)
        return number, answer

    def seen(self, number):
        until(lambda: self.calls >= number, f"call {number} upstream")


def until(condition, what="the condition", timeout=TIMEOUT):
    """Wait in small steps until something is so."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.001)


async def auntil(condition, what="the condition", seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        await asyncio.sleep(0.001)


def request(prompt="hello", *, headers=(), url="https://api.test/v1/chat/completions", **fields):
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], **fields})
    return Request("POST", url, ((b"content-type", b"application/json"), *headers), body)


class Ask:
    """A call of a sync door."""

    def __init__(self, upstream, prompt="hello", *, live=False, patience=None, headers=(), **fields):
        if live:
            fields.setdefault("stream", True)
        self.request = request(prompt, headers=headers, **fields)
        self.live = live
        self.patience = patience
        self.upstream = upstream

    def _opened(self, number, answer, *, live):
        streams = answer.chunks is not None or bool(b'"stream":true' in self.request.body)
        content_type = answer.content_type
        if content_type is None:
            content_type = "text/event-stream" if streams and answer.status == 200 else "application/json"
        headers = [(b"content-type", content_type.encode()), (b"x-request-id", b"r%d" % number)]
        headers += answer.headers
        chunks = answer.chunks
        if chunks is None:
            chunks = (
                [answer.body] if answer.body is not None else events(number) if streams else [chat(number)]
            )
        if live and answer.status == 200:
            pieces = self._source(chunks)
            return Opened(
                status=200,
                headers=headers,
                native=None,
                source=pieces,
                close=partial(self._close, number, answer, pieces),
                framed=answer.framed,
            )
        body = answer.body if answer.body is not None else b"".join(c for c in chunks if isinstance(c, bytes))
        return Opened(
            status=answer.status,
            headers=headers,
            native=body,
            body=body,
            framed=answer.framed,
        )

    def _close(self, number, answer, pieces):
        try:
            pieces.close()  # as the doors do
        finally:
            self._closed(number, answer)

    def _closed(self, number, answer):
        with self.upstream.lock:
            self.upstream.closed.append(number)
        if answer.close_error is not None:
            raise answer.close_error

    def _source(self, chunks):
        for chunk in chunks:
            self.upstream.pulls += 1
            if isinstance(chunk, threading.Event):
                assert chunk.wait(TIMEOUT), "a chunk was held too long"
            elif isinstance(chunk, BaseException):
                raise chunk
            elif callable(chunk):
                chunk()
            else:
                yield chunk

    def _enter(self):
        number, answer = self.upstream.enter()
        return number, answer

    def open(self):
        number, answer = self._enter()
        if answer.before is not None:
            answer.before()
        assert self.upstream.gate.wait(TIMEOUT), "a call was held too long"
        if self.upstream.delay:
            time.sleep(self.upstream.delay)
        if answer.error is not None:
            raise answer.error
        return self._opened(number, answer, live=self.live)

    def again(self):
        self.upstream.refreshes += 1
        number, answer = self._enter()
        assert self.upstream.gate.wait(TIMEOUT), "a refresh was held too long"
        if answer.error is not None:
            raise answer.error
        return self._opened(number, answer, live=False)


class AsyncAsk(Ask):
    """A call of an async door."""

    async def _aclose(self, number, answer, pieces):
        try:
            await pieces.aclose()
            await asyncio.sleep(0)
        finally:
            self._closed(number, answer)

    def _opened(self, number, answer, *, live):
        opened = super()._opened(number, answer, live=live)
        if opened.source is not None:
            opened.close = partial(self._aclose, number, answer, opened.source)
        return opened

    async def _source(self, chunks):
        for chunk in chunks:
            self.upstream.pulls += 1
            if isinstance(chunk, threading.Event):
                await auntil(chunk.is_set, "a held chunk")
            elif isinstance(chunk, BaseException):
                raise chunk
            elif callable(chunk):
                found = chunk()
                if found is not None:
                    await found
            else:
                await asyncio.sleep(0)
                yield chunk

    async def open(self):
        number, answer = self._enter()
        if answer.before is not None:
            found = answer.before()
            if found is not None:
                await found
        await auntil(self.upstream.gate.is_set, "the gate")
        if self.upstream.delay:
            await asyncio.sleep(self.upstream.delay)
        if answer.error is not None:
            raise answer.error
        return self._opened(number, answer, live=self.live)

    async def again(self):
        self.upstream.refreshes += 1
        number, answer = self._enter()
        await auntil(self.upstream.gate.is_set, "the gate")
        if answer.error is not None:
            raise answer.error
        return self._opened(number, answer, live=False)


@dataclass
class Result:
    body: bytes | None = None
    outcome: object = None
    error: BaseException | None = None


def consume(reply):
    """What a sync caller reads."""
    if reply.entry is not None:
        return reply.entry.body
    if reply.reader is None:
        return reply.native
    try:
        chunks = []
        while (chunk := reply.reader.read(reply.patience)) is not None:
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        reply.reader.close()


async def aconsume(reply):
    """What a task reads."""
    if reply.entry is not None:
        return reply.entry.body
    if reply.reader is None:
        return reply.native
    try:
        chunks = []
        while (chunk := await reply.reader.aread(reply.patience)) is not None:
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        await reply.reader.aclose()


def attempt(work):
    """Run a sync caller: its Result, whatever happened."""
    try:
        return work()
    except BaseException as error:
        return Result(error=error)


class Running:
    """A function in a thread of its own."""

    def __init__(self, work, *args, **kwargs):
        self.value = None
        self.error = None

        def run():
            try:
                self.value = work(*args, **kwargs)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True, name="kit")
        self.thread.start()

    @property
    def done(self):
        return not self.thread.is_alive()

    def result(self, timeout=TIMEOUT):
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise AssertionError(f"a thread hangs after {timeout} s")
        if self.error is not None:
            raise self.error
        return self.value


class Loop:
    """An event loop in a thread of its own, that runs until it is stopped."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="kit-loop")
        self.thread.start()

    def submit(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine, timeout=TIMEOUT):
        return self.submit(coroutine).result(timeout)

    def stop(self):
        """Stop at once, whatever is pending."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()

    def finish(self):
        """End as `asyncio.run` does."""
        if self.loop.is_closed():
            return
        if self.thread.is_alive():
            self.stop()
        loop = self.loop
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Kit:
    """What a test works with: clock, upstream, cache, and callers."""

    def __init__(self):
        self.clock = ManualClock()
        self.upstream = Upstream()
        self.caches = []
        self.loops = []

    def cache(self, store=None, **options):
        if "policy" not in options:
            names = set(Policy.__dataclass_fields__)
            said = {name: options.pop(name) for name in list(options) if name in names}
            options["policy"] = Policy(**{"jitter": 0.0, "ttl": 100, **said})
        options.setdefault("clock", self.clock)
        cache = Cache(MemoryStore(clock=self.clock) if store is None else store, **options)
        self.caches.append(cache)
        return cache

    def loop(self):
        loop = Loop()
        self.loops.append(loop)
        return loop

    def ask(self, cache, prompt="hello", **options):
        """A sync caller, to the end of its answer."""
        reply = cache.ask(Ask(self.upstream, prompt, **options))
        return Result(consume(reply), reply.outcome)

    async def aask(self, cache, prompt="hello", **options):
        """An async caller, to the end of its answer."""
        reply = await cache.aask(AsyncAsk(self.upstream, prompt, **options))
        return Result(await aconsume(reply), reply.outcome)

    async def aattempt(self, cache, prompt="hello", **options):
        try:
            return await self.aask(cache, prompt, **options)
        except Exception as error:
            return Result(error=error)

    def flight(self, cache):
        (flight,) = cache._flow.flights._flying.values()
        return flight

    def waiting(self, cache):
        """How many callers wait for the one flight there is."""
        flights = list(cache._flow.flights._flying.values())
        return len(flights[0]._wakers) if flights else 0

    def until_waiting(self, cache, number):
        until(lambda: self.waiting(cache) >= number, f"{number} waiting callers")

    @contextmanager
    def crowd(self, cache, kind, number, **options):
        """`number` callers of a kind, all started; yields a function that gives their results."""
        threads, tasks = [], []
        if kind == "threads":
            threads = [number]
        elif kind == "tasks":
            tasks = [number]
        elif kind == "two loops":
            tasks = [number - number // 2, number // 2]
        else:
            threads = [number - number // 2]
            tasks = [number // 4, number // 2 - number // 4]
        started = [
            Running(attempt, lambda: self.ask(cache, **options)) for count in threads for _ in range(count)
        ]
        futures = []
        for count in tasks:
            loop = self.loop()
            futures += [loop.submit(self.aattempt(cache, **options)) for _ in range(count)]

        def results(timeout=TIMEOUT):
            end = time.monotonic() + timeout
            found = [one.result(max(0.01, end - time.monotonic())) for one in started]
            return found + [future.result(max(0.01, end - time.monotonic())) for future in futures]

        yield results

    def finish(self):
        self.upstream.release()
        for loop in self.loops:
            loop.finish()
        if any(len(cache._flow.flights) for cache in self.caches):
            gc.collect()  # what a test forgot, in a cycle
        for cache in self.caches:
            for store in cache._stores:
                if isinstance(store, FlakyStore):
                    store.recover()
            assert len(cache._flow.flights) == 0, "a flight was left in the table"
            for task in cache._async._tasks:
                assert task.done(), "a background task was left"
            cache.close()


@pytest.fixture
def kit():
    """The kit; afterwards no flight, thread or task of the test may be left."""
    faulthandler.dump_traceback_later(TIMEOUT * 3, exit=False)
    before = set(threading.enumerate())
    made = Kit()
    yield made
    made.finish()
    until(
        lambda: (
            not [
                thread
                for thread in set(threading.enumerate()) - before
                if not thread.name.startswith(
                    ("askonce-memory", "askonce-disk", "asyncio_", "askonce-tiered")
                )
            ]
        ),
        "threads to end",
        2.0,
    )
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def k():
    """The kit's words."""
    return SimpleNamespace(
        Answer=Answer,
        Ask=Ask,
        AsyncAsk=AsyncAsk,
        DONE=DONE,
        Result=Result,
        Running=Running,
        Upstream=Upstream,
        aconsume=aconsume,
        attempt=attempt,
        auntil=auntil,
        chat=chat,
        consume=consume,
        event=event,
        events=events,
        request=request,
        until=until,
    )
