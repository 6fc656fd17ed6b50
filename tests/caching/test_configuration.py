"""A Cache says at once what is wrong with what it was given; public names are what they claim."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import askonce
from askonce import AskOnceError, Cache, ConfigurationError, OfflineMiss, Policy, Request, StoreError
from askonce.stores.memory import MemoryStore
from askonce.testing import FlakyStore

BAD = {
    "store": [
        5,
        True,
        b"memory://",
        object(),
        [],
        (),
        ["memory://", 5],
        [None],
        {"a": 1},
        "",
        " ",
        "nonsense",
        ["x://"],
    ],
    "ttl": [-1, "soon", True, [], math.nan],
    "policy": [5, "1d", {}, Policy],
    "namespace": ["", "a:b", 5, None, "a\tb", b"x", []],
    "scope": ["tenant", "", 5, None, [], {}, b"shared"],
    "mode": ["ON", "", None, 5, [], {}, "cache"],
    "coalesce": ["fleets", "", None, True, [], {}],
    "secret": ["short", b"", 5, [], True],
    "store_timeout": [0, "0s", -1, "soon", None, True, math.inf, []],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in BAD.items() for value in values],
    ids=lambda value: repr(value).partition(" at 0x")[0][:25],
)
def test_a_bad_option_is_refused_at_construction_by_name_with_what_is_allowed(option, value):
    with pytest.raises(ConfigurationError, match=rf"(?s){option}.*allowed"):
        Cache(**{"store": "memory://"} | {option: value})


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError):
        Cache("memory://", timeout=5)


def test_ttl_and_policy_together_are_refused():
    with pytest.raises(ConfigurationError, match=r"ttl and policy.*allowed"):
        Cache("memory://", ttl=5, policy=Policy())


def test_a_bad_store_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("ASKONCE_STORE", "nonsense://")
    with pytest.raises(ConfigurationError, match=r"nonsense.*allowed.*memory://"):
        Cache()


def test_the_environment_names_tiers_front_first(monkeypatch, tmp_path):
    monkeypatch.setenv("ASKONCE_STORE", f"memory://?max_bytes=1MiB disk://{tmp_path}")
    assert "memory over disk" in repr(Cache())


def test_the_default_is_memory_over_disk_and_making_one_does_no_io(monkeypatch, tmp_path):
    monkeypatch.delenv("ASKONCE_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "memory over disk" in repr(Cache())
    assert list(tmp_path.iterdir()) == []


def test_good_options_are_taken():
    cache = Cache(
        ["memory://", "memory://?max_bytes=2MiB"], ttl=None, namespace="ns", scope="credential",
        mode="read_only",
        coalesce="off", secret=b"0123456789abcdef", store_timeout="1s",
    )  # fmt: skip
    assert (cache.namespace, cache.mode, cache.policy.terms.ttl, cache.store_timeout) == (
        "ns",
        "read_only",
        None,
        1.0,
    )
    with cache as same:
        assert same is cache


def test_invalidate_without_a_condition_is_refused():
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match=r"model=.*clear"):
        cache.invalidate()


@pytest.mark.parametrize("bad", [-1, "soon", True])
def test_invalidate_with_a_bad_age_is_refused(bad):
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match=r"older_than.*allowed"):
        cache.invalidate(older_than=bad)


def test_closing_closes_every_store_even_when_one_cannot_be_closed():
    closed = []

    class Mine(MemoryStore):
        def close(self):
            closed.append(self)

    broken = FlakyStore(MemoryStore())
    broken.fail_with(OSError, operations=["close"])
    with contextlib.suppress(OSError):
        Cache([broken, Mine()]).close()
    assert len(closed) == 1


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        AskOnceError("said"),
        ConfigurationError("said"),
        StoreError("said"),
        OfflineMiss("said", key="n:1", differences=("a", "b")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled_and_copied(error):
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == "said"
        assert vars(twin) == vars(error)


def test_the_errors_as_they_leave_an_openai_client_can_be_pickled_too():
    from openai import OpenAIError

    from askonce_openai._errors import dressed

    for error in (OfflineMiss("said", key="n:1", differences=("a",)), ConfigurationError("said")):
        left = dressed(error)
        twin = pickle.loads(pickle.dumps(left))
        assert isinstance(twin, OpenAIError)
        assert isinstance(twin, type(error))
        assert (str(twin), vars(twin)) == ("said", vars(left))


def test_every_error_has_the_one_base_and_configuration_errors_are_value_errors():
    assert all(issubclass(kind, AskOnceError) for kind in (ConfigurationError, StoreError, OfflineMiss))
    assert issubclass(ConfigurationError, ValueError)


def test_values_can_be_pickled_and_copied():
    from askonce import Entry, Outcome, Rule, Stats
    from askonce._entry import Meta

    values = [
        Request("POST", "https://h/x", ((b"a", b"b"),), b"{}"),
        Entry(
            status=200, headers=(("a", "b"),), body=b"x", meta=Meta(created_at=1, expires_at=2, stale_until=3)
        ),
        Outcome(status="hit", reason="fresh"),
        Stats(hits=3),
        Policy(rules=[Rule(model="x", ttl=None)]),
        Rule(model="x", ttl=5),
    ]
    for value in values:
        for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
            assert twin == value


# -- names and imports -----------------------------------------------------------------------------


def test_the_public_names_are_those_of_the_manual():
    expected = {
        "AskOnceError", "Cache", "ConfigurationError", "Entry", "OfflineMiss", "Outcome", "Policy", "Request",
        "Rule",
        "Stats", "StoreError", "__version__", "replay", "track", "using",
    }  # fmt: skip
    assert set(askonce.__all__) == expected
    assert all(getattr(askonce, name).__doc__ for name in expected - {"__version__"})


def unmeasured():
    """The environment without what makes children measure coverage: that alone imports half the library."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def python(program):
    where = str(Path(askonce.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**unmeasured(), "PYTHONPATH": where},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.split()


def test_what_is_visible_is_what_is_public():
    visible = set(python(
        "import askonce; print(*[n for n in dir(askonce) if not n.startswith('_') and n != 'annotations'"
        " and not isinstance(getattr(askonce, n), type(askonce))])"
    ))  # fmt: skip
    assert visible == set(askonce.__all__) - {"__version__"}


def test_importing_askonce_loads_no_sdk_and_nothing_heavy():
    heavy = (
        "openai httpx httpx2 wrapt redis boto3 diskcache pydantic cryptography numpy platformdirs "
        "asyncio sqlite3 anthropic langchain_core typer rich requests urllib3 pickle"
    )
    assert python(f"import askonce, sys; print(*[n for n in '{heavy}'.split() if n in sys.modules])") == []


def test_importing_the_openai_door_loads_no_sdk():
    import askonce_openai

    where = str(Path(askonce_openai.__file__).parents[1])
    loaded = python(
        f"import sys; sys.path.insert(0, {where!r}); import askonce_openai;"
        "print(*[n for n in 'openai httpx httpx2 wrapt pydantic'.split() if n in sys.modules])"
    )
    assert loaded == []


def test_a_request_lowers_its_header_names_and_stays_a_value():
    request = Request("POST", "https://h/x", ((b"X-Up", b"V"), (b"x-up", b"w")))
    assert request.headers == ((b"x-up", b"V"), (b"x-up", b"w"))
    assert request.header(b"x-up") == "V, w"
    assert request.header(b"absent") == ""
    assert hash(request) == hash(Request("POST", "https://h/x", ((b"x-up", b"V"), (b"x-up", b"w"))))
    with pytest.raises(AttributeError):
        request.body = b""
