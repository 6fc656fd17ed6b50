"""Policies: bad values are refused where they are written, the first rule that matches wins."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import timedelta

import pytest

from askonce import Cache, ConfigurationError, Policy, Request, Rule, using
from askonce._body import parse
from askonce._control import current_control
from askonce._decision import decide

BAD = {
    "ttl": [-1, "soon", True, [], math.nan, "-1s", 10**400],
    "stale_while_revalidate": [None, -1, "x", True, math.inf],
    "stale_if_error": [None, -1, "x", False],
    "jitter": [-0.1, 1.1, math.nan, "0.1", None, True, [], 2],
    "rules": [5, None, "gpt*", [5], ("x",), [None], Rule(model="x"), {"model": "x"}],
    "max_entry_bytes": [0, -1, 1.5, "big", None, True],
    "max_temperature": [-1, "1", True, [], math.nan, -0.001],
    "store_truncated": [None, 1, "yes", 0],
    "store_refusals": [None, 1, "no", []],
    "ignore_fields": ["user", 5, None, [1], [["a"]], {"a": 1, 2: 3}, b"user"],
    "vary_headers": ["x-tier", 5, None, [b"x"], {"名"}, [["a"]]],
    "cacheable": [5, "yes", True, []],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in BAD.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_value_is_refused_by_name_with_what_is_allowed(option, value):
    with pytest.raises(ConfigurationError, match=rf"(?s)Policy.*{option}.*allowed: "):
        Policy(**{option: value})


BAD_RULES = {
    "model": [5, True, b"gpt", ["gpt"]],
    "url": [5, [], Request],
    "namespace": [5, ()],
    "ttl": [-1, "soon", True, []],
    "stale_while_revalidate": [None, -1, "x"],
    "stale_if_error": [None, "x"],
    "max_temperature": [-1, "1", True],
    "store_truncated": [None, 1],
    "store_refusals": ["x", 0],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in BAD_RULES.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_value_of_a_rule_is_refused_by_name_with_what_is_allowed(option, value):
    with pytest.raises(ConfigurationError, match=rf"(?s)Rule.*{option}.*allowed: "):
        Rule(**{"model": "gpt-4o"} | {option: value})


def test_a_rule_without_a_condition_is_refused():
    with pytest.raises(ConfigurationError, match="model=, url= or namespace="):
        Rule(ttl=5)


@pytest.mark.parametrize("kind", [Policy, Rule])
def test_an_unknown_option_is_refused(kind):
    with pytest.raises(TypeError):
        kind(time_to_live=5)


def test_good_values_are_read():
    policy = Policy(
        ttl=timedelta(hours=1), stale_while_revalidate="1m", stale_if_error="1h", jitter=0,
        max_entry_bytes="1KiB",
        rules=[Rule(model="a", ttl=None)], ignore_fields=["x"], vary_headers=("X-Y",), max_temperature=0.5,
        store_truncated=True, store_refusals=True, cacheable=lambda request, entry: True,
    )  # fmt: skip
    terms = policy.terms
    assert (terms.ttl, terms.stale_while_revalidate, terms.stale_if_error) == (3600, 60, 3600)
    assert (terms.max_entry_bytes, terms.max_temperature, terms.jitter) == (1024, 0.5, 0)
    assert terms.store_truncated is terms.store_refusals is True
    assert (policy.rules, policy.ignore_fields) == ((Rule(model="a", ttl=None),), frozenset({"x"}))
    assert b"x-y" in policy.vary
    assert b"openai-beta" in policy.vary


def test_the_defaults_are_those_of_the_manual():
    terms = Policy().terms
    assert (terms.ttl, terms.stale_while_revalidate, terms.stale_if_error, terms.jitter) == (86400, 0, 0, 0.1)
    assert (terms.max_entry_bytes, terms.max_temperature) == (16 << 20, None)
    assert terms.store_truncated is terms.store_refusals is terms.opened is False
    assert Policy(ttl=None).terms.ttl is None
    assert Policy(ttl=0).terms.ttl == 0


def test_a_policy_is_a_value():
    policy = Policy(ttl=5, rules=[Rule(model="a")])
    with pytest.raises(AttributeError):
        policy.ttl = 6
    assert policy == Policy(ttl=5, rules=(Rule(model="a"),))
    assert policy != Policy(ttl=6, rules=(Rule(model="a"),))
    assert copy.copy(policy) == copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert pickle.loads(pickle.dumps(policy)).terms_for(model="a", url="", namespace="") == policy.terms


def test_a_policy_does_not_follow_a_list_that_it_was_made_from():
    rules = [Rule(model="a", ttl=1)]
    policy = Policy(rules=rules)
    rules.clear()
    assert policy.terms_for(model="a", url="", namespace="").ttl == 1


# -- rules -----------------------------------------------------------------------------------------


def ttl(rules, *, model="gpt-4o", url="https://h/v1/chat/completions", namespace="default"):
    return Policy(ttl=99, rules=rules).terms_for(model=model, url=url, namespace=namespace).ttl


def test_the_first_rule_that_matches_wins():
    assert ttl([Rule(model="gpt-3*", ttl=1), Rule(model="gpt-4*", ttl=2), Rule(model="*", ttl=3)]) == 2
    assert ttl([Rule(model="*", ttl=3), Rule(model="gpt-4o", ttl=2)]) == 3


def test_the_first_rule_wins_even_where_it_says_nothing():
    assert ttl([Rule(model="gpt-4o", store_truncated=True), Rule(model="gpt-4o", ttl=2)]) == 99


def test_without_a_matching_rule_the_policy_holds():
    assert ttl([Rule(model="claude*", ttl=1)]) == 99
    assert ttl([]) == 99


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({"model": "gpt-4o"}, True),
        ({"model": "gpt-4"}, False),
        ({"model": "gpt-4*"}, True),
        ({"model": "gpt-4?"}, True),
        ({"model": "gpt-4??"}, False),
        ({"model": "GPT-4o"}, False),
        ({"model": "4o"}, False),
        ({"model": "*4o"}, True),
        ({"model": "gpt.4o"}, False),
        ({"model": "*"}, True),
        ({"url": "*/chat/completions"}, True),
        ({"url": "/v1/chat/completions"}, False),
        ({"url": "https://h/*"}, True),
        ({"url": "http://*"}, False),
        ({"namespace": "default"}, True),
        ({"namespace": "def*"}, True),
        ({"namespace": "other"}, False),
        ({"model": "gpt-4o", "url": "*/chat/completions", "namespace": "default"}, True),
        ({"model": "gpt-4o", "url": "*/embeddings"}, False),
        ({"model": "x", "namespace": "default"}, False),
    ],
)
def test_a_rule_matches_when_all_its_conditions_hold(conditions, matches):
    assert ttl([Rule(**conditions, ttl=1)]) == (1 if matches else 99)


def test_a_request_without_a_model_matches_no_condition_on_models():
    assert ttl([Rule(model="*", ttl=1)], model="") == 99
    assert ttl([Rule(url="*", ttl=1)], model="") == 1


def test_a_glob_matches_text_with_line_ends_whole():
    assert ttl([Rule(model="a*", ttl=1)], model="a\nb") == 1
    assert ttl([Rule(model="a", ttl=1)], model="a\n") == 99


def test_a_rule_may_say_for_ever_and_nothing_at_all():
    assert ttl([Rule(model="*", ttl=None)]) is None
    assert ttl([Rule(model="*", ttl=0)]) == 0


def test_a_rule_changes_only_what_it_says():
    policy = Policy(ttl=9, stale_if_error=8, store_truncated=True, max_temperature=1, jitter=0.5)
    ruled = Policy(
        ttl=9, stale_if_error=8, store_truncated=True, max_temperature=1, jitter=0.5,
        rules=[Rule(model="*", store_refusals=True, max_temperature=None)],
    ).terms_for(model="m", url="", namespace="")  # fmt: skip
    assert (ruled.ttl, ruled.stale_if_error, ruled.store_truncated, ruled.jitter) == (9, 8, True, 0.5)
    assert (ruled.store_refusals, ruled.max_temperature, ruled.opened) == (True, None, False)
    assert policy.terms.max_temperature == 1


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        (Rule(model="*", ttl=5), True),
        (Rule(model="*", ttl=None), True),
        (Rule(model="*", ttl=0), False),
        (Rule(model="*", stale_if_error=5), False),
    ],
)
def test_only_a_rule_with_a_life_opens_what_is_closed(rule, opened):
    assert Policy(rules=[rule]).terms_for(model="m", url="", namespace="").opened is opened


# -- precedence ------------------------------------------------------------------------------------


def decision(policy, headers=(), **said):
    request = Request(
        "POST", "https://h/v1/chat/completions?api_key=x", headers, b'{"model":"gpt-4o","messages":[]}'
    )
    with using(**said):
        return decide(
            Cache("memory://", policy=policy)._settings, request, parse("", request.body), current_control()
        )


def test_using_wins_over_a_rule_and_a_rule_over_the_policy():
    ruled = Policy(ttl=1, rules=[Rule(model="gpt*", ttl=2)])
    assert decision(Policy(ttl=1)).ttl == 1
    assert decision(ruled).ttl == 2
    assert decision(ruled, ttl=3).ttl == 3
    assert decision(ruled, ttl=None).ttl is None
    assert decision(ruled, ttl=0).bypass == "ttl 0"


def test_using_a_life_revives_what_the_policy_does_not_store():
    assert decision(Policy(ttl=0)).bypass == "ttl 0"
    assert decision(Policy(ttl=0), ttl=5).bypass == ""


def test_the_header_of_the_call_wins_over_rule_and_policy():
    policy = Policy(stale_if_error=1, rules=[Rule(model="gpt*", stale_if_error=2)])
    assert decision(policy).stale_if_error == 2
    assert decision(policy, ((b"cache-control", b"stale-if-error=3"),)).stale_if_error == 3


def test_a_rule_sees_the_url_without_its_query():
    policy = Policy(ttl=1, rules=[Rule(url="*api_key*", ttl=2), Rule(url="*/chat/completions", ttl=3)])
    assert decision(policy).ttl == 3


def test_a_rule_sees_the_namespace_the_call_goes_to():
    policy = Policy(ttl=1, rules=[Rule(namespace="other", ttl=2)])
    assert decision(policy).ttl == 1
    assert decision(policy, namespace="other").ttl == 2


def test_jitter_only_ever_shortens():
    made = decision(Policy(ttl=100, jitter=0.5, stale_if_error=10))
    lives = [made.lives(1000.0) for _ in range(300)]
    assert all(1050 <= expires <= 1100 and gone == pytest.approx(expires + 10) for expires, gone in lives)
    assert len({expires for expires, _ in lives}) > 100
    assert decision(Policy(ttl=100, jitter=0)).lives(1000.0) == (1100.0, 1100.0)
    assert decision(Policy(ttl=None, jitter=1)).lives(1000.0) == (None, None)
