"""The gap, its standard error and its interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from isentropic.errors import InputError

Array = NDArray[np.float64]

# A spread below this share of the largest value is rounding, not evidence.
_ROUNDING = 1e-12
# Below this many topics an estimate says that they are few.
_FEW_TOPICS = 5


# --- Records ------------------------------------------------------------------------------------------------


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

    `se`, `ci95` and `df` are nan where the data cannot give them; `note` then says why. `n_apart` further
    pairs (see `two_phase_gaps`) are not among the `n`; `share_apart` of `se^2` falls with the number of both.
    """

    gap: float
    se: float
    ci95: tuple[float, float]
    df: float
    n: int
    n_clusters: int
    cluster_unit: str
    note: str | None = None
    n_apart: int = 0
    share_apart: float = 0.0

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
        n, _, _ = (out.pop(name) for name in ("n", "n_apart", "share_apart"))
        return out | {"n_prompts" if self.cluster_unit == "prompt" else "n_pairs": n}


class Crossed(NamedTuple):
    """Both labels of a row: its topic, and what recurs over topics, such as the filler of a template."""

    topic: Hashable
    filler: Hashable


Labels = list[str] | list[Crossed] | None
"""What recurs over rows, as `known_labels` gives it."""


class Clusters(NamedTuple):
    """Which rows belong together: `member[i]` is the cluster of row i, `sizes[g]` the rows of cluster g.

    `fillers` is the partition that crosses this one, where the rows have two labels.
    """

    member: NDArray[np.intp]
    sizes: NDArray[np.intp]
    labels: tuple[Hashable, ...]
    unit: str
    note: str | None = None
    fillers: Clusters | None = None


# --- Checks -------------------------------------------------------------------------------------------------


def _values(values: ArrayLike, what: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(
            f"{what} has shape {array.shape}; a gap needs one number a row, give a flat, non-empty list"
        )
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{what} holds {array[bad[0]]} at row {bad[0]} ({bad.size} such rows); one of them would make "
            "the gap unknown, leave the rows out and say so"
        )
    return array


def _same_length(first: Array, second: Array, what: str) -> None:
    if first.size != second.size:
        raise InputError(
            f"{what} have {first.size} and {second.size} rows; they are compared pair by pair, give both in "
            "the same order over the same pairs"
        )


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(
            f"{name} is {value}; it is a probability, give a number between 0 and 1, such as 0.95"
        )


def _tail(t: float, df: float) -> float:
    """P(T_df >= t)."""
    return float(stdtr(df, -t))


# --- The partition ------------------------------------------------------------------------------------------


def known_labels(topics: Iterable[Hashable], fillers: Iterable[Hashable] = ()) -> Labels:
    """The topics as text, crossed with the fillers where every row has one;
    None where a row has no topic, since each row is then a unit of its own.

    Example:
        >>> known_labels(["nurse", 1]), known_labels(["nurse", None])
        (['nurse', '1'], None)
        >>> known_labels(["likes"], ["chess"]), known_labels(["likes"], [None])
        ([Crossed(topic='likes', filler='chess')], ['likes'])
    """
    given, recurring = list(topics), list(fillers)
    if None in given:
        return None
    names = [str(topic) for topic in given]
    if not recurring or None in recurring:
        return names
    return [Crossed(topic, str(filler)) for topic, filler in zip(names, recurring, strict=True)]


def clusters_of(labels: Sequence[Hashable] | NDArray[Any] | None, n: int, unit: str = "pair") -> Clusters:
    """The independent units of `n` rows: the single source of truth for standard error, df and noise floor.

    No labels: every row is a unit. One label for all rows: every row is a unit too, with a note, since one
    topic cannot say how topics vary. Clusters are ordered by label, so the order of the rows does not matter.
    Of topics and fillers that are not crossed, since each of the one is in a single one of the other, the
    coarser are the units.

    Args:
        labels: (n,) topic of each row, or its topic and filler as `Crossed`; or None.
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
        >>> clusters_of([Crossed("a", 1), Crossed("a", 2), Crossed("b", 1)], 3).fillers.sizes.tolist()
        [2, 1]
    """
    if labels is None:
        return Clusters(np.arange(n), np.ones(n, dtype=np.intp), tuple(range(n)), unit)
    if len(labels) != n:
        raise InputError(
            f"{len(labels)} topics were given for {n} {unit}s; each {unit} belongs to one topic, give one "
            "for each"
        )
    given: Sequence[Any] = labels.tolist() if isinstance(labels, np.ndarray) else labels
    double = [isinstance(label, Crossed) for label in given]
    if not any(double):
        return _partition(given, unit, "topic")
    if not all(double):
        raise InputError(
            f"row {double.index(False)} has a topic and no filler while others have both; what recurs over "
            f"topics cannot be counted, give every {unit} a filler or none"
        )
    by_topic, by_filler = (
        _partition([getattr(label, name) for label in given], unit, name) for name in Crossed._fields
    )
    one_topic, one_filler = by_topic.unit == unit, by_filler.unit == unit
    cells = len(set(given))
    if one_filler or (cells == len(by_filler.sizes) and not one_topic):
        return by_topic
    if one_topic or cells == len(by_topic.sizes):
        return by_filler
    return by_topic._replace(note=by_topic.note or by_filler.note, fillers=by_filler)


