"""OpenTelemetry for a cache: metrics, and what happened to a call on the span it was made in.

    from askonce import Cache
    from askonce.telemetry import instrument

    cache = Cache()
    telemetry = instrument(cache)

Needs the extra `otel`, which is the API alone: what is exported, and where to, is set up by the program.
Nothing of OpenTelemetry is imported before `instrument` is called.
"""

from __future__ import annotations

from askonce.telemetry._instrument import Telemetry, instrument

__all__ = ["Telemetry", "instrument"]
