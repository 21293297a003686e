"""Statistics of the gap: estimate, interval, verdict (NumPy and SciPy only)."""

from isentropic.gap.bootstrap import bootstrap_interval, unpaired_bootstrap_interval
from isentropic.gap.details import (
    Decomposition,
    GapChange,
    PairSpread,
    TopicGap,
    decompose,
    holm,
    pair_spread,
    paired_change,
    topic_gaps,
)
from isentropic.gap.estimate import (
    Array,
    Clusters,
    GapEstimate,
    GroupGap,
    clusters_of,
    group_gaps,
    paired_gap,
    unpaired_gap,
    widest_pair,
)
from isentropic.gap.noise import NoiseFloor, noise_floor, unpaired_noise_floor
from isentropic.gap.verdict import Verdict, joint_verdict, pairs_for_halfwidth, verdict

__all__ = [
    "Array",
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
