"""A Report: sums of a cache's figures by day, model and tag, with what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from askonce._days import Place, day_text
from askonce._stats import Stats
from askonce.report._prices import Prices
from askonce.report._tokens import Tokens, tokens_of
from askonce.stores.protocol import Health

_NONE: Final = Tokens()
_CALLS: Final = ("served", "misses", "bypasses", "errors", "unmetered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Sums of some calls.

    A served answer cost nothing: what it would have cost is saved. A provider's answer cost what it says:
    that is spent. No call is in both.

    Attributes:
        name: the model, tag or day ("2026-11-26", UTC).
        served: calls that cost no provider call of their own.
        misses: calls that the provider answered.
        bypasses: calls that passed by; what they cost is not known here.
        errors: calls in vain.
        unmetered: of the served, those whose answer says nothing of its usage: they saved more than is
            shown.
        saved: tokens of the served.
        spent: tokens of the provider's answers, those of background refreshes included.
        seconds_saved: provider time of the served.
        money_saved: US dollars; None when no price is known of any model in it.
        money_spent: the same.
        unpriced: models in it of which no price is known: only their tokens count.
    """

    name: str
    served: int = 0
    misses: int = 0
    bypasses: int = 0
    errors: int = 0
    unmetered: int = 0
    saved: Tokens = _NONE
    spent: Tokens = _NONE
    seconds_saved: float = 0.0
    money_saved: float | None = None
    money_spent: float | None = None
    unpriced: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """All calls."""
        return self.served + self.misses + self.bypasses + self.errors

    @property
    def hit_rate(self) -> float:
        """Share of the cacheable calls that cost no provider call; 0.0 before the first."""
        asked = self.served + self.misses
        return self.served / asked if asked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "calls": self.calls, "hit_rate": self.hit_rate}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a cache saved in some days: a value.

    Attributes:
        namespace: of the cache.
        first_day: "2026-11-26", UTC.
        last_day: the day it was made.
        total: all calls.
        by_day: every day, the first one first; days without calls are in it.
        by_model: what saved most first.
        by_tag: calls that bore a label of `using(tags=...)`; one with two labels is in two rows.
        by_host: the providers.
        stats: all figures since the store was first used: why calls passed by, why answers were not
            stored. These are not kept by day.
        health: of each tier.
        prices: where prices come from; "" when there are none: `pip install "askonce[prices]"`.
    """

    namespace: str
    first_day: str
    last_day: str
    total: Row
    by_day: tuple[Row, ...]
    by_model: tuple[Row, ...]
    by_tag: tuple[Row, ...]
    by_host: tuple[Row, ...]
    stats: Stats
    health: tuple[Health, ...]
    prices: str

    def to_html(self) -> str:
        """One HTML page with everything in it: no script, and nothing that is loaded from elsewhere."""
        from askonce.report._page import page  # noqa: PLC0415 - whoever wants figures needs no page

        return page(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with `calls` and `hit_rate` in each row."""
        said = asdict(self)
        said["total"] = self.total.to_dict()
        for name in ("by_day", "by_model", "by_tag", "by_host"):
            rows: tuple[Row, ...] = getattr(self, name)
            said[name] = [row.to_dict() for row in rows]
        return said

    def _repr_html_(self) -> str:
        from askonce.report._page import body  # noqa: PLC0415

        return body(self)


def report(
    rows: Mapping[Place, Mapping[str, float]],
    *,
    namespace: str,
    first: int,
    last: int,
    prices: Prices,
    stats: Stats,
    health: Iterable[Health],
) -> Report:
    """The report of these rows: of the days from `first` to `last`."""
    all_calls = {place: figures for place, figures in rows.items() if not place.tag}
    tagged = {place: figures for place, figures in rows.items() if place.tag}
    days = _grouped(all_calls, lambda place: day_text(place.day), prices)
    return Report(
        namespace=namespace,
        first_day=day_text(first),
        last_day=day_text(last),
        total=_grouped(all_calls, lambda _: "total", prices).get("total", Row(name="total")),
        by_day=tuple(days.get(name, Row(name=name)) for name in map(day_text, range(first, last + 1))),
        by_model=_ordered(_grouped(all_calls, lambda place: place.model or "(none named)", prices)),
        by_tag=_ordered(_grouped(tagged, lambda place: place.tag, prices)),
        by_host=_ordered(_grouped(all_calls, lambda place: place.host, prices)),
        stats=stats,
        health=tuple(health),
        prices=prices.source,
    )


def _ordered(rows: Mapping[str, Row]) -> tuple[Row, ...]:
    return tuple(
        sorted(
            rows.values(),
            key=lambda row: (-(row.money_saved or 0.0), -row.saved.total, -row.served, row.name),
        )
    )


def _grouped(
    rows: Mapping[Place, Mapping[str, float]], name_of: Callable[[Place], str], prices: Prices
) -> dict[str, Row]:
    groups: dict[str, list[tuple[Place, Mapping[str, float]]]] = {}
    for place, figures in rows.items():
        groups.setdefault(name_of(place), []).append((place, figures))
    return {name: _summed(name, group, prices) for name, group in groups.items()}


def _summed(name: str, group: list[tuple[Place, Mapping[str, float]]], prices: Prices) -> Row:
    calls = dict.fromkeys(_CALLS, 0.0)
    saved, spent = Tokens(), Tokens()
    seconds = 0.0
    money: tuple[float, float] | None = None
    unpriced: set[str] = set()
    for place, figures in group:
        for figure in _CALLS:
            calls[figure] += figures.get(figure, 0)
        seconds += figures.get("seconds", 0)
        here = tokens_of(figures, "saved."), tokens_of(figures, "spent.")
        saved, spent = saved + here[0], spent + here[1]
        if not here[0].total and not here[1].total:
            continue
        price = prices.of(place.host, place.model, place.day)
        if price is None:
            unpriced.add(place.model or "(none named)")
        else:
            before = money or (0.0, 0.0)
            money = before[0] + price.of(here[0]), before[1] + price.of(here[1])
    return Row(
        name=name,
        **{figure: round(number) for figure, number in calls.items()},
        saved=saved,
        spent=spent,
        seconds_saved=seconds,
        money_saved=None if money is None else money[0],
        money_spent=None if money is None else money[1],
        unpriced=tuple(sorted(unpriced)),
    )
