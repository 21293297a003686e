"""How large a gap chance alone shows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from isentropic.errors import InputError
from isentropic.gap.estimate import Array, _Record, _same_length, _values, clusters_of
from isentropic.gap.groups import Topics, score_matrix, scored_gaps

# Random signs held at once: 16 MB.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class NoiseFloor(_Record):
    """The gap that chance alone can show at this number of pairs, in nats; nan where it was not measured."""

    reseed: float
    same_group: float
    floor: float
    gap_is_under_floor: bool


def _floor(gap: float, reseed: float, same_group: float) -> NoiseFloor:
    known = [value for value in (reseed, same_group) if math.isfinite(value)]
    top = max(known, default=math.nan)
    return NoiseFloor(reseed, same_group, top, bool(abs(gap) <= top))


def _check_draws(rng: np.random.Generator, splits: int) -> None:
    if not isinstance(rng, np.random.Generator):
        raise InputError(
            f"rng is {type(rng).__name__}; a floor must be reproducible, give numpy.random.default_rng(seed)"
        )
    if splits < 100:
        raise InputError(f"splits is {splits}; the tail of the floor needs many, give at least 100")


def _by_signs(parts: Array, rng: np.random.Generator, splits: int) -> float:
    """95th percentile of `max over gaps |sum_g s_g parts_g|`, s_g = ±1 at random;
    `parts` is (clusters, gaps)."""
    chance = np.empty(splits)
    step = max(1, _BLOCK // len(parts))
    for start in range(0, splits, step):
        block = slice(start, min(start + step, splits))
        signs = 2.0 * rng.integers(0, 2, (block.stop - start, len(parts))) - 1
        chance[block] = np.abs(signs @ parts).max(axis=1)
    return float(np.quantile(chance, 0.95))


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
    `same_group`: a gap between groups that do not exist. Each split assigns the names of the groups to the
    twins at random (for whole clusters at once), `|sum_g s_g D_g| / n` with s_g = ±1 and D_g the cluster's
    sum; the floor is its 95th percentile over splits. It has the precision of the measured gap, which male
    prompts split against male prompts would not: those differ in topic, which twins do not. It is the exact
    sign-flip test at 5%, so with fewer than 6 clusters every gap is under it.

    With more than two groups give a column for each pair of groups: every figure is then that of the widest
    gap.

    Args:
        differences: (n,) per-pair gaps, nats; or (n, k) for k gaps looked at together.
        reseeded: the same pairs measured with another seed, same shape, or None.
        clusters: (n,) topics, or None; of `Crossed(topic, filler)` the topics get the signs.
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
    _check_draws(rng, splits)
    d = _columns(differences, "differences")
    n, k = d.shape
    part = clusters_of(clusters, n)
    reseed = math.nan
    if reseeded is not None:
        again = _columns(reseeded, "reseeded")
        _same_length(d[:, 0], again[:, 0], "the two measurements")
        noise = np.sqrt(((d - again) ** 2).sum(axis=0) / 2).max() / n
        reseed = float(stdtrit(n, 1 - 0.025 / k)) * float(noise)
    parts = np.stack([np.bincount(part.member, weights=column) for column in d.T], axis=1) / n
    return _floor(float(np.abs(d.mean(axis=0)).max()), reseed, _by_signs(parts, rng, splits))


def _columns(values: ArrayLike, what: str) -> Array:
    """One column a gap."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        return _values(array, what)[:, None]
    return np.stack([_values(column, what) for column in array.T], axis=1)


def group_noise_floor(
    entropies: Mapping[str, ArrayLike],
    clusters: Mapping[str, Topics] | None = None,
    *,
    rng: np.random.Generator,
    splits: int = 2000,
) -> NoiseFloor:
    """As `noise_floor` for groups without twins that share topics, or for more than two of them.

    `same_group`: every cluster's part S_g in the error of the gap (as in `unpaired_gap`) gets a random sign;
    the floor is the 95th percentile of `|sum_g s_g S_g|`, with more than two groups of the largest over all
    pairs of groups.

    Args:
        entropies: group name -> (n,) response entropies, nats.
        clusters: group name -> (n,) topics, or None.
        rng: seeded generator.
        splits: number of random splits.

    Returns:
        NoiseFloor; `same_group` is nan where no gap has a standard error.

    Raises:
        InputError: as `group_gaps`.

    Example:
        >>> draw = np.random.default_rng(1)
        >>> h = {name: draw.normal(3.5, 0.5, 40) for name in ("a", "b", "c")}
        >>> group_noise_floor(h, rng=np.random.default_rng(0)).floor > 0.2
        True

    Source: Cameron, Gelbach and Miller 2008 (random signs of whole clusters).
    """
    _check_draws(rng, splits)
    scored = scored_gaps(entropies, clusters, paired=False)
    widest = max(abs(gap.estimate.gap) for gap in scored.values())
    known = {pair: gap for pair, gap in scored.items() if gap.estimate.known}
    same = _by_signs(score_matrix(known).T, rng, splits) if known else math.nan
    return _floor(widest, math.nan, same)


def unpaired_noise_floor(
    h_first: ArrayLike,
    h_second: ArrayLike,
    reseeded: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    rng: np.random.Generator,
    splits: int = 2000,
) -> NoiseFloor:
    """As `noise_floor` for unpaired prompts.

    `reseed` adds the groups' errors, `sqrt(sum_k sum c_k^2 / (2 n_k^2))`. `same_group`: each group is split
    into two random halves; the difference of the halves' means is scaled by `sqrt(h_1 h_2) / n_k` (halves h_1
    + h_2 = n_k) to the error that the group's whole mean has, and the two groups' scaled differences are
    added. The floor is the 95th percentile of its absolute value.

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
    _check_draws(rng, splits)
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