def _partition(labels: Sequence[Hashable], unit: str, name: str) -> Clusters:
    """Rows by one label, which the messages call `name`."""
    n = len(labels)
    for row, label in enumerate(labels):
        if label is None or label != label:
            raise InputError(
                f"the {name} of row {row} is {label}; a row of unknown {name} cannot be clustered, give "
                f"every {unit} a {name} or none"
            )
    # The type joins the key so that 1 and "1" stay two topics and still have an order.
    order = sorted(set(labels), key=lambda label: (type(label).__name__, label))
    if len(order) == 1:
        note = (
            f"all {n} {unit}s share one {name}, so {unit}s are counted as independent; the interval is about "
            f"this {name} only"
        )
        return clusters_of(None, n, unit)._replace(note=note)
    number = {label: g for g, label in enumerate(order)}
    index = np.fromiter((number[label] for label in labels), dtype=np.intp, count=n)
    few = None
    if len(order) < _FEW_TOPICS:
        few = (
            f"only {len(order)} {name}s; how {name}s vary is hardly known, so the interval is wide, add "
            f"{name}s not {unit}s"
        )
    return Clusters(index, np.bincount(index, minlength=len(order)), tuple(order), name, few)


# --- Estimate -----------------------------------------------------------------------------------------------


Part = tuple[float, Array, NDArray[np.intp]]
"""A mean and its sign in the gap: sign, values, the row that each value belongs to."""


def _standard_error(parts: list[Part], member: NDArray[np.intp]) -> tuple[Array, float]:
    """CR2 scores and Satterthwaite df of `sum_k sign_k * mean(values_k)`;
    the standard error is the scores' norm.

    `member` is the cluster of each row: one part for paired differences, two for two groups.
    With e = values - mean, R_gk = sum of e in cluster g, n_gk its rows, w_gk = n_gk / n_k:

        S_g = sum_k sign_k R_gk / (n_k sqrt(1 - w_gk)),   se^2 = sum_g S_g^2,   df = tr(O)^2 / tr(O O)

    where O = Cov(S) under a working model of equal variance plus a random effect of each cluster, fitted by
    moments (Imbens and Kolesar 2016). `1 / sqrt(1 - w)` is the closed form of the CR2 adjustment when only
    means are fitted. Single-row clusters give the ordinary t interval (df = n - 1) and Welch's interval
    exactly.
    """
    k, n_clusters = len(parts), int(member.max()) + 1
    rows = np.zeros((n_clusters, k))  # n_gk
    residual = np.zeros((n_clusters, k))  # R_gk
    spread = np.zeros(k)  # variance of one value
    for j, (_, values, of_row) in enumerate(parts):
        e, index = values - values.mean(), member[of_row]
        rows[:, j] = np.bincount(index, minlength=n_clusters)
        residual[:, j] = np.bincount(index, weights=e, minlength=n_clusters)
        spread[j] = e @ e / (values.size - 1)
    total = rows.sum(0)
    share = rows / total
    signs = np.array([sign for sign, _, _ in parts])
    weight = signs / (total * np.sqrt(1 - share))
    scores = (weight * residual).sum(1)  # S_g

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

    # Cov of the cluster totals is block diagonal: C_g = diag(n_gk * noise_k) + n_gk n_gl effect_kl. Centring
    # makes Cov(S) = diag(a) + Z M Z' with few columns, so no clusters-by-clusters matrix is formed.
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
    return scores, float(trace**2 / square) if square > 0 else math.nan


