"""A question that means the same is answered from the cache; one that does not never is."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import orjson
import pytest
from core_kit import Answer, Ask, AsyncAsk, Running, auntil, chat, consume, until

from askonce import Request, track, using
from askonce import _codec as codec
from askonce._fingerprint import TURN
from askonce._seal import Seal
from askonce.doors import cache_status
from askonce.semantic import FunctionEmbedder, LocalIndex, Row, SemanticLayer, _rows
from askonce.stores import DiskStore, MemoryStore

FACES = pytest.mark.parametrize("face", ["sync", "async"])
ASKED = "How do I reset my password?"
SAME = "Tell me how I can reset my password, please"


def call(kit, face, cache, prompt, **options):
    if face == "sync":
        return kit.ask(cache, prompt, **options)
    return asyncio.run(asyncio.wait_for(kit.aask(cache, prompt, **options), 10))


def status(kit, cache, prompt, **options):
    return kit.ask(cache, prompt, **options).outcome.status


@FACES
def test_a_question_that_means_the_same_gets_the_stored_answer(kit, layered, face):
    cache = layered()
    first = call(kit, face, cache, ASKED)
    again = call(kit, face, cache, SAME)
    assert again.body == first.body
    assert kit.upstream.calls == 1
    outcome = again.outcome
    assert (outcome.status, outcome.source, outcome.tier) == ("semantic", first.outcome.key, "memory")
    assert outcome.key != outcome.source
    assert outcome.similarity == pytest.approx(1.0)
    assert outcome.usage == first.outcome.usage
    assert f'hit; ttl=100; key="{first.outcome.key}"; detail="semantic ' in cache_status(outcome)
    stats = cache.stats()
    assert (stats.semantic, stats.misses, stats.served) == (1, 1, 1)
    assert stats.layer == {"consulted": 2, "served": 1}


def test_an_exact_hit_embeds_nothing_and_a_miss_embeds_once(kit, layered, embeds):
    cache = layered()
    kit.ask(cache, ASKED)
    assert embeds.asked == [ASKED]
    for _ in range(3):
        assert status(kit, cache, ASKED) == "hit"
    assert embeds.asked == [ASKED]


@FACES
def test_a_stream_is_answered_with_a_stream_and_never_with_a_plain_answer(kit, layered, face):
    cache = layered()
    plain = call(kit, face, cache, ASKED)
    first = call(kit, face, cache, ASKED, live=True)
    assert first.outcome.status == "miss"
    again = call(kit, face, cache, SAME, live=True)
    assert (again.outcome.status, again.body) == ("semantic", first.body)
    assert call(kit, face, cache, SAME).body == plain.body


def test_below_the_threshold_the_provider_answers(kit, layered, embeds):
    cache = layered(threshold=0.9)
    embeds.at(SAME, 0.899)
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME) == "miss"
    further = "Please show me how I reset my password"
    embeds.at(further, 0.901)
    result = kit.ask(cache, further)
    assert result.outcome.status == "semantic"


def test_of_several_the_nearest_one_answers(kit, layered, embeds):
    cache = layered(threshold=0.8)
    near, far = "how do I reset the password", "how might I reset our password"
    embeds.at(far, 0.9)
    embeds.at(near, 0.97)
    kit.ask(cache, far, headers=[(b"cache-control", b"no-cache")])
    answer = kit.ask(cache, near, headers=[(b"cache-control", b"no-cache")])
    found = kit.ask(cache, SAME)
    assert found.outcome.source == answer.outcome.key


# -- the partition ----------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHER_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": 1}}}


def messages(*earlier, text, system="Be kind.", parts=None):
    content = text if parts is None else [{"type": "text", "text": text}, *parts]
    return [{"role": "system", "content": system}, *earlier, {"role": "user", "content": content}]


TURNS = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
OTHER_TURNS = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({}, {"temperature": 0.5}),
        ({}, {"model": "other"}),
        ({}, {"seed": 1}),
        ({}, {"max_tokens": 5}),
        ({"tools": [TOOL]}, {}),
        ({"tools": [TOOL]}, {"tools": [OTHER_TOOL]}),
        ({"response_format": {"type": "json_object"}}, {}),
        ({"system": "Be kind."}, {"system": "Be rude."}),
        ({"earlier": TURNS}, {}),
        ({"earlier": TURNS}, {"earlier": OTHER_TURNS}),
        ({"parts": [IMAGE]}, {"parts": []}),
        ({"parts": [IMAGE]}, {"parts": [OTHER_IMAGE]}),
        ({"parts": [IMAGE]}, {"parts": [IMAGE, OTHER_IMAGE]}),
        ({"namespace": "a"}, {"namespace": "b"}),
        ({"scope": "a"}, {"scope": "b"}),
        ({"scope": "a"}, {}),
        ({"sample": 0}, {"sample": 1}),
        ({"url": "https://api.test/v1/chat/completions"}, {"url": "https://other.test/v1/chat/completions"}),
        ({"headers": [(b"openai-organization", b"a")]}, {"headers": [(b"openai-organization", b"b")]}),
        ({"live": True}, {}),
    ],
)
def test_what_differs_besides_the_text_is_never_answered_by_meaning(kit, layered, one, two):
    cache = layered(threshold=0.5, guards=False)

    def ask(text, options):
        options = dict(options)
        said = {name: options.pop(name) for name in ("namespace", "scope", "sample") if name in options}
        earlier, system, parts = (
            options.pop("earlier", ()),
            options.pop("system", "Be kind."),
            options.pop("parts", None),
        )
        url = options.pop("url", None)
        asked = Ask(
            kit.upstream, messages=messages(*earlier, text=text, system=system, parts=parts), **options
        )
        if url:
            asked.request = Request("POST", url, asked.request.headers, asked.request.body)
        with using(**said):
            reply = cache.ask(asked)
            return consume(reply), reply.outcome

    body, _ = ask(ASKED, one)
    _, outcome = ask(SAME, two)
    assert outcome.status == "miss"
    again, outcome = ask(SAME + " now", one)
    assert (outcome.status, again) == ("semantic", body)


def test_credentials_separate_callers_under_the_credential_scope(kit, layered):
    cache = layered(guards=False, cache={"scope": "credential"})
    kit.ask(cache, ASKED, headers=[(b"authorization", b"Bearer one")])
    assert status(kit, cache, SAME, headers=[(b"authorization", b"Bearer two")]) == "miss"
    assert status(kit, cache, "x " + SAME, headers=[(b"authorization", b"Bearer one")]) == "semantic"


def test_a_partition_of_the_users_own_separates(kit, layered):
    cache = layered(partition=lambda request: request.header(b"x-country"))
    kit.ask(cache, ASKED, headers=[(b"x-country", b"de")])
    assert status(kit, cache, SAME, headers=[(b"x-country", b"fr")]) == "miss"
    assert status(kit, cache, SAME + "?", headers=[(b"x-country", b"de")]) == "semantic"


@pytest.mark.parametrize("result", [None, 5, RuntimeError("secret prompt")])
def test_a_partition_that_fails_leaves_the_call_to_exact_means(kit, layered, caplog, result):
    def partition(request):
        if isinstance(result, Exception):
            raise result
        return result

    cache = layered(partition=partition)
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME) == "miss"
    assert status(kit, cache, SAME) == "hit"
    assert any(name.startswith("partition: ") for name in cache.stats().layer)
    assert "secret" not in caplog.text


def test_longer_conversations_than_allowed_are_left_alone(kit, layered, embeds):
    cache = layered(max_turns=1)
    for text in (ASKED, SAME):
        asked = Ask(kit.upstream, messages=messages(*TURNS, text=text))
        assert cache.ask(asked).outcome.status == "miss"
    assert embeds.asked == []
    assert cache.stats().layer["too many turns"] == 2


def test_without_a_users_turn_at_the_end_there_is_nothing_to_compare(kit, layered, embeds):
    cache = layered()
    for last in (
        {"role": "assistant", "content": "prefill"},
        {"role": "tool", "content": "result", "tool_call_id": "1"},
        {"role": "user", "content": None},
        {"role": "user", "content": " \n"},
        {"role": "user", "content": [IMAGE]},
        {"role": "user", "content": [IMAGE, "text"]},
        "text",
    ):
        asked = Ask(kit.upstream, messages=[{"role": "user", "content": "hello"}, last])
        assert cache.ask(asked).outcome.status == "miss"
    assert embeds.asked == []


# -- what callers say -------------------------------------------------------------------------------


def test_a_caller_may_opt_out_both_ways(kit, layered, embeds):
    cache = layered()
    kit.ask(cache, ASKED)
    with using(semantic=False):
        assert status(kit, cache, SAME) == "miss"
    assert embeds.asked == [ASKED]
    cache.delete(kit.ask(cache, ASKED).outcome.key)
    assert status(kit, cache, "So how do I reset my password?") == "miss"


def test_a_caller_may_tighten_and_never_loosen(kit, layered, embeds):
    cache = layered(threshold=0.9)
    embeds.at(SAME, 0.95)
    kit.ask(cache, ASKED)
    with using(semantic=0.96):
        assert status(kit, cache, SAME) == "miss"
        cache.delete(kit.ask(cache, SAME).outcome.key)
        with using(semantic=0.5):  # an inner block loosens nothing either
            assert status(kit, cache, SAME) == "miss"
            cache.delete(kit.ask(cache, SAME).outcome.key)
    with using(semantic=False), using(semantic=0.5):
        assert status(kit, cache, SAME) == "miss"
        cache.delete(kit.ask(cache, SAME).outcome.key)
    embeds.at("so " + ASKED, 0.5)
    with using(semantic=0.1):
        assert status(kit, cache, "so " + ASKED) == "miss"
    with using(semantic=0.94):
        assert status(kit, cache, SAME) == "semantic"


@pytest.mark.parametrize("said", ["no-cache", "no-store, no-cache"])
def test_a_refresh_is_never_answered_by_meaning(kit, layered, said):
    cache = layered()
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME, headers=[(b"cache-control", said.encode())]) == "miss"
    with using(refresh=True):
        assert status(kit, cache, SAME) == "miss"


def test_an_answer_fetched_by_a_refresh_answers_similar_questions_from_then_on(kit, layered):
    cache = layered()
    with using(refresh=True):
        first = kit.ask(cache, ASKED)
    again = kit.ask(cache, SAME)
    assert (again.outcome.status, again.body) == ("semantic", first.body)


def test_an_answer_older_than_the_caller_accepts_is_not_given(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    kit.clock.advance(50)
    with using(max_age=49):
        assert status(kit, cache, SAME) == "miss"
    other = "Please, how do I reset my password"
    with using(max_age=51):
        assert status(kit, cache, other) == "semantic"


def test_offline_asks_no_embedder(kit, layered, embeds):
    from askonce import OfflineMiss

    cache = layered()
    kit.ask(cache, ASKED)
    with using(mode="offline"), pytest.raises(OfflineMiss):
        kit.ask(cache, SAME)
    assert embeds.asked == [ASKED]


def test_read_only_reads_and_remembers_nothing(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    with using(mode="read_only"):
        assert status(kit, cache, SAME) == "semantic"
        other = "What is the capital of Spain and who lives there"
        assert status(kit, cache, other) == "miss"
    assert status(kit, cache, "So " + other) == "miss"


# -- life -------------------------------------------------------------------------------------------


def test_a_semantic_answer_dies_with_its_exact_entry(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    kit.clock.advance(99.9)
    assert kit.ask(cache, SAME).outcome.ttl == pytest.approx(0.1)
    kit.clock.advance(0.1)
    assert status(kit, cache, SAME) == "miss"


@pytest.mark.parametrize("how", ["delete", "invalidate", "clear"])
def test_a_removed_answer_is_given_to_nobody(kit, layered, how):
    cache = layered()
    with using(tags=["t"]):
        key = kit.ask(cache, ASKED).outcome.key
    assert status(kit, cache, SAME) == "semantic"
    {
        "delete": lambda: cache.delete(key),
        "invalidate": lambda: cache.invalidate(tag="t"),
        "clear": cache.clear,
    }[how]()
    assert status(kit, cache, SAME) == "miss"


def test_a_hit_never_extends_a_life(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    for _ in range(9):
        kit.clock.advance(11)
        assert status(kit, cache, SAME) == "semantic"
    kit.clock.advance(1)
    assert status(kit, cache, SAME) == "miss"


def test_a_stale_answer_is_not_given_to_a_similar_question(kit, layered):
    cache = layered(cache={"stale_while_revalidate": 1000})
    kit.ask(cache, ASKED)
    kit.clock.advance(101)
    assert status(kit, cache, SAME) == "miss"


def test_what_is_not_stored_answers_nobody(kit, layered):
    cache = layered()
    kit.upstream.always = lambda number: Answer(chat(number, finish="length"))
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME) == "miss"


def test_a_caller_cannot_change_what_others_get(kit, layered):
    cache = layered()
    first = kit.ask(cache, ASKED)
    reply = cache.ask(Ask(kit.upstream, SAME))
    assert isinstance(reply.entry.body, bytes)
    with pytest.raises(AttributeError):
        reply.entry.body = b"changed"
    assert kit.ask(cache, SAME).body == first.body


# -- an index is not trusted ------------------------------------------------------------------------


def test_a_row_that_points_to_another_question_answers_nobody(kit, layered):
    """Poisoned: the row of a harmless question was made to point to somebody else's answer."""
    index = LocalIndex(clock=kit.clock)
    cache = layered(index=index)
    with using(scope="victim"):
        secret = kit.ask(cache, "What is my balance and my address and my name?").outcome.key
    with using(scope="attacker"):
        kit.ask(cache, ASKED)
        (space,) = [
            space for space, rows in index._partitions.items() if rows._facts[0][:32].hex() not in secret
        ]
        rows = index._partitions[space]
        victims = next(rows for rows in index._partitions.values() if rows._facts[0][:32].hex() in secret)
        vector = np.ones(8, np.float32) / np.sqrt(8)
        # Its own facts, and those of the victim's row: neither is the mark of that entry in this partition.
        for facts in (rows._facts[0][32:], victims._facts[0][32:48] + rows._facts[0][48:]):
            index.add(space, Row(secret.partition(":")[2], vector.astype(np.float32), facts))
            cache.delete(kit.ask(cache, ASKED).outcome.key)
            kit.upstream.calls = 0
            outcome = kit.ask(cache, SAME).outcome
            assert outcome.status == "miss"
            cache.delete(outcome.key)
            assert cache.stats().layer["row does not fit"] >= 1


