"""The saved model as others serve it: in another dtype, arithmetic included. What is left of the change?"""

from __future__ import annotations

from isentropic.measure.compare import group_changes
from isentropic.measure.measurement import Measurement
from isentropic.measure.other_sets import other_gap
from isentropic.schema import Difference, Served


def served_row(
    folder: str, dtype: str, base: Measurement, final: Measurement, certified: Difference
) -> Served:
    """The gap in a dtype before and after, and the share of the certified change that is left in it.

    Args:
        folder: of the saved model, as the row names it; "" for the weights before they were rounded.
        dtype: of the weights and of the arithmetic.
        base, final: the model before training and the saved one, both in that dtype, on the same items.
        certified: the change as the run has measured it; its two groups are those of the row.
    """
    changes = group_changes(base, final, base.summary["groups"])
    change = next(row for row in changes if list(row.groups) == certified["groups"])
    row, whole = other_gap(change, base, final), certified["gap_change"]
    return {
        "folder": folder,
        "dtype": dtype,
        **row,
        "change_left": row["gap_change"] / whole if whole and row["gap_change"] is not None else None,
    }
