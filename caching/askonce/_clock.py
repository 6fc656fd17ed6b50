"""Time, injected: everything that compares ages takes a `Clock` instead of reading the wall itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch. `askonce.testing.ManualClock` is one that tests can move."""

wall: Clock = time.time