def test_an_entry_written_without_the_layer_answers_no_similar_question(kit, layered):
    store = MemoryStore(clock=kit.clock)
    cache = layered(store)
    key = kit.ask(cache, ASKED).outcome.key
    plain = kit.cache(store)
    plain.delete(key)
    kit.ask(plain, ASKED)
    assert not any(TURN in entry.meta.fingerprint for _, entry in plain.entries())
    assert status(kit, cache, SAME) == "miss"


def test_a_tampered_entry_is_a_miss(kit, layered):
    store = MemoryStore(clock=kit.clock)
    cache = layered(store)
    key = kit.ask(cache, ASKED).outcome.key
    store.set(key, b"\0" + store.get(key).value[1:], None)
    assert status(kit, cache, SAME) == "miss"
    assert cache.stats().corrupt == 1


def test_nothing_of_a_question_is_kept_in_clear(kit, layered, tmp_path):
    store = MemoryStore(clock=kit.clock)
    index = LocalIndex(clock=kit.clock)
    cache = layered(store, index=index)
    kit.upstream.always = lambda number: Answer(chat(number))
    kit.ask(cache, "Is Zanzibar the password of xylophone?")
    kept = b"".join(key.encode() + store.get(key).value for key in store.scan(""))
    kept += b"".join(b"".join(rows._facts) for rows in index._partitions.values())
    for word in (b"anzibar", b"xylophone"):
        assert word not in kept
    assert "anzibar" not in repr(cache) + repr(index)


