"""What the tests of the OpenAI door share: a provider, a cache, and both kinds of client.

A test that takes `side` runs twice, against OpenAI and against AsyncOpenAI, with the same text.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import asynccontextmanager

import openai
import openai.resources.completions
import openai.resources.embeddings
import openai.resources.responses
import pytest

import askonce_openai
from askonce.testing import FakeProvider
from askonce_openai import _patch as door
from askonce_openai._creators import PLACES


class Side:
    """One of the two kinds of client, so that one test text serves both."""

    def __init__(self, name):
        self.name = name
        self.is_async = name == "async"
        self.kind = openai.AsyncOpenAI if self.is_async else openai.OpenAI
        self.azure = openai.AsyncAzureOpenAI if self.is_async else openai.AzureOpenAI
        self.http = openai.DefaultAsyncHttpxClient if self.is_async else openai.DefaultHttpxClient
        # The package under this SDK: httpx2 since openai 3, httpx before.
        self.package = sys.modules[self.http.__mro__[1].__module__.partition(".")[0]]
        self._open = []

    def client(self, base_url, *, kind=None, max_retries=0, http=None, api_key="test", **options):
        """A client of this kind; closed after the test. It loads no certificates: 90 ms each."""
        http = http or self.http(verify=False, timeout=10)
        self._open.append(http)
        azure = kind is not None and issubclass(kind, openai.AzureOpenAI | openai.AsyncAzureOpenAI)
        where = {"azure_endpoint": base_url} if azure else {"base_url": base_url}
        return (kind or self.kind)(
            **where, api_key=api_key, max_retries=max_retries, http_client=http, **options
        )

    async def get(self, value):
        """The value of a call, awaited where it has to be."""
        return await value if inspect.isawaitable(value) else value

    async def all(self, stream):
        """Every item of a stream."""
        stream = await self.get(stream)
        return [item async for item in stream] if self.is_async else list(stream)

    async def next(self, stream):
        """The next item of a stream."""
        return await anext(aiter(stream)) if self.is_async else next(iter(stream))

    async def close(self, closable):
        """`close()`, or `aclose()`."""
        await self.get(closable.close())

    @asynccontextmanager
    async def within(self, manager):
        """A `with` block, or an `async with` block."""
        if self.is_async:
            async with manager as value:
                yield value
        else:
            with manager as value:
                yield value

    async def close_all(self):
        for http in self._open:
            await self.get(http.aclose() if hasattr(http, "aclose") else http.close())


def methods():
    """The attributes that the door replaces, by class and name."""
    last = {
        (owner, "_send_request"): vars(owner)["_send_request"]
        for leaf in (openai.OpenAI, openai.AsyncOpenAI)
        for owner in leaf.__mro__
        if "_send_request" in vars(owner)
    }
    owners = [owner for place in PLACES for owner in place.classes() or ()]
    return last | {(owner, "create"): vars(owner)["create"] for owner in owners}


@pytest.fixture(autouse=True)
def pristine(request):
    """No test starts or ends with a patched class; but where others wrapped on top, ours may stay beneath."""
    before = methods()
    yield
    # By identity: wrappers compare equal to what they wrap.
    patched = any(vars(owner)[name] is not original for (owner, name), original in before.items())
    patched = patched and "wrap" not in request.fixturenames
    left = patched or not before.keys() <= methods().keys() or bool(door._patch._everywhere)
    for _ in range(100):
        if not door._patch._everywhere:
            break
        askonce_openai.disable_cache()
    door._patch._single.clear()
    askonce_openai.disable_cache()
    for (owner, name), original in before.items():
        setattr(owner, name, original)
    door._patch._installed, door._patch._last_steps = [], []
    assert not left, "the test left the door open"


@pytest.fixture(params=["sync", "async"])
async def side(request):
    side = Side(request.param)
    yield side
    await side.close_all()


@pytest.fixture
def sync_side():
    side = Side("sync")
    yield side
    for http in side._open:
        http.close()


@pytest.fixture
async def async_side():
    side = Side("async")
    yield side
    await side.close_all()


@pytest.fixture
def fresh():
    """Makes providers that count from one: two of them answer the same requests with the same bytes."""
    made = []

    def make():
        made.append(FakeProvider().start())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def enabled(cache):
    """The cache, under every client."""
    askonce_openai.enable_cache(cache)
    yield cache
    askonce_openai.disable_cache()


@pytest.fixture
def client(side, provider, enabled):
    """A client with the cache under it."""
    return side.client(provider.base_url)


@pytest.fixture
def enable():
    """Enables caches of the test's own making; takes each back after the test."""
    clients = []

    def switch_on(cache, client=None, **options):
        clients.append(client)
        return askonce_openai.enable_cache(cache, client=client, **options)

    yield switch_on
    for one in reversed(clients):
        askonce_openai.disable_cache(client=one)
