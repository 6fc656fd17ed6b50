"""Guards: two texts that differ in what matters never share an answer, however near a model puts them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from near_misses import near_misses, words

from askonce import ConfigurationError
from askonce.semantic import GUARDS, FunctionEmbedder, SemanticLayer
from askonce.semantic._guards import MOST_WORDS, TooLong, features, veto

ALL = frozenset(GUARDS)
KEY = b"k" * 32


def vetoed(one, two, on=ALL):
    """By both ways round: who was there first makes no difference."""
    a, b = features(one, KEY), features(two, KEY)
    first, second = veto(a, b, on), veto(b, a, on)
    assert first == second
    return first


def test_500_generated_near_misses_are_all_vetoed_though_the_model_finds_them_the_same(kit, layered, embeds):
    cache = layered()
    served = []
    for number, (kind, one, two) in enumerate(near_misses(500)):
        system = [{"role": "system", "content": str(number)}]  # each pair for itself
        for text in (one, two):
            messages = [*system, {"role": "user", "content": text}]
            if kit.ask(cache, messages=messages).outcome.status != "miss":
                served.append((kind, one, two))
    assert served == []
    assert len(embeds.asked) == 1000
    assert sum(number for name, number in cache.stats().layer.items() if name.startswith("veto")) == 500


def test_without_guards_the_same_pairs_are_served(kit, layered):
    """So that it is the guards which hold them back."""
    cache = layered(guards=False)
    for number, (_, one, two) in enumerate(near_misses(50)):
        system = [{"role": "system", "content": str(number)}]
        kit.ask(cache, messages=[*system, {"role": "user", "content": one}])
        outcome = kit.ask(cache, messages=[*system, {"role": "user", "content": two}]).outcome
        assert outcome.status == "semantic"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("How do I reset my password?", "Please tell me how to reset my password"),
        ("what is the capital of france", "What's the capital of France?"),
        ("What is the capital of France?", "Can you tell me what the capital of France is"),
        ("I want to cancel my order", "please cancel my order"),
        (
            "how can I get a refund for an order that was broken",
            "the parcel arrived damaged; who pays me back",
        ),
        ("convert 5 miles to km", "Please convert 5 miles to km."),
        ("is port 6379 open by default", "Is port 6379 open by default, please?"),
        ("explain `x = 1` to me", "what does `x = 1` do"),
        ("cards I own", "the card I own"),
        ("how do I reset it", "Please, How do I reset it?"),
        ("what is the balance of my account", "how much money do i have on the bank"),
    ],
)
def test_the_same_question_in_other_words_passes(one, two):
    assert vetoed(one, two) == ""


@pytest.mark.parametrize(
    ("guard", "one", "two"),
    [
        ("numbers", "raise it by 5 percent", "raise it by 6 percent"),
        ("numbers", "for two people", "for three people"),
        ("numbers", "compare 3 with 4", "compare 4 with 3"),
        ("numbers", "is it -5 there", "is it 5 there"),
        ("numbers", "at 10:30", "at 10:45"),
        ("dates", "the weather today", "the weather tomorrow"),
        ("units", "5 km from here", "5 miles from here"),
        ("units", "what does $5 buy", "what does €5 buy"),
        ("units", "5GB of memory", "5MB of memory"),
        ("quotes", 'what does "left" mean', 'what does "right side" mean'),
        ("code", "why is snake_case used", "why is snake_cased used"),
        ("urls", "open https://a.test/x", "open https://a.test/y"),
        ("negation", "does it work", "does it not work"),
        ("negation", "does it work", "doesn't it work"),
        ("negation", "is it open there", "is it closed there"),
        ("names", "the mayor of Paris", "the mayor of London"),
        ("names", "from Paris to London", "from London to Paris"),
        ("names", "is the US large", "is us large"),
        ("words", "weather in paris", "weather in london"),
        ("words", "cats chase mice", "mice chase cats"),
        ("words", "all users", "all inactive users"),
    ],
)
def test_each_guard_says_no_and_can_be_switched_off(guard, one, two):
    assert vetoed(one, two, frozenset({guard})) == guard
    assert vetoed(one, two, ALL) in ALL
    assert vetoed(one, two, frozenset()) == ""


def test_a_guard_that_is_off_does_not_veto_in_the_layer(kit, layered):
    cache = layered(guards=[guard for guard in GUARDS if guard not in ("dates", "words")])
    kit.ask(cache, "the weather today")
    assert kit.ask(cache, "the weather tomorrow").outcome.status == "semantic"
    assert kit.ask(cache, "the weather today in Rome").outcome.status == "miss"
    assert cache.stats().layer["veto: names"] >= 1


@pytest.mark.parametrize("guards", ["numbers", ["numbers", "no such"], 5, None])
def test_a_guard_that_is_none_is_refused(guards):
    with pytest.raises(ConfigurationError, match="numbers, dates, units"):
        SemanticLayer(FunctionEmbedder(len, name="n"), guards=guards)


WORDS = st.lists(
    st.sampled_from(words("the user asks what happens to old invoices of customers")), max_size=8
)


@given(WORDS, WORDS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_texts_with_other_numbers_are_vetoed(before, after, one, two):
    assume(one != two)
    texts = [" ".join((*before, str(number), *after)) for number in (one, two)]
    assert vetoed(*texts) == "numbers"


@given(WORDS, WORDS, st.sampled_from(words("not never without no don't cannot kein nicht pas sin не")))
def test_a_negation_on_one_side_is_vetoed(before, after, word):
    assert vetoed(" ".join((*before, *after)), " ".join((*before, word, *after))) in ("negation", "code")


@given(st.text(max_size=60), st.text(max_size=60))
def test_features_never_raise_and_a_text_never_differs_from_itself(one, two):
    a, b = features(one, KEY), features(two, KEY)
    assert veto(a, a, ALL) == ""
    assert veto(a, b, ALL) == veto(b, a, ALL)
    assert veto(a, b, frozenset()) == ""


@given(st.text(max_size=60))
def test_other_partitions_have_other_digests(text):
    one, two = features(text, KEY), features(text, b"j" * 32)
    assume(any(one[: 7 * 4]) or len(one) > 28)
    assert one != two


def test_a_text_of_too_many_words_has_no_features():
    features("word " * MOST_WORDS, KEY)
    with pytest.raises(TooLong):
        features("word " * (MOST_WORDS + 1), KEY)


def test_figures_of_other_scripts_are_the_same_figures():
    assert vetoed("room ٣ please", "room 3 please") == ""
    assert vetoed("room ٣ please", "room 4 please") == "numbers"


def test_scripts_without_blanks_are_compared_by_character():
    assert vetoed("北京的天气怎么样", "上海的天气怎么样") == "words"
    assert vetoed("这个可以用吗", "这个不可以用吗") == "negation"