# -- rows outlive the process -----------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, "s" * 20], ids=["plain", "sealed"])
def test_a_new_process_over_the_same_store_knows_the_questions(kit, layered, tmp_path, secret):
    store = DiskStore(tmp_path, clock=kit.clock)
    cache = layered(store, cache={"secret": secret})
    first = kit.ask(cache, ASKED)
    again = layered(store, cache={"secret": secret})
    outcome = kit.ask(again, "What is the capital of France?").outcome  # has the partition's rows read
    assert outcome.status == "miss"
    until(lambda: again.stats().layer.get("rows read"), "rows")
    result = kit.ask(again, SAME)
    assert (result.outcome.status, result.body) == ("semantic", first.body)


def test_rows_of_another_secret_are_no_rows(kit, layered, tmp_path):
    store = DiskStore(tmp_path, clock=kit.clock)
    kit.ask(layered(store, cache={"secret": "a" * 20}), ASKED)
    other = layered(store, cache={"secret": "b" * 20})
    kit.ask(other, "What is the capital of France?")
    assert status(kit, other, SAME) == "miss"
    for key in store.scan("default~rows:"):
        value = store.get(key).value
        opened = [_rows.decode(key, value, Seal(secret * 20)) for secret in (b"a", b"b")]
        assert sum(one is not None for one in opened) == 1
        assert _rows.decode(key, value, None) is None


