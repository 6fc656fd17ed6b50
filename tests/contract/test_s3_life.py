"""The S3 store through restarts and forks, in threads and event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import traceback
import uuid
import warnings

import pytest

from askonce import StoreError
from askonce.stores import S3Store


@pytest.fixture(autouse=True)
def _account(s3_account):
    pass


def test_a_server_that_was_killed_is_used_again_when_it_is_back_and_forgotten_metadata_are_misses(opened):
    from servers.s3 import rclone_s3

    with rclone_s3() as server:
        bucket = server.create_bucket()
        store = opened(server.endpoint_url, bucket)
        store.set("ns:key", b"value", None)
        server.kill()
        with pytest.raises(StoreError):
            store.get("ns:key")
        server.start()
        # rclone keeps metadata in memory: the object is there, and says no more when it expires.
        assert store.get("ns:key") is None
        assert list(store.scan("")) == []
        store.set("ns:key", b"again", None)
        assert store.get("ns:key").value == b"again"


def test_a_client_of_the_callers_is_used_and_not_closed(s3, moto_bucket):
    with s3.client() as client:
        closed = []
        real = client.close
        client.close = lambda: closed.append(1) or real()
        store = S3Store(moto_bucket, f"p-{uuid.uuid4().hex}", client=client)
        assert repr(store).endswith(f"host='{s3.host}:{s3.port}')")
        store.set("ns:key", b"value", None)
        store.close()
        assert store.get("ns:key").value == b"value"
        asyncio.run(store.aclose())
        store.close()
        del store
        gc.collect()
        assert closed == []
        assert client.list_buckets()


@pytest.mark.parametrize("whose", ["own", "caller's"])
def test_parent_and_child_never_read_each_others_answers(s3, moto_bucket, opened, whose):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    with s3.client(max_pool_connections=16) as client:
        given = {"client": client} if whose != "own" else {"endpoint_url": s3.endpoint_url}
        store = S3Store(moto_bucket, f"p-{uuid.uuid4().hex}", timeout=20, **given)
        keys = [f"ns:{number}" for number in range(8)]
        store.set_many((key, key.encode() * 100, None) for key in keys)
        store.get_many(keys)  # several connections are open now

        def all_right():
            return all(store.get(key).value == key.encode() * 100 for _ in range(5) for key in keys) and len(
                store.get_many(keys)
            ) == len(keys)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads are running: that is the point
            child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if all_right() else 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert all_right()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.close()


def test_a_fork_while_boto3_is_being_loaded_leaves_a_child_that_works(s3, moto_bucket, run_python):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = f"""if True:
        import os, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a thread is running: that is the point
        from askonce.stores.s3 import S3Store
        store = S3Store({moto_bucket!r}, "p-{uuid.uuid4().hex}", endpoint_url={s3.endpoint_url!r}, timeout=20)
        time.sleep(0.1)
        child = os.fork()
        store.set(f"ns:{{child == 0}}", b"value", None)
        assert store.get(f"ns:{{child == 0}}").value == b"value"
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """
    ran = run_python(code)
    assert (ran.stderr, ran.returncode) == ("", 0)


def test_several_event_loops_at_once(s3, moto_bucket, opened):
    store = opened(s3.endpoint_url, moto_bucket, timeout=20)
    wrong = []

    def loop(number):
        async def work():
            for step in range(5):
                await store.aset(f"ns:{number}", f"{number}.{step}".encode(), None)
                found = await asyncio.gather(*(store.aget(f"ns:{number}") for _ in range(3)))
                wrong.extend(each for each in found if each.value != f"{number}.{step}".encode())

        asyncio.run(work())

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_loop_that_is_closed_while_waiting_disturbs_nobody(s3, moto_bucket, opened, caplog):
    store = opened(s3.endpoint_url, moto_bucket)
    store.set("ns:key", b"value", None)
    s3.pause()
    loop = asyncio.new_event_loop()
    task = loop.create_task(store.aget("ns:key"))
    loop.run_until_complete(asyncio.sleep(0.05))
    task._log_destroy_pending = False
    loop.close()
    s3.resume()
    assert store.get("ns:key").value == b"value"
    time.sleep(0.1)
    assert caplog.records == []
    task.get_coro().close()


async def test_a_cancelled_call_is_cancelled_at_once(s3, moto_bucket, opened):
    store = opened(s3.endpoint_url, moto_bucket)
    await store.aset("ns:key", b"value", None)
    s3.pause()
    task = asyncio.create_task(store.aget("ns:key"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    s3.resume()
    assert (await store.aget("ns:key")).value == b"value"
