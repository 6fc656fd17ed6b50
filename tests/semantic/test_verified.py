"""Verified mode and shadow sampling: wrong answers stay under a bound, and are measured."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import orjson
import pytest
from core_kit import Answer, chat, until
from hypothesis import given
from hypothesis import strategies as st

from askonce import ConfigurationError
from askonce.events import AnswersCompared
from askonce.semantic import FunctionEmbedder, SemanticLayer, wilson
from askonce.semantic._variances import SEPARATED
from askonce.semantic._verified import LEAST, MOST, Learned, decode, fit
from askonce.stores import DiskStore, MemoryStore

# -- the rule ---------------------------------------------------------------------------------------

SEEN = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40)


def learned(seen):
    found = Learned()
    for similarity, right in seen:
        found = found.more(similarity, right=right)
    return found


def test_nothing_is_served_before_six_observations():
    seen = [(0.9, True)] * (LEAST - 1)
    assert learned(seen).explores(1.0, 0.5) == 1.0
    assert learned([*seen, (0.9, True)]).explores(1.0, 0.5) < 1.0


@given(SEEN, st.floats(0, 1), st.floats(0.001, 0.5))
def test_the_chance_to_explore_is_one(seen, similarity, max_error):
    chance = learned(seen).explores(similarity, max_error)
    assert 0.0 <= chance <= 1.0


@given(SEEN, st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_nearer_questions_are_never_explored_more(seen, one, two, max_error):
    known = learned(seen)
    near, far = max(one, two), min(one, two)
    assert known.explores(near, max_error) <= known.explores(far, max_error) + 1e-9


@given(SEEN, st.floats(0, 1), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_a_stricter_bound_never_explores_less(seen, similarity, one, two):
    known = learned(seen)
    strict, lax = min(one, two), max(one, two)
    assert known.explores(similarity, strict) >= known.explores(similarity, lax) - 1e-9


@given(SEEN)
def test_what_is_learned_survives_being_stored(seen):
    known = learned(seen)
    again = decode(known.encode())
    assert again == known


@given(st.binary(max_size=50))
def test_what_is_no_observations_is_nothing_learned(value):
    assert isinstance(decode(value), Learned)


@pytest.mark.parametrize(
    "value", [b"", b"[[2.0,1]]", b"[[0.5]]", b'{"a":1}', b"[[-1,0]]", b"5", b"[[null,1]]"]
)
def test_foreign_values_teach_nothing(value):
    assert decode(value).explores(1.0, 0.5) == 1.0


def test_the_oldest_observations_are_forgotten():
    known = learned([(0.5, False)] * 10 + [(0.9, True)] * MOST)
    assert len(known.seen) == MOST
    assert all(right for _, right in known.seen)


def test_the_estimate_is_the_curve_that_made_the_data():
    draw = random.Random(3)
    seen = []
    for _ in range(MOST):
        similarity = draw.random()
        right = draw.random() < 1 / (1 + np.exp(-15 * (similarity - 0.6)))
        seen.append((similarity, right))
    threshold, slope, deviation = fit(seen)
    assert threshold == pytest.approx(0.6, abs=0.06)
    assert 8 < slope < 30
    assert 0.005 < deviation < 0.06


def test_one_wrong_answer_makes_a_confident_entry_explore_again():
    sure = learned([(0.9, True)] * 60)
    doubting = sure.more(0.95, right=False)
    assert doubting.explores(0.93, 0.02) > sure.explores(0.93, 0.02)


def test_variances_are_those_that_the_script_makes():
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "variances.py"
    spec = importlib.util.spec_from_file_location("variances", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for count in (1, 6, 16):
        assert script.deviation(count) == pytest.approx(SEPARATED[count - 1], abs=5e-6)
    assert list(SEPARATED) == sorted(SEPARATED, reverse=True)
    assert len(SEPARATED) == script.MOST == MOST


@pytest.mark.parametrize("max_error", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_answers_stay_under_the_bound_on_simulated_traffic(max_error, seed):
    """Entries with curves of their own, some never right; questions independent of each other."""
    draw = random.Random(seed)
    truths = [(draw.uniform(0.5, 1.05), draw.uniform(20, 100)) for _ in range(25)]
    entries = [Learned() for _ in truths]
    served = wrong = 0
    requests = 5_000
    for _ in range(requests):
        number = draw.randrange(len(truths))
        similarity = draw.uniform(0.5, 1.0)
        threshold, slope = truths[number]
        right = draw.random() < 1 / (1 + np.exp(-slope * (similarity - threshold)))
        if draw.random() <= entries[number].explores(similarity, max_error):
            if len(entries[number].seen) < MOST:  # enough, and faster
                entries[number] = entries[number].more(similarity, right=right)
        else:
            served += 1
            wrong += not right
    assert wrong / requests <= max_error
    assert served / requests > 0.05


# -- the interval -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sample", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1)],
)
def test_the_interval_is_wilsons(wrong, sample, low, high):
    found = wilson(wrong, sample)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_rate(one, two):
    wrong, sample = min(one, two), max(one, two)
    found = wilson(wrong, sample)
    assert 0.0 <= found.low <= found.rate <= found.high <= 1.0


# -- in the layer -----------------------------------------------------------------------------------

# Told apart by numbers that the guards do not look at here: the model finds all of them alike.
QUESTIONS = [f"how do i reset it, version {number}" for number in range(40)]


def says(text):
    """A provider that always says the same."""
    return lambda number: Answer(chat(0, content=text))


def judged(cache, number):
    def done():
        layer = cache.stats().layer
        return layer.get("judged right", 0) + layer.get("judged wrong", 0) >= number

    until(done, f"{number} verdicts")


@pytest.fixture
def verified(layered):
    def make(store=None, **options):
        return layered(store, **{"max_error": 0.2, "guards": False, "judge": "exact", **options})

    return make


def test_an_entry_serves_after_it_was_right_often_enough(kit, verified):
    cache = verified()
    kit.upstream.always = says("yes")
    statuses = []
    for question in QUESTIONS:
        explored = cache.stats().layer.get("explored", 0)
        statuses.append(kit.ask(cache, question).outcome.status)
        if cache.stats().layer.get("explored", 0) > explored:
            judged(cache, explored + 1)
    assert statuses[: LEAST + 1] == ["miss"] * (LEAST + 1)
    assert "semantic" in statuses
    assert cache.stats().layer["judged right"] >= LEAST
    assert "judged wrong" not in cache.stats().layer
    figures = cache.semantic_figures()[0]
    assert figures.requests == len(QUESTIONS)
    assert figures.served + figures.explored + 1 == len(QUESTIONS)
    assert figures.sampled == 0  # exploring is no sample of hits


def test_an_entry_that_is_wrong_never_serves(kit, verified):
    cache = verified()
    for number, question in enumerate(QUESTIONS):  # each answer is another one
        assert kit.ask(cache, question).outcome.status == "miss"
        judged(cache, number)
    assert cache.stats().layer["judged wrong"] == len(QUESTIONS) - 1


def test_a_wrong_neighbour_makes_room_for_a_row_of_its_own_and_a_right_one_does_not(kit, verified):
    store = MemoryStore(clock=kit.clock)
    cache = verified(store)
    kit.upstream.always = says("yes")
    for number, question in enumerate(QUESTIONS[:4]):
        kit.ask(cache, question)
        judged(cache, number)
    assert len(list(store.scan("default~rows:"))) == 1
    kit.upstream.always = says("no")
    kit.ask(cache, QUESTIONS[5])
    judged(cache, 4)
    until(lambda: len(list(store.scan("default~rows:"))) == 2, "the second row")


@pytest.mark.parametrize("secret", [None, "s" * 20], ids=["plain", "sealed"])
def test_what_was_learned_is_shared_and_outlives_the_process(kit, verified, tmp_path, secret):
    store = DiskStore(tmp_path, clock=kit.clock)
    cache = verified(store, max_error=0.5, cache={"secret": secret})
    kit.upstream.always = says("yes")
    cache._layer._draw = lambda: 0.0
    for number, question in enumerate(QUESTIONS[:20]):
        kit.ask(cache, question)
        judged(cache, number)
    (key,) = store.scan("default~learned:")
    value = store.get(key).value
    assert (b"[[" in value) == (secret is None)
    again = verified(store, max_error=0.5, cache={"secret": secret})
    kit.ask(again, "what is it")  # has the rows read
    rows = len(list(store.scan("default~rows:"))) - 1  # its own is there already
    until(lambda: again.stats().layer.get("rows read", 0) >= rows, "rows")
    again._layer._draw = lambda: 0.999
    # A disk that is busy costs a lesson, so a busy machine may need more than one.
    more = iter(QUESTIONS[20:40])
    until(lambda: kit.ask(again, next(more)).outcome.status == "semantic", "an answer by what was learned")


def test_what_was_learned_lives_as_long_as_its_entry(kit, verified):
    store = MemoryStore(clock=kit.clock)
    cache = verified(store)
    kit.upstream.always = says("yes")
    kit.ask(cache, QUESTIONS[0])
    kit.clock.advance(40)
    kit.ask(cache, QUESTIONS[1])
    judged(cache, 1)
    (key,) = store.scan("default~learned:")
    entries = dict(cache.entries())
    assert store.get(key).expires_at == min(entry.meta.stale_until for entry in entries.values())


@pytest.mark.parametrize("face", ["sync", "async"])
def test_clear_takes_rows_and_lessons_with_it(kit, verified, face):
    import asyncio

    store = MemoryStore(clock=kit.clock)
    cache = verified(store)
    kit.upstream.always = says("yes")
    for question in QUESTIONS[:2]:
        kit.ask(cache, question)
    judged(cache, 1)
    assert {key.partition(":")[0] for key in store.scan("")} == {"default", "default~rows", "default~learned"}
    other = kit.cache(store, namespace="other")
    kit.ask(other, "hello")
    assert (cache.clear() if face == "sync" else asyncio.run(cache.aclear())) == 2
    assert {key.partition(":")[0] for key in store.scan("")} == {"other"}


def test_shadow_samples_ask_the_provider_and_count_what_would_have_been_wrong(kit, layered):
    cache = layered(shadow=1.0, guards=False, judge="exact")
    compared = []
    cache.subscribe(lambda event: compared.append(event) if isinstance(event, AnswersCompared) else None)
    kit.upstream.always = says("yes")
    kit.ask(cache, QUESTIONS[0])
    fresh = kit.ask(cache, QUESTIONS[1])
    assert fresh.outcome.status == "miss"
    judged(cache, 1)
    kit.upstream.always = says("no")
    answer = kit.ask(cache, QUESTIONS[2])
    assert b"no" in answer.body  # the caller gets the provider's answer, whatever is found out
    judged(cache, 2)
    until(lambda: len(compared) == 2, "events")
    total, row = cache.semantic_figures()
    assert (total.requests, total.served, total.sampled, total.wrong) == (3, 0, 2, 1)
    assert (row.model, row.sampled, row.wrong) == ("m", 2, 1)
    assert total.wrong_of_hits == wilson(1, 2)
    assert cache.stats().layer["sampled wrong"] == 1
    assert sorted(event.right for event in compared) == [False, True]
    assert all(event.would_serve for event in compared)


def test_a_share_is_sampled_and_the_rest_is_served(kit, layered):
    cache = layered(shadow=0.25, guards=False)
    draws = iter([0.9, 0.2, 0.5, 0.24, 0.26])
    cache._layer._draw = lambda: next(draws)
    kit.ask(cache, QUESTIONS[0])
    statuses = [kit.ask(cache, question).outcome.status for question in QUESTIONS[1:6]]
    assert statuses == ["semantic", "miss", "semantic", "miss", "semantic"]


def test_rates_over_hits_and_over_requests_are_told_apart(kit, layered):
    from askonce.semantic import SemanticFigures

    figures = SemanticFigures(requests=1000, served=100, sampled=50, wrong=5)
    assert figures.wrong_of_hits.rate == pytest.approx(0.1)
    assert figures.wrong_of_requests.rate == pytest.approx(0.01)
    assert "100 of 1,000 answered" in str(figures)


def test_stats_totals_and_the_report_say_how_often_it_was_wrong(kit, layered, tmp_path):
    store = DiskStore(tmp_path, clock=kit.clock)
    cache = layered(store, shadow=1.0, guards=False, judge="exact")
    for question in QUESTIONS[:3]:  # each answer is another one
        kit.ask(cache, question)
    judged(cache, 2)
    found = cache.stats().by_meaning
    assert (found.requests, found.served, found.sampled, found.wrong) == (3, 0, 2, 2)
    assert cache.totals().by_meaning == found
    assert "2 sampled" in cache.report().to_html()
    assert "wrong among hits 100.00%" in cache.stats()._repr_html_()
    assert kit.cache().stats().by_meaning is None


def test_who_stores_nothing_is_no_sample(kit, layered):
    from askonce import using

    cache = layered(shadow=1.0, guards=False)
    kit.ask(cache, QUESTIONS[0])
    with using(store=False):
        assert kit.ask(cache, QUESTIONS[1]).outcome.status == "semantic"


# -- judges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "one", "two", "right"),
    [
        ("exact", "Yes.", "Yes.", True),
        ("exact", "Yes.", "yes", False),
        (None, "Yes.", "  yes", True),
        ("normalised", "The answer is: 5", "the answer is 5", True),
        ("normalised", "The answer is 5", "The answer is -5", False),
        ("normalised", "1.5 kg", "15 kg", False),
        ("normalised", "yes", "no", False),
        ("embedding", "alike", "the same", True),
        ("embedding", "alike", "far away", False),
        (lambda asked: asked.cached[0] == asked.fresh[0], "abc", "aaa", True),
    ],
)
def test_judges_compare_what_answers_say(kit, layered, embeds, *, judge, one, two, right):
    embeds.at("far away 0", 0.3)
    cache = layered(shadow=1.0, guards=False, judge=judge)
    for question, answer in zip(QUESTIONS, (one, two), strict=False):
        kit.upstream.always = says(answer)
        kit.ask(cache, question)
    judged(cache, 1)
    assert cache.stats().layer["judged right" if right else "judged wrong"] == 1


@pytest.mark.parametrize("verdict", [None, "yes", 1, RuntimeError("secret")])
def test_a_judge_that_fails_or_does_not_decide_teaches_nothing(kit, verified, caplog, verdict):
    def judge(asked):
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    cache = verified(judge=judge)
    for question in QUESTIONS[:2]:
        kit.ask(cache, question)
    until(lambda: any(name.startswith("judge: ") for name in cache.stats().layer), "the judge")
    layer = cache.stats().layer
    assert "judged right" not in layer
    assert "judged wrong" not in layer
    assert "secret" not in caplog.text


def test_a_judge_that_asks_a_model_through_the_cache_never_meets_the_layer(kit, verified):
    from core_kit import Ask

    asked = []

    def judge(question):
        reply = cache.ask(Ask(kit.upstream, f"same? {question.cached} / {question.fresh}"))
        asked.append(reply.outcome.status)
        return True

    cache = verified(judge=judge)
    for question in QUESTIONS[:2]:
        kit.ask(cache, question)
    judged(cache, 1)
    assert asked == ["miss"]
    assert cache.stats().layer["consulted"] == 2


def test_streams_are_judged_by_their_text(kit, verified):
    cache = verified()
    for question in QUESTIONS[:2]:
        kit.upstream.always = lambda number: Answer(
            chunks=[
                b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": part}}]}) + b"\n\n"
                for part in (["He", "llo"] if number % 2 else ["H", "ell", "o"])
            ]
            + [b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"]
        )
        kit.ask(cache, question, live=True)
    judged(cache, 1)
    assert cache.stats().layer["judged right"] == 1


# -- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.4}, {"threshold": 1.1}, {"threshold": "0.9"}, {"threshold": True},
        {"max_error": 0}, {"max_error": 0.6}, {"max_error": 0.01, "threshold": 0.9},
        {"shadow": -0.1}, {"shadow": 1.5}, {"judge": "model"}, {"judge": 5}, {"max_turns": 0},
        {"max_turns": True}, {"partition": "x"}, {"index": object()}, {"timeout": 0}, {"timeout": "soon"},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SemanticLayer(FunctionEmbedder(len, name="m"), **options)


@pytest.mark.parametrize("embedder", [None, "text-embedding-3-small", len, object()])
def test_there_is_no_default_embedder_and_the_error_says_how_to_choose(embedder):
    with pytest.raises(ConfigurationError, match=r"EndpointEmbedder.*SentenceTransformerEmbedder.*Function"):
        SemanticLayer(embedder)


def test_a_layer_belongs_to_one_cache(kit, embeds):
    layer = SemanticLayer(FunctionEmbedder(embeds, name="m"))
    kit.cache(semantic=layer)
    with pytest.raises(ConfigurationError, match="another Cache already"):
        kit.cache(semantic=layer)


def test_what_is_no_layer_is_refused(kit):
    with pytest.raises(ConfigurationError, match="SemanticLayer"):
        kit.cache(semantic=5)


def test_without_numpy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("askonce.semantic._local.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r'pip install "askonce\[semantic\]"'):
        SemanticLayer(FunctionEmbedder(len, name="m"))


def test_a_layer_says_what_it_is_and_no_more(embeds):
    assert repr(SemanticLayer(FunctionEmbedder(embeds, name="m"))) == "<SemanticLayer m, threshold=0.95>"
    assert "max_error=0.01" in repr(SemanticLayer(FunctionEmbedder(embeds, name="m"), max_error=0.01))
