"""Leases in a bucket, and what a check of the bucket finds."""

from __future__ import annotations

import threading
import uuid

import pytest
from servers.s3_faults import answer_instead

from askonce.stores import S3Store


@pytest.fixture(autouse=True)
def _account(s3_account):
    pass


@pytest.fixture(params=["moto", "rclone"])
def lessor(request, clock):
    name = {"moto": "s3", "rclone": "rclone"}[request.param]
    server, bucket = request.getfixturevalue(name), request.getfixturevalue(f"{request.param}_bucket")
    store = S3Store(
        bucket, f"p-{uuid.uuid4().hex[:8]}", endpoint_url=server.endpoint_url, clock=clock, timeout=20
    )
    yield store
    store.close()


def test_a_lease_has_one_holder_until_it_is_given_back_or_over(lessor, clock):
    from askonce.stores.protocol import AsyncLeasing

    assert isinstance(lessor, AsyncLeasing)
    assert lessor.acquire("ns:key", "one", 5.0)
    assert lessor.acquire("ns:key", "one", 5.0), "an answer that was lost: it was taken already"
    assert not lessor.acquire("ns:key", "two", 5.0)
    assert lessor.acquire("ns:other", "two", 5.0)
    assert not lessor.renew("ns:key", "two", 5.0)
    lessor.release("ns:key", "two")
    clock.advance(4)
    assert lessor.renew("ns:key", "one", 5.0)
    clock.advance(4)
    assert not lessor.acquire("ns:key", "two", 5.0)
    lessor.release("ns:key", "one")
    assert not lessor.renew("ns:key", "one", 5.0)
    assert lessor.acquire("ns:key", "two", 5.0)
    clock.advance(5)
    assert lessor.acquire("ns:key", "three", 5.0), "who died holds it no longer than its life"
    assert not lessor.renew("ns:key", "two", 5.0)


async def test_tasks_take_leases_too(lessor):
    assert await lessor.aacquire("ns:key", "one", 5.0)
    assert not await lessor.aacquire("ns:key", "two", 5.0)


def test_leases_are_no_entries(lessor):
    lessor.set("ns:key", b"value", None)
    assert lessor.acquire("ns:key", "one", 5.0)
    assert list(lessor.scan("")) == ["ns:key"]
    assert lessor.get("ns:key").value == b"value"
    lessor.release("ns:key", "one")
    assert lessor.get("ns:key").value == b"value"
    lessor.on_release("ns:key", lambda: None)()