def _two_way(parts: list[Part], clusters: Clusters, scores: Array, df: float) -> tuple[Array, float]:
    """Scores and df where a filler recurs over topics, from the topics' own:

        se^2 = max(se_topic^2 + se_filler^2 - se_cell^2, se_topic^2, se_filler^2)

    each of them CR2; rows of one cell share topic and filler, and both of the first two count what they have
    in common. `df` is the smaller of topics and fillers. Scores are the topics', scaled to this error.

    Source: Cameron, Gelbach and Miller 2011, JBES 29(2); the maximum: MacKinnon, Nielsen and Webb 2024, arXiv
    2406.08880.
    """
    assert clusters.fillers is not None
    fillers = clusters.fillers.member
    cells = np.unique(np.stack([clusters.member, fillers]), axis=1, return_inverse=True)[1].ravel()
    (of_filler, df_filler), (of_cell, _) = (_standard_error(parts, member) for member in (fillers, cells))
    by_topic, by_filler, by_cell = (float(part @ part) for part in (scores, of_filler, of_cell))
    variance = max(by_topic + by_filler - by_cell, by_topic, by_filler)
    return scores * math.sqrt(variance / by_topic), min(df, df_filler)


class ScoredGap(NamedTuple):
    """An estimate, its partition, and what each cluster adds to its error: `se^2 = sum scores^2`."""

    estimate: GapEstimate
    clusters: Clusters
    scores: Array
    n_first: int  # rows of the first part; those of the second follow


def _varying(parts: list[Part], clusters: Clusters, unit: str) -> Clusters:
    """The clusters; but where one part lies in a single one, which cannot say how they vary, the fillers, or
    the rows by themselves."""
    known = [clusters, *([clusters.fillers] if clusters.fillers else [])]
    vary = (found for found in known if all(np.ptp(found.member[rows]) for _, _, rows in parts))
    found = next(vary, clusters_of(None, clusters.member.size, unit))
    if found is clusters:
        return clusters
    note = (
        f"one of the two means comes from a single {clusters.unit}, so {found.unit}s are counted as "
        f"independent; {clusters.unit}s may vary more than this"
    )
    return found._replace(note=note)


def _scored(gap: float, parts: list[Part], clusters: Clusters, unit: str = "pair") -> ScoredGap:
    n = sum(values.size for _, values, _ in parts)
    clusters = _varying(parts, clusters, unit)
    n_clusters = len(clusters.sizes)
    se, df, unit, note = math.nan, math.nan, clusters.unit, clusters.note
    scores = np.full(n_clusters, math.nan)
    if min(values.size for _, values, _ in parts) < 2:
        each = "" if len(parts) == 1 else " in each group"
        note = f"one {clusters.unit} cannot show how {clusters.unit}s vary; measure at least 2{each}"
    else:
        scores, df = _standard_error(parts, clusters.member)
        se = math.sqrt(float(np.sum(scores**2)))
        # One filler cannot say how fillers vary.
        recurs = clusters.fillers and all(np.ptp(clusters.fillers.member[rows]) for _, _, rows in parts)
        if not se > _ROUNDING * max(float(np.abs(values).max()) for _, values, _ in parts):
            se, df = math.nan, math.nan
            note = (
                f"the {clusters.unit}s show no spread at all, which does not prove certainty; check that the "
                "model answers and that the rows differ"
            )
        elif recurs:
            scores, df = _two_way(parts, clusters, scores, df)
            se, unit = math.sqrt(float(np.sum(scores**2))), f"{unit} and filler"
    bare = GapEstimate(gap, se, (math.nan, math.nan), df, n, n_clusters, unit, note)
    return ScoredGap(replace(bare, ci95=bare.interval(0.95)), clusters, scores, parts[0][1].size)


