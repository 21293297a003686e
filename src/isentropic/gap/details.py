"""What a gap is made of: topics, spread, sources, and its change."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isentropic.gap.estimate import (
    Array,
    GapEstimate,
    _check_share,
    _Record,
    _same_length,
    _values,
    clusters_of,
    paired_gap,
)


@dataclass(frozen=True)
class TopicGap(_Record):
    """The gap of one topic; `clear` says that it differs from 0 after Holm's correction."""

    topic: str
    n_pairs: int
    gap: float
    se: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    clear: bool


@dataclass(frozen=True)
class PairSpread(_Record):
    """How the gaps of single pairs are spread, in nats; quantiles are keyed by per cent."""

    mean_abs_pair_gap: float
    pair_gap_sd: float
    quantiles: dict[str, float]


@dataclass(frozen=True)
class Decomposition(_Record):
    """`total = same_text + through_text`, each with its interval."""

    total: GapEstimate
    same_text: GapEstimate
    through_text: GapEstimate


@dataclass(frozen=True)
class GapChange(_Record):
    """`gap_after - gap_before` over the same pairs; `abs_change = |gap_after| - |gap_before|`."""

    gap_change: float
    se: float
    ci95: tuple[float, float]
    df: float
    p: float
    abs_change: float
    n_pairs: int
    n_clusters: int
    cluster_unit: str
    note: str | None = None


# --- Beside the one number ----------------------------------------------------------------------------------


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down correction: `p_(i)` becomes `max over j <= i of min(1, (m - j + 1) p_(j))`.

    Args:
        p_values: (m,) p-values; nan (no test was possible) stays nan and is not counted in m.

    Returns:
        (m,) corrected p-values, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(p.shape, math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    out[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return out


def topic_gaps(
    differences: ArrayLike, topics: Sequence[Hashable], alpha: float = 0.05, *, comparisons: int = 1
) -> list[TopicGap]:
    """The gap within each topic, since gaps of opposite sign cancel in the mean (arXiv 2505.20343).

    Within a topic pairs are the unit. p-values are Holm-corrected for the number of topics that could be
    tested.

    Args:
        differences: (n,) nats.
        topics: (n,) topic of each pair.
        alpha: `clear` means `p_holm <= alpha`.
        comparisons: how many gaps these differences were picked from, such as the widest of 3 pairs of
            groups; intervals and p-values are corrected for it (Bonferroni).

    Returns:
        One TopicGap per topic, ordered by topic; one pair, or no spread, gives no interval and no p.

    Raises:
        InputError: as `paired_gap`.

    Example:
        >>> rows = topic_gaps([-0.1, -0.12, -0.11, 0.3], ["nurse", "nurse", "nurse", "pilot"])
        >>> [(r.topic, r.n_pairs, r.clear, r.to_dict()["ci95"] is None) for r in rows]
        [('nurse', 3, True, False), ('pilot', 1, False, True)]
    """
    _check_share("alpha", alpha)
    d = _values(differences, "differences")
    part = clusters_of(topics, d.size)
    if part.unit == "topic":
        # One sort, and each topic is a slice: the work does not grow with rows times topics.
        bounds = np.cumsum(part.sizes)[:-1]
        named = list(
            zip(part.labels, np.split(d[np.argsort(part.member, kind="stable")], bounds), strict=True)
        )
    else:  # one topic only: the partition has fallen back to pairs
        named = [(topics[0], d)]
    estimates = [paired_gap(values) for _, values in named]
    p_values = [min(1.0, comparisons * e.p) if e.known else math.nan for e in estimates]
    level = 1 - 0.05 / comparisons
    return [
        TopicGap(str(label), e.n, e.gap, e.se, e.interval(level), p, float(q), bool(q <= alpha))
        for (label, _), e, p, q in zip(named, estimates, p_values, holm(p_values), strict=True)
    ]


def pair_spread(differences: ArrayLike) -> PairSpread:
    """How single pairs differ: `mean |d|`, `sd(d)` and quantiles. A mean gap of 0 may hide a wide spread.

    Args:
        differences: (n,) nats.

    Returns:
        PairSpread with the quantiles 5, 25, 50, 75, 95 (per cent); sd is nan for one pair.

    Raises:
        InputError: no rows, or a value that is not finite.

    Example:
        >>> pair_spread([-0.1, 0.1]).mean_abs_pair_gap
        0.1
    """
    d = _values(differences, "differences")
    levels = (5, 25, 50, 75, 95)
    quantiles = {str(level): float(q) for level, q in zip(levels, np.percentile(d, levels), strict=True)}
    sd = float(d.std(ddof=1)) if d.size > 1 else math.nan
    return PairSpread(float(np.abs(d).mean()), sd, quantiles)


def decompose(
    own: ArrayLike,
    same_text: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    comparisons: int = 1,
) -> Decomposition:
    """Split the gap on own responses into the part on the same text and the part that comes through different
    text.

    `d_own = d_same + (d_own - d_same)`, pair by pair; each part is a paired gap with its interval.

    Args:
        own: (n,) per-pair gaps on the model's own responses, nats.
        same_text: (n,) per-pair gaps of the same pairs on shared responses, nats.
        clusters: (n,) topics, or `Crossed(topic, filler)`, or None.
        comparisons: how many gaps this one was picked from; the intervals are widened for it (Bonferroni).

    Returns:
        Decomposition.

    Raises:
        InputError: lengths differ, or as `paired_gap`.

    Example:
        >>> parts = decompose([0.5, -0.3, 0.1], [0.1, 0.0, 0.1])
        >>> abs(parts.total.gap - parts.same_text.gap - parts.through_text.gap) < 1e-12
        True
    """
    a, b = _values(own, "own"), _values(same_text, "same_text")
    _same_length(a, b, "the gaps on own and on shared responses")
    parts = [paired_gap(values, clusters) for values in (a, b, a - b)]
    return Decomposition(*(replace(part, ci95=part.interval(1 - 0.05 / comparisons)) for part in parts))


def paired_change(
    before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> GapChange:
    """How the gap changed between two models on the same pairs: the paired gap of `d_after - d_before`.

    Args:
        before: (n,) per-pair gaps of the first model, nats.
        after: (n,) per-pair gaps of the second model, the same pairs in the same order, nats.
        clusters: (n,) topics, or `Crossed(topic, filler)`, or None.

    Returns:
        GapChange; `p` is two-sided against no change.

    Raises:
        InputError: lengths differ, or as `paired_gap`.

    Example:
        >>> c = paired_change([-0.10, -0.12, -0.08], [-0.01, 0.01, 0.00])
        >>> round(c.gap_change, 3), round(c.abs_change, 3), c.p < 0.05
        (0.1, -0.1, True)
    """
    a, b = _values(before, "before"), _values(after, "after")
    _same_length(a, b, "the gaps before and after")
    e = paired_gap(b - a, clusters)
    shrunk = abs(float(b.mean())) - abs(float(a.mean()))
    return GapChange(e.gap, e.se, e.ci95, e.df, e.p, shrunk, e.n, e.n_clusters, e.cluster_unit, e.note)
