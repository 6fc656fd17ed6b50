"""Reports: equal to a hand count, to the token; of all processes; and no name breaks them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

from askonce import Cache, ConfigurationError, Request, Stats, using
from askonce._days import Days, flat_rows, raised_rows
from askonce._stats import total_tokens
from askonce.doors import Opened
from askonce.report import Price, Tokens
from askonce.report._tokens import tokens_of
from askonce.stores import MemoryStore
from askonce.testing import FlakyStore, ManualClock

JSON = ((b"content-type", b"application/json"),)
NOON = 1_795_694_400.0  # 2026-11-26 12:00 UTC
DAY = 86400.0
PRICES = {"a": Price(input=1.0, output=10.0, cached=0.5), "b": Price(input=100.0, output=1000.0)}


class Ask:
    """A question, and what its answer costs."""

    live, patience = False, None

    def __init__(
        self, words, model="a", *, usage=None, host="https://api.example", path="/v1/chat/completions", **more
    ):
        body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": words}], **more})
        self.request = Request("POST", host + path, JSON, body)
        self.usage = usage

    def open(self):
        answer = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": self.usage}
        return Opened(status=200, headers=[*JSON], native=None, body=orjson.dumps(answer), framed=True)

    again = open  # noqa: A003


def usage(read, written, *, cached=0, reasoning=0):
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture(params=["memory", "disk", "redis"])
def store(request, tmp_path):
    if request.param == "memory":
        return "memory://"
    if request.param == "disk":
        return f"disk://{tmp_path}/cache"
    return f"{request.getfixturevalue('valkey').url}?prefix={uuid.uuid4().hex}:"


def named(rows):
    return {row.name: row for row in rows}


def test_figures_equal_a_hand_count(store, clock):
    one = Ask("one", usage=usage(100, 20, cached=40, reasoning=5))
    two = Ask("two", "b", usage=usage(7, 3))
    blind = Ask("blind", "b")
    with Cache(store, clock=clock, ttl="30d") as cache:
        with using(tags=["nightly", "evals"]):
            cache.ask(one)
            cache.ask(one)
        cache.ask(one)
        cache.ask(two)
        cache.ask(blind)
        cache.ask(blind)
        cache.ask(Ask("x", path="/v1/files"))
        clock.advance(DAY)
        cache.ask(one)
        cache.ask(two)
        found = cache.report(days=3, prices=PRICES)

    total = found.total
    assert (total.served, total.misses, total.bypasses, total.errors, total.unmetered) == (5, 3, 1, 0, 1)
    assert total.saved == Tokens(input=307, output=63, reasoning=15, cached=120)
    assert total.spent == Tokens(input=107, output=23, reasoning=5, cached=40)
    price_of_one = (60 * 1.0 + 40 * 0.5 + 20 * 10.0) / 1e6
    price_of_two = (7 * 100.0 + 3 * 1000.0) / 1e6
    assert total.money_saved == pytest.approx(3 * price_of_one + price_of_two, abs=1e-12)
    assert total.money_spent == pytest.approx(price_of_one + price_of_two, abs=1e-12)
    assert total.hit_rate == 5 / 8

    days = named(found.by_day)
    assert list(days) == ["2026-11-25", "2026-11-26", "2026-11-27"]
    assert [days[day].calls for day in days] == [0, 7, 2]
    assert days["2026-11-27"].saved == Tokens(input=107, output=23, reasoning=5, cached=40)
    assert days["2026-11-25"].money_saved is None

    models = named(found.by_model)
    assert (models["a"].served, models["a"].misses, models["a"].bypasses) == (3, 1, 0)
    assert (models["b"].served, models["b"].misses) == (2, 2)
    assert models["(none named)"].bypasses == 1, "nobody reads the body of what passes by"
    tags = named(found.by_tag)
    assert set(tags) == {"nightly", "evals"}
    for tag in tags.values():
        assert (tag.served, tag.misses, tag.saved.total) == (1, 1, 120)
    for rows in (found.by_day, found.by_model, found.by_host):
        assert sum(row.saved.total for row in rows) == total.saved.total
        assert sum(row.money_spent or 0 for row in rows) == pytest.approx(total.money_spent)
        assert sum(row.calls for row in rows) == total.calls
    assert (found.first_day, found.last_day) == ("2026-11-25", "2026-11-27")
    assert found.stats.tokens_saved == total.saved.total


def test_the_figures_of_all_processes_are_in_it_and_counted_once(tmp_path, valkey, clock):
    for url in (f"disk://{tmp_path}/cache", f"{valkey.url}?prefix={uuid.uuid4().hex}:"):
        ask = Ask("one", usage=usage(10, 5))
        for _ in range(3):
            with Cache(url, clock=clock) as cache:
                cache.ask(ask)
                assert cache.report().total.calls == cache.report().total.calls
        with Cache(url, clock=clock) as cache:
            total = cache.report().total
        assert (total.served, total.misses, total.saved.total, total.spent.total) == (2, 1, 30, 15)


def test_other_processes_and_those_that_just_ended_count(tmp_path):
    root = Path(__file__).resolve().parents[2]
    program = f"""
