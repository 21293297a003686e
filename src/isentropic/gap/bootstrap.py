"""Bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isentropic.errors import InputError
from isentropic.gap.estimate import (
    _BLOCK,
    _ROUNDING,
    Array,
    GapEstimate,
    _check_share,
    _values,
    clusters_of,
    paired_gap,
    unpaired_gap,
)

# ---- bootstrap ---------------------------------------------------------------------------------------------


def _check_bootstrap(rng: np.random.Generator, draws: int, level: float) -> None:
    if not isinstance(rng, np.random.Generator):
        raise InputError(
            f"rng is {type(rng).__name__}; an interval must be reproducible, give numpy.random.default_rng(seed)"
        )
    if draws < 100:
        raise InputError(f"draws is {draws}; the tails of the interval need many, give at least 100")
    _check_share("level", level)


def _studentised(estimate: GapEstimate, gaps: Array, ses: Array, level: float) -> tuple[float, float]:
    scored = ses > _ROUNDING * (
        np.abs(gaps) + estimate.se
    )  # a resample of one unit only has no error to divide by
    t = (gaps[scored] - estimate.gap) / ses[scored]
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return float(estimate.gap - high * estimate.se), float(estimate.gap - low * estimate.se)


def bootstrap_interval(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """A studentised bootstrap interval of the paired gap; whole clusters are resampled.

    `[gap - q_high * se, gap - q_low * se]`, q the quantiles of `(gap* - gap) / se*` over resamples. It makes no
    assumption on the shape of the differences, so it is a check on `paired_gap` when they are skewed; for symmetric,
    heavy-tailed ones the t interval is the better of the two (docs/coverage.md).

    Args:
        differences: (n,) nats.
        clusters: (n,) topic of each pair, or None.
        rng: seeded generator; the same seed gives the same interval.
        draws: number of resamples.
        level: coverage.

    Returns:
        (low, high), nats; (nan, nan) where `paired_gap` has no standard error.

    Raises:
        InputError: as `paired_gap`, or a bad rng, draws or level.

    Example:
        >>> low, high = bootstrap_interval([-0.1, -0.2, 0.0, -0.1, -0.3], rng=np.random.default_rng(0))
        >>> low < -0.14 < high
        True

    Source: Efron and Tibshirani 1993, chapter 12; Hall 1988.
    """
    _check_bootstrap(rng, draws, level)
    d = _values(differences, "differences")
    part = clusters_of(clusters, d.size)
    estimate = paired_gap(d, clusters)
    if not estimate.known:
        return (math.nan, math.nan)
    sums = np.bincount(part.member, weights=d)
    rows = part.sizes.astype(np.float64)
    units = rows.size
    gaps, ses = np.empty(draws), np.empty(draws)
    step = max(1, _BLOCK // units)
    for start in range(0, draws, step):
        block = slice(start, min(start + step, draws))
        pick = rng.integers(0, units, (block.stop - start, units))
        k = rows[pick]
        n = k.sum(1, keepdims=True)
        mean = sums[pick].sum(1, keepdims=True) / n
        gaps[block] = mean[:, 0]
        ses[block] = np.sqrt(((sums[pick] - k * mean) ** 2 / (1 - k / n)).sum(1)) / n[:, 0]
    return _studentised(estimate, gaps, ses, level)


def unpaired_bootstrap_interval(
    h_first: ArrayLike,
    h_second: ArrayLike,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """As `bootstrap_interval` for two unpaired groups: prompts are resampled within each group.

    Args:
        h_first: (n_1,) nats.
        h_second: (n_2,) nats.
        rng: seeded generator.
        draws: number of resamples.
        level: coverage.

    Returns:
        (low, high), nats; (nan, nan) where `unpaired_gap` has no standard error.

    Raises:
        InputError: as `bootstrap_interval`.

    Example:
        >>> ci = unpaired_bootstrap_interval([3.1, 3.3, 3.2], [3.0, 3.1, 2.9], rng=np.random.default_rng(0))
        >>> ci[0] < -0.2 < ci[1]
        True

    Source: Efron and Tibshirani 1993, chapter 12.
    """
    _check_bootstrap(rng, draws, level)
    first, second = _values(h_first, "h_first"), _values(h_second, "h_second")
    estimate = unpaired_gap(first, second)
    if not estimate.known:
        return (math.nan, math.nan)
    gaps, variances = np.zeros(draws), np.zeros(draws)
    for sign, values in ((-1.0, first), (1.0, second)):
        step = max(1, _BLOCK // values.size)
        for start in range(0, draws, step):
            block = slice(start, min(start + step, draws))
            sample = values[rng.integers(0, values.size, (block.stop - start, values.size))]
            gaps[block] += sign * sample.mean(1)
            variances[block] += sample.var(1, ddof=1) / values.size
    return _studentised(estimate, gaps, np.sqrt(variances), level)
