"""The gaps of all pairs of groups, with intervals and p-values that hold for all of them at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, stdtrit

from isentropic.errors import InputError
from isentropic.gap.estimate import (
    Array,
    GapEstimate,
    ScoredGap,
    _same_length,
    _values,
    scored_groups,
    scored_pairs,
)

# Directions on a sphere of more than two dimensions, and how many of their quantiles represent them.
_DRAWS, _NODES = 32768, 128

Topics = Sequence[Hashable] | NDArray[Any]


class GroupGap(NamedTuple):
    """The gap between two named groups, `H[groups[1]] - H[groups[0]]`, among the gaps of all pairs of groups.

    `estimate.ci95` holds for all pairs at once, `p` (two-sided, against a gap of 0) is corrected for all of
    them.
    """

    groups: tuple[str, str]
    estimate: GapEstimate
    p: float


def group_gaps(
    entropies: Mapping[str, ArrayLike],
    clusters: Topics | Mapping[str, Topics] | None = None,
    *,
    paired: bool = True,
    level: float = 0.95,
) -> list[GroupGap]:
    """The gap of every pair of groups, in the order of the mapping.

    Whoever looks at k gaps and picks the widest needs intervals that hold for all k at once:
    `gap_i ± q_i se_i`, where q_i is the quantile of `max_j |T_j|` under the multivariate t distribution with
    the df of gap i and the correlation `sum_g S_gi S_gj / (se_i se_j)` of the gaps over clusters (S as in
    `paired_gap`'s error). With two groups this is the interval of `paired_gap` or `unpaired_gap`, to the last
    digit.

    Args:
        entropies: group name -> (n,) response entropies, nats; row i of every group is one pair when paired.
        clusters: topics, or topics and fillers, as in `paired_gap`: (n,) shared by all groups when paired,
            else group name -> (n_group,); or None.
        paired: whether rows are twins.
        level: of the intervals.

    Returns:
        One GroupGap for each pair of groups.

    Raises:
        InputError: fewer than two groups, lengths that differ when paired, or topics that do not fit.

    Example:
        >>> rows = group_gaps({"male": [1.0, 2.0], "female": [1.5, 2.4], "nonbinary": [1.1, 2.3]})
        >>> [r.groups for r in rows]
        [('male', 'female'), ('male', 'nonbinary'), ('female', 'nonbinary')]
        >>> widest_pair(rows).groups
        ('male', 'female')

    Source: Hothorn, Bretz and Westfall 2008 (simultaneous intervals); Hasler and Hothorn 2008 (each gap its
    own df).
    """
    return joint_gaps(scored_gaps(entropies, clusters, paired=paired), level)


def joint_gaps(scored: Mapping[tuple[str, str], ScoredGap], level: float = 0.95) -> list[GroupGap]:
    """The gaps with intervals and p-values that hold for all of them at once."""
    if len(scored) == 1:
        ((groups, gap),) = scored.items()
        estimate = replace(gap.estimate, ci95=gap.estimate.interval(level))
        return [GroupGap(groups, estimate, estimate.p)]
    known = [pair for pair, gap in scored.items() if gap.estimate.known]
    reach = _reach(score_matrix({pair: scored[pair] for pair in known})) if known else (np.empty(0), 1)
    rows = []
    for pair, gap in scored.items():
        estimate, p = gap.estimate, math.nan
        if estimate.known:
            half = _quantile(reach, len(known), estimate.df, level) * estimate.se
            estimate = replace(estimate, ci95=(estimate.gap - half, estimate.gap + half))
            p = _beyond(reach, estimate.df, abs(estimate.gap) / estimate.se)
        rows.append(GroupGap(pair, estimate, p))
    return rows


def widest_pair(gaps: Sequence[GroupGap]) -> GroupGap:
    """The two groups with the largest `|gap|`. For a verdict over all groups use `joint_verdict`."""
    return max(gaps, key=lambda row: abs(row.estimate.gap))


def scored_gaps(
    entropies: Mapping[str, ArrayLike],
    clusters: Topics | Mapping[str, Topics] | None = None,
    *,
    paired: bool = True,
) -> dict[tuple[str, str], ScoredGap]:
    """Each pair of groups by itself, with the scores of its clusters."""
    if len(entropies) < 2:
        raise InputError(
            f"{len(entropies)} group was given ({', '.join(entropies)}); a gap needs at least two groups"
        )
    if clusters is not None and paired == isinstance(clusters, Mapping):
        form = "one list that fits every group" if paired else "one list for each group, under its name"
        raise InputError(f"topics do not fit the {'paired' if paired else 'unpaired'} groups; give {form}")
    values = {name: _values(h, f"group {name}") for name, h in entropies.items()}
    found = {}
    for first, second in combinations(values, 2):
        a, b = values[first], values[second]
        if paired:
            _same_length(a, b, f"groups {first} and {second}")
            found[first, second] = scored_pairs(b - a, clusters)  # type: ignore[arg-type]
        else:
            topics = (None, None) if clusters is None else (clusters[first], clusters[second])  # type: ignore[call-overload]
            found[first, second] = scored_groups(a, b, *topics)
    return found


def score_matrix(scored: Mapping[tuple[str, str], ScoredGap]) -> Array:
    """The scores as (gaps, clusters of all gaps).
    Gaps that count other units share no cluster: uncorrelated."""
    places: dict[Hashable, int] = {}
    columns = []
    for (first, second), gap in scored.items():
        unit, labels = gap.clusters.unit, gap.clusters.labels
        if unit == "prompt":  # rows 0 .. n_1 - 1 are of the first group
            size = gap.n_first
            labels = tuple((first, i) if i < size else (second, i - size) for i in labels)  # type: ignore[operator]
        columns.append([places.setdefault((unit, label), len(places)) for label in labels])
    matrix = np.zeros((len(scored), len(places)))
    for row, (at, gap) in enumerate(zip(columns, scored.values(), strict=True)):
        matrix[row, at] = gap.scores
    return matrix


def _reach(scores: Array) -> tuple[Array, int]:
    """How far the widest of the standardised gaps reaches in each direction u of their r-dimensional space.

    The multivariate t vector is `radius * u` with u uniform on the sphere and `radius^2 / r` distributed as
    F(r, df); with `corr = L L'`, `max_j |T_j| = radius * max_j |(L u)_j|`.
    """
    unit = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    kept = values > 1e-9 * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])
    rank = root.shape[1]
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    if rank == 1:
        return np.ones(1), rank
    if rank == 2:  # three groups: half a circle, no chance in it
        return np.abs(root @ np.array([np.cos(np.pi * nodes), np.sin(np.pi * nodes)])).max(axis=0), rank
    sphere = _sphere(rank)
    return np.sort(np.abs(root @ sphere).max(axis=0))[(nodes * _DRAWS).astype(int)], rank


@cache
def _sphere(rank: int) -> Array:
    """Unit vectors as columns, the same each time."""
    draws = np.random.default_rng(rank).standard_normal((rank, _DRAWS))
    unit: Array = draws / np.linalg.norm(draws, axis=0)
    return unit


def _beyond(reach: tuple[Array, int], df: float, t: float) -> float:
    """P(max_j |T_j| > t)."""
    most, rank = reach
    return float(fdtrc(rank, df, (t / most) ** 2 / rank).mean())


def _quantile(reach: tuple[Array, int], k: int, df: float, level: float = 0.95) -> float:
    """The q with P(max_j |T_j| <= q) = level: between the quantile of one gap and Bonferroni's for k."""
    from scipy.optimize import brentq  # slow to import, and two groups never need it

    low, high = (float(stdtrit(df, 1 - (1 - level) / (2 * number))) for number in (1, k + 1))
    return float(brentq(lambda q: _beyond(reach, df, q) - (1 - level), low * 0.999, high, rtol=1e-7))