import sys
sys.path[:0] = [{str(root / "caching")!r}, {str(Path(__file__).parent)!r}]
from test_report import Ask, usage
from askonce import Cache
cache = Cache("disk://{tmp_path}/cache")
cache.ask(Ask("one", usage=usage(10, 5))); cache.ask(Ask("one", usage=usage(10, 5)))
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True)
    with Cache(f"disk://{tmp_path}/cache") as cache:
        total = cache.report(days=2).total
    assert (total.served, total.misses, total.saved.input) == (3, 1, 30)


def test_a_namespace_has_a_report_of_its_own(store, clock):
    with Cache(store, clock=clock, namespace="one") as one, Cache(store, clock=clock, namespace="two") as two:
        one.ask(Ask("one", usage=usage(10, 5)))
        assert one.report().total.misses == 1
        assert two.report().total.calls == 0


def test_days_before_the_report_are_not_in_it(store, clock):
    with Cache(store, clock=clock, ttl=None) as cache:
        cache.ask(Ask("one", usage=usage(10, 5)))
        clock.advance(10 * DAY)
        assert cache.report(days=10).total.calls == 0
        assert cache.report(days=11).total.calls == 1


def test_a_store_that_is_away_loses_no_figures(clock, tmp_path):
    folder = tmp_path / "cache"
    with Cache(f"disk://{folder}", clock=clock) as cache:
        cache.ask(Ask("one", usage=usage(10, 5)))
        (folder / "tallies").write_text("in the way")
        cache._totals.add()
        (folder / "tallies").unlink()
        assert cache.report().total.misses == 1


async def test_the_async_face(store, clock):
    async with Cache(store, clock=clock) as cache:
        assert (await cache.areport()).total.calls == 0


@pytest.mark.parametrize("days", [0, -1, 367, 1.5, True, "30"])
def test_days_that_cannot_be_are_told(days):
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match=r"days=.* is not allowed"):
        cache.report(days=days)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "1", True, None])
def test_prices_that_cannot_be_are_told(bad):
    with pytest.raises(ConfigurationError, match="Price: input"):
        Price(input=bad, output=1)
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match="prices"):
        cache.report(prices={"a": 3})


def test_a_stale_answer_is_saved_and_its_refresh_is_spent(clock):
    from askonce import Policy

    policy = Policy(ttl=10, jitter=0, stale_while_revalidate=100)
    with Cache("memory://", clock=clock, policy=policy) as cache:
        ask = Ask("one", usage=usage(10, 5))
        cache.ask(ask)
        clock.advance(20)
        cache.ask(ask)
        import time

        end = time.monotonic() + 10
        while cache.report().total.spent.total < 30 and time.monotonic() < end:
            time.sleep(0.001)
        total = cache.report().total
    assert (total.served, total.misses, total.saved.total, total.spent.total) == (1, 1, 15, 30)


# -- prices ----------------------------------------------------------------------------------------


def listed(model, host="https://api.openai.com", **how):
    with Cache("memory://", clock=ManualClock(NOON)) as cache:
        cache.ask(Ask("one", model, usage=usage(1_000_000, 1_000_000, cached=400_000), host=host))
        return cache.report(**how)


def test_prices_of_known_models_come_from_the_list():
    pytest.importorskip("genai_prices")
    found = listed("gpt-4o-mini")
    assert found.prices == "genai-prices"
    # 0.15 dollars a million read, half of that from the provider's cache, 0.60 a million written.
    assert found.total.money_spent == pytest.approx(0.6 * 0.15 + 0.4 * 0.075 + 0.60)


def test_long_sums_get_no_surcharge_for_long_prompts():
    pytest.importorskip("genai_prices")
    import genai_prices

    short = genai_prices.calc_price(genai_prices.Usage(input_tokens=1000), "gemini-2.5-pro").total_price
    found = listed("gemini-2.5-pro", host="https://generativelanguage.googleapis.com")
    assert found.total.money_spent < float(short) * 1000 + 11


def test_a_proxy_has_the_prices_of_its_models():
    pytest.importorskip("genai_prices")
    assert listed("gpt-4o-mini", host="http://localhost:4000").total.money_spent is not None


def test_of_an_unknown_model_tokens_are_counted_and_that_is_said():
    found = listed("my-own-model")
    assert (found.total.money_spent, found.total.unpriced) == (None, ("my-own-model",))
    assert found.total.spent.total == 2_000_000
    assert "no price is known" in found.to_html()


def test_prices_of_ones_own_win():
    found = listed("gpt-4o-mini", prices={"gpt-4o*": Price(input=1, output=2)})
    assert found.total.money_spent == pytest.approx(3.0)
    assert found.prices.startswith("your own")


