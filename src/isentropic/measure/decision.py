"""The decision of a run: the gap after training by all that is known of it, looked at until it is decided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isentropic import gap as statistics
from isentropic.measure.summary import (
    Array,
    are_twins,
    by_group,
    gap_figures,
)
from isentropic.responses.batches import Item
from isentropic.schema import Decision

LOOKS = 3
ALPHA = 0.05
Scored = tuple[Sequence[Item], Sequence[Array]]
"""Items, and the response entropies of each."""


def look_sizes(first: int, most: int) -> list[int]:
    """How many pairs each look has: from `first` to `most`, growing evenly, at most LOOKS of them.

    Example:
        >>> look_sizes(128, 512), look_sizes(128, 0), look_sizes(100, 150)
        ([128, 256, 512], [128], [100, 122, 150])
    """
    if most <= first:
        return [first]
    sizes = np.geomspace(first, most, LOOKS).round().astype(int).tolist()
    return sorted(set(sizes))


def error_of_look(look: int, looks: int) -> float:
    """The chance of a wrong decision that look number `look` (from 0) may take; all together take ALPHA.

    Each takes four times that of the one before: the early ones end what is clear, and the last has most
    left. The sum bounds the error however the looks depend on each other (Bonferroni).

    Example:
        >>> round(sum(error_of_look(k, 3) for k in range(3)), 9), error_of_look(0, 1)
        (0.05, 0.05)
    """
    return ALPHA * 4**look / sum(4**k for k in range(looks))


def decide(
    earlier: Scored | None,
    before: Scored,
    after: Scored,
    groups: Sequence[str],
    target_gap: float,
    *,
    look: int = 0,
    looks: int = 1,
    own: bool = False,
) -> Decision:
    """What the pairs measured so far say about the target.

    Args:
        earlier: further pairs measured before training alone, which chance put apart from the test pairs
            (see :func:`isentropic.gap.two_phase_gaps`); None where there are none.
        before, after: the test pairs before and after training.
        groups: the groups of the data.
        target_gap: nats.
        own: score each prompt on its own responses only.
        look, looks: the number of this look, from 0, and of all looks planned.

    Returns:
        The figures, of the two groups that lie furthest apart in the test pairs, as in their summary; the
        interval holds at all looks together.
    """
    alpha = error_of_look(look, looks)
    tested, topics = by_group(*after, groups, own=own)
    gaps = statistics.group_gaps(tested, topics, paired=are_twins(after[0]), level=1 - alpha)
    widest = statistics.widest_pair(gaps).groups
    if earlier is not None:
        whole, topics = by_group([*before[0], *earlier[0]], [*before[1], *earlier[1]], groups)
        gaps = statistics.two_phase_gaps(whole, tested, range(len(after[0])), topics, level=1 - alpha)
    figures = gap_figures(gaps, widest, target_gap, alpha)
    return {
        **figures,
        "n_before": (figures["n_pairs"] or 0) + (len(earlier[0]) if earlier else 0),
        "alpha": alpha,
        "look": look + 1,
        "looks": looks,
    }
