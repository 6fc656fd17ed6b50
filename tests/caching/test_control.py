"""What a caller says about the calls in a block or about one call, and where it reaches."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askonce import ConfigurationError, using
from askonce._control import NOTHING_SAID, Control, current_control, from_cache_control
from askonce._policy import UNSET

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)

BAD = {
    "ttl": [-1, "soon", True, [], math.nan, "1x"],
    "max_age": [-1, "soon", True, math.inf],
    "refresh": [1, "yes", 0],
    "store": [1, "no", []],
    "mode": ["On", "", "record", 5, True, ["on"], {}],
    "namespace": ["", "a:b", "a\n", 5, b"x", "\x00", "\ud800", []],
    "scope": [5, b"x", ["x"], lambda request: "x"],
    "tags": [5, None, [5], [""], [None], ["a", b"b"], [["a"]]],
    "sample": [-1, 1.0, "1", True, []],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in BAD.items() for value in values],
    ids=lambda value: repr(value)[:25],
)
def test_a_bad_value_is_refused_at_once_by_name_with_what_is_allowed(option, value):
    if option != "tags" and value is None:
        return
    with pytest.raises(ConfigurationError, match=rf"(?s){option}.*allowed: "):
        using(**{option: value})


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError):
        using(timeout=5)


def test_good_values_reach_the_calls_inside_and_nobody_after():
    with using(
        ttl="1h",
        max_age="5m",
        refresh=True,
        store=False,
        mode="read_only",
        namespace="n",
        scope="s",
        tags="t",
        sample=3,
    ):
        said = current_control()
    assert (said.ttl, said.max_age, said.refresh, said.store) == (3600, 300, True, False)
    assert (said.mode, said.namespace, said.scope, said.tags, said.sample) == (
        "read_only",
        "n",
        "s",
        ("t",),
        3,
    )
    assert current_control() == NOTHING_SAID


def test_the_inner_block_wins_where_it_says_something():
    with using(ttl=1, refresh=True, mode="off", tags=["a", "b"], max_age=1):
        with using(ttl=2, refresh=False, tags=["b", "c"]):
            inner = current_control()
        outer = current_control()
    assert (inner.ttl, inner.refresh, inner.mode, inner.tags, inner.max_age) == (
        2,
        False,
        "off",
        ("a", "b", "c"),
        1,
    )
    assert (outer.ttl, outer.refresh, outer.tags) == (1, True, ("a", "b"))


def test_for_ever_and_zero_are_things_to_say():
    with using(ttl=5):
        with using(ttl=None):
            assert current_control().ttl is None
        with using(ttl=0):
            assert current_control().ttl == 0
        with using(refresh=True):
            assert current_control().ttl == 5
    assert current_control().ttl is UNSET


def test_sample_zero_and_an_empty_scope_are_things_to_say():
    with using(sample=2, scope="a"), using(sample=0, scope=""):
        assert (current_control().sample, current_control().scope) == (0, "")


def test_a_block_ends_with_an_exception_too():
    with pytest.raises(KeyError), using(ttl=1):
        raise KeyError
    assert current_control() == NOTHING_SAID


def test_one_block_may_be_entered_again_and_inside_itself():
    block = using(ttl=1)
    for _ in range(2):
        with block, block:
            assert current_control().ttl == 1
        assert current_control() == NOTHING_SAID


async def test_blocks_are_async_context_managers_too():
    async with using(ttl=1):
        assert current_control().ttl == 1
    assert current_control() == NOTHING_SAID


async def test_tasks_inherit_and_do_not_disturb_each_other():
    async def worker(number):
        with using(sample=number):
            await asyncio.sleep(0.001 * (number % 3))
            return current_control().sample, current_control().ttl

    with using(ttl=7):
        found = await asyncio.gather(*(worker(number) for number in range(50)))
    assert found == [(number, 7) for number in range(50)]
    assert current_control() == NOTHING_SAID


async def test_to_thread_inherits():
    with using(ttl=7):
        assert (await asyncio.to_thread(current_control)).ttl == 7


def test_threads_do_not_disturb_each_other_and_start_without():
    found, barrier = {}, threading.Barrier(8)

    def worker(number):
        before = current_control()
        with using(sample=number):
            barrier.wait(5)
            found[number] = before, current_control().sample

    with using(ttl=7):
        threads = [threading.Thread(target=worker, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: (NOTHING_SAID, number) for number in range(8)}


def test_a_copied_context_carries_the_block_into_a_thread():
    found = []
    with using(ttl=7):
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: found.append(current_control().ttl),))
    thread.start()
    thread.join()
    assert found == [7]


def test_one_block_object_may_be_entered_by_several_threads_at_once():
    block, errors, barrier = using(ttl=7), [], threading.Barrier(2)

    def worker(first):
        try:
            if not first:
                barrier.wait(5)
            with block:
                if first:
                    barrier.wait(5)
                barrier.wait(5)  # both are inside now
                if not first:
                    barrier.wait(5)
                assert current_control().ttl == 7
            if first:
                barrier.wait(5)
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=worker, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


async def test_one_block_object_may_be_entered_by_several_tasks_at_once():
    block = using(ttl=7)

    async def worker(delay):
        async with block:
            await asyncio.sleep(delay)
            return current_control().ttl

    assert await asyncio.gather(worker(0.02), worker(0.01), worker(0.03)) == [7, 7, 7]
    assert current_control() == NOTHING_SAID


def test_a_generator_that_ends_elsewhere_does_not_break():
    def generator():
        with using(ttl=7):
            yield current_control().ttl

    running = contextvars.copy_context().run(lambda: (made := generator(), next(made))[0])
    running.close()  # as a garbage collector would, in whatever context
    assert current_control() == NOTHING_SAID


# -- Cache-Control ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", {}),
        ("no-cache", {"refresh": True}),
        ("no-store", {"store": False}),
        ("only-if-cached", {"mode": "offline"}),
        ("max-age=5", {"max_age": 5}),
        ("max-age=0", {"max_age": 0}),
        ('max-age="5"', {"max_age": 5}),
        ("MAX-AGE=5", {"max_age": 5}),
        ("max-age=5,no-store", {"max_age": 5, "store": False}),
        (" max-age=5 ,\tno-cache ", {"max_age": 5, "refresh": True}),
        (",,max-age=5,,", {"max_age": 5}),
        ("stale-if-error=60", {"stale_if_error": 60}),
        ("stale-while-revalidate=60", {"stale_while_revalidate": 60}),
        ("No-Cache, No-Store", {"refresh": True, "store": False}),
        ("max-stale", {}),
        ("min-fresh=5, no-transform, max-stale=3", {}),
        ("community=UCI", {}),
        ("x-no-store, no-cache-y, nostore", {}),
        ("max-age-x=nonsense", {}),
        ('ext="a, no-store, b"', {}),
        ('ext="max-age=5"', {}),
        (r'ext="a\", no-store", no-cache', {"refresh": True}),
        ('ext="a", no-cache', {"refresh": True}),
        ("no-store, no-store", {"store": False}),
        ("max-age=99999999999999999999", {"max_age": 2.0**31}),
        ("max-age=007", {"max_age": 7}),
    ],
)
def test_directives_are_read_as_the_rfc_says(header, expected):
    assert from_cache_control(header) == Control(**expected)


def test_of_a_directive_given_twice_the_first_counts():
    # RFC 9111 section 4.2.1: "either the first occurrence should be used or ... considered stale".
    assert from_cache_control("max-age=5, max-age=10").max_age == 5


@pytest.mark.parametrize("name", ["max-age", "stale-if-error", "stale-while-revalidate"])
@pytest.mark.parametrize("value", ["", "=", "=x", "=-1", "=1.5", "=1e3", "=5s", '=""', "=٣", "=1 2", "= "])
def test_a_directive_we_know_with_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=rf"Cache-Control: {name}=.*allowed: .*seconds"):
        from_cache_control(f"no-store, {name}{value}")


@SETTINGS
@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["max-age", "=", '"', ",", "no-store", " ", "\\", "5", "\x00"])).map("".join)
)
def test_no_header_raises_anything_but_a_configuration_error(header):
    try:
        assert isinstance(from_cache_control(header), Control)
    except ConfigurationError as error:
        assert "Cache-Control" in str(error)  # noqa: PT017


def test_a_long_and_broken_header_is_read_in_no_time():
    started = time.perf_counter()
    from_cache_control("a" * 6000 + '"')
    assert time.perf_counter() - started < 1


def test_the_header_of_a_call_wins_over_the_block_around_it():
    with using(refresh=False, max_age=5, mode="read_only"):
        said = from_cache_control("no-cache").over(current_control())
    assert (said.refresh, said.max_age, said.mode) == (True, 5, "read_only")
