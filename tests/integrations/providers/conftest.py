"""What the tests of the providers share: one fake provider, one cache, every SDK that fits in here."""

from __future__ import annotations
