"""The summary: what the entropies of a measurement say."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from isentropic import gap as statistics
from isentropic.gap import GroupGap, Labels
from isentropic.labels import label
from isentropic.schema import (
    CellRow,
    Findings,
    Floor,
    GapFigures,
    GroupGapRow,
    OwnRow,
    Parts,
    Quality,
    TopicRow,
)

if TYPE_CHECKING:
    from isentropic.prompts.prompt_set import Prompt
    from isentropic.responses.batches import Item

Array = NDArray[np.float64]


def versions(*more: str) -> dict[str, str]:
    """Versions of what the figures depend on, and of ``more`` packages."""
    found = {"python": platform.python_version()}
    for package in ("isentropic", "torch", "transformers", "numpy", "scipy", *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


# --- Entropies of the groups --------------------------------------------------------------------------------


def group_entropies(
    items: Sequence[Item],
    entropies: Sequence[Array],
    groups: Sequence[str],
    *,
    own: bool = False,
    half: tuple[int, int] | None = None,
) -> Array:
    """Mean response entropy of each item's prompt of each group: (items, groups), NaN where there is none.

    Args:
        own: only the responses sampled from the prompt itself count.
        half: ``(0 or 1, number of responses)``: only that half of the responses counts.
    """
    table = np.full((len(items), len(groups)), np.nan)
    for row, (item, values) in enumerate(zip(items, entropies, strict=True)):
        for column, group in enumerate(groups):
            chosen = [
                example.prompt.group == group
                and (example.source == group or not own)
                and (half is None or (example.sample * 2 // half[1]) == half[0])
                for example in item.examples
            ]
            if any(chosen):
                table[row, column] = values[chosen].mean()
    return table


def are_twins(items: Sequence[Item]) -> bool:
    """Whether every item is one prompt written for each group, and not prompts that only share a batch."""
    ids = [{prompt.pair_id for prompt in item.prompts} for item in items]
    return all(
        len(item.prompts) > 1 and len(pair) == 1 and None not in pair
        for item, pair in zip(items, ids, strict=True)
    )


def topics_of(items: Sequence[Item]) -> Labels:
    """The topic of each item, with its filler where all have one, or None where some have no topic
    (the pairs are the clusters then)."""
    return labels_of(item.prompts[0] for item in items)


def labels_of(prompts: Iterable[Prompt]) -> Labels:
    """As `topics_of` for prompts."""
    given = list(prompts)
    return statistics.known_labels([p.topic for p in given], [p.filler for p in given])


def prompt_entropies(
    items: Sequence[Item], entropies: Sequence[Array], groups: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, list[Any]] | None]:
    """Mean response entropy and topic (see `topics_of`) of each prompt, group by group,
    for prompts without twins.

    A prompt that is in several items, as when the smaller group is reused to fill a batch, counts once.
    Topics are None where some prompt has none.
    """
    scored: dict[int, list[float]] = {}
    prompts = {}
    for item, values in zip(items, entropies, strict=True):
        for example, value in zip(item.examples, values, strict=True):
            prompts[id(example.prompt)] = example.prompt
            scored.setdefault(id(example.prompt), []).append(float(value))
    means: dict[str, list[float]] = {group: [] for group in groups}
    topics: dict[str, list[Any]] = {group: [] for group in groups}
    labels = labels_of(prompts.values())
    for row, (key, prompt) in enumerate(prompts.items()):
        means[prompt.group].append(float(np.mean(scored[key])))
        topics[prompt.group].append(labels and labels[row])
    return means, topics if labels else None


def gaps_of(table: Array, groups: Sequence[str], topics: Labels) -> list[GroupGap]:
    """The gaps of all pairs of groups of twins; ``table`` is (pairs, groups)."""
    return statistics.group_gaps(dict(zip(groups, table.T, strict=True)), topics)


def by_group(
    items: Sequence[Item], entropies: Sequence[Array], groups: Sequence[str], *, own: bool = False
) -> tuple[dict[str, Array], Any]:
    """The entropies of each group, one a pair or, without twins, one a prompt; and their topics, as
    :func:`isentropic.gap.group_gaps` takes them."""
    if are_twins(items):
        table = group_entropies(items, entropies, groups, own=own)
        return dict(zip(groups, table.T, strict=True)), topics_of(items)
    means, topics = prompt_entropies(items, entropies, groups)
    return {group: np.array(values) for group, values in means.items()}, topics


# --- The summary --------------------------------------------------------------------------------------------


def summarise(
    items: Sequence[Item],
    entropies: Sequence[Array],
    groups: Sequence[str],
    target_gap: float,
    *,
    own: bool = False,
) -> Findings:
    """What the entropies say: group entropies, gap, interval, verdict, topics, cells. No model needed.

    Args:
        items: tuples of prompts, twins or single prompts.
        entropies: response entropies item by item, in nats.
        groups: their order gives the gap its sign: second minus first.
        own: score each prompt on its own responses only, although shared ones are there.
    """
    paired = are_twins(items)
    found, topics = by_group(items, entropies, groups, own=own)
    gaps = statistics.group_gaps(found, topics, paired=paired)
    means = np.array([found[group].mean() for group in groups])
    widest = statistics.widest_pair(gaps)
    rows = [group_gap_row(row, target_gap, len(gaps)) for row in gaps]
    findings: Findings = {
        "groups": list(groups),
        "widest": list(widest.groups),
        "twins": paired,
        "H_mean": float(means.mean()),
        **gap_figures(gaps, widest.groups, target_gap),
        "target_gap": target_gap,
        "label": label(widest.estimate.gap, target_gap),
        "group_gaps": rows,
        "warnings": list(dict.fromkeys(row["note"] for row in rows if row["note"])),
        "mean_abs_pair_gap": None,
        "pair_gap_sd": None,
        "pair_gap_quantiles": None,
        "pair_gaps": [],
        "topics": [],
        "cells": [],
        "own": None,
        "decomposition": None,
        "decision": None,
    }
    add_entropies(findings, groups, means)
    if paired:
        table = np.stack([found[group] for group in groups], axis=1)
        add_pair_details(findings, items, table, target_gap)
        if not own and any(e.source != e.prompt.group for item in items for e in item.examples):
            on_own = group_entropies(items, entropies, groups, own=True)
            if not np.isnan(on_own).any():  # stored responses may be those of one twin
                add_own(findings, items, on_own, table, target_gap)
    return findings


def add_entropies(figures: Mapping[str, Any], groups: Sequence[str], means: Array) -> None:
    """Put ``H_<group>`` into figures."""
    cast(dict[str, Any], figures).update(
        {f"H_{group}": float(mean) for group, mean in zip(groups, means, strict=True)}
    )


def gap_figures(
    gaps: Sequence[GroupGap], pair: Sequence[str], target_gap: float, alpha: float = 0.05
) -> GapFigures:
    """The gap of one pair of groups, with an interval and a verdict that hold for all pairs looked at."""
    estimate = next(row.estimate for row in gaps if row.groups == tuple(pair))
    return figures_of(estimate, statistics.joint_verdict([row.estimate for row in gaps], target_gap, alpha))


def group_gap_row(row: GroupGap, target_gap: float, looked_at: int) -> GroupGapRow:
    """The gap of one pair of groups among ``looked_at``, with its own verdict."""
    decided = statistics.verdict(row.estimate, target_gap, comparisons=looked_at)
    return {"groups": list(row.groups), **figures_of(row.estimate, decided), "note": row.estimate.note}


def figures_of(estimate: statistics.GapEstimate, verdict: statistics.Verdict) -> GapFigures:
    """Both as JSON can hold them; prompts without twins are counted under ``n_pairs`` too."""
    row, decided = estimate.to_dict(), verdict.to_dict()
    return {
        "gap": row["gap"],
        "se": row["se"],
        "ci95": row["ci95"],
        "df": row["df"],
        "n_pairs": estimate.n,
        "n_clusters": row["n_clusters"],
        "cluster_unit": row["cluster_unit"],
        "verdict": decided["verdict"],
        "reason": decided["reason"],
        "p_within": decided["p_within"],
        "p_exceeds": decided["p_exceeds"],
        "pairs_needed": decided["pairs_needed"],
        "margin": decided["margin"],
    }


def add_pair_details(findings: Findings, items: Sequence[Item], table: Array, target_gap: float) -> None:
    """What only twins can show, for the widest pair of groups: the spread over pairs, topics and cells."""
    groups, topics = findings["groups"], [item.topic for item in items]
    differences = difference(table, findings)
    spread = statistics.pair_spread(differences).to_dict()
    findings["mean_abs_pair_gap"] = spread["mean_abs_pair_gap"]
    findings["pair_gap_sd"] = spread["pair_gap_sd"]
    findings["pair_gap_quantiles"] = spread["quantiles"]
    findings["pair_gaps"] = [
        {"pair_id": item.prompts[0].pair_id, "topic": item.topic, "gap": float(gap)}
        for item, gap in zip(items, differences, strict=True)
    ]
    if None not in topics:
        rows = statistics.topic_gaps(differences, topics, comparisons=len(findings["group_gaps"]))
        findings["topics"] = [cast(TopicRow, row.to_dict()) for row in rows]
    members: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        if item.prompts[0].cell is not None:
            members.setdefault(item.prompts[0].cell, []).append(row)
    for cell, chosen in members.items():
        if len(chosen) < 2:  # one pair has no interval
            continue
        gaps = gaps_of(table[chosen], groups, topics_of([items[row] for row in chosen]))
        figures: CellRow = {"cell": cell, **gap_figures(gaps, findings["widest"], target_gap)}
        add_entropies(figures, groups, table[chosen].mean(axis=0))
        findings["cells"].append(figures)


def add_own(findings: Findings, items: Sequence[Item], own: Array, shared: Array, target_gap: float) -> None:
    """Shared against own responses, for the widest pair of groups."""
    topics = topics_of(items)
    on_own = difference(own, findings)
    figures: OwnRow = {
        **gap_figures(gaps_of(own, findings["groups"], topics), findings["widest"], target_gap),
        "mean_abs_pair_gap": float(np.abs(on_own).mean()),
        "pair_gap_sd": float(on_own.std(ddof=1)) if len(items) > 1 else None,
    }
    findings["own"] = figures
    split = statistics.decompose(
        on_own, difference(shared, findings), topics, comparisons=len(findings["group_gaps"])
    )
    findings["decomposition"] = cast(Parts, split.to_dict())


def difference(table: Array, findings: Findings) -> Array:
    """The gap of each pair between the widest two groups."""
    first, second = (findings["groups"].index(name) for name in findings["widest"])
    return table[:, second] - table[:, first]


# --- The noise floor ----------------------------------------------------------------------------------------


def floor_of(
    items: Sequence[Item],
    entropies: Sequence[Array],
    groups: Sequence[str],
    seed: int,
    *,
    own: bool = False,
) -> Floor | None:
    """The gap that chance alone shows. With several responses a prompt,
    their halves are two runs of other seeds."""
    rng = np.random.default_rng([seed, 11])
    if not are_twins(items):
        by_group, topics = prompt_entropies(items, entropies, groups)
        if topics is None and len(groups) == 2:
            first, second = by_group.values()
            return cast(Floor, statistics.unpaired_noise_floor(first, second, rng=rng).to_dict())
        return cast(Floor, statistics.group_noise_floor(by_group, topics, rng=rng).to_dict())
    if len(items) < 2:
        return None

    def gaps(half: tuple[int, int] | None = None) -> Array:
        table = group_entropies(items, entropies, groups, own=own, half=half)
        pairs = [(a, b) for a in range(len(groups)) for b in range(a + 1, len(groups))]
        return np.stack([table[:, b] - table[:, a] for a, b in pairs], axis=1)

    reseeded = None
    count = 1 + max(example.sample for item in items for example in item.examples)
    if count > 1:
        # The halves (-(-count // 2) and count // 2 responses) differ more than two runs of all the responses
        # would.
        shrink = (2 * -(-count // 2) * (count // 2)) ** 0.5 / count
        halves = gaps((0, count)) - gaps((1, count))
        if not np.isnan(halves).any():  # stored responses may be fewer for some prompts
            reseeded = gaps() - shrink * halves
    floor = statistics.noise_floor(gaps(), reseeded, topics_of(items), rng=rng)
    return cast(Floor, floor.to_dict())


# --- The responses ------------------------------------------------------------------------------------------


def quality(items: Sequence[Item], entropies: Sequence[Array], ends: Sequence[int]) -> Quality:
    """Figures of the sampled responses, whichever model they were drawn from; mean entropy of all scored."""
    drawn = [e.response_ids for item in items for e in item.examples if e.source == e.prompt.group]
    answers = answer_figures(drawn, ends)
    return {
        "mean_entropy": float(np.concatenate(list(entropies)).mean()),
        "mean_length": answers["mean_length"],
        "ended": answers["ended"],
        "distinct_2": answers["distinct_2"],
        "perplexity": None,
    }


def answer_figures(drawn: Sequence[Sequence[int]], ends: Sequence[int]) -> dict[str, float | None]:
    """Mean length, the share that ended by itself, and distinct pairs of tokens of sampled responses."""
    return {
        "mean_length": float(np.mean([len(ids) for ids in drawn])) if drawn else None,
        "ended": float(np.mean([ids[-1] in ends for ids in drawn])) if drawn else None,
        "distinct_2": distinct_ngrams(drawn, 2),
    }


def distinct_ngrams(responses: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct n-grams among all n-grams of the responses (Li et al. 2016); None where there is none.

    Example:
        >>> distinct_ngrams([(1, 2, 3), (1, 2, 4)], 2)  # (1,2) (2,3) (1,2) (2,4)
        0.75
    """
    grams = [tuple(ids[i : i + n]) for ids in responses for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