def test_rows_show_up_neither_among_keys_nor_entries(kit, layered):
    cache = layered()
    key = kit.ask(cache, ASKED).outcome.key
    assert cache.keys() == [key]
    assert [one for one, _ in cache.entries()] == [key]


def test_rows_live_as_long_as_their_entries(kit, layered):
    store = MemoryStore(clock=kit.clock)
    cache = layered(store)
    kit.ask(cache, ASKED)
    (row,) = store.scan("default~rows:")
    (key,) = store.scan("default:")
    assert store.get(row).expires_at == store.get(key).expires_at


# -- an embedder that misbehaves --------------------------------------------------------------------


def broken(kind):
    if kind == "raises":
        return lambda texts: 1 / 0
    return lambda texts: {
        "nan": [[float("nan"), 1.0]],
        "infinite": [[float("inf"), 1.0]],
        "zero": [[0.0, 0.0]],
        "one number": 5.0,
        "none": None,
        "empty": [],
        "two rows": [[1.0], [1.0]],
        "flat": [1.0, 2.0],
        "texts": [["a", "b"]],
        "huge": [[1e300, 1e300]],
    }[kind]


@FACES
@pytest.mark.parametrize(
    "kind",
    [
        "raises", "nan", "infinite", "zero", "one number", "none", "empty", "two rows", "flat", "texts",
        "huge",
    ],
)  # fmt: skip
def test_an_embedder_that_fails_leaves_the_call_to_exact_means(kit, layered, face, kind):
    cache = layered(embedder=FunctionEmbedder(broken(kind), name="broken"))
    assert call(kit, face, cache, ASKED).outcome.status == "miss"
    assert call(kit, face, cache, SAME).outcome.status == "miss"
    assert call(kit, face, cache, SAME).outcome.status == "hit"
    layer = cache.stats().layer
    assert sum(number for name, number in layer.items() if name.startswith("embedder: ")) == 2