def race(store, key):
    """Who of eight threads gets the lease."""
    barrier, winners = threading.Barrier(8), []

    def take(token):
        barrier.wait()
        if store.acquire(key, token, 5.0):
            winners.append(token)

    threads = [threading.Thread(target=take, args=(f"token-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


def test_of_many_at_once_one_gets_the_lease_also_one_that_ran_out(place, clock):
    store = place.store(clock=clock)
    store._leases.find_out()
    for number in range(5):
        assert len(race(store, f"ns:{number}")) == 1
        clock.advance(5)
        assert len(race(store, f"ns:{number}")) == 1, "over one that has expired"
    store.close()


def test_a_holder_that_comes_late_loses_to_who_took_over(place, clock):
    store = place.store(clock=clock)
    assert store.acquire("ns:key", "one", 5.0)
    clock.advance(6)
    real = store._bucket.head

    def head(name):
        seen = real(name)
        store._bucket.head = real
        assert store.acquire("ns:key", "two", 5.0)
        return seen

    store._bucket.head = head  # the other one comes in between
    assert not store.renew("ns:key", "one", 5.0)
    assert store.renew("ns:key", "two", 5.0)
    store.close()


def test_who_never_comes_through_does_not_get_the_lease(place, clock):
    store = place.store(clock=clock)
    assert store.acquire("ns:key", "one", 5.0)
    clock.advance(6)
    asked = answer_instead(store, "PutObject", 409, "ConditionalRequestConflict")
    assert not store.acquire("ns:key", "two", 5.0)
    assert not store.renew("ns:key", "one", 5.0)
    assert 4 <= len(asked) <= 20, "tried again, not for ever"
    store.close()


def test_a_lease_that_cannot_be_written_is_an_error(place):
    from askonce import StoreError

    store = place.store()
    store.ping()
    answer_instead(store, "PutObject", 403, "AccessDenied")
    with pytest.raises(StoreError, match="s3:PutObject"):
        store.acquire("ns:key", "one", 5.0)
    store.close()


def test_conditional_writes_are_found_out_once(lessor, s3):
    known = "yes" if lessor._bucket.explain.host.endswith(str(s3.port)) else "no"
    assert lessor._leases.conditional == "unknown"
    assert lessor.ping().detail["conditional_writes"] == known
    asked = answer_instead(lessor, "PutObject", 500, "InternalError")
    assert lessor.ping().detail["conditional_writes"] == known
    assert asked == []
    assert list(lessor.scan("")) == []


# -- ping ---------------------------------------------------------------------------------------


def rule(**changes):
    base = {"Status": "Enabled", "Filter": {"Prefix": "a/b/"}, "Expiration": {"Days": 3}}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("found", "covers"),
    [
        (rule(), True),
        (rule(Filter={"Prefix": "a/"}), True),
        (rule(Filter={"Prefix": ""}), True),
        (rule(Filter={}), True),
        (rule(Filter=None), True),
        (rule(Filter=None, Prefix="a/b/"), True),
        (rule(Filter={"And": {"Prefix": "a/"}}), True),
        (rule(Expiration={"Date": "2030-01-01"}), True),
        (rule(Filter=None, Prefix="b/"), False),
        (rule(Filter={"Prefix": "a/b/c/"}), False),
        (rule(Filter={"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}}), False),
        (rule(Filter={"ObjectSizeGreaterThan": 5}), False),
        (rule(Status="Disabled"), False),
        (rule(Expiration=None, Transitions=[{"Days": 3}]), False),
        (rule(Expiration={"ExpiredObjectDeleteMarker": True}), False),
    ],
)
def test_which_lifecycle_rules_remove_what_has_expired(found, covers):
    from askonce.stores._s3_health import _covers

    assert _covers(found, "a/b/") is covers


def test_ping_asks_for_the_documented_rule_until_it_is_there(s3):
    import json
    import re

    bucket = s3.create_bucket()
    store = S3Store(bucket, endpoint_url=s3.endpoint_url, timeout=20)
    health = store.ping()
    assert health.ok
    assert health.kind == f"s3 {s3.host}:{s3.port}"
    assert health.detail == {
        "bucket": bucket,
        "prefix": "askonce",
        "region": "us-east-1",
        "conditional_writes": "yes",
        "lifecycle_rule": "no",
    }
    (warning,) = health.warnings
    advised = json.loads(warning[warning.index("{") : warning.rindex("}") + 1])
    documented = json.loads(re.search(r"\{\"Rules\".*?\]\}", S3Store.__doc__, re.DOTALL)[0])
    with s3.client() as client:
        for configuration in (advised, documented):
            client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=configuration)
            health = store.ping()
            assert health.warnings == ()
            assert health.detail["lifecycle_rule"] == "yes"
            client.delete_bucket_lifecycle(Bucket=bucket)
    store.close()


@pytest.mark.parametrize("code", ["AccessDenied", "NotImplemented"])
def test_who_may_not_see_the_rules_is_not_warned_about_them(place, code):
    store = place.store()
    answer_instead(store, "GetBucketLifecycleConfiguration", 403, code)
    health = store.ping()
    assert health.ok
    assert health.warnings == ()
    assert health.detail["lifecycle_rule"] == "unknown"
    store.close()


def test_who_may_only_read_is_told_so_and_can_read(place):
    from askonce.stores import Refused

    writer = place.store()
    writer.set("ns:key", b"value", None)
    store = place.store()
    answer_instead(store, "PutObject", 403, "AccessDenied")
    health = store.ping()
    assert health.ok
    assert "s3:PutObject" in health.warnings[0]
    assert health.detail["conditional_writes"] == "unknown"
    assert store.get("ns:key").value == b"value"
    with pytest.raises(Refused, match="PutObject"):
        store.set("ns:key", b"other", None)
    store.close()
    writer.close()