def paired_gap(
    differences: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None
) -> GapEstimate:
    """The mean difference of pairs, with a 95% interval that respects topics.

    `gap = mean(d)`, `ci95 = gap ± t_df(0.975) * se`. Without topics `se = sd(d) / sqrt(n)`, `df = n - 1`.
    With topics of n_g pairs, residual sums R_g and w_g = n_g / n, the bias-reduced cluster-robust error CR2

        se^2 = sum_g R_g^2 / (1 - w_g) / n^2

    with Satterthwaite degrees of freedom under a random-effects working model: for equal topics exactly
    (topics - 1), fewer when a few topics hold most pairs. `GapEstimate.interval` gives other levels.

    Where the topics' fillers recur over them, as the same occupations in many templates, pairs that share
    either are not independent: give both labels as `Crossed`. With the error of topics, of fillers, and of
    cells (pairs that share both)

        se^2 = max(se_topic^2 + se_filler^2 - se_cell^2, se_topic^2, se_filler^2)

    and the smaller of the two degrees of freedom.

    Args:
        differences: (n,) per-pair `H_second - H_first`, nats.
        clusters: (n,) topic of each pair, or `Crossed(topic, filler)`, or None when pairs are independent.

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
        >>> both = [Crossed(topic, filler) for topic in "xyz" for filler in ("nurse", "clerk")]
        >>> paired_gap([-0.1, -0.3, -0.2, -0.3, 0.0, -0.2], both).cluster_unit
        'topic and filler'

    Source: Bell and McCaffrey 2002 (CR2); Imbens and Kolesar 2016, REStat 98(4) (degrees of freedom);
    Cameron, Gelbach and Miller 2011 (two labels); on clusters in evaluation of language models Miller 2024,
    arXiv 2411.00640, which uses the uncorrected error.
    """
    return scored_pairs(differences, clusters).estimate


def scored_pairs(
    differences: ArrayLike, clusters: Sequence[Hashable] | NDArray[Any] | None = None
) -> ScoredGap:
    """`paired_gap` with the scores of its clusters."""
    d = _values(differences, "differences")
    part = clusters_of(clusters, d.size)
    return _scored(float(d.mean()), [(1.0, d, np.arange(d.size))], part)


def unpaired_gap(
    h_first: ArrayLike,
    h_second: ArrayLike,
    clusters_first: Sequence[Hashable] | None = None,
    clusters_second: Sequence[Hashable] | None = None,
) -> GapEstimate:
    """The difference of two group means when no prompt has a twin.

    `gap = mean(h_second) - mean(h_first)`, `se^2 = var_1 / n_1 + var_2 / n_2`, Welch-Satterthwaite df. With
    topics, the CR2 error of `paired_gap` for two means; a topic may hold prompts of both groups. Prefer
    `paired_gap` where twins exist: it removes what a pair has in common.

    Args:
        h_first: (n_1,) response entropies of the first group, nats.
        h_second: (n_2,) response entropies of the second group, nats.
        clusters_first: (n_1,) topics, or `Crossed(topic, filler)`, or None.
        clusters_second: (n_2,) of the same kind; give both or neither.

    Returns:
        GapEstimate with `cluster_unit` "prompt" (or "topic", "topic and filler") and `n = n_1 + n_2`. Where
        one group has a single topic, fillers or prompts are the unit and a note says so.

    Raises:
        InputError: as `paired_gap`, or topics for one group only.

    Example:
        >>> e = unpaired_gap([3.1, 3.3, 3.2], [3.0, 3.1, 3.2, 2.9])
        >>> round(e.gap, 3), e.n, e.cluster_unit
        (-0.15, 7, 'prompt')

    Source: Welch 1947; Bell and McCaffrey 2002.
    """
    return scored_groups(h_first, h_second, clusters_first, clusters_second).estimate


def scored_groups(
    h_first: ArrayLike,
    h_second: ArrayLike,
    clusters_first: Sequence[Hashable] | None = None,
    clusters_second: Sequence[Hashable] | None = None,
) -> ScoredGap:
    """`unpaired_gap` with the scores of its clusters."""
    first, second = _values(h_first, "h_first"), _values(h_second, "h_second")
    if (clusters_first is None) != (clusters_second is None):
        raise InputError(
            "topics were given for one group only; a topic may hold prompts of both, give topics for both or "
            "for none"
        )
    n = first.size + second.size
    part, rows = clusters_of(None, n, "prompt"), np.split(np.arange(n), [first.size])
    if clusters_first is not None and clusters_second is not None:
        for topics, values in ((clusters_first, first), (clusters_second, second)):
            clusters_of(topics, values.size, "prompt")  # a wrong length is named for its own group
        part = clusters_of([*clusters_first, *clusters_second], n, "prompt")
    gap = float(second.mean() - first.mean())
    return _scored(gap, [(-1.0, first, rows[0]), (1.0, second, rows[1])], part, "prompt")
