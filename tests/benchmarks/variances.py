"""Simulates how far off the estimated threshold is when all observations are perfectly separated.

    python tests/benchmarks/variances.py            writes caching/askonce/semantic/_variances.py

For n observations: similarities are drawn from U(0, 1), the true threshold from U(0, 1), and labels from
the logistic curve with a slope drawn log-uniformly from 10 to 100. Samples that are not perfectly separated
(with the two anchors) are drawn again: those have a maximum-likelihood fit of their own. The estimate is
the middle of the gap, and the figure the root mean square of its distance from the true threshold.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

SEED = 20_251_126
SAMPLES = 20_000
MOST = 128
HOME = Path(__file__).resolve().parents[2] / "caching" / "askonce" / "semantic" / "_variances.py"


def deviation(count: int, samples: int = SAMPLES) -> float:
    """The figure for `count` observations."""
    draw = random.Random(SEED + count)
    total = found = 0
    tries = 0
    while found < samples and tries < 20 * samples:
        tries += 1
        threshold = draw.random()
        slope = 10.0 ** draw.uniform(1.0, 2.0)
        wrong, right = 0.0, 1.0
        for _ in range(count):
            similarity = draw.random()
            if draw.random() < 1.0 / (1.0 + math.exp(-slope * (similarity - threshold))):
                right = min(right, similarity)
            else:
                wrong = max(wrong, similarity)
        if wrong < right:
            found += 1
            total += ((wrong + right) / 2 - threshold) ** 2
    return math.sqrt(total / found)


def table() -> list[float]:
    """Deviations for 1, 2, 3 ... observations. Those in between are on the line between their neighbours."""
    known = sorted({*range(1, 17), *range(20, 65, 4), *range(72, MOST + 1, 8), MOST})
    figures = {count: deviation(count) for count in known}
    found: list[float] = []
    for count in range(1, MOST + 1):
        low = max(one for one in known if one <= count)
        high = min(one for one in known if one >= count)
        share = 0.0 if low == high else (count - low) / (high - low)
        found.append(figures[low] + share * (figures[high] - figures[low]))
    return found


def main() -> None:
    """Write the module."""
    figures = [f"{figure:.5f}" for figure in table()]
    rows = [", ".join(figures[start : start + 10]) for start in range(0, len(figures), 10)]
    HOME.write_text(
        '"""Made by `tests/benchmarks/variances.py`, which says how. Not for editing."""\n\n'
        "from __future__ import annotations\n\n"
        "from typing import Final\n\n"
        "SEPARATED: Final[tuple[float, ...]] = (\n"
        + "".join(f"    {row},\n" for row in rows)
        + ")  # fmt: skip\n"
        '"""Deviation of the estimated threshold after 1, 2, 3 ... perfectly separated observations."""\n'
    )


if __name__ == "__main__":
    main()
