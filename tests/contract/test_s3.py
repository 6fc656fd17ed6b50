"""The S3 store passes the suite on two servers, and leaves everything else in the bucket alone."""

from __future__ import annotations

import threading
import uuid
from typing import ClassVar

import pytest
from servers.s3_faults import answer_instead

from askonce.stores import S3Store
from askonce.testing import StoreContract

_THOUSANDS = {
    "test_batches_may_be_large",
    "test_scanning_while_deleting_ends_and_misses_nothing_else",
}
"""Tests of thousands of requests, each of which takes 5 ms of somebody's CPU."""


def own_prefix():
    return f"p-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def _account(s3_account):
    pass


class Contract(StoreContract):
    thousands: ClassVar[set[str]] = set()
    """The face and name of those that are tried on this server."""

    @pytest.fixture(autouse=True)
    def _only_some_thousands(self, request):
        name = request.node.originalname
        if name in _THOUSANDS and f"{request.node.callspec.params['open_face']} {name}" not in self.thousands:
            pytest.skip("thousands of requests: this is tried through the other face or on the other server")

    def make_store(self, clock):
        return S3Store(self.bucket, own_prefix(), endpoint_url=self.url, clock=clock, timeout=20)


class TestOnMoto(Contract):
    long_key = 900
    thousands: ClassVar = {"sync test_batches_may_be_large"}

    @pytest.fixture(autouse=True)
    def _server(self, s3, moto_bucket):
        self.url, self.bucket = s3.endpoint_url, moto_bucket


class TestOnRclone(Contract):
    """A server that knows no conditions, spells metadata its own way, and keeps objects as files."""

    long_key = 240
    thousands: ClassVar = {f"async {name}" for name in _THOUSANDS}

    @pytest.fixture(autouse=True)
    def _server(self, rclone, rclone_bucket):
        self.url, self.bucket = rclone.endpoint_url, rclone_bucket

    # rclone fails requests for a file that another one writes: see the test below.
    test_threads_at_once_never_see_a_wrong_value = None


def test_what_a_server_tears_is_an_error_and_never_a_value(rclone, rclone_bucket):
    from askonce import StoreError

    store = S3Store(rclone_bucket, own_prefix(), endpoint_url=rclone.endpoint_url, timeout=20, max_pool=8)
    values = [bytes([number]) * (1 + number * 5000) for number in range(8)]
    wrong, right = [], []

    def hammer(number):
        for step in range(15):
            try:
                if step % 2:
                    store.set("key", values[number], None)
                else:
                    found = store.get("key")
                    if found is not None:
                        (right if found.value in values else wrong).append(found.value)
            except StoreError:
                pass

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []
    assert right


# -- what is in the bucket ----------------------------------------------------------------------


def test_an_entry_is_a_plain_object_that_says_when_it_expires(place):
    with_expiry, without = "default:" + "ab" * 32, "default:" + "cd" * 32
    store = place.store(clock=lambda: 1_700_000_000.0)
    store.set(with_expiry, b"value", 1_700_000_100.123456)
    store.set(without, b"other", None)
    name = f"{place.prefix}/default/ab/{'ab' * 32}"
    assert sorted(place.objects()) == [name, f"{place.prefix}/default/cd/{'cd' * 32}"]
    answer = place.client.get_object(Bucket=place.bucket, Key=name)
    assert answer["Body"].read() == b"value"
    assert answer["Metadata"].pop("askonce-check")
    assert answer["Metadata"] == {"askonce-expires": "1700000100.123456"}
    assert store.get(with_expiry).expires_at == 1_700_000_100.123456
    store.close()


def test_what_has_expired_stays_for_the_lifecycle_rule_and_is_seen_by_nobody(place, clock):
    store = place.store(clock=clock)
    store.set_many([("small", b"value", clock() + 1), ("large", bytes(200_000), clock() + 1)])
    clock.advance(1)
    assert store.get("small") is None
    assert store.get("large") is None
    assert list(store.scan("")) == []
    assert len(place.objects()) == 2
    store.set("small", b"again", None)
    assert store.get("small").value == b"again"
    store.close()


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"askonce-expires": ""},
        {"askonce-expires": "soon"},
        {"askonce-expires": "nan"},
        {"other": "never"},
    ],
)
def test_an_object_that_does_not_say_when_it_expires_is_no_entry(place, metadata):
    store = place.store()
    store.set("ns:key", b"value", None)
    (name,) = place.objects()
    place.put(name, b"value", Metadata=metadata)
    assert store.get("ns:key") is None
    assert store.get_many(["ns:key"]) == {}
    assert list(store.scan("")) == []
    store.close()


