"""The layer over real stores: rows and lessons are shared through them, and an outage costs no answer."""

from __future__ import annotations

import secrets
import time

import pytest
from core_kit import until

from askonce.semantic import FunctionEmbedder, SemanticLayer
from askonce.stores.redis import RedisStore

ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"


@pytest.fixture
def over(kit):
    def make(store, **options):
        embedder = FunctionEmbedder(lambda texts: [[1.0, 2.0, 3.0] for _ in texts], name="alike")
        layer = SemanticLayer(embedder, shadow=0.0, timeout=5)
        return kit.cache(store, semantic=layer, clock=time.time, **options)

    return make


@pytest.mark.parametrize("front", [False, True], ids=["redis", "memory over redis"])
def test_two_processes_over_one_redis_share_questions(kit, over, valkey, front):
    name = f"n{secrets.token_hex(4)}"
    stores = (["memory://"] if front else []) + [valkey.url]
    one, two = over(stores, namespace=name), over(stores, namespace=name)
    first = kit.ask(one, ASKED)
    kit.ask(two, "What is the capital of France?")
    until(lambda: two.stats().layer.get("rows read"), "rows")
    result = kit.ask(two, SAME)
    assert (result.outcome.status, result.body) == ("semantic", first.body)
    one.delete(first.outcome.key)
    until(lambda: kit.ask(two, f"So {ASKED} {secrets.token_hex(2)}").outcome.status == "miss", "the deletion")
    assert two.clear() >= 1
    assert valkey.run("KEYS", f"{name}*") == []


def test_a_redis_that_dies_costs_no_answer(kit, over):
    from servers.redis import redis_server

    with redis_server("valkey") as server:
        cache = over(RedisStore(server.url))
        kit.ask(cache, ASKED)
        assert kit.ask(cache, SAME).outcome.status == "semantic"
        server.kill()
        for number in range(8):
            assert kit.ask(cache, f"What is {number}?").outcome.status == "miss"
        assert "internal error" not in cache.stats().layer


def test_rows_pass_through_s3_as_well(kit, over, s3, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "askonce",
        "AWS_SECRET_ACCESS_KEY": "askonce-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = s3.create_bucket()
    url = f"s3://{bucket}/cache?endpoint_url={s3.endpoint_url}&write=through"
    one, two = over(url, store_timeout=5), over(url, store_timeout=5)
    first = kit.ask(one, ASKED)
    kit.ask(two, "What is the capital of France?")
    until(lambda: two.stats().layer.get("rows read"), "rows")
    assert kit.ask(two, SAME).body == first.body
