"""Statistics of the gap: estimate, interval, verdict (NumPy and SciPy only)."""

from isentropic.gap.accuracy import AccuracyChange, paired_accuracy, score_interval
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
    Crossed,
    GapEstimate,
    Labels,
    clusters_of,
    known_labels,
    paired_gap,
    unpaired_gap,
)
from isentropic.gap.groups import GroupGap, group_gaps, widest_pair
from isentropic.gap.noise import NoiseFloor, group_noise_floor, noise_floor, unpaired_noise_floor
from isentropic.gap.two_phase import two_phase_gaps
from isentropic.gap.verdict import Verdict, joint_verdict, verdict

__all__ = [
    "AccuracyChange",
    "Array",
    "Clusters",
    "Crossed",
    "Decomposition",
    "GapChange",
    "GapEstimate",
    "GroupGap",
    "Labels",
    "NoiseFloor",
    "PairSpread",
    "TopicGap",
    "Verdict",
    "clusters_of",
    "decompose",
    "group_gaps",
    "group_noise_floor",
    "holm",
    "joint_verdict",
    "known_labels",
    "noise_floor",
    "pair_spread",
    "paired_accuracy",
    "paired_change",
    "paired_gap",
    "score_interval",
    "topic_gaps",
    "two_phase_gaps",
    "unpaired_gap",
    "unpaired_noise_floor",
    "verdict",
    "widest_pair",
]
