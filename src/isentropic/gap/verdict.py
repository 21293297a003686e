"""The verdict on a target, and how many pairs it would take."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtr, ndtri, stdtrit

from isentropic.errors import InputError
from isentropic.gap.estimate import GapEstimate, _check_share, _Record, _tail

# "More pairs than anyone will measure": the search for a sufficient number ends here.
_MOST_PAIRS = 100_000_000


@dataclass(frozen=True)
class Verdict(_Record):
    """What the data say about `|gap| <= target_gap`: certified, exceeds or insufficient.

    `pairs_needed` is given only for 'insufficient': pairs (prompts, if unpaired) of the same kind that would
    decide. `margin` is the smallest target that these data certify, nats.
    """

    verdict: str
    target_gap: float
    alpha: float
    p_within: float
    p_exceeds: float
    pairs_needed: int | None
    margin: float
    reason: str


def _check_target(target_gap: float) -> None:
    if not (target_gap > 0 and math.isfinite(target_gap)):
        raise InputError(f"target_gap is {target_gap}; it is a distance in nats, give a number above 0")


# --- Verdict ------------------------------------------------------------------------------------------------


def _p_within(gap: float, se: float, df: float, target: float) -> float:
    return _tail((target - abs(gap)) / se, df)


def _p_exceeds(gap: float, se: float, df: float, target: float) -> float:
    return _tail((abs(gap) - target) / se, df) + _tail((abs(gap) + target) / se, df)


def _pairs_needed(estimate: GapEstimate, target: float, alpha: float, power: float) -> int | None:
    """Fewest pairs that decide with chance `power` if the true gap is the observed one;
    None where none would."""
    gap = abs(estimate.gap)
    if not estimate.known or gap == target:
        return None

    def enough(n: int) -> bool:
        whole, share = estimate.n + estimate.n_apart, estimate.share_apart
        left = (1 - share) * estimate.n / n + share * whole / (whole - estimate.n + n)  # of se^2
        se, df = estimate.se * math.sqrt(left), estimate.df / left
        if gap > target:
            unlucky = gap - float(ndtri(power)) * se
            return unlucky > target and _p_exceeds(unlucky, se, df, target) <= alpha
        bound = float(stdtrit(df, 1 - alpha))
        chance = ndtr((target - gap) / se - bound) - ndtr(bound - (target + gap) / se)
        return bool(chance >= power)

    if not enough(_MOST_PAIRS):
        return None
    return bisect.bisect_left(range(_MOST_PAIRS), True, lo=estimate.n + 1, key=enough)


def verdict(
    estimate: GapEstimate,
    target_gap: float,
    alpha: float = 0.05,
    *,
    power: float = 0.8,
    comparisons: int = 1,
) -> Verdict:
    """Is the gap within the target, beyond it, or not known well enough? Noise never helps to pass.

    Long because the tests are written out here; the code is a third of it.

    'certified': two one-sided t tests reject both `gap >= target` and `gap <= -target`; that is, the
    (1 - 2 alpha) = 90% interval lies inside ±target. `p_within = P(T >= (target - |gap|) / se)`.
    'exceeds': the test of `|gap| <= target` rejects,
    `p_exceeds = P(T >= (|gap| - target) / se) + P(T >= (|gap| + target) / se) <= alpha`. The second term
    keeps the error at alpha when the target is small beside se; the 90% interval then lies wholly outside
    ±target. Otherwise 'insufficient'.

    Args:
        estimate: the gap.
        target_gap: nats, above 0.
        alpha: chance of a wrong 'certified' at a true gap of the target, and of a wrong 'exceeds'.
        power: chance of a decision that `pairs_needed` is meant to give.
        comparisons: how many gaps are looked at together; `p_exceeds` is multiplied by it (Bonferroni), so
            that the chance of any wrong 'exceeds' among them stays at alpha. 'certified' needs no correction.

    Returns:
        Verdict. `pairs_needed` (only when insufficient) supposes that the true gap is the observed one, that
        the spread stays as observed, and, with topics and fillers, that they grow in number as pairs do;
        pairs that were measured before alone stay as many as they are. None where no number is enough (the
        gap sits on the target, or there is no standard error).
        `margin = |gap| + t_df(1 - alpha) se` is the target at which `p_within` is alpha.

    Raises:
        InputError: a target, alpha or power out of range.

    Example:
        >>> import numpy as np
        >>> from isentropic.gap import paired_gap
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
        return Verdict("insufficient", target_gap, alpha, math.nan, math.nan, None, math.nan, reason)
    numbers = (estimate.gap, estimate.se, estimate.df, target_gap)
    within, exceeds = _p_within(*numbers), min(1.0, comparisons * _p_exceeds(*numbers))
    margin = abs(estimate.gap) + float(stdtrit(estimate.df, 1 - alpha)) * estimate.se
    low, high = estimate.interval(1 - 2 * alpha) if alpha < 0.5 else (estimate.gap, estimate.gap)
    shown = f"the {100 * (1 - 2 * alpha):.4g}% interval is {low:+.4f} to {high:+.4f} nats"
    if within <= alpha:
        reason = f"{shown}, inside ±{target_gap:g}"
        return Verdict("certified", target_gap, alpha, within, exceeds, None, margin, reason)
    if exceeds <= alpha:
        reason = f"{shown}, outside ±{target_gap:g}"
        return Verdict("exceeds", target_gap, alpha, within, exceeds, None, margin, reason)
    share = alpha / comparisons if abs(estimate.gap) > target_gap else alpha
    needed = _pairs_needed(estimate, target_gap, share, power)
    reason = (
        f"{shown}, too wide to decide about ±{target_gap:g}; what is certified: |gap| is below {margin:.4f} "
        "nats"
    )
    return Verdict("insufficient", target_gap, alpha, within, exceeds, needed, margin, reason)


