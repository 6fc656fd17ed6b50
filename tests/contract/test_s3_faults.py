"""The S3 store when things go wrong: no wait without an end, no error without a remedy, nothing silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
import traceback
import uuid

import pytest
from servers.process import wait_until
from servers.s3_faults import FaultyServer

from askonce import Cache, StoreError
from askonce._deadline import set_deadline
from askonce.stores import Refused

KEY = "default:" + "5ec4e7" * 10 + "5ec4"


@pytest.fixture(autouse=True)
def _account(s3_account):
    pass


@pytest.fixture
def proxy(s3):
    from servers.chaos import ChaosProxy

    with ChaosProxy(s3.host, s3.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy, opened, moto_bucket):
    """A store that reaches Moto through a proxy, and has done so once."""
    store = opened(f"http://{proxy.host}:{proxy.port}", moto_bucket)
    store.set("ns:key", b"value" * 2000, None)
    return store


# -- what the server answers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "remedy", "attempts"),
    [
        (403, "AccessDenied", r"s3:GetObject on arn:aws:s3:::bucket/p-\w+/\*", 1),
        (403, "", r"s3:GetObject on arn", 1),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID", 1),
        (403, "SignatureDoesNotMatch", "secret key", 1),
        (400, "ExpiredToken", "Renew", 1),
        (403, "RequestTimeTooSkewed", "clock", 1),
        (404, "NoSuchBucket", "Create it, or correct", 1),
        (400, "AuthorizationHeaderMalformed", "region=", None),
        (503, "SlowDown", "tier in front", 2),
        (503, "", "tier in front", 2),
        (500, "InternalError", "the server failed", 2),
        (500, "", "the server failed", 2),
        (400, "SomethingNew", r"GetObject was refused \(SomethingNew\)", 1),
    ],
)
def test_a_refusal_names_bucket_and_remedy(opened, status, code, remedy, attempts):
    with FaultyServer(status, code) as server:
        store = opened(server.url)
        with pytest.raises(StoreError, match=remedy) as caught:
            store.get(KEY)
        assert store.ping().ok is False
        asked = [line for line in server.asked if line.startswith("GET") and "5ec4" in line]
        assert attempts in {None, len(asked)}
    text = str(caught.value)
    assert "'bucket'" in text
    assert code in text
    assert not any(secret in text for secret in ("askonce-secret", "5ec4", "AWSAccessKeyId"))
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize(
    ("name", "arguments", "remedy"),
    [
        ("NoRegionError", {}, "Set region="),
        ("NoCredentialsError", {}, "Set profile="),
        ("TokenRetrievalError", {"provider": "sso", "error_msg": "hidden"}, "Set profile="),
        ("ProfileNotFound", {"profile": "hidden"}, "Correct profile="),
        ("ReadTimeoutError", {"endpoint_url": "http://hidden"}, "no answer in time"),
        ("ConnectTimeoutError", {"endpoint_url": "http://hidden"}, "no answer in time"),
        ("EndpointConnectionError", {"endpoint_url": "http://hidden"}, "cannot be reached"),
        ("SSLError", {"endpoint_url": "http://hidden", "error": "hidden"}, "cannot be reached"),
        ("ProxyConnectionError", {"proxy_url": "http://hidden"}, "cannot be reached"),
        ("ParamValidationError", {"report": "hidden"}, r"PutObject failed \(ParamValidationError\)"),
    ],
)
def test_an_error_of_the_client_names_bucket_and_remedy(opened, name, arguments, remedy):
    import botocore.exceptions

    store = opened("http://host")
    error = store._bucket.explain.error(getattr(botocore.exceptions, name)(**arguments), "PutObject")
    assert re.search(remedy, str(error))
    assert "'bucket' at host" in str(error)
    assert "hidden" not in str(error)
    assert error.code == name
    assert isinstance(error, TimeoutError) == ("Timeout" in name)


def test_a_bucket_elsewhere(opened):
    store = opened("http://host")
    assert "region=" in str(store._bucket.explain.refusal("PermanentRedirect", "GetObject", 301))


@pytest.mark.parametrize(
    ("work", "action"),
    [
        (lambda store: store.get("ns:k"), "GetObject"),
        (lambda store: store.get_many(["ns:k"]), "GetObject"),
        (lambda store: store.set("ns:k", b"", None), "PutObject"),
        (lambda store: store.set_many([("ns:k", b"", None)]), "PutObject"),
        (lambda store: store.delete("ns:k"), "GetObject"),
        (lambda store: list(store.scan("")), "ListBucket"),
        (lambda store: store.acquire("ns:k", "t", 1.0), "PutObject"),
    ],
)
def test_every_operation_says_which_permission_it_needs(opened, work, action):
    with FaultyServer(403, "AccessDenied") as server:
        store = opened(server.url)
        with pytest.raises(StoreError, match=f"s3:{action} on arn:aws:s3:::bucket") as caught:
            work(store)
    # Who may not write may still read: no reason to leave the store alone.
    assert isinstance(caught.value, Refused) == (action == "PutObject")


def test_a_bucket_that_is_not_there_is_never_silent(s3, opened):
    store = opened(s3.endpoint_url, "no-such-bucket")
    for work in (
        lambda: store.get("ns:k"),
        lambda: store.set("ns:k", b"", None),
        lambda: store.delete("ns:k"),
        lambda: store.delete("ns:k", "ns:l"),
        lambda: list(store.scan("")),
    ):
        with pytest.raises(StoreError, match=r"'no-such-bucket'.*Create it"):
            work()
    health = store.ping()
    assert not health.ok
    assert "no-such-bucket" in health.warnings[0]


def test_wrong_credentials(rclone, rclone_bucket, opened, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    store = opened(rclone.endpoint_url, rclone_bucket)
    with pytest.raises(StoreError, match="credentials") as caught:
        store.get("ns:k")
    assert "wrong-secret" not in "".join(traceback.format_exception(caught.value))


def test_no_credentials(s3, moto_bucket, opened, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = opened(s3.endpoint_url, moto_bucket)
    with pytest.raises(StoreError, match="no credentials were found"):
        store.get("ns:k")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "askonce")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "askonce-secret")
    store.close()
    assert store.get("ns:k") is None, "found when asked for again"


def test_an_unknown_profile(s3, moto_bucket, opened):
    store = opened(s3.endpoint_url, moto_bucket, profile="nobody")
    with pytest.raises(StoreError, match="profile"):
        store.get("ns:k")
    health = store.ping()
    assert not health.ok
    assert "profile" in health.warnings[0]


def test_a_key_too_long_for_s3_is_refused(s3, moto_bucket, opened):
    store = opened(s3.endpoint_url, moto_bucket)
    with pytest.raises(Refused, match="1024 bytes"):
        store.set("n" * 1024 + ":key", b"value", None)
    with pytest.raises(Refused, match="shorter namespace"):
        store.get("ü" * 200)
    assert list(store.scan("n" * 2000)) == []


# -- no wait without an end ----------------------------------------------------------------------


FACES = pytest.mark.parametrize("face", ["sync", "async"])


def ask(store, face, key="ns:key"):
    return store.get(key) if face == "sync" else asyncio.run(store.aget(key))


def timed_out(store, face, within, seconds=0.25):
    """Ask with a deadline; the seconds it took to fail."""
    began = time.monotonic()
    with within(seconds), pytest.raises(TimeoutError, match=r"'askonce-\w+'.*no answer in time") as caught:
        ask(store, face)
    assert isinstance(caught.value, StoreError)
    return time.monotonic() - began


@FACES
def test_a_server_that_stands_still_costs_no_more_than_the_deadline(s3, moto_bucket, opened, within, face):
    store = opened(s3.endpoint_url, moto_bucket, max_pool=2)
    store.set("ns:key", b"value", None)
    s3.pause()
    # More calls than workers: those that find no free one end in time as well.
    assert all(timed_out(store, face, within) < 1.0 for _ in range(5))
    s3.resume()
    assert ask(store, face).value == b"value"


@FACES
@pytest.mark.parametrize(
    "fault",
    [
        lambda proxy: proxy.black_hole(),
        lambda proxy: proxy.latency(down=1.5),
        lambda proxy: proxy.trickle(size=20, every=0.1),
    ],
    ids=["black hole", "latency", "trickle"],
)
def test_a_network_that_hangs_costs_no_more_than_the_deadline(proxy, proxied, within, fault, face):
    fault(proxy)
    assert all(timed_out(proxied, face, within) < 1.0 for _ in range(2))
    proxy.ok()
    assert ask(proxied, face).value == b"value" * 2000


@FACES
@pytest.mark.parametrize(
    "fault",
    [
        lambda proxy: proxy.refuse(),
        lambda proxy: proxy.cut(100),
        lambda proxy: proxy.cut(5000),
        lambda proxy: proxy.cut(5000, reset=False),
        lambda proxy: proxy.garbage(),
    ],
    ids=["refused", "cut in the head", "cut in the body", "ended in the body", "garbage"],
)
def test_a_network_that_breaks_is_an_error_and_never_half_a_value(proxy, proxied, fault, face):
    proxied.close()  # so that new connections are made
    fault(proxy)
    with pytest.raises(StoreError, match="Check endpoint_url=, the network and the server"):
        ask(proxied, face)
    proxy.ok()
    assert ask(proxied, face).value == b"value" * 2000


def test_a_server_that_is_not_there(opened):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        store = opened(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StoreError, match="cannot be reached"):
            store.get("ns:key")
        assert store.ping().ok is False


def test_without_a_deadline_the_stores_own_time_out_holds(s3, moto_bucket, opened):
    store = opened(s3.endpoint_url, moto_bucket, timeout=0.4)
    for _ in range(50):  # a busy machine may need more for the first client
        with contextlib.suppress(TimeoutError):
            store.set("ns:key", b"value", None)
            break
    s3.pause()
    for work in (
        lambda: store.get("ns:key"),
        lambda: store.get_many(["ns:key", "ns:other"]),
        lambda: list(store.scan("")),
        lambda: asyncio.run(store.aget("ns:key")),
        lambda: asyncio.run(store.ascan("")),
    ):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            work()
        assert time.monotonic() - began < 1.5
    began = time.monotonic()
    assert store.ping().ok is False
    assert time.monotonic() - began < 1.5


def test_no_time_left_asks_nothing(s3, moto_bucket, opened, within):
    store = opened(s3.endpoint_url, moto_bucket)
    with within(-1), pytest.raises(TimeoutError):
        store.get("ns:key")
    assert not store._client.ready


def test_while_boto3_is_loading_the_error_says_so(s3, moto_bucket, opened, within):
    store = opened(s3.endpoint_url, moto_bucket)
    with within(0.0001), pytest.raises(TimeoutError, match="boto3 is still being loaded"):
        store.get("ns:key")
    assert store.get("ns:key") is None


def test_a_write_that_was_given_up_is_not_tried_again_later(proxy, proxied, within):
    """The second attempt of an old write must not land on a newer one."""
    sent = []
    client = proxied._client.get()
    client.meta.events.register_last("before-send.s3.PutObject", lambda **_: sent.append(time.monotonic()))
    proxy.cut(0)  # every attempt fails at once, and boto3 waits up to a second before the next
    for number in range(6):
        with within(0.05), pytest.raises(StoreError):
            proxied.set(f"ns:{number}", b"old", None)
    ended = time.monotonic()
    time.sleep(1.3)
    assert sent
    assert [when for when in sent if when > ended + 0.1] == []


def test_a_queue_without_hope_is_refused(s3, moto_bucket, opened, within, monkeypatch):
    monkeypatch.setattr("askonce.stores._crew._WAITING_EACH", 2)
    store = opened(s3.endpoint_url, moto_bucket, max_pool=1)
    store.set("ns:key", b"value", None)
    s3.pause()
    with within(0.02):
        errors = []
        for _ in range(6):
            set_deadline(time.monotonic() + 0.02)
            with pytest.raises(StoreError) as caught:
                store.get("ns:key")
            errors.append(str(caught.value))
    assert "queue is full" in errors[-1]
    s3.resume()
    wait_until(store._crew._desk.queue.empty, "what was given up to be passed over")
    assert store.get("ns:key").value == b"value"


def test_a_hanging_server_does_not_hold_up_the_end_of_the_program(s3, moto_bucket, run_python):
    s3.pause()
    code = f"""if True:
        import time
        from askonce._deadline import set_deadline
        from askonce.stores.s3 import S3Store
        store = S3Store({moto_bucket!r}, endpoint_url={s3.endpoint_url!r}, timeout=30)
        while not store._client.ready:
            set_deadline(time.monotonic() + 0.2)
            try:
                store.get("ns:key")
            except TimeoutError:
                pass
        print("calls are over", flush=True)
    """
    began = time.monotonic()
    ran = run_python(code)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("calls are over\n", "", 0)
    assert time.monotonic() - began < 15


# -- behind a cache ----------------------------------------------------------------------


@pytest.fixture
def provider():
    openai = pytest.importorskip("openai")
    from askonce.testing import FakeProvider

    with FakeProvider() as provider:
        http_client = openai.DefaultHttpxClient(verify=False)
        with openai.OpenAI(api_key="k", base_url=provider.base_url, http_client=http_client) as client:

            def ask(text):
                answer = client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": text}]
                )
                return answer.choices[0].message.content

            provider.ask = ask
            provider.client = client
            yield provider


@contextlib.contextmanager
def cached(url, provider, **options):
    from askonce_openai import disable_cache, enable_cache

    with Cache(url, **options) as cache:
        enable_cache(cache, client=provider.client)
        try:
            yield cache
        finally:
            disable_cache()


@pytest.mark.parametrize("write", ["through", "behind"])
def test_an_answer_is_found_by_another_cache(s3, moto_bucket, provider, write):
    url = f"s3://{moto_bucket}/p-{uuid.uuid4().hex}?endpoint_url={s3.endpoint_url}&write={write}"
    with cached(url, provider, store_timeout=20) as cache:
        first = provider.ask("hello")
    with cached(url, provider, store_timeout=20) as cache:
        assert provider.ask("hello") == first
        assert cache.stats().hits == 1
        assert cache.clear() == 1


def test_trouble_is_never_the_callers_and_is_told_once_with_bucket_and_remedy(provider, caplog):
    with FaultyServer(403, "AccessDenied") as server:
        url = f"s3://my-bucket?endpoint_url={server.url}"
        with cached(url, provider, store_timeout=20) as cache, caplog.at_level(logging.WARNING, "askonce"):
            for number in range(4):
                assert provider.ask(f"hello {number}")
            errors = cache.stats().store_errors
    assert sum(errors.values()) >= 4
    about = [record.getMessage() for record in caplog.records if "GetObject" in record.getMessage()]
    assert len(about) == 1
    assert "'my-bucket'" in about[0]
    assert "Allow s3:GetObject on arn:aws:s3:::my-bucket/askonce/*" in about[0]


def test_a_server_that_stands_still_delays_a_call_by_no_more_than_the_store_timeout(
    s3, moto_bucket, provider
):
    url = f"s3://{moto_bucket}/p-{uuid.uuid4().hex}?endpoint_url={s3.endpoint_url}&write=through"
    with cached(url, provider, store_timeout=0.3):
        provider.ask("first")
        s3.pause()
        for number in range(3):
            began = time.monotonic()
            assert provider.ask(f"hello {number}")
            assert time.monotonic() - began < 1.5
        s3.resume()
