"""What the JSON files hold: a type for each, shared by those who write them and the report that reads them.

All entropies and gaps are in nats. What is unknown is None (`null`), never 0; so is an interval, as a whole.
A summary also has the mean entropy of each group, under the name `H_<group>` (see :func:`mean_entropy`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

MEASURE_SCHEMA = "isentropic.measure/1"
COMPARE_SCHEMA = "isentropic.compare/1"
RUN_SCHEMA = "isentropic.run/1"
ABILITY_SCHEMA = "isentropic.ability/1"
BEHAVIOUR_SCHEMA = "isentropic.behaviour/1"

Interval = list[float]
Form = Literal["contexts", "twins"]


class Label(TypedDict):
    """The guide's word for a gap, in English and Chinese."""

    en: str
    zh: str


class Estimate(TypedDict):
    """A gap and how sure it is."""

    gap: float | None
    se: float | None
    ci95: Interval | None
    n_pairs: int | None


class GapFigures(Estimate):
    """A gap, what was counted as independent, and the verdict on the target."""

    df: float | None
    n_clusters: int | None
    cluster_unit: str
    verdict: str
    reason: str
    p_within: float | None
    p_exceeds: float | None
    pairs_needed: int | None
    margin: float | None


class GroupGapRow(GapFigures):
    """The gap between two of the groups: the second minus the first."""

    groups: list[str]
    note: str | None


class CellRow(GapFigures):
    """One part of the test set; also `H_<group>`."""

    cell: str | None


class OwnRow(GapFigures):
    """The same pairs on own responses."""

    mean_abs_pair_gap: float | None
    pair_gap_sd: float | None


class TopicRow(Estimate):
    """One topic; `clear` says that it differs from 0 after Holm's correction."""

    topic: str | None
    p: float | None
    p_holm: float | None
    clear: bool


class PairRow(TypedDict):
    """One pair of twins."""

    pair_id: str | None
    topic: str | None
    gap: float | None


class Parts(TypedDict):
    """The gap on own responses, split in two: `total = same_text + through_text`."""

    total: Estimate
    same_text: Estimate
    through_text: Estimate


class Floor(TypedDict):
    """The gap that chance alone shows."""

    reseed: float | None
    same_group: float | None
    floor: float | None
    gap_is_under_floor: bool


class Quality(TypedDict):
    """Figures of the scored responses."""

    mean_entropy: float | None
    mean_length: float | None
    ended: float | None
    distinct_2: float | None
    perplexity: float | None


class ExpectationRow(TypedDict):
    """Log-odds of the second group over the first: mean, interval, mean size,
    share that prefers the second."""

    gap: float | None
    ci95: Interval | None
    mean_abs: float | None
    prefers_second: float | None
    n: int | None


class Expectation(TypedDict):
    """Which of two groups the model expects: by the twins' own prompts, and after neutral contexts."""

    groups: list[str]
    twins: ExpectationRow | None
    contexts: ExpectationRow | None


class Decision(GapFigures):
    """The gap after training by all that is known of it, of the two groups that the summary names widest.

    `n_before` pairs were measured before training and `n_pairs` of them after it; the interval and the
    verdict hold at all looks together, each of which may take `alpha` of the error.
    """

    n_before: int | None
    alpha: float | None
    look: int | None
    looks: int | None


class Findings(GapFigures):
    """What the entropies of a measurement say.

    With more than two groups the figures at the top are those of the widest pair, `widest`, with an interval
    that holds for all pairs of groups at once; the verdict is about all of them. Without `twins`, `n_pairs`
    counts prompts.
    """

    groups: list[str]
    widest: list[str]
    twins: bool
    H_mean: float | None
    target_gap: float | None
    label: Label | None
    group_gaps: list[GroupGapRow]
    warnings: list[str]
    mean_abs_pair_gap: float | None
    pair_gap_sd: float | None
    pair_gap_quantiles: dict[str, float] | None
    pair_gaps: list[PairRow]
    topics: list[TopicRow]
    cells: list[CellRow]
    own: OwnRow | None
    decomposition: Parts | None
    decision: Decision | None


class Summary(Findings):
    """A measurement: what was measured, how, and what was found (`isentropic.measure/1`)."""

    schema: str
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    split: str
    responses: str
    seed: int | None
    unit: str
    settings: dict[str, Any]
    versions: dict[str, str]
    noise_floor: Floor | None
    quality: Quality | None
    expectation: Expectation | None
    notes: list[str]


class Cost(TypedDict):
    """What a change cost the model: KL to the first on neutral text,
    and figures of its own neutral answers."""

    kl_to_first: float | None
    kl_ci95: Interval | None
    perplexity: float | None
    mean_entropy: float | None
    mean_length: float | None
    ended: float | None
    distinct_2: float | None


class ComparedModel(TypedDict):
    """One model of a comparison."""

    name: str
    summary: Summary
    cost: Cost


class GroupChange(TypedDict):
    """How the gap between two of the groups changed."""

    groups: list[str]
    gap_change: float | None
    se: float | None
    ci95: Interval | None
    p: float | None


class ExpectationShift(TypedDict):
    """How one form of the expectation gap moved, item by item."""

    change: float | None
    ci95: Interval | None
    abs_change: float | None
    abs_ci95: Interval | None
    n: int | None


class ExpectationChange(ExpectationShift):
    """How the expectation moved: the contexts at the top level where there are some, else the twins."""

    form: str
    twins: ExpectationShift | None
    contexts: ExpectationShift | None