@pytest.mark.parametrize("spoil", ["cut", "changed", "moved", "prolonged", "unchecked"])
def test_a_spoilt_object_is_a_miss(place, spoil):
    store = place.store()
    store.set("ns:key", b"a value", None)
    (name,) = place.objects()
    metadata = place.client.head_object(Bucket=place.bucket, Key=name)["Metadata"]
    if spoil == "prolonged":
        metadata["askonce-expires"] = "9999999999.0"
    elif spoil == "unchecked":
        del metadata["askonce-check"]
    elif spoil == "moved":
        name = name.replace("key", "kez")
    body = {"cut": b"a val", "changed": b"b value"}.get(spoil, b"a value")
    place.put(name, body, Metadata=metadata)
    assert store.get("ns:kez" if spoil == "moved" else "ns:key") is None
    store.close()


def test_nothing_outside_the_prefix_is_touched_and_nothing_foreign_inside(place):
    outside = [f"{place.prefix}{tail}" for tail in ("", "-b/default/ab/abcd", "x", ".txt")]
    inside = [
        f"{place.prefix}/{tail}"
        for tail in (
            "README",
            "a/b/c/d",
            "default/zz/abcd",
            "default/ab/",
            "de!fault/!",
            "dé/!",
            "!!!/!",
            "//",
        )
    ]
    for name in (*outside, *inside):
        place.put(name)
    neighbour = place.store(prefix=f"{place.prefix}-c")
    neighbour.set("default:abcd", b"neighbour's", None)
    before = place.objects()
    store = place.store()
    keys = ["default:abcd", "", "README", "../x", "/", "a/b", "..", f"../{place.prefix}x", "default:../../x"]
    store.set_many((key, b"value", None) for key in keys)
    assert sorted(store.scan("")) == sorted(keys)
    assert store.delete(*store.scan("")) == len(keys)
    for key in keys:
        store.delete(key)
    assert list(store.scan("")) == []
    assert place.objects() == before
    assert neighbour.get("default:abcd").value == b"neighbour's"
    store.close()
    neighbour.close()


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_a_scan_goes_through_all_pages(place, face):
    store = place.store()
    keys = [f"ns:{number:02x}{number:03}" for number in range(40)]
    store.set_many((key, b"value", None) for key in keys)
    asked = []
    client = store._client.get()
    client.meta.events.register("before-call.s3.ListObjectsV2", lambda params, **_: asked.append(params))
    store._do.page_size = 7
    found = list(store.scan("ns:")) if face == "sync" else await store.ascan("ns:")
    assert sorted(found) == keys
    assert len(asked) == 6
    asked.clear()
    assert list(store.scan("ns:07")) == ["ns:07007"]
    assert len(asked) == 1, "the server is asked for no more than the prefix"
    store.close()


@pytest.mark.parametrize("token", ["", "<NextContinuationToken>t</NextContinuationToken>"])
def test_a_listing_without_an_end_is_an_error(place, token):
    from askonce import StoreError

    store = place.store()
    body = f"<ListBucketResult><IsTruncated>true</IsTruncated>{token}</ListBucketResult>".encode()
    answer_instead(store, "ListObjectsV2", 200, "", body=body)
    with pytest.raises(StoreError, match="makes no sense"):
        list(store.scan(""))
    store.close()


def test_more_than_a_thousand_are_deleted_in_batches(place, monkeypatch):
    from askonce.stores import _s3_operations

    monkeypatch.setattr(_s3_operations, "_REMOVED_AT_ONCE", 8)
    store = place.store()
    keys = [f"ns:{number:03}" for number in range(20)]
    store.set_many((key, b"value", None) for key in keys)
    asked = []
    client = store._client.get()
    client.meta.events.register("before-call.s3.DeleteObjects", lambda params, **_: asked.append(params))
    assert store.delete(*keys, "ns:other") == 20
    assert len(asked) == 3
    assert place.objects() == {}
    store.close()


def test_a_server_without_batches_deletes_one_at_a_time(place):
    store = place.store()
    store.set_many((f"ns:{number}", b"value", None) for number in range(5))
    asked = answer_instead(store, "DeleteObjects", 501, "NotImplemented")
    assert store.delete("ns:0", "ns:1", "ns:2") == 3
    assert store.delete("ns:2", "ns:3", "ns:4") == 2
    assert len(asked) == 1, "asked once, then known"
    assert place.objects() == {}
    store.close()


def test_what_a_batch_could_not_delete_is_an_error(place):
    from askonce import StoreError

    store = place.store()
    body = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    answer_instead(store, "DeleteObjects", 200, "", body=body)
    with pytest.raises(StoreError, match=r"s3:DeleteObject on arn"):
        store.delete("ns:a", "ns:b")
    store.close()