@FACES
def test_another_number_of_dimensions_is_never_compared(kit, layered, embeds, face):
    cache = layered()
    call(kit, face, cache, ASKED)
    embeds.vectors[SAME] = np.ones(16)
    assert call(kit, face, cache, SAME).outcome.status == "miss"
    assert cache.stats().layer["embedder: other dimensions"] == 1


@FACES
def test_a_hanging_embedder_costs_its_budget_and_no_more(kit, layered, embeds, face):
    release = threading.Event()
    embeds.before = lambda: release.wait(30)
    cache = layered(timeout=0.05)
    try:
        for number in range(7):
            result = call(kit, face, cache, f"{ASKED} {number}")
            assert result.outcome.status == "miss"
            assert result.outcome.seconds < 5
        layer = cache.stats().layer
        # After five failures in a row it is not waited for any more.
        assert (layer["embedder: too slow"], layer["embedder: left alone"]) == (5, 2)
    finally:
        release.set()


def test_an_async_embedder_that_hangs_is_cancelled(kit, layered):
    cancelled = []

    async def aembed(texts):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    embedder = FunctionEmbedder(lambda texts: 1 / 0, name="test", afunction=aembed)
    cache = layered(embedder=embedder, timeout=0.05)
    assert call(kit, "async", cache, ASKED).outcome.status == "miss"
    assert cancelled == [True]
    assert cache.stats().layer["embedder: too slow"] == 1