class Difference(GroupChange):
    """How a model's gap differs from the first's: that of the first's widest pair,
    and of every two groups."""

    model: str
    against: str
    df: float | None
    n_pairs: int | None
    n_clusters: int | None
    cluster_unit: str
    abs_change: float | None
    note: str | None
    group_changes: list[GroupChange]
    expectation_change: ExpectationChange | None


class OtherGap(GroupChange):
    """How a gap that a run does not aim at changed: opened, closed or unchanged."""

    gap_before: float | None
    gap_after: float | None
    moved: str


class OtherSet(OtherGap):
    """A built-in set that a run does not aim at: at the top its two groups that moved most clearly."""

    data: str
    n_pairs: int | None
    n_clusters: int | None
    cluster_unit: str
    group_gaps: list[OtherGap]


class Served(OtherGap):
    """The saved model in another dtype: its gap, and the share of the certified change that is left."""

    folder: str
    dtype: str
    change_left: float | None


class Comparison(TypedDict):
    """Several models on the same prompts (`isentropic.compare/1`)."""

    schema: str
    models: list[ComparedModel]
    differences: list[Difference]
    cells: list[dict[str, Any]]
    notes: list[str]


class AbilityRow(TypedDict):
    """One metric of one task, the same items before and after.

    Of right and wrong answers the share, with McNemar's exact `p` and how many answers were lost and gained;
    of other metrics the mean. `largest_loss` is the end of `ci95` on the side of a loss.
    """

    model: str
    against: str
    task: str
    filter: str | None
    metric: str
    n: int
    before: float
    after: float
    change: float
    ci95: Interval | None
    p: float | None
    lost: int | None
    gained: int | None
    largest_loss: float | None


class Ability(TypedDict):
    """What a change cost in ability (`isentropic.ability/1`)."""

    schema: str
    models: list[str]
    limit: int | None
    rows: list[AbilityRow]
    versions: dict[str, str]
    notes: list[str]


class BehaviourEstimate(TypedDict):
    """A mean over the items of a public test set."""

    value: float | None
    ci95: Interval | None


class BehaviourFigures(TypedDict):
    """One model on one set: the log-likelihood difference of an item (second side minus first), its size, and
    the share of items above 0; on how many items the sides have different numbers of tokens; and the scores
    that this set has besides.
    """

    model: str
    mean: BehaviourEstimate
    mean_abs: BehaviourEstimate
    percent: BehaviourEstimate
    unequal_tokens: int | None
    extra: dict[str, float | None]


class BehaviourMove(TypedDict):
    """A paired change, its verdict (moved, not_moved, too_few), and the smallest change that is excluded."""

    change: float | None
    ci95: Interval | None
    verdict: str
    largest: float | None


class BehaviourChange(TypedDict):
    """How a model differs from the first on one set, item by item."""

    model: str
    against: str
    mean: BehaviourMove
    mean_abs: BehaviourMove
    percent: BehaviourEstimate


class BehaviourSet(TypedDict):
    """One public test set: what its two sides are, what its clusters are, and the models' figures."""

    name: str
    sides: list[str]
    unit: str
    form: str
    n_items: int | None
    n_clusters: int | None
    models: list[BehaviourFigures]
    changes: list[BehaviourChange]


class BehaviourModel(TypedDict):
    """A model that was scored on public test sets."""

    name: str
    sha256: str
    bf16: bool


class Behaviour(TypedDict):
    """Models on public test sets, compared item by item (`isentropic.behaviour/1`)."""

    schema: str
    margin: float | None
    models: list[BehaviourModel]
    sets: list[BehaviourSet]
    versions: dict[str, str]
    notes: list[str]


Stopped = Literal["target", "max_steps", "max_kl", "already_within", "not_finite", "interrupted"]
"""Why training stopped: the target was met, the steps were made, the model left its base too far,
there was nothing to train, the loss became NaN or infinite, or a signal asked for it."""


class RunResult(TypedDict):
    """How a run ended (`result.json`); `held` is whether there was anything to hold."""

    stopped: Stopped
    best_step: int | None
    held: bool | None
    steps: int | None
    seconds: dict[str, float]
    advice: list[Label]
    warnings: list[str]
    label_before: Label | None
    label_after: Label | None
    verdict: str
    other_sets: list[OtherSet]
    also_measured: list[Served]


class ExamplePrompt(TypedDict):
    """One of the twins."""

    group: str
    prompt: str


class ExampleResponse(TypedDict):
    """A response, whose it is, and its entropy after the prompt of each group: before training, and after."""

    source: str
    response: str
    entropy: dict[str, list[float | None]]


class RunExample(TypedDict):
    """A pair of a run with its responses and the entropies before and after."""

    pair_id: str
    place: str | None
    topic: str | None
    gap_before: float | None
    gap_after: float | None
    prompts: list[ExamplePrompt]
    responses: list[ExampleResponse]


class Run(TypedDict):
    """What a run folder holds, as `read_run` gives it (`isentropic.run/1`)."""

    schema: str
    name: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    before: Summary
    after: Summary | None
    comparison: Comparison | None
    behaviour: Behaviour | None
    result: RunResult | None
    examples: list[RunExample]
    curves: bool
    notes: list[dict[str, Any]]


def mean_entropy(figures: Mapping[str, Any], group: str) -> float | None:
    """The mean response entropy of a group, where the figures have it.

    Example:
        >>> mean_entropy({"H_male": 3.1}, "male"), mean_entropy({}, "male")
        (3.1, None)
    """
    value = figures.get(f"H_{group}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
