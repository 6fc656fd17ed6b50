"""Verified mode: whether to serve a stored answer or to explore, learned for each entry.

After Schroeder et al., "vCache: Verified Semantic Prompt Caching" (2025), from its formulas; this code and
the table of variances are our own. For one stored answer, the chance that it is right for a question of
similarity s is modelled as

    Pr(right | s) = sigma(gamma (s - t))

with t and gamma fitted by maximum likelihood to what judges said, (0, wrong) and (1, right) added. Then, for
any eps in (0, 1), with sd the standard deviation of the estimate of t:

    t'    = clip(t + z(1 - eps) sd, 0, 1)                  t is below it with probability 1 - eps
    alpha = (1 - eps) sigma(gamma (s - t'))                a lower bound of the chance of being right
    tau   = min over eps of 1 - delta / (1 - alpha)

The provider is asked with probability tau. So an answer is served *and* wrong with probability
(1 - tau)(1 - alpha) <= delta: the bound holds over all requests, not over hits. It assumes that judges are
right and that tomorrow's questions are like today's; shadow sampling measures whether that is so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import orjson

from askonce.semantic._variances import SEPARATED

LEAST: Final = 6
"""Observations before an entry may serve at all."""
MOST: Final = 128
"""Observations that are kept; the oldest go."""

_EPSILONS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5)
_Z: Final = tuple(NormalDist().inv_cdf(1.0 - epsilon) for epsilon in _EPSILONS)
_STEEPEST: Final = 200.0
_ROUNDS: Final = 60

Observation = tuple[float, bool]
"""Similarity of a question, and whether the stored answer was right for it."""


class Learned(NamedTuple):
    """What is known of one entry.

    Attributes:
        seen: the observations, oldest first.
        threshold: t.
        slope: gamma.
        deviation: standard deviation of the estimate of t.
    """

    seen: tuple[Observation, ...] = ()
    threshold: float = 1.0
    slope: float = 1.0
    deviation: float = 1.0

    def more(self, similarity: float, *, right: bool) -> Learned:
        """With one observation more, fitted again."""
        seen = (*self.seen, (round(_clip(similarity), 6), right))[-MOST:]
        threshold, slope, deviation = fit(seen)
        return Learned(seen, threshold, slope, deviation)

    def explores(self, similarity: float, max_error: float) -> float:
        """With which probability the provider is to be asked: 1 until enough is known."""
        if len(self.seen) < LEAST:
            return 1.0
        alpha = max(
            (1.0 - epsilon) * _sigma(self.slope * (similarity - _clip(self.threshold + z * self.deviation)))
            for epsilon, z in zip(_EPSILONS, _Z, strict=True)
        )
        return _clip(1.0 - max_error / max(1.0 - alpha, 1e-9))

    def encode(self) -> bytes:
        """As JSON: similarities and verdicts alone."""
        return orjson.dumps([[similarity, int(right)] for similarity, right in self.seen])


def decode(value: bytes) -> Learned:
    """What `Learned.encode` gave; nothing for anything else."""
    try:
        pairs: Any = orjson.loads(value)
        seen = tuple((float(similarity), bool(right)) for similarity, right in pairs)[-MOST:]
    except (ValueError, TypeError):
        return Learned()
    if not all(0.0 <= similarity <= 1.0 for similarity, _ in seen):
        return Learned()
    return Learned(seen, *fit(seen)) if seen else Learned()


def fit(seen: Sequence[Observation]) -> tuple[float, float, float]:
    """Estimates of t and gamma, and the standard deviation of the former.

    By Newton's method on the log-likelihood in (gamma, gamma t), which is concave. Perfectly separated data
    has no maximum: t is the middle of the gap then, gamma what the gap allows, and the deviation comes from
    a table that was simulated (`tests/benchmarks/variances.py`), or from the gap if that is more.
    """
    data = ((0.0, False), *seen, (1.0, True))
    wrong = max(similarity for similarity, right in data if not right)
    good = min(similarity for similarity, right in data if right)
    if wrong < good:
        gap = good - wrong
        known = SEPARATED[min(len(seen), len(SEPARATED)) - 1] if seen else 1.0
        return (wrong + good) / 2, min(_STEEPEST, 8.0 / gap), max(known, gap / math.sqrt(12.0))
    slope, offset = _newton(data)
    slope = min(_STEEPEST, max(slope, 1e-3))
    threshold = _clip(offset / slope)
    information = [[0.0, 0.0], [0.0, 0.0]]  # of t and gamma
    for similarity, _ in data:
        chance = _sigma(slope * (similarity - threshold))
        weight = max(chance * (1.0 - chance), 1e-9)
        by_threshold, by_slope = -slope, similarity - threshold
        information[0][0] += weight * by_threshold * by_threshold
        information[0][1] += weight * by_threshold * by_slope
        information[1][1] += weight * by_slope * by_slope
    determinant = information[0][0] * information[1][1] - information[0][1] ** 2
    variance = information[1][1] / determinant if determinant > 1e-12 else 1.0  # noqa: PLR2004
    return threshold, slope, math.sqrt(min(1.0, max(variance, 0.0)))


def _newton(data: Sequence[Observation]) -> tuple[float, float]:
    """Slope and offset of the logistic curve sigma(slope s - offset) with the greatest likelihood."""
    slope, offset = 4.0, 2.0
    for _ in range(_ROUNDS):
        gradient_a = gradient_b = 0.0
        h_aa = h_ab = h_bb = 1e-9
        for similarity, right in data:
            chance = _sigma(slope * similarity - offset)
            rest = float(right) - chance
            gradient_a += rest * similarity
            gradient_b -= rest
            weight = chance * (1.0 - chance)
            h_aa += weight * similarity * similarity
            h_ab -= weight * similarity
            h_bb += weight
        determinant = h_aa * h_bb - h_ab * h_ab
        if determinant <= 1e-12:  # noqa: PLR2004 - flat: what there is will do
            break
        step_a = (h_bb * gradient_a - h_ab * gradient_b) / determinant
        step_b = (h_aa * gradient_b - h_ab * gradient_a) / determinant
        # Not further than the curve is trusted: Newton overshoots where the data is nearly separated.
        shrink = min(1.0, 20.0 / max(abs(step_a), abs(step_b), 1e-9))
        slope += shrink * step_a
        offset += shrink * step_b
        if max(abs(step_a), abs(step_b)) < 1e-6 or slope > 2 * _STEEPEST:  # noqa: PLR2004
            break
    return slope, offset


def _sigma(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-min(x, 700.0)))
    power = math.exp(max(x, -700.0))
    return power / (1.0 + power)


def _clip(x: float) -> float:
    return min(1.0, max(0.0, x))
