"""From entropies to a gap, its interval and a verdict. Statistics only: arrays in, plain records out.

Every function takes response entropies `H` or per-pair differences `d = H_second - H_first`, in nats. Three
rules hold throughout. (1) `clusters_of` alone decides what counts as one independent unit: a pair, or all pairs
of one topic; standard error, degrees of freedom, bootstrap and noise floor all ask it. (2) What the data cannot
tell is `nan` (null in JSON) with a note, never a standard error of 0. (3) Random draws come only from the
`numpy.random.Generator` the caller hands in. How well the intervals keep their promise: docs/coverage.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from isentropic.errors import InputError

__all__ = [
    "Clusters",
    "Decomposition",
    "GapChange",
    "GapEstimate",
    "GroupGap",
    "NoiseFloor",
    "PairSpread",
    "TopicGap",
    "Verdict",
    "bootstrap_interval",
    "clusters_of",
    "decompose",
    "group_gaps",
    "holm",
    "joint_verdict",
    "noise_floor",
    "pair_spread",
    "paired_change",
    "paired_gap",
    "pairs_for_halfwidth",
    "topic_gaps",
    "unpaired_bootstrap_interval",
    "unpaired_gap",
    "unpaired_noise_floor",
    "verdict",
    "widest_pair",
]

Array = NDArray[np.float64]

# A spread below this share of the largest value is rounding, not evidence.
_ROUNDING = 1e-12
# Below this many topics an estimate says that they are few.
_FEW_TOPICS = 5
# Resampled indices held at once: 16 MB.
_BLOCK = 2_000_000
# "More pairs than anyone will measure": the search for a sufficient number ends here.
_MOST_PAIRS = 100_000_000


# ---- records -----------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: no numpy types, no NaN, no infinity."""
    if isinstance(value, _Record):
        return value.to_dict()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


class _Record:
    """A frozen result that can be written as JSON; an unknown interval is null as a whole."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; what is not finite becomes None."""
        out = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        if "ci95" in out and (out["ci95"] is None or None in out["ci95"]):
            out["ci95"] = None
        return out