def joint_verdict(estimates: Sequence[GapEstimate], target_gap: float, alpha: float = 0.05) -> Verdict:
    """One verdict for several gaps, such as all pairs of groups.

    'certified' needs every gap certified at alpha (an intersection-union test: no correction). 'exceeds'
    needs one gap beyond the target at alpha divided by the number of gaps (Bonferroni). For one gap this is
    `verdict`.

    Args:
        estimates: at least one gap.
        target_gap: nats, above 0.
        alpha: as in `verdict`, for the whole.

    Returns:
        Verdict with the largest `p_within` and `margin`, the smallest corrected `p_exceeds`, the largest
        `pairs_needed`.

    Raises:
        InputError: no estimates, or a target or alpha out of range.

    Example:
        >>> from isentropic.gap import paired_gap
        >>> a, b = paired_gap([0.001, -0.001, 0.0, 0.002]), paired_gap([0.10, 0.11, 0.09, 0.10])
        >>> joint_verdict([a, b], 0.01).verdict
        'exceeds'

    Source: Berger 1982 (intersection-union tests).
    """
    if not estimates:
        raise InputError("no gaps were given; a verdict needs at least one, measure two groups or more")
    k = len(estimates)
    each = [verdict(estimate, target_gap, alpha, comparisons=k) for estimate in estimates]
    if k == 1:
        return each[0]
    within = math.nan if any(math.isnan(v.p_within) for v in each) else max(v.p_within for v in each)
    exceeds = min((v.p_exceeds for v in each if not math.isnan(v.p_exceeds)), default=math.nan)
    margin = math.nan if any(math.isnan(v.margin) for v in each) else max(v.margin for v in each)
    if all(v.verdict == "certified" for v in each):
        return Verdict(
            "certified", target_gap, alpha, within, exceeds, None, margin, f"all {k} gaps are certified"
        )
    if exceeds <= alpha:
        reason = f"at least one of {k} gaps is beyond ±{target_gap:g}"
        return Verdict("exceeds", target_gap, alpha, within, exceeds, None, margin, reason)
    undecided = [v.pairs_needed for v in each if v.verdict != "certified"]
    known = [number for number in undecided if number is not None]
    needed = max(known) if len(known) == len(undecided) else None
    reason = f"{len(undecided)} of {k} gaps are not decided about ±{target_gap:g}"
    return Verdict("insufficient", target_gap, alpha, within, exceeds, needed, margin, reason)
