"""Processes, threads and tasks over one store, for a while: nothing wrong, stale, lost or leaked.

    python tests/integrations/soak.py --seconds 60 --processes 8 --threads 20 --store redis

Every key has one writer, which counts its versions; a value says its key, version and expiry, and has a
checksum. A board in shared memory says when each write was done, on the system's monotonic clock. So a
reader can tell of everything it is given whether it is right, and how long it has been out of date.

`redis` has memory in front in each process, `disk` has not: what a writer has done, others see at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import mmap
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if (ROOT / "caching").exists():
    sys.path[:0] = [str(ROOT / "caching")]

from askonce import Cache, StoreError  # noqa: E402
from askonce._bridge import async_port  # noqa: E402
from askonce.stores import MemoryStore, TieredStore  # noqa: E402

VERSIONS = 8192
LEFT_OVER = 0.5
"""Seconds of life with which a value has to be there."""


class Board:
    """What the writers say. One number is written at a time, and by one writer only."""

    def __init__(self, path, keys):
        size = 8 * keys * (2 + 2 * VERSIONS)
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        view = memoryview(self._map)
        self.begun = view[: 8 * keys].cast("q")
        """The version that was last begun to be written."""
        self.done = view[8 * keys : 16 * keys].cast("q")
        """The version that was last completely written."""
        middle = 16 * keys + 8 * keys * VERSIONS
        self.when = view[16 * keys : middle].cast("d")
        """When each was completely written."""
        self.expiry = view[middle:].cast("d")
        """When each expires; 0: it is a deletion."""


def packed(key, version, expires):
    body = json.dumps([key, version, expires]).encode() + b" " * random.choice((0, 10, 1000, 9000))
    return zlib.crc32(body).to_bytes(4, "big") + body


def unpacked(value):
    if zlib.crc32(value[4:]) != int.from_bytes(value[:4], "big"):
        raise ValueError("checksum")
    return json.loads(value[4:])


class Witness:
    """Looks at what one reader is given."""

    def __init__(self, board, bound):
        self._board = board
        self._bound = bound
        self.count = Counter()
        self.faults = []
        self.worst_age = 0.0

    def before(self, key):
        return key, self._board.done[key], time.monotonic(), time.time()

    def after(self, asked, stored):
        key, done, began, wall = asked
        board = self._board
        if stored is None:
            self.count["nothing"] += 1
            if done and board.begun[key] == done:
                left = board.expiry[key * VERSIONS + done] - time.time()
                if left > LEFT_OVER:
                    self.fault("lost", key, done, left)
            return
        self.count["values"] += 1
        try:
            said, version, expires = unpacked(stored.value)
        except ValueError as error:
            self.fault("wrong", key, str(error))
            return
        if said != key or expires != stored.expires_at or version > board.begun[key]:
            self.fault("wrong", key, said, version, expires, stored.expires_at)
        if wall > expires:
            self.fault("expired", key, version, wall - expires)
        if version < done:
            age = began - board.when[key * VERSIONS + version + 1]
            self.worst_age = max(self.worst_age, age)
            self.count["out of date"] += 1
            if age > self._bound:
                self.fault("stale", key, version, done, age)

    def busy(self, error):
        """A disk waits 0.2 s for its turn to write, then says so. It is not changed then: once more."""
        self.count["busy"] += 1
        if (
            not str(error).endswith(("busy writing for 0.2 s", "database is locked"))
            or self.count["busy"] > 20_000
        ):
            raise error

    def fault(self, kind, *what):
        self.count[kind] += 1
        if len(self.faults) < 5:
            self.faults.append([kind, *what])

    def report(self):
        return {"count": dict(self.count), "faults": self.faults, "worst_age": self.worst_age}


class Writer:
    """Decides what a worker does next; the worker does it, by threads' or by tasks' methods."""

    def __init__(self, board, own, keys):
        self._board = board
        self._own = own
        self._keys = keys

    def next(self):
        """("read", keys) or ("set" or "delete", key, version, expiry)."""
        dice = random.random()
        if dice < 0.65:
            return "read", [random.randrange(self._keys)]
        if dice < 0.75:
            return "read", random.sample(range(self._keys), min(8, self._keys))
        key = random.choice(self._own)
        version = self._board.begun[key] + 1
        if version >= VERSIONS:
            return "read", [key]
        if dice < 0.80:
            expiry = 0.0
        elif dice < 0.90:
            expiry = time.time() + random.uniform(0.02, 0.6)
        else:
            expiry = time.time() + 600
        self._board.expiry[key * VERSIONS + version] = expiry
        self._board.begun[key] = version
        return "set" if expiry else "delete", key, version, expiry

    def done(self, key, version):
        self._board.when[key * VERSIONS + version] = time.monotonic()
        self._board.done[key] = version


def name(key):
    return f"soak:{key}"


def in_thread(store, writer, witness, end):
    while time.monotonic() < end:
        kind, *what = writer.next()
        witness.count[kind] += 1
        if kind == "read":
            (keys,) = what
            asked = [witness.before(key) for key in keys]
            if len(keys) == 1:
                found = {name(keys[0]): store.get(name(keys[0]))}
            else:
                found = store.get_many([name(key) for key in keys])
            for one in asked:
                witness.after(one, found.get(name(one[0])))
            continue
        key, version, expiry = what
        value = packed(key, version, expiry)
        while True:
            try:
                if kind == "set":
                    store.set(name(key), value, expiry)
                else:
                    store.delete(name(key))
            except StoreError as error:
                witness.busy(error)
                continue
            break
        writer.done(key, version)


async def in_task(store, writer, witness, end):
    while time.monotonic() < end:
        await asyncio.sleep(0)
        kind, *what = writer.next()
        witness.count[kind] += 1
        if kind == "read":
            (keys,) = what
            asked = [witness.before(key) for key in keys]
            if len(keys) == 1:
                found = {name(keys[0]): await store.aget(name(keys[0]))}
            else:
                found = await store.aget_many([name(key) for key in keys])
            for one in asked:
                witness.after(one, found.get(name(one[0])))
            continue
        key, version, expiry = what
        value = packed(key, version, expiry)
        while True:
            try:
                if kind == "set":
                    await store.aset(name(key), value, expiry)
                else:
                    await store.adelete(name(key))
            except StoreError as error:
                witness.busy(error)
                continue
            break
        writer.done(key, version)


class Async:
    """The asynchronous face of a store: its own, or by worker threads, as the cache does it."""

    def __init__(self, store):
        port = async_port(store)
        self.aget, self.aset, self.adelete, self.aget_many = port.get, port.set, port.delete, port.get_many
        self.aclose = port.close


def in_loops(store, writers, witness, end):
    """Tasks, in one event loop after the other: each leaves nothing behind."""

    face = Async(store)

    async def one_loop(until):
        await asyncio.gather(*[in_task(face, writer, witness, until) for writer in writers])

    while time.monotonic() < end:
        asyncio.run(one_loop(min(end, time.monotonic() + 1.0)))
    asyncio.run(face.aclose())


def handles():
    """What this process has open. None where the system does not tell."""
    folder = Path("/proc/self/fd")
    return (
        sorted(str(one.readlink()) for one in folder.iterdir() if one.is_symlink()) if folder.exists() else []
    )


def open_store(url):
    (store,) = Cache(url)._stores
    return store if url.startswith("disk") else TieredStore(MemoryStore(), store)


def tasks_of(threads):
    return max(2, threads // 4)


def child(options):
    """One process: reports before it begins, when all is closed, and when it may end."""
    keys = options.processes * (options.threads + tasks_of(options.threads)) * 2
    board = Board(Path(options.board), keys)
    workers = options.threads + tasks_of(options.threads)
    first = options.number * workers * 2
    owned = [[first + 2 * number, first + 2 * number + 1] for number in range(workers)]
    store = open_store(options.url)
    # What is opened once and for all, such as the system's random numbers, is no leak.
    store.get("soak:warm")
    asyncio.run(_used_once(store))
    store.close()
    gc.collect()
    before, threads_before = handles(), threading.active_count()
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + options.seconds
    witnesses, errors = [], []

    def work(run, writer):
        witness = Witness(board, options.bound)
        witnesses.append(witness)
        try:
            run(store, writer, witness, end)
        except Exception:
            errors.append(traceback.format_exc()[-1500:])

    writers = [Writer(board, own, keys) for own in owned]
    threads = [
        threading.Thread(target=work, args=(in_thread, writer)) for writer in writers[: options.threads]
    ]
    threads.append(threading.Thread(target=work, args=(in_loops, writers[options.threads :])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    most = len(handles())
    store.close()
    closing = time.monotonic() + 5
    while (handles() != before or threading.active_count() > threads_before) and time.monotonic() < closing:
        gc.collect()
        time.sleep(0.05)
    report = {
        "witnesses": [witness.report() for witness in witnesses],
        "errors": errors[:3],
        "error_count": len(errors),
        "handles": [one for one in handles() if one not in before],
        "handle_difference": len(handles()) - len(before),
        "most_handles": most,
        "threads": [thread.name for thread in threading.enumerate()][threads_before:],
    }
    print(json.dumps(report), flush=True)
    sys.stdin.readline()


async def _used_once(store):
    face = Async(store)
    await face.aget("soak:warm")
    await face.aclose()


def soak(url, *, seconds, processes, threads, bound, clients=None):
    """The whole; what it found, as one dictionary.

    Args:
        url: the store.
        seconds: how long.
        processes: how many.
        threads: in each, besides an event loop with a quarter as many tasks.
        bound: seconds for which a reader may be given what was overwritten or deleted.
        clients: tells how many connections the server has from us.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
        keys = processes * (threads + tasks_of(threads)) * 2
        Board(Path(folder) / "board", keys)
        children = []
        for number in range(processes):
            command = [sys.executable, "-W", "error", __file__, "--child", "--number", str(number)]
            command += ["--seconds", str(seconds), "--processes", str(processes), "--threads", str(threads)]
            command += ["--url", url, "--board", f"{folder}/board", "--bound", str(bound)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ending.enter_context(process)
            ending.callback(process.kill)
            children.append(process)
        for process in children:
            assert process.stdout.readline() == "ready\n"
        for process in children:
            process.stdin.write("\n")
            process.stdin.flush()
        most = 0
        if clients is not None:
            middle = time.monotonic() + seconds / 2
            while time.monotonic() < middle:
                time.sleep(0.25)
                most = max(most, clients())
        reports = [json.loads(process.stdout.readline()) for process in children]
        left = clients() if clients is not None else 0
        for process in children:
            process.communicate("\n", timeout=20)
        codes = {process.returncode for process in children}
    return together(reports) | {
        "most_connections": most,
        "connections_left": left,
        "codes": sorted(codes),
    }


def together(reports):
    count = Counter()
    witnesses = [witness for report in reports for witness in report["witnesses"]]
    for witness in witnesses:
        count.update(witness["count"])
    return {
        "operations": count["read"] + count["set"] + count["delete"],
        "count": dict(count),
        "wrong": count["wrong"],
        "expired": count["expired"],
        "stale": count["stale"],
        "lost": count["lost"],
        "worst_age": max(witness["worst_age"] for witness in witnesses),
        "faults": [fault for witness in witnesses for fault in witness["faults"]][:10],
        "errors": [error for report in reports for error in report["errors"]][:3],
        "error_count": sum(report["error_count"] for report in reports),
        "handles_left": [report["handles"] for report in reports if report["handle_difference"]],
        "threads_left": [report["threads"] for report in reports if report["threads"]],
        "most_handles": max(report["most_handles"] for report in reports),
    }


def redis_soak(server, **options):
    """Over a server of the tests' kit, with memory in front in each process."""
    token = uuid.uuid4().hex[:12]

    def clients():
        with server.client() as client:
            return sum(one["name"] == token for one in client.client_list())

    # Time enough: with more threads than the machine can run, two seconds do pass.
    url = f"{server.url}?prefix={token}:&client_name={token}&timeout=20s"
    return soak(url, clients=clients, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--store", choices=["redis", "disk"], default="redis")
    # The thread that listens is one of twenty that want the same interpreter, on a machine with a
    # hundred and sixty: it hears when it gets its turn. On an idle machine that takes milliseconds.
    parser.add_argument("--bound", type=float, help="seconds that a reader may be behind; redis: 3, disk: 0")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--board", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return 0
    size = {"seconds": options.seconds, "processes": options.processes, "threads": options.threads}
    if options.store == "redis":
        sys.path.append(str(ROOT / "tests"))
        from servers.redis import redis_server

        with redis_server("valkey") as server:
            found = redis_soak(server, bound=3.0 if options.bound is None else options.bound, **size)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = soak(f"disk://{folder}/cache", bound=options.bound or 0.0, **size)
    print(json.dumps(found, indent=2))
    bad = (
        "wrong",
        "expired",
        "stale",
        "lost",
        "error_count",
        "handles_left",
        "threads_left",
        "connections_left",
    )
    return int(any(found[name] for name in bad) or found["codes"] != [0])


if __name__ == "__main__":
    sys.exit(main())
