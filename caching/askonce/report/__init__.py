"""What a cache saved: `Cache.report()` gives a Report, of values and as one HTML page."""

from __future__ import annotations

from askonce.report._figures import Report, Row
from askonce.report._prices import Price
from askonce.report._tokens import Tokens

__all__ = ["Price", "Report", "Row", "Tokens"]
