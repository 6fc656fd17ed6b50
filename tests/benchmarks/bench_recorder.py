"""CPU microseconds per chunk that recording costs a stream: `python tests/benchmarks/bench_recorder.py`."""

from __future__ import annotations

import statistics
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "caching"))

from askonce._recorder import Recorder
from askonce._sse import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNKS = 1000
ROUNDS = 30

CHAT = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"gpt-4o-2024-08-06",'
    b'"choices":[{"index":0,"delta":{"content":" hello"},"finish_reason":null}]}\n\n'
)
RESPONSES = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":12,'
    b'"item_id":"msg_0123456789abcdef01234567","output_index":0,"content_index":0,'
    b'"delta":" hello","logprobs":[]}\n\n'
)
CRLF = CHAT.replace(b"\n", b"\r\n")


def _recorder(encoding: str = "") -> Callable[[], Callable[[bytes], object]]:
    return lambda: Recorder("text/event-stream", encoding, framed=True, limit=1 << 30).feed


def _decided() -> Callable[[bytes], object]:
    recorder = Recorder("text/event-stream", "", framed=True, limit=1 << 30)
    recorder.abort("aborted")
    return recorder.feed


def _gzipped(chunk: bytes) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    return [packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(CHUNKS)]


def _median(new: Callable[[], Callable[[bytes], object]], chunks: list[bytes]) -> float:
    rounds: list[float] = []
    for _ in range(ROUNDS):
        feed = new()
        start = time.thread_time()  # CPU time: neighbours on a busy machine do not count
        for chunk in chunks:
            feed(chunk)
        rounds.append((time.thread_time() - start) / len(chunks) * 1e6)
    return statistics.median(rounds)


def run() -> dict[str, float]:
    """Median microseconds per chunk over some rounds, by case; every chunk holds one event of ~200 bytes."""
    halves = [part for _ in range(CHUNKS // 2) for part in (CHAT[:100], CHAT[100:])]
    return {
        "scanner, chat": _median(lambda: Scanner().feed, [CHAT] * CHUNKS),
        "scanner, responses": _median(lambda: Scanner().feed, [RESPONSES] * CHUNKS),
        "scanner, chat, CRLF": _median(lambda: Scanner().feed, [CRLF] * CHUNKS),
        "recorder, chat": _median(_recorder(), [CHAT] * CHUNKS),
        "recorder, responses": _median(_recorder(), [RESPONSES] * CHUNKS),
        "recorder, chat, CRLF": _median(_recorder(), [CRLF] * CHUNKS),
        "recorder, chat, events torn in two": _median(_recorder(), halves),
        "recorder, chat, gzip": _median(_recorder("gzip"), _gzipped(CHAT)),
        "zlib alone, chat": _median(lambda: zlib.decompressobj(31).decompress, _gzipped(CHAT)),
        "recorder, decided": _median(_decided, [CHAT] * CHUNKS),
    }


if __name__ == "__main__":
    for case, microseconds in run().items():
        print(f"{case:<36}{microseconds:8.2f} us")
