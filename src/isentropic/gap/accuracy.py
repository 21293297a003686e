"""The same test items answered before and after: McNemar's exact test and an interval for the change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binomtest

from isentropic.errors import InputError
from isentropic.gap.estimate import _check_share, _Record, _same_length, _values


@dataclass(frozen=True)
class AccuracyChange(_Record):
    """How the share of right answers changed on the same items.

    `lost` items were right before and are wrong after, `gained` items the other way round; the rest says
    nothing about a change. `p` is McNemar's exact two-sided p-value.
    """

    before: float
    after: float
    change: float
    ci95: tuple[float, float]
    p: float
    n: int
    lost: int
    gained: int


def paired_accuracy(before: ArrayLike, after: ArrayLike) -> AccuracyChange:
    """The change of an accuracy, item by item.

    `change = (gained - lost) / n`. If nothing changed, each of the `lost + gained` items was as likely to
    fall as to rise, so `p` is that of `lost` in a binomial of 1/2. The interval is `score_interval`.

    Args:
        before: (n,) 1 for a right answer, 0 for a wrong one.
        after: (n,) the same items in the same order.

    Raises:
        InputError: no items, other values than 0 and 1, or two different numbers of items.

    Example:
        >>> found = paired_accuracy([1, 1, 1, 0, 0], [1, 0, 0, 0, 1])
        >>> found.lost, found.gained, round(found.change, 2), found.p
        (2, 1, -0.2, 1.0)

    Source: McNemar 1947; on language models arXiv 2602.10144.
    """
    first, second = _values(before, "before"), _values(after, "after")
    _same_length(first, second, "before and after")
    if wrong := {*np.unique(first), *np.unique(second)} - {0.0, 1.0}:
        raise InputError(
            f"an answer is {min(wrong):g}; accuracy counts 1 for right and 0 for wrong; give only these, or "
            "compare the values with paired_gap"
        )
    n, lost, gained = first.size, int((first > second).sum()), int((second > first).sum())
    p = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    return AccuracyChange(
        before=float(first.mean()),
        after=float(second.mean()),
        change=(gained - lost) / n,
        ci95=score_interval(n, lost, gained),
        p=float(p),
        n=n,
        lost=lost,
        gained=gained,
    )


def score_interval(n: int, lost: int, gained: int, level: float = 0.95) -> tuple[float, float]:
    """The changes of an accuracy that McNemar's score test does not reject.

    The interval holds every d with `T(d)^2 <= z^2`, where

        T(d) = (gained - lost - n d) / sqrt(n (2 q + d (1 - d)))

    and q is the most likely share of lost items if the change is d, the larger root of
    `2 n q^2 + (d (2 n - gained + lost) - gained - lost) q - lost d (1 - d) = 0`. `T(0)` is McNemar's
    statistic. Without any changed item it is `± z^2 / (n + z^2)`, since a small loss is possible also then;
    the ordinary interval would have no width.

    Args:
        n: items.
        lost: right before, wrong after.
        gained: wrong before, right after.
        level: of the interval.

    Example:
        >>> [round(end, 3) for end in score_interval(21, 7, 1)]
        [-0.517, -0.026]
        >>> [round(end, 3) for end in score_interval(100, 0, 0)]
        [-0.037, 0.037]

    Source: Tango 1998, Statistics in Medicine 17; recommended by Fagerland, Lydersen and Laake 2014.
    """
    _check_share("level", level)
    square, change = float(ndtri((1 + level) / 2)) ** 2, (gained - lost) / n

    def excess(d: float) -> float:
        half = d * (2 * n - gained + lost) - gained - lost
        q = (math.sqrt(max(0.0, half**2 + 8 * n * lost * d * (1 - d))) - half) / (4 * n)
        return (gained - lost - n * d) ** 2 - square * n * (2 * q + d * (1 - d))

    # The excess is 0 at the observed change itself where no item, or every item, changed one way.
    low = -1.0 if change == -1 else float(brentq(excess, -1, change - 1e-9))
    high = 1.0 if change == 1 else float(brentq(excess, change + 1e-9, 1))
    return (low, high)