@dataclass(frozen=True)
class GapEstimate(_Record):
    """A gap in nats, how sure it is, and what was counted as independent.

    `se`, `ci95` and `df` are nan where the data cannot give them; `note` then says why.
    """

    gap: float
    se: float
    ci95: tuple[float, float]
    df: float
    n: int
    n_clusters: int
    cluster_unit: str
    note: str | None = None

    @property
    def known(self) -> bool:
        """Whether the data gave a standard error."""
        return math.isfinite(self.se)

    @property
    def p(self) -> float:
        """Two-sided p-value against a gap of 0 (nan where there is no standard error)."""
        return 2 * _tail(abs(self.gap) / self.se, self.df) if self.known else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """`gap ± t_df((1 + level) / 2) * se`; (nan, nan) where there is no standard error.

        Example:
            >>> paired_gap([-0.1, -0.2, 0.0, -0.1]).interval(0.90) == paired_gap([-0.1, -0.2, 0.0, -0.1]).ci95
            False
        """
        _check_share("level", level)
        if not self.known:
            return (math.nan, math.nan)
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.se
        return (self.gap - half, self.gap + half)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `n` is named `n_pairs`, or `n_prompts` for unpaired groups."""
        out = super().to_dict()
        n = out.pop("n")
        return out | {"n_prompts" if self.cluster_unit == "prompt" else "n_pairs": n}


@dataclass(frozen=True)
class Verdict(_Record):
    """What the data say about `|gap| <= target_gap`: certified, exceeds or insufficient.

    `pairs_needed` is given only for 'insufficient': pairs (prompts, if unpaired) of the same kind that would decide.
    """

    verdict: str
    target_gap: float
    alpha: float
    p_within: float
    p_exceeds: float
    pairs_needed: int | None
    reason: str


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


@dataclass(frozen=True)
class NoiseFloor(_Record):
    """The gap that chance alone can show at this number of pairs, in nats; nan where it was not measured."""

    reseed: float
    same_group: float
    floor: float
    gap_is_under_floor: bool


class GroupGap(NamedTuple):
    """The gap between two named groups: `H[groups[1]] - H[groups[0]]`."""

    groups: tuple[str, str]
    estimate: GapEstimate


class Clusters(NamedTuple):
    """Which rows belong together: `member[i]` is the cluster of row i, `sizes[g]` the rows of cluster g."""

    member: NDArray[np.intp]
    sizes: NDArray[np.intp]
    labels: tuple[Hashable, ...]
    unit: str
    note: str | None = None


# ---- checks ------------------------------------------------------------------------------------------------


def _values(values: ArrayLike, what: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(
            f"{what} has shape {array.shape}; a gap needs one number a row, give a flat, non-empty list"
        )
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{what} holds {array[bad[0]]} at row {bad[0]} ({bad.size} such rows); one of them would make the gap "
            "unknown, leave the rows out and say so"
        )
    return array


def _same_length(first: Array, second: Array, what: str) -> None:
    if first.size != second.size:
        raise InputError(
            f"{what} have {first.size} and {second.size} rows; they are compared pair by pair, give both in the same "
            "order over the same pairs"
        )


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(
            f"{name} is {value}; it is a probability, give a number between 0 and 1, such as 0.95"
        )


def _check_target(target_gap: float) -> None:
    if not (target_gap > 0 and math.isfinite(target_gap)):
        raise InputError(f"target_gap is {target_gap}; it is a distance in nats, give a number above 0")


def _tail(t: float, df: float) -> float:
    """P(T_df >= t)."""
    return float(stdtr(df, -t))


# ---- the one partition -------------------------------------------------------------------------------------


def clusters_of(labels: Sequence[Hashable] | NDArray[Any] | None, n: int, unit: str = "pair") -> Clusters:
    """The independent units of `n` rows: the single source of truth for standard error, df, bootstrap and floor.

    No labels: every row is a unit. One label for all rows: every row is a unit too, with a note, since one topic
    cannot say how topics vary. Clusters are ordered by label, so the order of the rows does not matter.

    Args:
        labels: (n,) topic of each row, or None.
        n: number of rows.
        unit: what a row is, "pair" or "prompt".

    Returns:
        Clusters.

    Raises:
        InputError: the lengths differ, or a label is missing (None or nan).

    Example:
        >>> clusters_of(["b", "a", "b"], 3).sizes.tolist()
        [1, 2]
        >>> clusters_of(["a", "a", "a"], 3).unit
        'pair'
    """
    rows = Clusters(np.arange(n), np.ones(n, dtype=np.intp), tuple(range(n)), unit)
    if labels is None:
        return rows
    if len(labels) != n:
        raise InputError(
            f"{len(labels)} topics were given for {n} {unit}s; each {unit} belongs to one topic, give one for each"
        )
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    for row, label in enumerate(labels):
        if label is None or label != label:
            raise InputError(
                f"the topic of row {row} is {label}; a row of unknown topic cannot be clustered, give every {unit} a "
                "topic or none"
            )
    # The type joins the key so that 1 and "1" stay two topics and still have an order.
    order = sorted(set(labels), key=lambda label: (type(label).__name__, label))
    if len(order) == 1:
        note = (
            f"all {n} {unit}s share one topic, so {unit}s are counted as independent; the interval speaks of this "
            "topic only"
        )
        return rows._replace(note=note)
    number = {label: g for g, label in enumerate(order)}
    index = np.fromiter((number[label] for label in labels), dtype=np.intp, count=n)
    few = None
    if len(order) < _FEW_TOPICS:
        few = f"only {len(order)} topics; how topics vary is hardly known, so the interval is wide, add topics not {unit}s"
    return Clusters(index, np.bincount(index, minlength=len(order)), tuple(order), "topic", few)


# ---- estimate ----------------------------------------------------------------------------------------------


def _standard_error(
    parts: list[tuple[float, Array, NDArray[np.intp]]], n_clusters: int
) -> tuple[float, float]:
    """CR2 standard error and Satterthwaite df of `sum_k sign_k * mean(values_k)`.

    `parts` holds (sign, values, cluster of each value): one part for paired differences, two for two groups.
    With e = values - mean, R_gk = sum of e in cluster g, n_gk its rows, w_gk = n_gk / n_k:

        S_g = sum_k sign_k R_gk / (n_k sqrt(1 - w_gk)),   se^2 = sum_g S_g^2,   df = tr(O)^2 / tr(O O)

    where O = Cov(S) under a working model of equal variance plus a random effect of each cluster, fitted by moments
    (Imbens and Kolesar 2016). `1 / sqrt(1 - w)` is the closed form of the CR2 adjustment when only means are fitted.
    Single-row clusters give the ordinary t interval (df = n - 1) and Welch's interval exactly.
    """
    k = len(parts)
    rows = np.zeros((n_clusters, k))  # n_gk
    residual = np.zeros((n_clusters, k))  # R_gk
    spread = np.zeros(k)  # variance of one value
    for j, (_, values, index) in enumerate(parts):
        e = values - values.mean()
        rows[:, j] = np.bincount(index, minlength=n_clusters)
        residual[:, j] = np.bincount(index, weights=e, minlength=n_clusters)
        spread[j] = e @ e / (values.size - 1)
    total = rows.sum(0)
    share = rows / total
    signs = np.array([sign for sign, _, _ in parts])
    weight = signs / (total * np.sqrt(1 - share))
    variance = float(np.sum((weight * residual).sum(1) ** 2))

    # Random effect of a cluster: mean product of residuals over all pairs of rows that share the cluster.
    effect = np.zeros((k, k))
    for i in range(k):
        own = (rows[:, i] * (rows[:, i] - 1)).sum()
        if own:
            products = (residual[:, i] ** 2).sum() - spread[i] * (total[i] - 1)
            effect[i, i] = min(max(products / own, 0.0), spread[i])
    for i, j in combinations(range(k), 2):
        shared = (rows[:, i] * rows[:, j]).sum()
        if shared:
            bound = math.sqrt(effect[i, i] * effect[j, j])
            covariance = (residual[:, i] * residual[:, j]).sum() / shared
            effect[i, j] = effect[j, i] = min(max(covariance, -bound), bound)

    # Cov of the cluster totals is block diagonal: C_g = diag(n_gk * noise_k) + n_gk n_gl effect_kl. Centring makes
    # Cov(S) = diag(a) + Z M Z' with few columns, so no clusters-by-clusters matrix is formed.
    noise = spread - np.diag(effect)
    blocks = rows[:, :, None] * rows[:, None, :] * effect + rows[:, :, None] * (np.eye(k) * noise)
    p = np.einsum("gk,gkl->gl", weight, blocks)
    u = weight * share
    a = (p * weight).sum(1)
    z = np.hstack([p, u])
    m = np.block([[np.zeros((k, k)), -np.eye(k)], [-np.eye(k), blocks.sum(0)]])
    mz = m @ (z.T @ z)
    trace = a.sum() + np.trace(mz)
    square = (a**2).sum() + 2 * np.trace(m @ (z.T @ (a[:, None] * z))) + np.trace(mz @ mz)
    return math.sqrt(variance), float(trace**2 / square) if square > 0 else math.nan


def _estimate(
    gap: float, parts: list[tuple[float, Array, NDArray[np.intp]]], clusters: Clusters
) -> GapEstimate:
    n = sum(values.size for _, values, _ in parts)
    n_clusters = len(clusters.sizes)
    se, df, note = math.nan, math.nan, clusters.note
    if min(values.size for _, values, _ in parts) < 2:
        each = "" if len(parts) == 1 else " in each group"
        note = f"one {clusters.unit} cannot show how {clusters.unit}s vary; measure at least 2{each}"
    else:
        se, df = _standard_error(parts, n_clusters)
        if not se > _ROUNDING * max(float(np.abs(values).max()) for _, values, _ in parts):
            se, df = math.nan, math.nan
            note = (
                f"the {clusters.unit}s show no spread at all, which is no proof of certainty; check that the model "
                "answers and that the rows differ"
            )
    bare = GapEstimate(gap, se, (math.nan, math.nan), df, n, n_clusters, clusters.unit, note)
    return GapEstimate(gap, se, bare.interval(0.95), df, n, n_clusters, clusters.unit, note)


def paired_gap(
    differences: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None
) -> GapEstimate:
    """The mean difference of pairs, with a 95% interval that respects topics.

    `gap = mean(d)`, `ci95 = gap ± t_df(0.975) * se`. Without topics `se = sd(d) / sqrt(n)`, `df = n - 1`. With topics
    of n_g pairs, residual sums R_g and w_g = n_g / n, the bias-reduced cluster-robust error CR2

        se^2 = sum_g R_g^2 / (1 - w_g) / n^2

    with Satterthwaite degrees of freedom under a random-effects working model: for equal topics exactly
    (topics - 1), fewer when a few topics hold most pairs. `GapEstimate.interval` gives other levels.

    Args:
        differences: (n,) per-pair `H_second - H_first`, nats.
        clusters: (n,) topic of each pair, or None when pairs are independent.

    Returns:
        GapEstimate; one pair, or pairs without any spread, give `se = nan` and a note.

    Raises:
        InputError: no rows, a value that is not finite, or topics that do not fit.

    Example:
        >>> e = paired_gap([-0.10, -0.06, -0.12, -0.04], ["nurse", "nurse", "pilot", "clerk"])
        >>> round(e.gap, 3), e.n, e.n_clusters, e.cluster_unit
        (-0.08, 4, 3, 'topic')
        >>> paired_gap([-0.1]).to_dict()["ci95"] is None
        True

    Source: Bell and McCaffrey 2002 (CR2); Imbens and Kolesar 2016, REStat 98(4) (degrees of freedom); on clusters in
    evaluation of language models Miller 2024, arXiv 2411.00640, which uses the uncorrected error.
    """
    d = _values(differences, "differences")
    part = clusters_of(clusters, d.size)
    return _estimate(float(d.mean()), [(1.0, d, part.member)], part)


def unpaired_gap(
    h_first: ArrayLike,
    h_second: ArrayLike,
    clusters_first: Sequence[Hashable] | None = None,
    clusters_second: Sequence[Hashable] | None = None,
) -> GapEstimate:
    """The difference of two group means when no prompt has a twin.

    `gap = mean(h_second) - mean(h_first)`, `se^2 = var_1 / n_1 + var_2 / n_2`, Welch-Satterthwaite df. With topics, the
    CR2 error of `paired_gap` for two means; a topic may hold prompts of both groups. Prefer `paired_gap` where twins
    exist: it removes what a pair has in common.

    Args:
        h_first: (n_1,) response entropies of the first group, nats.
        h_second: (n_2,) response entropies of the second group, nats.
        clusters_first: (n_1,) topics, or None.
        clusters_second: (n_2,) topics, or None; give both or neither.

    Returns:
        GapEstimate with `cluster_unit` "prompt" (or "topic") and `n = n_1 + n_2`.

    Raises:
        InputError: as `paired_gap`, or topics for one group only.

    Example:
        >>> e = unpaired_gap([3.1, 3.3, 3.2], [3.0, 3.1, 3.2, 2.9])
        >>> round(e.gap, 3), e.n, e.cluster_unit
        (-0.15, 7, 'prompt')

    Source: Welch 1947; Bell and McCaffrey 2002.
    """
    first, second = _values(h_first, "h_first"), _values(h_second, "h_second")
    if (clusters_first is None) != (clusters_second is None):
        raise InputError(
            "topics were given for one group only; a topic may hold prompts of both, give topics for both or for none"
        )
    n = first.size + second.size
    rows = clusters_of(None, n, "prompt")
    part = rows
    if clusters_first is not None and clusters_second is not None:
        for topics, values in ((clusters_first, first), (clusters_second, second)):
            clusters_of(topics, values.size, "prompt")  # a wrong length is named for its own group
        part = clusters_of([*clusters_first, *clusters_second], n, "prompt")
        if len(set(clusters_first)) < 2 or len(set(clusters_second)) < 2:
            note = "one group has a single topic, so prompts are counted as independent; topics may vary more than this"
            part = rows._replace(note=note)
    gap = float(second.mean() - first.mean())
    parts = [(-1.0, first, part.member[: first.size]), (1.0, second, part.member[first.size :])]
    return _estimate(gap, parts, part)


def group_gaps(
    entropies: Mapping[str, ArrayLike], clusters: Sequence[Hashable] | None = None, *, paired: bool = True
) -> list[GroupGap]:
    """The gap of every pair of groups, in the order of the mapping.

    Args:
        entropies: group name -> (n,) response entropies, nats; row i of every group is one pair when paired.
        clusters: (n,) topics shared by all groups; only when paired.
        paired: whether rows are twins.

    Returns:
        One GroupGap for each two groups.

    Raises:
        InputError: fewer than two groups, or lengths that differ when paired.

    Example:
        >>> rows = group_gaps({"male": [1.0, 2.0], "female": [1.5, 2.4], "nonbinary": [1.1, 2.3]})
        >>> [r.groups for r in rows]
        [('male', 'female'), ('male', 'nonbinary'), ('female', 'nonbinary')]
        >>> widest_pair(rows).groups
        ('male', 'female')
    """
    if len(entropies) < 2:
        raise InputError(
            f"{len(entropies)} group was given ({', '.join(entropies)}); a gap lies between two, give at least two groups"
        )
    if clusters is not None and not paired:
        raise InputError(
            "topics were given for unpaired groups; one list cannot fit them all, call unpaired_gap for each two groups"
        )
    values = {name: _values(h, f"group {name}") for name, h in entropies.items()}
    out = []
    for first, second in combinations(values, 2):
        a, b = values[first], values[second]
        if paired:
            _same_length(a, b, f"groups {first} and {second}")
        out.append(GroupGap((first, second), paired_gap(b - a, clusters) if paired else unpaired_gap(a, b)))
    return out


def widest_pair(gaps: Sequence[GroupGap]) -> GroupGap:
    """The two groups with the largest `|gap|`. For a verdict over all groups use `joint_verdict`."""
    return max(gaps, key=lambda row: abs(row.estimate.gap))


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


# ---- verdict -----------------------------------------------------------------------------------------------


def _p_within(gap: float, se: float, df: float, target: float) -> float:
    return _tail((target - abs(gap)) / se, df)


def _p_exceeds(gap: float, se: float, df: float, target: float) -> float:
    return _tail((abs(gap) - target) / se, df) + _tail((abs(gap) + target) / se, df)


def _pairs_needed(estimate: GapEstimate, target: float, alpha: float, power: float) -> int | None:
    """Fewest pairs that decide with chance `power` if the true gap is the observed one; None where none would."""
    gap = abs(estimate.gap)
    if not estimate.known or gap == target:
        return None

    def enough(n: int) -> bool:
        se, df = estimate.se * math.sqrt(estimate.n / n), estimate.df * n / estimate.n
        if gap > target:
            unlucky = gap - float(ndtri(power)) * se
            return unlucky > target and _p_exceeds(unlucky, se, df, target) <= alpha
        bound = float(stdtrit(df, 1 - alpha))
        chance = ndtr((target - gap) / se - bound) - ndtr(bound - (target + gap) / se)
        return bool(chance >= power)

    low, high = estimate.n, estimate.n * 2
    while not enough(high):
        low, high = high, high * 2
        if high > _MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def verdict(estimate: GapEstimate, target_gap: float, alpha: float = 0.05, *, power: float = 0.8) -> Verdict:
    """Is the gap within the target, beyond it, or not known well enough? Noise never helps to pass.

    'certified': two one-sided t tests reject both `gap >= target` and `gap <= -target`; that is, the
    (1 - 2 alpha) = 90% interval lies inside ±target. `p_within = P(T >= (target - |gap|) / se)`.
    'exceeds': the test of `|gap| <= target` rejects, `p_exceeds = P(T >= (|gap| - target) / se) +
    P(T >= (|gap| + target) / se) <= alpha`. The second term keeps the error at alpha when the target is small beside
    se; the 90% interval then lies wholly outside ±target. Otherwise 'insufficient'.

    Args:
        estimate: the gap.
        target_gap: nats, above 0.
        alpha: chance of a wrong 'certified' at a true gap of the target, and of a wrong 'exceeds'.
        power: chance of a decision that `pairs_needed` is meant to give.

    Returns:
        Verdict. `pairs_needed` (only when insufficient) supposes that the true gap is the observed one, that the
        spread stays as observed, and, with topics, that topics grow in number as pairs do. None where no number is
        enough (the gap sits on the target, or there is no standard error).

    Raises:
        InputError: a target, alpha or power out of range.

    Example:
        >>> d = np.array([0.003, -0.002, 0.001, 0.004, -0.003, 0.002, 0.000, -0.001])
        >>> verdict(paired_gap(d), 0.01).verdict, verdict(paired_gap(d + 0.1), 0.01).verdict
        ('certified', 'exceeds')
        >>> v = verdict(paired_gap(10 * d), 0.01)
        >>> v.verdict, v.pairs_needed > 8
        ('insufficient', True)

    Source: Schuirmann 1987 (two one-sided tests).
    """
    _check_target(target_gap)
    _check_share("alpha", alpha)
    _check_share("power", power)
    if not estimate.known:
        reason = estimate.note or "there is no standard error"
        return Verdict("insufficient", target_gap, alpha, math.nan, math.nan, None, reason)
    numbers = (estimate.gap, estimate.se, estimate.df, target_gap)
    within, exceeds = _p_within(*numbers), _p_exceeds(*numbers)
    low, high = estimate.interval(1 - 2 * alpha) if alpha < 0.5 else (estimate.gap, estimate.gap)
    shown = f"the {100 * (1 - 2 * alpha):g}% interval is {low:+.4f} to {high:+.4f} nats"
    if within <= alpha:
        reason = f"{shown}, inside ±{target_gap:g}"
        return Verdict("certified", target_gap, alpha, within, exceeds, None, reason)
    if exceeds <= alpha:
        reason = f"{shown}, outside ±{target_gap:g}"
        return Verdict("exceeds", target_gap, alpha, within, exceeds, None, reason)
    needed = _pairs_needed(estimate, target_gap, alpha, power)
    reason = f"{shown}, too wide to decide about ±{target_gap:g}"
    return Verdict("insufficient", target_gap, alpha, within, exceeds, needed, reason)


def joint_verdict(estimates: Sequence[GapEstimate], target_gap: float, alpha: float = 0.05) -> Verdict:
    """One verdict for several gaps, such as all pairs of groups.

    'certified' needs every gap certified at alpha (an intersection-union test: no correction). 'exceeds' needs one gap
    beyond the target at alpha divided by the number of gaps (Bonferroni). For one gap this is `verdict`.

    Args:
        estimates: at least one gap.
        target_gap: nats, above 0.
        alpha: as in `verdict`, for the whole.

    Returns:
        Verdict with the largest `p_within`, the smallest corrected `p_exceeds` and the largest `pairs_needed`.

    Raises:
        InputError: no estimates, or a target or alpha out of range.

    Example:
        >>> a, b = paired_gap([0.001, -0.001, 0.0, 0.002]), paired_gap([0.10, 0.11, 0.09, 0.10])
        >>> joint_verdict([a, b], 0.01).verdict
        'exceeds'

    Source: Berger 1982 (intersection-union tests).
    """
    if not estimates:
        raise InputError("no gaps were given; a verdict needs at least one, measure two groups or more")
    each = [verdict(estimate, target_gap, alpha) for estimate in estimates]
    if len(each) == 1:
        return each[0]
    k = len(each)
    within = math.nan if any(math.isnan(v.p_within) for v in each) else max(v.p_within for v in each)
    beyond = [min(1.0, k * v.p_exceeds) for v in each if not math.isnan(v.p_exceeds)]
    exceeds = min(beyond, default=math.nan)
    if all(v.verdict == "certified" for v in each):
        return Verdict("certified", target_gap, alpha, within, exceeds, None, f"all {k} gaps are certified")
    if exceeds <= alpha:
        reason = f"at least one of {k} gaps is beyond ±{target_gap:g}"
        return Verdict("exceeds", target_gap, alpha, within, exceeds, None, reason)
    undecided = [(e, v) for e, v in zip(estimates, each, strict=True) if v.verdict != "certified"]
    numbers = [
        _pairs_needed(e, target_gap, alpha / k if abs(e.gap) > target_gap else alpha, 0.8)
        for e, _ in undecided
    ]
    known = [number for number in numbers if number is not None]
    needed = max(known) if len(known) == len(numbers) else None
    reason = f"{len(undecided)} of {k} gaps are not decided about ±{target_gap:g}"
    return Verdict("insufficient", target_gap, alpha, within, exceeds, needed, reason)


def pairs_for_halfwidth(sd: float, halfwidth: float, level: float = 0.95) -> int:
    """Fewest independent pairs for an interval of `gap ± halfwidth`: smallest n with `t_{n-1} sd / sqrt(n) <= halfwidth`.

    Args:
        sd: standard deviation of a pair's gap, nats.
        halfwidth: nats.
        level: coverage.

    Returns:
        Number of pairs. With topics multiply by the design effect `(se_topics / se_pairs)^2`.

    Raises:
        InputError: a number that is not above 0.

    Example:
        >>> pairs_for_halfwidth(0.08, 0.01)
        249
    """
    for name, value in (("sd", sd), ("halfwidth", halfwidth)):
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}; it is a distance in nats, give a number above 0")
    _check_share("level", level)

    def enough(n: int) -> bool:
        return bool(stdtrit(n - 1, (1 + level) / 2) * sd / math.sqrt(n) <= halfwidth)

    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ---- beside the one number ---------------------------------------------------------------------------------


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


def topic_gaps(differences: ArrayLike, topics: Sequence[Hashable], alpha: float = 0.05) -> list[TopicGap]:
    """The gap within each topic, since gaps of opposite sign cancel in the mean (arXiv 2505.20343).

    Within a topic pairs are the unit. p-values are Holm-corrected for the number of topics that could be tested.

    Args:
        differences: (n,) nats.
        topics: (n,) topic of each pair.
        alpha: `clear` means `p_holm <= alpha`.

    Returns:
        One TopicGap a topic, ordered by topic; one pair, or no spread, gives no interval and no p.

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
        named = [(label, d[part.member == g]) for g, label in enumerate(part.labels)]
    else:  # one topic only: the partition has fallen back to pairs
        named = [(topics[0], d)]
    estimates = [paired_gap(values) for _, values in named]
    corrected = holm([e.p for e in estimates])
    return [
        TopicGap(str(label), e.n, e.gap, e.se, e.ci95, e.p, float(q), bool(q <= alpha))
        for (label, _), e, q in zip(named, estimates, corrected, strict=True)
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
    own: ArrayLike, same_text: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Decomposition:
    """Split the gap on own responses into the part on the same text and the part that comes through different text.

    `d_own = d_same + (d_own - d_same)`, pair by pair; each part is a paired gap with its interval.

    Args:
        own: (n,) per-pair gaps on the model's own responses, nats.
        same_text: (n,) per-pair gaps of the same pairs on shared responses, nats.
        clusters: (n,) topics, or None.

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
    return Decomposition(paired_gap(a, clusters), paired_gap(b, clusters), paired_gap(a - b, clusters))


def paired_change(
    before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> GapChange:
    """How the gap changed between two models on the same pairs: the paired gap of `d_after - d_before`.

    Args:
        before: (n,) per-pair gaps of the first model, nats.
        after: (n,) per-pair gaps of the second model, the same pairs in the same order, nats.
        clusters: (n,) topics, or None.

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


# ---- noise floor -------------------------------------------------------------------------------------------


def _floor(gap: float, reseed: float, same_group: float) -> NoiseFloor:
    known = [value for value in (reseed, same_group) if math.isfinite(value)]
    top = max(known, default=math.nan)
    return NoiseFloor(reseed, same_group, top, bool(abs(gap) <= top))


def noise_floor(
    differences: ArrayLike,
    reseeded: ArrayLike | None = None,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    splits: int = 2000,
) -> NoiseFloor:
    """How large a gap chance alone shows with these pairs.

    `reseed`: the same model and pairs measured again with another seed. Every pair's two gaps have the same
    expectation, so with c = d - d_again the error of one measurement that comes from sampling responses is
    `sqrt(sum c^2 / (2 n^2))`; the floor is its 95% half-width `t_n(0.975)` times that.
    `same_group`: a gap between groups that are none. In each split the names of the groups are dealt to the twins at
    random (for whole clusters at once), `|sum_g s_g D_g| / n` with s_g = ±1 and D_g the cluster's sum; the floor is
    its 95th percentile over splits. It has the precision of the measured gap, which male prompts split against male
    prompts would not: those differ in topic, which twins do not. It is the exact sign-flip test at 5%, so with fewer
    than 6 clusters every gap is under it.

    Args:
        differences: (n,) per-pair gaps, nats.
        reseeded: (n,) the same pairs measured with another seed, or None.
        clusters: (n,) topics, or None.
        rng: seeded generator.
        splits: number of random splits.

    Returns:
        NoiseFloor; `floor` is the larger of the two, `gap_is_under_floor` is `|mean(d)| <= floor`.

    Raises:
        InputError: as `paired_gap`.

    Example:
        >>> d = np.linspace(-0.3, 0.1, 40)
        >>> f = noise_floor(d, d[::-1], rng=np.random.default_rng(0))
        >>> 0 < f.same_group < f.floor + 1e-12, f.gap_is_under_floor
        (True, False)

    Source: Fisher 1935 (sign flips).
    """
    _check_bootstrap(rng, splits, 0.95)
    d = _values(differences, "differences")
    part = clusters_of(clusters, d.size)
    reseed = math.nan
    if reseeded is not None:
        again = _values(reseeded, "reseeded")
        _same_length(d, again, "the two measurements")
        reseed = float(stdtrit(d.size, 0.975)) * math.sqrt(((d - again) ** 2).sum() / 2) / d.size
    sums = np.bincount(part.member, weights=d) / d.size
    chance = np.empty(splits)
    step = max(1, _BLOCK // sums.size)
    for start in range(0, splits, step):
        block = slice(start, min(start + step, splits))
        signs = 2.0 * rng.integers(0, 2, (block.stop - start, sums.size)) - 1
        chance[block] = np.abs(signs @ sums)
    return _floor(float(d.mean()), reseed, float(np.quantile(chance, 0.95)))


def unpaired_noise_floor(
    h_first: ArrayLike,
    h_second: ArrayLike,
    reseeded: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    rng: np.random.Generator,
    splits: int = 2000,
) -> NoiseFloor:
    """As `noise_floor` for unpaired prompts.

    `reseed` adds the groups' errors, `sqrt(sum_k sum c_k^2 / (2 n_k^2))`. `same_group`: each group is split into
    two random halves; the difference of the halves' means is scaled by `sqrt(h_1 h_2) / n_k` (halves h_1 + h_2 = n_k)
    to the error that the group's whole mean has, and the two groups' scaled differences are added. The floor is the
    95th percentile of its absolute value.

    Args:
        h_first: (n_1,) response entropies, nats.
        h_second: (n_2,) nats.
        reseeded: the same prompts of both groups measured with another seed, or None.
        rng: seeded generator.
        splits: number of random splits.

    Returns:
        NoiseFloor; `same_group` is nan when a group has one prompt.

    Raises:
        InputError: as `unpaired_gap`.

    Example:
        >>> h = np.random.default_rng(1).normal(3.5, 0.5, 50)
        >>> unpaired_noise_floor(h[:25], h[25:] + 2, rng=np.random.default_rng(0)).gap_is_under_floor
        False
    """
    _check_bootstrap(rng, splits, 0.95)
    groups = (_values(h_first, "h_first"), _values(h_second, "h_second"))
    reseed = math.nan
    if reseeded is not None:
        variance = 0.0
        for name, values, again in zip(("first", "second"), groups, reseeded, strict=True):
            other = _values(again, f"reseeded {name} group")
            _same_length(values, other, f"the two measurements of the {name} group")
            variance += float(((values - other) ** 2).sum()) / (2 * values.size**2)
        reseed = float(stdtrit(sum(values.size for values in groups), 0.975)) * math.sqrt(variance)
    same = math.nan
    if min(values.size for values in groups) > 1:
        chance = np.zeros(splits)
        for values in groups:
            half = values.size // 2
            scale = math.sqrt(half * (values.size - half)) / values.size
            total = values.sum()
            for i in range(splits):
                part = values[rng.permutation(values.size)[:half]].sum()
                chance[i] += scale * ((total - part) / (values.size - half) - part / half)
        same = float(np.quantile(np.abs(chance), 0.95))
    return _floor(float(groups[1].mean() - groups[0].mean()), reseed, same)
