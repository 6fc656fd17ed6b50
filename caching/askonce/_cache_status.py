"""The Cache-Status response header (RFC 9211): what this cache did, for everybody who reads headers."""

from __future__ import annotations

import math

from askonce._outcome import Outcome

_FORWARDED = {"not stored": "uri-miss", "expired": "stale", "refresh": "request", "revalidate": "stale"}


def cache_status(outcome: Outcome) -> str:
    """One list member for `outcome`, such as `askonce; hit; ttl=3540; key="default:9f..."`."""
    if outcome.status == "hit" and outcome.ttl is not None:  # the common case, in one go
        key, tier = _quoted(outcome.key), _quoted(outcome.tier)
        return f'askonce; hit; ttl={math.floor(outcome.ttl)}; key="{key}"; detail="{tier}"'
    parts = ["askonce"]
    if outcome.status in {"hit", "stale", "semantic"}:
        parts.append("hit")
        if outcome.ttl is not None:
            # Seconds, rounded towards stale: never claim more freshness than there is.
            parts.append(f"ttl={math.floor(outcome.ttl)}")
    elif outcome.status == "coalesced":
        parts += ["fwd=uri-miss", "collapsed"]
    elif outcome.status == "bypass":
        parts.append("fwd=bypass")
    else:
        parts.append(f"fwd={_FORWARDED.get(outcome.reason, 'uri-miss')}")
        if outcome.stored:
            parts.append("stored")
    key = outcome.source or outcome.key  # of the answer that was used (section 2.6)
    if key:
        parts.append(f'key="{_quoted(key)}"')
    detail = {"hit": outcome.tier, "semantic": _similar(outcome), "stale": outcome.reason}.get(outcome.status)
    if detail is None:
        detail = outcome.not_stored or (outcome.reason if outcome.status in {"bypass", "error"} else "")
    if detail:
        parts.append(f'detail="{_quoted(detail)}"')
    return "; ".join(parts)


def _similar(outcome: Outcome) -> str:
    """To the digits that matter, and never more than it was."""
    return f"semantic {math.floor((outcome.similarity or 0.0) * 10_000) / 10_000:.4f}"


def _quoted(text: str) -> str:
    """An sf-string holds printable ASCII only (RFC 8941 section 3.3.3)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    safe = "".join(char if " " <= char <= "~" else "?" for char in text)
    return safe.replace("\\", "\\\\").replace('"', '\\"')
