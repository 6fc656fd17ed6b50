"""Offline, what is stored answers by meaning, too: if that takes no network. The provider is never asked."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time

import pytest
from core_kit import Ask, request

from askonce import ConfigurationError, OfflineMiss, using
from askonce.semantic import (
    FunctionEmbedder,
    RedisIndex,
    RedisVLEmbedder,
    SentenceTransformerEmbedder,
)
from askonce.stores import DiskStore, MemoryStore

ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"
FACES = pytest.mark.parametrize("face", ["sync", "async"])


def call(kit, face, cache, prompt, **options):
    if face == "sync":
        return kit.ask(cache, prompt, **options)
    return asyncio.run(asyncio.wait_for(kit.aask(cache, prompt, **options), 10))


@pytest.fixture
def local(embeds):
    return FunctionEmbedder(embeds, name="test", local=True)


@FACES
@pytest.mark.parametrize("how", ["cache", "using", "only-if-cached"])
def test_a_similar_question_is_answered_offline_by_a_local_embedder(kit, layered, local, face, how):
    store = MemoryStore(clock=kit.clock)
    answer = call(kit, face, layered(store, embedder=local), ASKED).body
    cache = layered(store, embedder=local, cache={"mode": "offline" if how == "cache" else "on"})
    headers = [(b"cache-control", b"only-if-cached")] if how == "only-if-cached" else []
    with using(**({"mode": "offline"} if how == "using" else {})):
        result = call(kit, face, cache, SAME, headers=headers)
    assert (result.outcome.status, result.body) == ("semantic", answer)
    assert kit.upstream.calls == 1


@FACES
@pytest.mark.parametrize("said", [None, False, 1, "yes"])
def test_an_embedder_that_does_not_say_so_is_never_asked_offline(kit, layered, embeds, face, said):
    class Own:
        name = "test"

        def embed(self, texts):
            return embeds(texts)

    embedder = Own()
    if said is not None:
        embedder.local = said
    cache = layered(embedder=embedder)
    kit.ask(cache, ASKED)
    with using(mode="offline"), pytest.raises(OfflineMiss):
        call(kit, face, cache, SAME)
    assert embeds.asked == [ASKED]
    assert cache.stats().layer["offline"] == 1
    assert kit.upstream.calls == 1


@FACES
def test_a_question_that_nothing_is_like_is_an_offline_miss_that_says_what_differs(kit, layered, local, face):
    cache = layered(embedder=local)
    kit.ask(cache, ASKED)
    with using(mode="offline"), pytest.raises(OfflineMiss) as caught:
        call(kit, face, cache, ASKED, temperature=0.5)
    assert caught.value.differences == ("temperature added",)
    assert kit.upstream.calls == 1


@FACES
def test_exact_answers_only_means_so_offline(kit, layered, local, embeds, face):
    cache = layered(embedder=local)
    kit.ask(cache, ASKED)
    with using(mode="offline", semantic=False), pytest.raises(OfflineMiss):
        call(kit, face, cache, SAME)
    assert embeds.asked == [ASKED]


@FACES
def test_offline_stores_nothing_and_samples_nothing(kit, layered, local, face):
    cache = layered(embedder=local, shadow=1.0, guards=False)
    kit.ask(cache, ASKED)
    before = len(list(cache._backing.stores[0].scan("")))
    with using(mode="offline"):
        for number in range(3):
            assert call(kit, face, cache, f"{SAME} {number * 'now '}").outcome.status == "semantic"
    assert len(list(cache._backing.stores[0].scan(""))) == before
    assert kit.upstream.calls == 1


@FACES
def test_rows_in_the_store_are_waited_for_offline(kit, layered, local, tmp_path, face):
    """Online the first question of a new process goes to the provider while they are read."""
    store = DiskStore(tmp_path, clock=kit.clock)
    answer = kit.ask(layered(store, embedder=local), ASKED).body
    for _ in range(5):
        fresh = layered(store, embedder=local, cache={"mode": "offline"})
        read = fresh._layer._shelf._read
        fresh._layer._shelf._read = lambda *of, read=read: (time.sleep(0.1), read(*of))
        assert call(kit, face, fresh, SAME).body == answer
    assert kit.upstream.calls == 1


def test_all_who_ask_offline_at_once_wait_for_the_rows(kit, layered, local):
    store = MemoryStore(clock=kit.clock)
    answer = kit.ask(layered(store, embedder=local), ASKED).body
    cache = layered(store, embedder=local, guards=False, cache={"mode": "offline"})
    read = cache._layer._shelf._read
    cache._layer._shelf._read = lambda *of: (time.sleep(0.3), read(*of))
    found = []

    def ask(number):
        found.append(kit.ask(cache, f"{SAME} {number * 'now '}").body)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [answer] * 6


@FACES
def test_rows_that_are_not_read_in_time_cost_a_miss_and_no_more(kit, layered, local, face):
    store = MemoryStore(clock=kit.clock)
    kit.ask(layered(store, embedder=local), ASKED)
    cache = layered(store, embedder=local, timeout=0.1, cache={"mode": "offline"})
    held = threading.Event()
    cache._layer._shelf._read = lambda *_: held.wait(10)
    started = time.monotonic()
    try:
        with pytest.raises(OfflineMiss):
            call(kit, face, cache, SAME)
        assert time.monotonic() - started < 3
    finally:
        held.set()


@FACES
def test_what_verified_mode_is_not_sure_of_is_a_miss_offline(kit, layered, local, face):
    cache = layered(embedder=local, max_error=0.1)
    kit.ask(cache, ASKED)
    with using(mode="offline"), pytest.raises(OfflineMiss):
        call(kit, face, cache, SAME)
    assert cache.stats().layer["too uncertain offline"] == 1
    assert "explored" not in cache.stats().layer
    assert kit.upstream.calls == 1


@FACES
def test_frameworks_that_look_up_first_get_similar_answers_offline(kit, layered, local, face):
    cache = layered(embedder=local)
    answer = kit.ask(cache, ASKED).body
    with using(mode="offline"):
        asked = request(SAME)
        step = cache.begin(asked) if face == "sync" else asyncio.run(cache.abegin(asked))
    assert (step.outcome.status, step.entry.body) == ("semantic", answer)
    with using(mode="offline"), pytest.raises(OfflineMiss):
        cache.begin(request(SAME), looks=False)


@FACES
def test_an_index_in_redis_answers_offline_as_the_store_does(kit, layered, local, redis_query, face):
    pytest.importorskip("redisvl")
    index = RedisIndex(redis_query.url, name=f"o{secrets.token_hex(4)}", timeout=5)
    cache = layered(MemoryStore(), embedder=local, index=index, cache={"clock": time.time})
    answer = kit.ask(cache, ASKED).body
    with using(mode="offline"):
        result = call(kit, face, cache, SAME)
    assert (result.outcome.status, result.body) == ("semantic", answer)


def test_which_embedders_are_local():
    class Model:
        def encode(self, texts, **_):
            return [[1.0] for _ in texts]

    class Vectorizer:
        model = "m"

        def embed_many(self, texts):
            return [[1.0] for _ in texts]

    assert SentenceTransformerEmbedder(Model()).local is True
    assert RedisVLEmbedder(Vectorizer()).local is False
    assert RedisVLEmbedder(Vectorizer(), local=True).local is True
    assert FunctionEmbedder(len, name="f").local is False
    with pytest.raises(ConfigurationError, match="local='yes' is not allowed"):
        FunctionEmbedder(len, name="f", local="yes")


def test_a_replay_is_exact_whatever_layer_the_program_has(kit, layered, local, embeds, tmp_path):
    from askonce._replay._cache import RecordingCache
    from askonce._replay._recording import Recording

    layered(embedder=local)
    recording = Recording(tmp_path / "r.json", "record")
    kit.ask(RecordingCache(recording), ASKED)
    recording.mode = "replay"
    replayed = RecordingCache(recording)
    assert kit.ask(replayed, ASKED).outcome.status == "hit"
    with pytest.raises(OfflineMiss):
        replayed.ask(Ask(kit.upstream, SAME))
    assert embeds.asked == []
    assert replayed._layer is None
