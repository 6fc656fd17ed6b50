"""Whatever the wire does, a client with the cache sees what a client without one sees."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import httpx
import httpx2
import hypercorn.asyncio
import hypercorn.config
import pytest
import zstandard
from httpx_aiohttp import AiohttpTransport

from askonce import Cache, track
from askonce_httpx import AsyncCacheTransport, CacheTransport, unwrap_client, wrap_client

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hé 🦊"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}).encode()  # fmt: skip
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}]}
LAST = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
STREAM = (
    b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (CHUNK, CHUNK, LAST))
    + b"data: [DONE]\n\n"
)
ENCODERS = {
    "": lambda body: body,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body, mtime=0)),
}
PASSING = {"date", "cache-status"}


class Server:
    """A server of plain sockets: one body, in any encoding and framing; also a proxy for http URLs."""

    def __init__(self):
        self.calls = 0
        self.seen = []
        self.body = ANSWER
        self.content_type = "application/json"
        self.encoding = ""
        self.framing = "length"
        self.trailing = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.calls += 1
                outer.seen.append(self.path)
                body = ENCODERS[outer.encoding](outer.body + outer.trailing)
                self.send_response(200)
                self.send_header("content-type", outer.content_type)
                self.send_header("x-request-id", "r1")
                if outer.encoding:
                    self.send_header("content-encoding", outer.encoding)
                if outer.framing == "length":
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                elif outer.framing == "chunked":
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for start in range(0, len(body), 7):
                        piece = body[start : start + 7]
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.send_header("connection", "close")
                    self.close_connection = True
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # readers leave early here
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def shown(response):
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in PASSING]
    return {
        "status": response.status_code,
        "headers": headers,
        "content": response.content,
        "text": response.text,
        "downloaded": response.num_bytes_downloaded,
        "version": response.http_version,
        "elapsed": response.elapsed.total_seconds() >= 0,
        "closed": response.is_closed,
        "consumed": response.is_stream_consumed,
    }


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("encoding", ENCODERS)
async def test_every_encoding_and_framing_is_as_without_a_cache(way, server, cache, encoding, framing):
    server.encoding, server.framing = encoding, framing
    url = f"{server.url}/v1/chat/completions"
    bare = await way.post(way.client(), url, json=ASK)
    client = way.client(cache)
    first = await way.post(client, url, json=ASK)
    assert shown(first) == shown(bare)
    again = await way.post(client, url, json=ASK)
    assert again.content == bare.content
    # Nothing says that a body that ends with its connection is whole.
    assert server.calls == (3 if framing == "close" else 2)


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_raw_bytes_of_a_first_answer_are_the_providers(way, server, cache, encoding):
    server.encoding = encoding
    url = f"{server.url}/v1/chat/completions"
    raws = []
    for client in (way.client(), way.client(cache)):
        response = await way.get(client.send(client.build_request("POST", url, json=ASK), stream=True))
        raw = (
            b"".join([piece async for piece in response.aiter_raw()])
            if way.is_async
            else b"".join(response.iter_raw())
        )
        await way.get(response.aclose() if way.is_async else response.close())
        raws.append((raw, response.num_bytes_downloaded))
    assert raws[0] == raws[1] == (ENCODERS[encoding](ANSWER), len(ENCODERS[encoding](ANSWER)))
    again = await way.post(client, url, json=ASK)
    assert (again.content, server.calls) == (ANSWER, 2)


async def test_what_comes_after_the_end_of_a_stream_reaches_its_reader_and_is_not_kept(way, server, cache):
    server.body, server.content_type, server.framing = STREAM, "text/event-stream", "chunked"
    server.trailing = b": bye\n\n"
    url = f"{server.url}/v1/chat/completions"
    client = way.client(cache)
    _, first = await way.stream(client, url, json={**ASK, "stream": True})
    _, again = await way.stream(client, url, json={**ASK, "stream": True})
    assert (first, again, server.calls) == (STREAM + b": bye\n\n", STREAM, 1)


@pytest.mark.parametrize("pieces", [1, None])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_connections_are_left_as_without_a_cache(way, server, cache, pieces, framing):
    server.body, server.content_type, server.framing = STREAM * 400, "text/event-stream", framing
    url = f"{server.url}/v1/chat/completions"
    states = []
    for client in (way.client(), way.client(cache)):
        for _ in range(3):
            await way.stream(client, url, json={**ASK, "stream": True, "seed": len(states)}, chunks=pieces)
        transport = client._transport if len(states) == 0 else client._transport.inner
        states.append([(one.is_idle(), one.is_closed()) for one in transport._pool.connections])
    assert states[0] == states[1]


async def test_a_proxy_and_mounts_are_kept_and_cached(way, server, cache):
    client = wrap_client(way.kind(proxy=server.url, timeout=10), cache)
    try:
        for _ in range(2):
            answer = await way.post(client, "http://provider.invalid/v1/chat/completions", json=ASK)
            assert answer.content == ANSWER
        assert server.seen == ["http://provider.invalid/v1/chat/completions"]
        unwrap_client(client)
        await way.post(client, "http://provider.invalid/v1/chat/completions", json=ASK)
        assert server.calls == 2
    finally:
        await way.get(client.aclose() if way.is_async else client.close())


async def test_aiohttp_inside(server, cache):
    url = f"{server.url}/v1/chat/completions"
    bare = httpx.AsyncClient(transport=AiohttpTransport())
    async with bare, httpx.AsyncClient(transport=AsyncCacheTransport(cache, AiohttpTransport())) as client:
        plain = await bare.post(url, json=ASK)
        first = await client.post(url, json=ASK)
        again = await client.post(url, json=ASK)
        assert plain.content == first.content == again.content
        assert server.calls == 2
        server.body, server.content_type, server.framing = STREAM, "text/event-stream", "chunked"
        for calls in (3, 3):
            async with client.stream("POST", url, json={**ASK, "stream": True}) as response:
                assert b"".join([piece async for piece in response.aiter_bytes()]) == STREAM
            assert server.calls == calls


@contextmanager
def over_http2():
    """A server that speaks HTTP/2 without TLS; the number of its calls."""
    calls = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        calls.append(scope["http_version"])
        live = json.loads(body).get("stream")
        kind = b"text/event-stream" if live else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in (STREAM[:50], STREAM[50:]) if live else (ANSWER,):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = config.accesslog = None
    sockets = config.create_sockets()
    port = sockets.insecure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets

    def run():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1/chat/completions", calls
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("package", [httpx, httpx2])
async def test_http_2_needs_no_length_to_be_whole(package):
    with over_http2() as (url, calls), Cache("memory://") as cache:
        inner = package.HTTPTransport(http1=False, http2=True)

        def ask():
            with package.Client(transport=CacheTransport(cache, inner)) as client:
                answers = [client.post(url, json=ASK) for _ in range(2)]
                assert {answer.content for answer in answers} == {ANSWER}
                assert answers[0].http_version == "HTTP/2"
                for _ in range(2):
                    with client.stream("POST", url, json={**ASK, "stream": True}) as response:
                        assert b"".join(response.iter_bytes()) == STREAM

        with track() as tracked:
            await asyncio.to_thread(ask)
        assert calls == ["2", "2"]
        assert [one.status for one in tracked] == ["miss", "hit", "miss", "hit"]
