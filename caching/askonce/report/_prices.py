"""What tokens cost, in US dollars: the caller's own prices first, then those of `genai-prices`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from askonce._errors import not_allowed
from askonce.report._tokens import Tokens

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SOME: Final = 1000
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for a million tokens.

    Attributes:
        input: for what is read.
        output: for what is written.
        cached: for what is read from the provider's own prompt cache; None: as `input`.
        cache_written: for what is written to it; None: as `input`.
    """

    input: float
    output: float
    cached: float | None = None
    cache_written: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_written"):
            value: object = getattr(self, name)
            optional = value is None and name.startswith("cache")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not optional and not (number and 0 <= float(str(value)) < math.inf):
                raise not_allowed(f"Price: {name}", value, "US dollars for a million tokens, 0 or more")

    def of(self, tokens: Tokens) -> float:
        """What these tokens cost."""
        cached = self.input if self.cached is None else self.cached
        cache_written = self.input if self.cache_written is None else self.cache_written
        plain = max(0, tokens.input - tokens.cached - tokens.cache_written)
        dollars = (
            plain * self.input
            + tokens.cached * cached
            + tokens.cache_written * cache_written
            + tokens.output * self.output
        )
        return dollars / _MILLION


class Prices:
    """Finds the price of a model on a day.

    The list of `genai-prices` is the one that came with the installed package: nothing is fetched. Its
    surcharges for very long prompts are left out, since sums do not say how long each prompt was.

    Args:
        own: by model name, `*` globs; the first that matches wins over the list.

    Raises:
        ConfigurationError: for a value that is no Price.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})
        for model, price in self._own.items():
            if not isinstance(price, Price):
                raise not_allowed(f"prices[{model!r}]", price, "a Price(input=..., output=...)")
        self._list: Any = None
        try:
            import genai_prices  # noqa: PLC0415 - an extra
        except ImportError:
            pass
        else:
            self._list = genai_prices
        self._known: dict[tuple[str, str, int], Price | None] = {}

    @property
    def source(self) -> str:
        """Where prices come from, for people."""
        parts = ["your own"] if self._own else []
        parts += [] if self._list is None else ["genai-prices"]
        return " and ".join(parts)

    def of(self, host: str, model: str, day: int) -> Price | None:
        """The price of a model at a provider on a day (since 1970-01-01); None: nobody knows."""
        for name, price in self._own.items():
            if fnmatchcase(model, name):
                return price
        if self._list is None or not model:
            return None
        asked = (host, model, day)
        if asked not in self._known:
            # A proxy is no provider that is known; the model's name alone says enough then.
            self._known[asked] = self._listed(
                model, day, provider_api_url=f"https://{host}/"
            ) or self._listed(model, day)
        return self._known[asked]

    def _listed(self, model: str, day: int, **where: str) -> Price | None:
        when = _EPOCH + timedelta(days=day, hours=12)

        def cost(**usage: int) -> float:
            found = self._list.calc_price(
                self._list.Usage(**usage), model, genai_request_timestamp=when, **where
            )
            return float(found.total_price) * _MILLION / _SOME

        try:
            return Price(
                input=cost(input_tokens=_SOME),
                output=cost(output_tokens=_SOME),
                cached=cost(input_tokens=_SOME, cache_read_tokens=_SOME),
                cache_written=cost(input_tokens=_SOME, cache_write_tokens=_SOME),
            )
        except Exception:  # noqa: BLE001 - a price that cannot be found must not cost the report
            return None
