"""What the tests of the httpx door share: both packages, sync and async, with one text."""

from __future__ import annotations

import inspect
import operator

import httpx
import httpx2
import pytest

import askonce_httpx

HEADERS = {"authorization": "Bearer k"}


class Way:
    """One package and one kind of client."""

    def __init__(self, package, *, is_async):
        self.package = package
        self.is_async = is_async
        self.kind = package.AsyncClient if is_async else package.Client
        self.plain_transport = package.AsyncHTTPTransport if is_async else package.HTTPTransport
        self.transport = askonce_httpx.AsyncCacheTransport if is_async else askonce_httpx.CacheTransport
        self._open = []

    def client(self, cache=None, **options):
        """A client, with the cache's transport unless there is none; closed after the test."""
        if cache is not None:
            options["transport"] = self.transport(cache, self.plain_transport(verify=False))
        client = self.kind(verify=False, timeout=10, **options)
        self._open.append(client)
        return client

    async def get(self, value):
        return await value if inspect.isawaitable(value) else value

    async def post(self, client, url, **options):
        return await self.get(client.post(url, headers={**HEADERS, **options.pop("headers", {})}, **options))

    async def stream(self, client, url, *, chunks=None, **options):
        """The raw and decoded pieces of a streamed answer; of `chunks` pieces at most."""
        request = client.build_request("POST", url, headers=HEADERS, **options)
        response = await self.get(client.send(request, stream=True))
        pieces = []
        try:
            if self.is_async:
                async for piece in response.aiter_bytes():
                    pieces.append(piece)
                    if len(pieces) == chunks:
                        break
            else:
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    if len(pieces) == chunks:
                        break
        finally:
            await self.get(response.aclose() if self.is_async else response.close())
        return response, b"".join(pieces)

    async def close(self):
        for client in self._open:
            await self.get(client.aclose() if self.is_async else client.close())


@pytest.fixture(params=["httpx", "httpx async", "httpx2", "httpx2 async"])
async def way(request):
    name, _, kind = request.param.partition(" ")
    made = Way({"httpx": httpx, "httpx2": httpx2}[name], is_async=kind == "async")
    yield made
    await made.close()


@pytest.fixture
def chat(provider):
    return f"{provider.base_url}/chat/completions"


@pytest.fixture(autouse=True)
def pristine():
    """No test leaves the hook in the client classes."""
    kinds = [kind for package in (httpx, httpx2) for kind in (package.Client, package.AsyncClient)]
    before = [vars(kind)["_transport_for_url"] for kind in kinds]
    yield
    after = [vars(kind)["_transport_for_url"] for kind in kinds]
    for _ in range(10):
        askonce_httpx.disable_cache()
    assert all(map(operator.is_, after, before)), "the test left the hook"
