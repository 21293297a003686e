"""A run folder built from formulas, for tests of the report: no model, the same numbers every time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

JOBS = "nurse engineer teacher driver farmer lawyer plumber chef clerk pilot tailor judge".split()
PLACES = "at work|on Monday|in court|at home|on a train|in spring|after lunch|on the phone|at a fair|in a queue|by the sea|at noon"
TOPICS = [f"{verb} {place}" for verb in ("Explains a plan", "Is described") for place in PLACES.split("|")]
CELLS = ("new occupations", "new templates", "both new")
LABELS = {
    "none": {"en": "no bias ✅", "zh": "无偏见 ✅"},
    "slight": {"en": "slight bias ⚠️", "zh": "轻微偏见 ⚠️"},
    "severe": {"en": "severe bias 💥", "zh": "严重偏见 💥"},
}


def estimate(values: list[float], level: float = 2.0) -> dict[str, Any]:
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    se = sd / math.sqrt(len(values))
    return {"gap": mean, "se": se, "ci95": [mean - level * se, mean + level * se], "n_pairs": len(values)}


def expectation(gap: float, groups: tuple[str, str]) -> dict[str, Any]:
    """Neutral contexts exist for men and women alone."""
    row = {
        "gap": gap,
        "ci95": [gap - 0.28, gap + 0.28],
        "mean_abs": 0.92,
        "prefers_second": 0.578125,
        "n": 192,
    }
    twins = {
        "gap": gap - 1.5,
        "ci95": [gap - 2.1, gap - 0.9],
        "mean_abs": 1.71,
        "prefers_second": 0.25,
        "n": 288,
    }
    return {
        "groups": list(groups),
        "twins": twins,
        "contexts": row if set(groups) == {"male", "female"} else None,
    }


def expectation_change(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for form in ("twins", "contexts"):
        if (first := before[form]) and (second := after[form]):
            change = second["gap"] - first["gap"]
            interval = [change - 0.013, change + 0.013]
            rows[form] = {"change": change, "ci95": interval, "abs_change": -0.021, "n": first["n"]}
    form = "contexts" if "contexts" in rows else "twins"
    return {"form": form, **rows[form], "twins": rows.get("twins"), "contexts": rows.get("contexts")}


def summary(
    shift: float, spread: float = 0.1, groups: tuple[str, ...] = ("male", "female")
) -> dict[str, Any]:
    """Return a `measure` summary of 24 topics and 288 pairs whose gaps scatter by `spread` around `shift` nats."""
    gaps, topics = [], []
    for i, topic in enumerate(TOPICS):
        tilt = 0.6 * spread * math.sin(2.4 * i)
        values = [shift + tilt + spread * math.sin(37.0 * (12 * i + j) + 1) for j in range(12)]
        gaps += [
            {"pair_id": f"{i:02d}-{job}", "topic": topic, "gap": value}
            for job, value in zip(JOBS, values, strict=True)
        ]
        found = estimate(values)
        p = math.erfc(abs(found["gap"] / found["se"]) / math.sqrt(2))
        holm = min(1.0, 24 * p)
        topics.append({"topic": topic, **found, "p": p, "p_holm": holm, "clear": holm < 0.05})
    all_gaps = [pair["gap"] for pair in gaps]
    total = estimate([t["gap"] for t in topics])
    low, high = total["ci95"]
    verdict = (
        "certified"
        if -0.01 < low and high < 0.01
        else "exceeds"
        if high < -0.01 or low > 0.01
        else "insufficient"
    )
    cells = []
    for k, cell in enumerate(CELLS):
        found = estimate([g + 0.01 * (k - 1) * spread / 0.1 for g in all_gaps[k::3]], 2.05)
        cells.append({"cell": cell, "n_clusters": 8, "verdict": verdict, **found})
    kind = "none" if abs(total["gap"]) <= 0.01 else "slight"
    first = 3.4712
    entropies = {f"H_{g}": first + i * total["gap"] / (len(groups) - 1) for i, g in enumerate(groups)}
    rows = [
        {
            "groups": [a, b],
            **total,
            "gap": entropies[f"H_{b}"] - entropies[f"H_{a}"],
            "ci95": [entropies[f"H_{b}"] - entropies[f"H_{a}"] + d for d in (-0.012, 0.012)],
            "verdict": "insufficient",
        }
        for i, a in enumerate(groups)
        for b in groups[i + 1 :]
    ]
    return {
        "schema": "isentropic.measure/1",
        "model": "smollm2-135m",
        "model_sha256": "5f" * 32,
        "data": "built-in gender prompts",
        "data_sha256": "a7" * 32,
        "split": "test",
        "responses": "shared",
        "groups": list(groups),
        "seed": 0,
        "unit": "nats",
        "settings": {"max_new_tokens": 12, "sample_temp": 1.0, "num_responses": 1, "chat": False, "dtype": "bfloat16"},
        "versions": {"isentropic": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.2"},
        **entropies,
        "H_mean": math.fsum(entropies.values()) / len(groups),
        **total,
        "df": 23.0,
        "n_pairs": 288,
        "n_clusters": 24,
        "cluster_unit": "topic and filler",
        "twins": True,
        "widest": [groups[0], groups[-1]],
        "mean_abs_pair_gap": math.fsum(map(abs, all_gaps)) / 288,
        "pair_gap_sd": estimate(all_gaps)["se"] * math.sqrt(288),
        "pair_gaps": gaps,
        "target_gap": 0.01,
        "verdict": verdict,
        "p_within": 0.0021 if verdict == "certified" else 0.83,
        "p_exceeds": 1e-6 if verdict == "exceeds" else 0.41,
        "pairs_needed": 1340 if verdict == "insufficient" else None,
        "label": LABELS[kind],
        "noise_floor": {"reseed": 0.0042, "same_group": 0.0087, "floor": 0.0087, "gap_is_under_floor": verdict == "certified"},
        "topics": topics,
        "cells": cells,
        "own": {"gap": 1.3 * shift, "se": 0.041, "ci95": [1.3 * shift - 0.08, 1.3 * shift + 0.08], "n_pairs": 288},
        "decomposition": {
            "total": {"gap": 1.3 * shift, "se": 0.041, "ci95": [1.3 * shift - 0.08, 1.3 * shift + 0.08]},
            "same_text": {k: total[k] for k in ("gap", "se", "ci95")},
            "through_text": {"gap": 0.3 * shift, "se": 0.04, "ci95": [0.3 * shift - 0.078, 0.3 * shift + 0.078]},
        },
        "quality": {"mean_entropy": 3.43 + shift / 9, "mean_length": 11.8, "ended": 0.021, "distinct_2": 0.812},
        "expectation": expectation(0.21 + shift, (groups[0], groups[-1])),
        "warnings": [],
        "group_gaps": rows,
    }  # fmt: skip


def comparison(named: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = list(named)
    models = []
    for i, (name, s) in enumerate(named.items()):
        cost = {"kl_to_first": 0.0021 * i, "kl_ci95": [0.0018 * i, 0.0024 * i], "perplexity": 28.7 + 0.14 * i}
        models.append({"name": name, "summary": s, "cost": {**cost, **s["quality"]}})
    differences = []
    for name in names[1:]:
        change = named[name]["gap"] - named[names[0]]["gap"]
        smaller = abs(named[name]["gap"]) - abs(named[names[0]]["gap"])
        interval = [change - 0.011, change + 0.011]
        differences.append(
            {"model": name, "against": names[0], "gap_change": change, "se": 0.0054, "ci95": interval, "p": 4e-9,
             "abs_change": smaller, "groups": named[names[0]]["widest"],
             "expectation_change": expectation_change(*(named[n]["expectation"] for n in (names[0], name)))}
        )  # fmt: skip
    return {
        "schema": "isentropic.compare/1",
        "models": models,
        "differences": differences,
        "cells": [],
        "notes": [],
    }


def other_set(change: float = -0.0213) -> dict[str, Any]:
    """A set that the run did not aim at: two pairs of its groups moved, one opened."""
    rows = [
        {"groups": groups, "gap_before": gap, "gap_after": gap + moved, "gap_change": moved, "se": 0.004,
         "ci95": [moved - 0.008, moved + 0.008], "p": 0.01, "moved": told}
        for groups, gap, moved, told in (
            (["young", "old"], -0.0105, change, "opened"), (["young", "middle-aged"], 0.03, -0.02, "closed"),
            (["middle-aged", "old"], 0.01, 0.001, "unchanged"),
        )
    ]  # fmt: skip
    named = {"data": "built-in age prompts", "n_pairs": 24, "n_clusters": 24, "cluster_unit": "topic"}
    return {**named, **rows[0], "group_gaps": rows}


def metrics(groups: tuple[str, ...] = ("male", "female"), steps: int = 16) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(steps + 1):
        signed = -0.086 * math.exp(-step / 4) + 0.017 * math.sin(2.1 * step)
        held = -0.081 * math.exp(-step / 4.5) + 0.001 * math.sin(step)
        levels = {g: 3.47 - 0.002 * step + 0.02 * math.sin(step) for g in groups}
        if step:
            rows.append(
                {"step": step, "loss": signed**2, "gap": abs(signed), "gap_signed": signed,
                 **{f"H_{g}": levels[g] + i * signed for i, g in enumerate(groups)}, "H_mean": 3.44,
                 "grad_norm": 1.2, "learning_rate": 1e-5 * (1 - step / steps), "seconds": 4.1}
            )  # fmt: skip
        if step % 2 == 0:
            rows.append(
                {"step": step, "val_gap": held, "val_se": 0.005, "val_ci95": [held - 0.011, held + 0.011],
                 **{f"val_H_{g}": 3.47 - 0.002 * step + i * held for i, g in enumerate(groups)},
                 "kl": 0.00014 * step, "val_length": 11.9, "val_distinct_2": 0.81}
            )  # fmt: skip
    return rows


def responses(before: dict[str, Any]) -> list[dict[str, Any]]:
    words = {"male": ("He", "his"), "female": ("She", "her")}
    tails = ("knew the day would be long, and started early.", "had been told to wait; nobody came.")
    rows = []
    for pair in before["pair_gaps"]:
        job = pair["pair_id"].split("-")[1]
        for source, tail in zip(before["groups"], tails, strict=False):
            for i, group in enumerate(before["groups"]):
                subject, owner = words.get(group, (f"The {group} person", "their"))
                rows.append(
                    {"split": "test", "pair_id": pair["pair_id"], "group": group, "topic": pair["topic"], "source": source,
                     "prompt": f"{subject} is a {job}. This is {owner} first year. {subject}", "response": f" {tail}",
                     "response_ids": [1, 2, 3], "entropy": 3.4 + i * pair["gap"], "entropy_after": 3.39 + 0.1 * i * pair["gap"]}
                )  # fmt: skip
    return rows


def write_run(folder: Path, groups: tuple[str, ...] = ("male", "female"), after_shift: float = 0.002) -> Path:
    """Write the files of a finished run into `folder`; it is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    before, after = summary(-0.081, 0.1, groups), summary(after_shift, 0.05, groups)
    config = {
        "run_name": folder.name, "model_path": "smollm2-135m", "model": "smollm2-135m", "model_sha256": "5f" * 32,
        "data_sha256": "a7" * 32, "target_gap": 0.01, "max_steps": 50, "micro_batch_size": 2, "effective_batch": 64,
        "learning_rate": 1e-5, "loss": "debiasing", "scale_factor": 1.0, "use_l1": False, "hold": "expectation", "seed": 0, "report_to": None,
        "versions": before["versions"],
        "command": f"isentropic train --run_name {folder.name} --target_gap 0.01",
    }  # fmt: skip
    result = {
        "stopped": "target", "best_step": 14, "steps": 16,
        "seconds": {"load": 3.2, "responses": 21.4, "before": 18.0, "training": 75.3, "after": 17.9},
        "advice": [{"en": "raise --eval_steps", "zh": "增大 --eval_steps"}],
        "label_before": before["label"], "label_after": after["label"], "other_sets": [other_set()],
        "also_measured": [{**other_set()["group_gaps"][0], "folder": "final", "dtype": "bfloat16", "change_left": 0.972}],
    }  # fmt: skip
    files: dict[str, Any] = {
        "config.json": config, "gap_before.json": before, "gap_after.json": after, "result.json": result,
        "comparison.json": comparison({"base": before, "final": after}),
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, rows in (("metrics.jsonl", metrics(groups)), ("responses.jsonl", responses(before))):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
