"""The summary: what the entropies of a measurement say."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from isentropic import gap as statistics
from isentropic.labels import label
from isentropic.responses.batches import Item

SCHEMA = "isentropic.measure/1"


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for package in ("isentropic", "torch", "transformers", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def group_entropies(
    items: Sequence[Item], entropies: Sequence[np.ndarray], groups: Sequence[str], *, own: bool = False
) -> np.ndarray:
    """Mean response entropy of each item's prompt of each group: (items, groups), NaN where there is none.

    With ``own`` only the responses sampled from the prompt itself count.
    """
    table = np.full((len(items), len(groups)), np.nan)
    for row, (item, values) in enumerate(zip(items, entropies, strict=True)):
        for column, group in enumerate(groups):
            chosen = [
                example.prompt.group == group and (example.source == group or not own)
                for example in item.examples
            ]
            if any(chosen):
                table[row, column] = values[chosen].mean()
    return table


# --- The summary ----------------------------------------------------------------------------------------------------


def summarise(
    items: Sequence[Item],
    entropies: Sequence[np.ndarray],
    groups: Sequence[str],
    target_gap: float,
    *,
    own: bool = False,
) -> dict[str, Any]:
    """What the entropies say: group entropies, gap, interval, verdict, topics, cells. No model needed.

    Args:
        items: tuples of prompts, twins or single prompts.
        entropies: response entropies item by item, in nats.
        groups: their order gives the gap its sign: second minus first.
        own: score each prompt on its own responses only, although shared ones are there.
    """
    paired = all(len(item.prompts) == len(groups) for item in items)
    table = group_entropies(items, entropies, groups, own=own)
    topics = topics_of(items)
    rows = [
        group_gap_row(table, topics, pair, groups, target_gap, paired) for pair in group_pairs(len(groups))
    ]
    widest = max(rows, key=lambda row: abs(row["gap"]))
    means = np.nanmean(table, axis=0)
    summary: dict[str, Any] = {
        "groups": list(groups),
        **{f"H_{group}": float(mean) for group, mean in zip(groups, means, strict=True)},
        "H_mean": float(means.mean()),
        **{key: widest[key] for key in GAP_KEYS},
        "target_gap": target_gap,
        "label": label(widest["gap"], target_gap),
        "group_gaps": rows,
        "warnings": [row["note"] for row in rows if row["note"]],
        "mean_abs_pair_gap": None,
        "noise_floor": None,
        "pair_gaps": [],
        "topics": [],
        "cells": [],
        "own": None,
        "decomposition": None,
    }
    if len(groups) > 2:
        summary["widest"] = widest["groups"]
    if paired:
        first, second = (groups.index(name) for name in widest["groups"])
        summary |= pair_details(items, entropies, table, topics, (first, second), groups, target_gap, own)
    return summary


GAP_KEYS: tuple[str, ...] = (
    "gap",
    "se",
    "ci95",
    "df",
    "n_pairs",
    "n_clusters",
    "cluster_unit",
    "verdict",
    "reason",
)
GAP_KEYS += ("p_within", "p_exceeds", "pairs_needed")


def group_pairs(count: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


def topics_of(items: Sequence[Item]) -> list[str] | None:
    """The topic of each item, or None where some have none (the pairs are the clusters then)."""
    topics = [item.topic for item in items]
    return None if any(topic is None for topic in topics) else [str(topic) for topic in topics]


def group_gap_row(
    table: np.ndarray,
    topics: Sequence[str] | None,
    pair: tuple[int, int],
    groups: Sequence[str],
    target_gap: float,
    paired: bool,
) -> dict[str, Any]:
    """The gap between two of the groups with its interval and verdict."""
    first, second = pair
    if paired:
        estimate = statistics.paired_gap(table[:, second] - table[:, first], topics)
    else:
        estimate = statistics.unpaired_gap(
            *(column[~np.isnan(column)] for column in (table[:, first], table[:, second]))
        )
    decided = statistics.verdict(estimate, target_gap).to_dict()
    row = estimate.to_dict()
    row["n_pairs"] = row.pop("n_prompts", row.get("n_pairs"))
    low, high = row["ci95"] or (None, None)
    return {
        "groups": [groups[first], groups[second]],
        **row,
        "ci95": [low, high],
        **{key: decided[key] for key in ("verdict", "reason", "p_within", "p_exceeds", "pairs_needed")},
    }


def pair_details(
    items: Sequence[Item],
    entropies: Sequence[np.ndarray],
    table: np.ndarray,
    topics: Sequence[str] | None,
    pair: tuple[int, int],
    groups: Sequence[str],
    target_gap: float,
    own: bool,
) -> dict[str, Any]:
    """What only twins can show: the spread over pairs, topics, cells, and shared against own responses."""
    first, second = pair
    differences = table[:, second] - table[:, first]
    spread = statistics.pair_spread(differences).to_dict()
    details: dict[str, Any] = {
        "mean_abs_pair_gap": spread["mean_abs_pair_gap"],
        "pair_gap_sd": spread["pair_gap_sd"],
        "pair_gap_quantiles": spread["quantiles"],
        "pair_gaps": [
            {"pair_id": item.prompts[0].pair_id, "topic": item.topic, "gap": float(difference)}
            for item, difference in zip(items, differences, strict=True)
        ],
    }
    if topics is not None:
        details["topics"] = [topic.to_dict() for topic in statistics.topic_gaps(differences, topics)]
    cells = list(dict.fromkeys(item.prompts[0].cell for item in items))
    for cell in cells:
        rows = [row for row, item in enumerate(items) if item.prompts[0].cell == cell]
        if cell is None or len(rows) < 2:
            continue
        chosen = None if topics is None else [topics[row] for row in rows]
        gap_row = group_gap_row(table[rows], chosen, pair, groups, target_gap, True)
        details.setdefault("cells", []).append(
            {"cell": cell, **{key: gap_row[key] for key in GAP_KEYS}}
            | {f"H_{group}": float(mean) for group, mean in zip(groups, table[rows].mean(0), strict=True)}
        )
    if not own and any(example.source != example.prompt.group for item in items for example in item.examples):
        own_table = group_entropies(items, entropies, groups, own=True)
        own_row = group_gap_row(own_table, topics, pair, groups, target_gap, True)
        details["own"] = {key: own_row[key] for key in GAP_KEYS} | {
            "mean_abs_pair_gap": float(np.abs(own_table[:, second] - own_table[:, first]).mean()),
            "pair_gap_sd": float((own_table[:, second] - own_table[:, first]).std(ddof=1))
            if len(items) > 1
            else None,
        }
        split = statistics.decompose(own_table[:, second] - own_table[:, first], differences, topics)
        details["decomposition"] = split.to_dict()
    return details


def held_out_now(
    pool: tuple[Sequence[Item], Sequence[np.ndarray]],
    before: Sequence[np.ndarray],
    now: Sequence[np.ndarray],
    items: Sequence[Item],
    groups: Sequence[str],
) -> dict[str, Any]:
    """The gap during training, from all that was held out: every prompt before training, the validation prompts since.

    .. math:: \\hat g(t) = g_{pool}(0) + (g_{val}(t) - g_{val}(0))

    Before the first step the training prompts are as unseen as the validation prompts, so both tell the gap at step 0;
    the change since comes from the validation prompts alone, pair by pair. Standard error: the root of the two
    squared. Twins only.

    Args:
        pool: training and validation items with their entropies before training.
        before, now: entropies of the validation ``items`` before training and now.
    """
    start = group_entropies(*pool, groups)
    change = group_entropies(items, now, groups) - group_entropies(items, before, groups)
    means = start.mean(0) + change.mean(0)
    a, b = max(group_pairs(len(groups)), key=lambda pair: abs(means[pair[1]] - means[pair[0]]))
    at_start = statistics.paired_gap(start[:, b] - start[:, a], topics_of(pool[0]))
    since = statistics.paired_gap(change[:, b] - change[:, a], topics_of(items))
    se = float(np.hypot(at_start.se, since.se if since.known else 0.0))
    gap = float(means[b] - means[a])
    half = se * float(student_t.ppf(0.975, at_start.df)) if at_start.known else None
    return {
        "gap": gap,
        "se": se if at_start.known else None,
        "ci95": [gap - half, gap + half] if half is not None else [None, None],
        **{f"H_{group}": float(mean) for group, mean in zip(groups, means, strict=True)},
        "H_mean": float(means.mean()),
    }


def floor_of(
    items: Sequence[Item],
    entropies: Sequence[np.ndarray],
    groups: Sequence[str],
    summary: dict[str, Any],
    seed: int,
) -> dict[str, Any] | None:
    """The gap that chance alone shows. With several responses a prompt, their halves are two runs of other seeds."""
    rng = np.random.default_rng([seed, 11])
    names = summary.get("widest", list(groups)[:2])
    first, second = (groups.index(name) for name in names)
    table = group_entropies(items, entropies, groups)
    if summary["cluster_unit"] == "prompt":
        halves = [column[~np.isnan(column)] for column in (table[:, first], table[:, second])]
        return statistics.unpaired_noise_floor(*halves, rng=rng).to_dict()
    if len(items) < 2:
        return None
    topics = topics_of(items)
    gaps = table[:, second] - table[:, first]
    reseeded = None
    count = 1 + max(example.sample for item in items for example in item.examples)
    if count > 1:
        halves = [half_gap(items, entropies, (groups[first], groups[second]), k, count) for k in (0, 1)]
        # The halves (-(-count // 2) and count // 2 responses) differ more than two runs of all the responses would.
        shrink = (2 * -(-count // 2) * (count // 2)) ** 0.5 / count
        reseeded = gaps - shrink * (halves[0] - halves[1])
    return statistics.noise_floor(gaps, reseeded, topics, rng=rng).to_dict()


def half_gap(
    items: Sequence[Item], entropies: Sequence[np.ndarray], pair: tuple[str, str], half: int, count: int
) -> np.ndarray:
    """Pair gaps from one half of the responses: what a run with another seed would have shown."""
    kept_items, kept_values = [], []
    for item, values in zip(items, entropies, strict=True):
        chosen = [(example.sample * 2 // count) == half for example in item.examples]
        kept_items.append(
            Item(item.prompts, [e for e, keep in zip(item.examples, chosen, strict=True) if keep])
        )
        kept_values.append(values[chosen])
    table = group_entropies(kept_items, kept_values, pair)
    return table[:, 1] - table[:, 0]


def quality(
    items: Sequence[Item], entropies: Sequence[np.ndarray], ends: Sequence[int]
) -> dict[str, float | None]:
    """Figures of the sampled responses, whichever model they were drawn from; mean entropy of all scored."""
    drawn = [e.response_ids for item in items for e in item.examples if e.source == e.prompt.group]
    return {"mean_entropy": float(np.concatenate(list(entropies)).mean()), **answer_figures(drawn, ends)}


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
