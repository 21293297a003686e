"""The built-in sets that a run does not aim at: has closing one gap opened another?"""

from __future__ import annotations

from collections.abc import Sequence

from isentropic.gap import GroupGap
from isentropic.labels import has_zero
from isentropic.measure.compare import change_row, group_changes
from isentropic.measure.measurement import Measurement
from isentropic.prompts.builtin import BUILTIN, builtin
from isentropic.prompts.prompt_set import PromptSet
from isentropic.schema import OtherGap, OtherSet

MOVES = ("opened", "closed", "unchanged")


def other_sets(groups: Sequence[str], pairs: int) -> dict[str, PromptSet]:
    """Test pairs of each built-in set that shares no group with ``groups``, nor with one before it.

    Args:
        groups: those of the prompts that a run trains on.
        pairs: how many of each set; 0 gives no set.

    Example:
        >>> list(other_sets(("male", "female"), 24)), list(other_sets(("young", "old"), 24))
        (['names', 'age'], ['gender', 'names'])
    """
    found, seen = {}, set(groups)
    for name, (known, _) in BUILTIN.items():
        if pairs and seen.isdisjoint(known):
            found[name] = builtin(name).split("test").first(pairs)
            seen |= set(known)
    return found


def other_set_row(before: Measurement, after: Measurement) -> OtherSet:
    """How the gaps of a set changed between two measurements of the same items, pair by pair of twins.

    The figures at the top are those of the two groups whose gap has most clearly opened; if none has, of
    those whose gap moved most clearly. Intervals hold for all pairs of groups at once.
    """
    changes = group_changes(before, after, before.summary["groups"])
    rows = [other_gap(change, before, after) for change in changes]
    told = min(rows, key=lambda row: (MOVES.index(row["moved"]), 1.0 if row["p"] is None else row["p"]))
    estimate = changes[0].estimate
    return {
        "data": before.summary["data"],
        "n_pairs": estimate.n,
        "n_clusters": estimate.n_clusters,
        "cluster_unit": estimate.cluster_unit,
        **told,
        "group_gaps": rows,
    }


def other_gap(change: GroupGap, before: Measurement, after: Measurement) -> OtherGap:
    """The change of the gap of two groups, and whether it led away from zero or towards it."""
    gaps = [
        next(row["gap"] or 0.0 for row in found.summary["group_gaps"] if row["groups"] == list(change.groups))
        for found in (before, after)
    ]
    row, moved = change_row(change), "unchanged"
    if row["ci95"] is not None and not has_zero(row["ci95"]):
        moved = "opened" if abs(gaps[1]) > abs(gaps[0]) else "closed"
    return {**row, "gap_before": gaps[0], "gap_after": gaps[1], "moved": moved}