def test_an_async_embedder_is_awaited_on_loops(kit, layered, embeds):
    async def aembed(texts):
        await asyncio.sleep(0)
        return embeds(texts)

    cache = layered(embedder=FunctionEmbedder(lambda texts: 1 / 0, name="test", afunction=aembed))
    call(kit, "async", cache, ASKED)
    assert call(kit, "async", cache, SAME).outcome.status == "semantic"


def test_a_cancelled_caller_is_cancelled_while_its_text_is_embedded(kit, layered, embeds):
    release = threading.Event()
    embeds.before = lambda: release.wait(30)
    cache = layered()

    async def scenario():
        task = asyncio.create_task(kit.aask(cache, ASKED))
        await auntil(lambda: embeds.asked, "the embedder")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert (await kit.aask(cache, ASKED)).outcome.status == "miss"
        assert (await kit.aask(cache, SAME)).outcome.status == "semantic"

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_calls_that_an_embedder_makes_never_reach_the_layer(kit, embeds):
    cache = None

    def embed(texts):
        inner = cache.ask(Ask(kit.upstream, "a question inside: " + texts[0]))
        assert inner.outcome.status in ("miss", "hit")
        return embeds(texts)

    cache = kit.cache(semantic=SemanticLayer(FunctionEmbedder(embed, name="t"), shadow=0, timeout=5))
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME) == "semantic"
    assert embeds.asked == [ASKED, SAME]


def test_another_model_begins_with_an_empty_index(kit, layered, embeds):
    store = MemoryStore(clock=kit.clock)
    kit.ask(layered(store, embedder=FunctionEmbedder(embeds, name="one")), ASKED)
    other = layered(store, embedder=FunctionEmbedder(embeds, name="two"))
    kit.ask(other, "What is the capital of France?")
    assert status(kit, other, SAME) == "miss"


def test_a_text_the_model_would_cut_is_not_compared(kit, layered, embeds):
    class Short:
        name = "short"
        embed = staticmethod(embeds)

        def truncates(self, text):
            return len(text) > 30

    cache = layered(embedder=Short())
    kit.ask(cache, ASKED)
    assert status(kit, cache, SAME) == "miss"
    assert cache.stats().layer["embedder: truncates"] == 1
    assert embeds.asked == [ASKED]


def test_a_document_is_not_compared(kit, layered, embeds):
    cache = layered()
    kit.ask(cache, "word " * 300)
    assert embeds.asked == []
    assert cache.stats().layer["too long"] == 1


# -- many at once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks", "mixed"])
def test_many_identical_questions_embed_once_and_all_get_the_similar_answer(kit, layered, embeds, kind):
    cache = layered()
    first = kit.ask(cache, ASKED)
    gate = threading.Event()
    embeds.before = lambda: gate.wait(10)
    with kit.crowd(cache, kind, 12, prompt=SAME) as results:
        kit.until_waiting(cache, 11)
        gate.set()
        found = results()
    assert {result.body for result in found} == {first.body}
    assert {result.outcome.status for result in found} == {"semantic"}
    assert embeds.asked == [ASKED, SAME]
    assert kit.upstream.calls == 1


def test_who_opted_out_does_not_get_what_the_others_share(kit, layered, embeds):
    cache = layered()
    first = kit.ask(cache, ASKED)
    gate = threading.Event()
    embeds.before = lambda: gate.wait(10)

    def choosy():
        with using(semantic=False):
            return kit.ask(cache, SAME)

    leader = Running(kit.ask, cache, SAME)
    until(lambda: len(embeds.asked) == 2, "the leader")
    strict = Running(choosy)
    kit.until_waiting(cache, 1)
    gate.set()
    assert leader.result().outcome.status == "semantic"
    result = strict.result()
    assert result.outcome.status == "miss"
    assert result.body != first.body