def test_without_the_package_there_are_tokens_and_a_way_to_prices(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    found = listed("gpt-4o-mini")
    assert (found.prices, found.total.money_spent) == ("", None)
    assert "askonce[prices]" in found.to_html()


def test_nothing_is_fetched_for_a_price(monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a report went to the network"))
    listed("gpt-4o-mini")


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (usage(10, 5, cached=4, reasoning=2), Tokens(input=10, output=5, cached=4, reasoning=2)),
        (
            {"input_tokens": 10, "output_tokens": 5, "input_tokens_details.cached_tokens": 4},
            Tokens(input=10, output=5, cached=4),
        ),
        (
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 90,
                "cache_creation_input_tokens": 7,
                "output_tokens": 5,
            },
            Tokens(input=107, output=5, cached=90, cache_written=7),
        ),
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3},
            Tokens(input=10, output=8, reasoning=3),
        ),
        ({"total_tokens": 10}, Tokens()),
    ],
)
def test_tokens_have_one_set_of_names(said, tokens):
    from askonce._entry import plain_usage

    assert tokens_of(plain_usage(said)) == tokens
    assert total_tokens(plain_usage(said)) == tokens.total  # stats and report say the same


def test_a_price_knows_what_the_providers_cache_had():
    price = Price(input=1, output=10, cached=0.1, cache_written=1.25)
    tokens = Tokens(input=1_000_000, output=100_000, cached=500_000, cache_written=200_000)
    assert price.of(tokens) == pytest.approx(0.3 + 0.05 + 0.25 + 1.0)


# -- rows ------------------------------------------------------------------------------------------


def test_names_from_outside_are_short_bounded_and_break_nothing(monkeypatch):
    from askonce import _days

    monkeypatch.setattr(_days, "_MOST", 10)
    days = Days()
    for number in range(50):
        days.called(
            NOON, "https://h:443", f"m{number}\x1f\n" + "x" * 500, (), status="hit", usage={}, saved=0
        )
    rows = days.copy()
    assert len(rows) == 11
    assert sum(row["served"] for row in rows.values()) == 50
    assert all(len(place.model) <= 120 and place.model.isprintable() for place in rows)
    flat = flat_rows(rows)
    assert {place: row for day in flat for place, row in raised_rows(day, flat[day])} == rows


def test_rows_that_no_version_of_ours_wrote_are_left_out():
    assert list(raised_rows(1, {"a": 1, "a\x1fb": 2})) == []


def test_what_could_not_be_stored_is_stored_later():
    days = Days()
    days.spent(NOON, "https://h:443", "m", (), {"a": 1})
    taken = days.drain()
    days.spent(NOON, "https://h:443", "m", (), {"a": 2})
    days.add(taken)
    assert [dict(row) for row in days.copy().values()] == [{"spent.a": 3}]


def test_hosts_are_written_as_people_do():
    days = Days()
    for origin in ("https://API.example:443", "http://localhost:8000", "https://[::1]:443"):
        days.called(NOON, origin, "m", (), status="miss", usage={}, saved=0)
    assert {place.host for place in days.copy()} == {"API.example", "localhost:8000", "[::1]"}


# -- the page --------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Whether tags are balanced, and everything a page could load."""

    VOID = frozenset({"meta", "rect", "line", "circle", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags, self.loads = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


NASTY = "<script>alert('x')</script>&\"'"


def test_a_page_loads_nothing_and_names_are_only_names(clock):
    with Cache(FlakyStore(MemoryStore()), clock=clock, namespace="<b>n</b>") as cache:
        with using(tags=[NASTY]):
            cache.ask(Ask("one", NASTY, usage=usage(10, 5)))
            cache.ask(Ask("one", NASTY, usage=usage(10, 5)))
        cache.ask(Ask("x", path="/v1/files"))
        text = cache.report(prices={"*": Price(input=1, output=1)}).to_html()
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "b>n"} & set(page.tags)
    assert page.loads == []
    assert not {"http:", "https:", "url(", "@import"} & set(re.findall(r"https?:|url\(|@import", text))
    said = "".join(page.text)
    assert NASTY in said
    assert "<b>n</b>" in said
    assert "endpoint" in said


def test_a_page_of_a_cache_that_did_nothing_says_so(clock):
    with Cache("memory://", clock=clock) as cache:
        text = cache.report().to_html()
    assert "No calls were counted" in "".join(Page(text).text)


@pytest.mark.parametrize("days", [1, 2, 30, 366])
def test_every_length_of_report_has_a_page(clock, days):
    with Cache("memory://", clock=clock) as cache:
        cache.ask(Ask("one", usage=usage(10, 5)))
        report = cache.report(days=days)
        Page(report.to_html())
        Page(report._repr_html_())
        assert len(report.by_day) == days


def test_values_are_json(clock):
    with Cache("memory://", clock=clock) as cache:
        cache.ask(Ask("one", usage=usage(10, 5)))
        said = json.loads(json.dumps(cache.report(prices=PRICES).to_dict()))
    assert said["total"]["spent"]["input"] == 10
    assert said["total"]["hit_rate"] == 0.0


def test_stats_are_a_table_in_notebooks():
    text = Stats(hits=3, misses=1, bypassed={NASTY: 2}, bypasses=2)._repr_html_()
    page = Page(text)
    assert "3 (75% of what can be cached)" in "".join(page.text)
    assert "script" not in page.tags
