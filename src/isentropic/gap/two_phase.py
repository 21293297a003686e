"""The gap after training, from every prompt measured before it and some measured after it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isentropic.errors import InputError
from isentropic.gap.estimate import _ROUNDING, Array, ScoredGap, _scored, _values, clusters_of, scored_pairs
from isentropic.gap.groups import GroupGap, joint_gaps


def two_phase_gaps(
    before: Mapping[str, ArrayLike],
    after: Mapping[str, ArrayLike],
    measured: Sequence[int] | NDArray[Any],
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    *,
    level: float = 0.95,
) -> list[GroupGap]:
    r"""The gap of every pair of groups after a change, from more pairs than were measured after it.

    Long because the estimate is explained here; the code is a third of it.

    The gap of a pair varies much from pair to pair, its change little. So the pairs that were measured before
    alone still tell where the gap began:

    .. math:: \hat g = \bar y_m + b (\bar x - \bar x_m)

    with the differences x of all n pairs before, y of the m pairs measured after, and the slope b of y on x
    among these, fitted by least squares. Standard error: that of the sum of two means, of y - b x over the m
    pairs and of b x over all n, with what the two share through a topic or a pair (CR2, as `paired_gap`), and
    one degree of freedom less for the slope. It holds where the m pairs were drawn from the n by chance;
    intervals and p-values hold for all pairs of groups at once, as in `group_gaps`.

    Args:
        before: group name -> (n,) response entropies before, nats; row i of every group is one pair.
        after: group name -> (m,) the same after.
        measured: (m,) the row of `before` that each row of `after` belongs to, without repetition.
        clusters: (n,) topics, or `Crossed(topic, filler)`, or None.
        level: of the intervals.

    Returns:
        One GroupGap for each pair of groups; `estimate.n` is m. Where m < 3, or the gap before is the same
        in all m pairs, there is no slope to fit, and the pairs measured after stand alone. Where these are of
        a single topic, fillers or pairs are the unit and a note says so.

    Raises:
        InputError: rows that do not fit, or values that are not finite.

    Example:
        >>> x, y = [-0.11, -0.08, -0.05, -0.02, -0.04], [0.01, -0.02, 0.02]
        >>> row = two_phase_gaps({"a": np.zeros(5), "b": x}, {"a": np.zeros(3), "b": y}, [0, 1, 2])[0]
        >>> round(row.estimate.gap, 4), row.estimate.n
        (0.0067, 3)

    Source: Cochran 1977, Sampling Techniques, section 12.6 (double sampling with regression).
    """
    if list(before) != list(after):
        raise InputError(
            f"groups {', '.join(before)} and {', '.join(after)} differ; give the same, in one order"
        )
    first, second = (
        {name: _values(h, f"group {name}") for name, h in table.items()} for table in (before, after)
    )
    chosen = np.asarray(measured)
    n = len(next(iter(first.values())))
    if len(set(chosen.tolist())) < chosen.size or not set(chosen.tolist()) <= set(range(n)):
        raise InputError(
            f"measured holds rows that are repeated or not among the {n} rows before; give each row once"
        )
    scored = {
        (a, b): _two_phase(first[b] - first[a], second[b] - second[a], chosen, clusters)
        for a, b in combinations(first, 2)
    }
    return joint_gaps(scored, level)


def _two_phase(
    x: Array, y: Array, measured: NDArray[Any], clusters: Sequence[Hashable] | NDArray[Any] | None
) -> ScoredGap:
    part = clusters_of(clusters, x.size)
    x_m = x[measured]
    spread = x_m - x_m.mean()
    varies = np.abs(spread).max() > _ROUNDING * np.abs(x_m).max()
    slope = float(spread @ y / (spread @ spread)) if y.size > 2 and varies else 0.0
    rest, known = y - slope * x_m, slope * x
    scored = _scored(
        float(rest.mean() + known.mean()),
        [(1.0, rest, measured), (1.0, known, np.arange(x.size))],
        part,
    )
    found, apart = scored.estimate, scored_pairs(known, clusters).estimate
    share = min(1.0, (apart.se / found.se) ** 2) if apart.known else 0.0
    for_slope = math.sqrt((y.size - 1) / (y.size - 2)) if y.size > 2 else 1.0
    found = replace(
        found,
        n=int(y.size),
        se=found.se * for_slope,
        df=max(found.df - 1, 1.0),
        n_apart=x.size - y.size,
        share_apart=share,
    )
    return scored._replace(estimate=found, scores=scored.scores * for_slope)