def test_outcomes_of_semantic_answers_are_tracked(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    with track() as outcomes:
        kit.ask(cache, SAME)
    assert [outcome.status for outcome in outcomes] == ["semantic"]


def test_an_entry_with_a_mark_still_reads(kit, layered):
    cache = layered()
    key = kit.ask(cache, ASKED).outcome.key
    (item,) = cache.read_items([key])
    entry = codec.decode(key, item[1])
    assert len(entry.meta.fingerprint[TURN]) == 64
    assert orjson.loads(entry.body)["id"] == "c1"
    assert cache.explain(Ask(kit.upstream, "other words").request).differences == (
        "messages[0].content changed",
    )


def test_async_and_sync_callers_share_rows(kit, layered):
    cache = layered()
    first = asyncio.run(kit.aask(cache, ASKED))
    assert kit.ask(cache, SAME).body == first.body
    reply = asyncio.run(cache.aask(AsyncAsk(kit.upstream, SAME)))
    assert reply.outcome.status == "semantic"


def test_a_crowd_of_new_partitions_costs_nobody_an_answer(kit, layered):
    """More than wait for their rows at once: the rest is read later."""
    cache = layered()
    gate = threading.Event()
    cache._layer._shelf._read = lambda *_: gate.wait(10)
    try:
        for number in range(80):
            result = kit.ask(cache, ASKED, temperature=number)
            assert result.outcome.status == "miss"
            assert kit.ask(cache, SAME, temperature=number).outcome.status == "semantic"
        assert "internal error" not in cache.stats().layer
    finally:
        gate.set()


def test_a_forked_child_answers_too(kit, layered, tmp_path):
    import os

    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    cache = layered(DiskStore(tmp_path, clock=kit.clock))
    kit.ask(cache, ASKED)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            kit.ask(cache, "What is the capital of France?")
            until(lambda: cache.stats().layer.get("rows read"), "rows")
            os.write(write, kit.ask(cache, SAME).outcome.status.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"semantic"
    os.waitpid(child, 0)


def test_closing_gives_threads_back_and_it_may_be_used_again(kit, layered):
    cache = layered()
    kit.ask(cache, ASKED)
    cache.close()
    until(
        lambda: (
            not any(
                thread.name.startswith(("askonce-embedder", "askonce-rows"))
                for thread in threading.enumerate()
            )
        ),
        "the threads",
    )
    kit.ask(cache, "What is the capital of France?")
    assert kit.ask(cache, "Please, what is the capital of France?").outcome.status == "semantic"


def test_a_store_that_is_away_forgets_no_rows(kit, layered):
    """What cannot be read then is not gone."""
    store = MemoryStore(clock=kit.clock)
    cache = layered(store)
    key = kit.ask(cache, ASKED).outcome.key
    kept = store.get(key)
    store.delete(key)
    cache._backing.breakers = lambda: {"remote": "open"}
    assert status(kit, cache, SAME) == "miss"
    assert "rows forgotten" not in cache.stats().layer
    store.delete(*store.scan("default:"))
    store.set(key, kept.value, kept.expires_at)
    assert kit.ask(cache, "please, " + ASKED).outcome.source == key


@pytest.mark.parametrize("options", [{}, {"max_error": 0.3, "shadow": 0.2}], ids=["static", "verified"])
def test_many_threads_and_tasks_with_many_questions_get_answers_of_their_own_partition(kit, layered, options):
    kit.upstream.always = lambda number: Answer(chat(number))
    cache = layered(guards=False, index=LocalIndex(max_rows=30, clock=kit.clock), **options)

    def work(number):
        for turn in range(40):
            temperature = (number + turn) % 3
            result = kit.ask(cache, f"question {number} {turn}", temperature=temperature)
            assert result.outcome.status in ("miss", "semantic")
            if result.outcome.status == "semantic":
                entry = cache.entry(result.outcome.source)
                assert entry is None or entry.meta.fingerprint["temperature"] == f"={temperature}"

    async def tasks():
        results = [kit.aask(cache, f"task {number}", temperature=number % 3) for number in range(60)]
        return await asyncio.gather(*results)

    threads = [Running(work, number) for number in range(6)]
    assert len(asyncio.run(asyncio.wait_for(tasks(), 20))) == 60
    for thread in threads:
        thread.result(20)
    assert "internal error" not in cache.stats().layer
    assert len(cache._layer._index) <= 30
