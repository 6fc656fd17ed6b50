"""What the memory store costs and what it keeps: `python tests/benchmarks/bench_memory_store.py`."""

from __future__ import annotations

import gc
import hashlib
import itertools
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "caching"))

from askonce.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COUNT = 2000  # keys of one round
ROUNDS = 40
SIZE = 1600  # bytes of an answer
ENTRIES = 100_000
REQUESTS = 500_000
SCANS = 0.2


def _key(chance: random.Random) -> str:
    return "default:" + chance.randbytes(32).hex()


def _median(work: Callable[[list[str]], object], batches: Iterable[list[str]]) -> float:
    """Microseconds of CPU per key: median over rounds, so that neighbours on a busy machine count little."""
    rounds: list[float] = []
    for batch in batches:
        start = time.thread_time()
        work(batch)
        rounds.append((time.thread_time() - start) / len(batch) * 1e6)
    return statistics.median(rounds)


def _times() -> dict[str, float]:
    chance = random.Random(1)
    batches = [[_key(chance) for _ in range(COUNT)] for _ in range(ROUNDS)]
    value, kilobyte = chance.randbytes(SIZE), chance.randbytes(1024)
    expires_at = time.time() + 86_400
    roomy, full = MemoryStore(), MemoryStore(max_entries=COUNT)

    def fill(store: MemoryStore) -> Callable[[list[str]], None]:
        def work(keys: list[str]) -> None:
            for key in keys:
                store.set(key, value, expires_at)

        return work

    def ask(store: MemoryStore) -> Callable[[list[str]], None]:
        def work(keys: list[str]) -> None:
            for key in keys:
                store.get(key)

        return work

    def yardstick(keys: list[str]) -> None:
        for _ in keys:
            hashlib.sha256(kilobyte).digest()

    fill(full)([_key(chance) for _ in range(COUNT)])
    figures = {
        "set new, us": _median(fill(roomy), batches),
        "set with eviction, us": _median(fill(full), batches),
        "set over an older one, us": _median(fill(roomy), batches),
        "get hit, us": _median(ask(roomy), batches),
        "get miss, us": _median(ask(full), batches[:-1]),
        # What the machine is worth at the moment; an idle one takes 0.9.
        "yardstick: sha256 of 1 KB, us": _median(yardstick, batches),
    }
    detail = full.ping().detail
    assert (detail["entries"], detail["evictions"]) == (COUNT, COUNT * ROUNDS)
    return figures


def _resident() -> int:
    """Bytes of memory this process holds, or has allocated where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return tracemalloc.get_traced_memory()[0]
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _memory_ratio(churn: int) -> float:
    """Growth of this process over the bytes of keys and values, after `churn` more entries came and went."""
    if not Path("/proc/self/status").exists():
        tracemalloc.start()
    chance = random.Random(2)
    now = time.time()
    store = MemoryStore(max_entries=ENTRIES, max_bytes=1 << 40)
    gc.collect()
    before = _resident()
    for number in range(ENTRIES + churn):
        store.set(_key(chance), chance.randbytes(SIZE), now + 86_400 + number)
    gc.collect()
    return (_resident() - before) / (ENTRIES * (len("default:") + 64 + SIZE))


def _in_child(churn: int) -> float:
    command = [sys.executable, __file__, "--memory", str(churn)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _zipf(scans: float, keys: int = 100_000, exponent: float = 0.8) -> list[str]:
    chance = random.Random(3)
    weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(keys)))
    once = itertools.count()
    ranks = chance.choices(range(keys), cum_weights=weights, k=REQUESTS)
    return [f"once:{next(once)}" if chance.random() < scans else f"key:{rank}" for rank in ranks]


def _store_ratio(trace: list[str], room: int) -> float:
    store, hits = MemoryStore(max_entries=room), 0
    for key in trace:
        if store.get(key) is None:
            store.set(key, b"", None)
        else:
            hits += 1
    return hits / len(trace)


def _lru_ratio(trace: list[str], room: int) -> float:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in kept:
            kept.move_to_end(key)
            hits += 1
        else:
            kept[key] = None
            if len(kept) > room:
                kept.popitem(last=False)
    return hits / len(trace)


def run() -> dict[str, float]:
    """Microseconds of CPU per call, memory over bytes stored, and hit ratios beside those of LRU."""
    figures = _times()
    figures["memory over bytes stored, 100k entries"] = _in_child(0)
    figures["the same after 200k evictions"] = _in_child(2 * ENTRIES)
    for scans, room in itertools.product((0.0, SCANS), (1000, 10_000)):
        trace = _zipf(scans)
        case = f"Zipf 0.8{' + 20 % scans' if scans else ''}, room {room}"
        figures[f"hit ratio, {case}"] = _store_ratio(trace, room)
        figures[f"hit ratio of LRU, {case}"] = _lru_ratio(trace, room)
    return figures


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(_memory_ratio(int(sys.argv[-1])))
    else:
        for name, figure in run().items():
            print(f"{name:<52}{figure:8.3f}")
