"""What a layer needs of its cache."""

from __future__ import annotations

from typing import NamedTuple

from askonce._backing import Backing
from askonce._clock import Clock
from askonce._decision import Settings
from askonce._events import Events
from askonce._seal import Seal
from askonce._stats import Counters


class Parts(NamedTuple):
    """The parts of the one cache that a layer belongs to."""

    settings: Settings
    backing: Backing
    counters: Counters
    clock: Clock
    events: Events
    seal: Seal | None
