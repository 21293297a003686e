"""What a change cost in ability: the same test items before and after, matched one by one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from isentropic.errors import InputError
from isentropic.files import read_jsonl
from isentropic.gap.accuracy import paired_accuracy
from isentropic.gap.estimate import paired_gap
from isentropic.schema import AbilityRow
from isentropic.text import half_character, short

Sample = dict[str, Any]
"""One item: the question, the model's answer and the metrics, as lm-evaluation-harness writes it."""
NO_METRICS = ("doc_id", "target")
"""Numbers of a sample that are not metrics, where it does not name its metrics."""


# --- Runs that were made before -----------------------------------------------------------------------------


def read_samples(folder: str) -> dict[str, list[Sample]]:
    """The items of each task that lm-eval wrote with `--log_samples --output_path FOLDER`; the last of two.

    Raises:
        InputError: there are none, they are of several models, or a line is damaged.
    """
    files: dict[str, list[Path]] = {}
    for file in sorted(Path(folder).rglob("samples_*.jsonl")):
        task = re.sub(r"_\d{4}-\d\d-\d\dT[\d.-]+$", "", file.stem.removeprefix("samples_"))
        files.setdefault(task, []).append(file)
    if not files:
        raise InputError(
            f"--samples {folder!r} has no samples_*.jsonl; there is nothing to compare; give the folder that "
            "lm-eval wrote with --log_samples and --output_path"
        )
    if len(places := sorted({str(file.parent) for found in files.values() for file in found})) > 1:
        raise InputError(
            f"--samples {folder!r} holds several runs, in {places[0]!r} and {places[1]!r} for two; each side "
            "is one run; give one of these folders"
        )
    return {task: sample_rows(found[-1]) for task, found in files.items()}


def sample_rows(file: Path) -> list[Sample]:
    found: list[Sample] = []
    try:
        for number, row in read_jsonl(file):
            if isinstance(row, ValueError) or (fault := fault_of(row)):
                why = row if isinstance(row, ValueError) else fault
                raise InputError(
                    f"{str(file)!r} line {number} is not an item of lm-eval ({why}); it cannot be matched; "
                    "write the file again"
                )
            found.append(row)
    except OSError as error:
        raise InputError(
            f"{str(file)!r} cannot be read ({error.strerror}); its items would be missing; check the file"
        ) from error
    if not found:
        raise InputError(f"{str(file)!r} has no item; there is nothing to compare; write the file again")
    return found


def fault_of(row: Sample) -> str | None:
    """Why a row cannot be an item; None where it can."""
    names = row.get("metrics") or []
    if "doc_id" not in row:
        return "it has no 'doc_id'"
    if not isinstance(names, list):
        return f"its 'metrics' are {short(names)}, and a list is needed"
    filters = [row["filter"]] if row.get("filter") is not None else []
    for name in (*row, *names, *filters):
        if not isinstance(name, str) or half_character(name):
            return f"{short(name)} is not a name"
    try:
        metrics_of(row)
    except OverflowError:
        return "a number in it is too large"
    return None


# --- Matching and comparing ---------------------------------------------------------------------------------


def ability_rows(
    model: str, against: str, before: Mapping[str, Sequence[Sample]], after: Mapping[str, Sequence[Sample]]
) -> tuple[list[AbilityRow], list[str]]:
    """How one model's answers differ from another's in each task and metric, and what could not be compared.

    Args:
        model: name of the second model.
        against: name of the first.
        before: task -> items of the first, as `answers` and `read_samples` give them.
        after: of the second.
    """
    rows: list[AbilityRow] = []
    alone = sorted(before.keys() ^ after.keys())
    notes = [f"{task}: only {model if task in after else against} has it" for task in alone]
    for task in (task for task in before if task in after):
        pairs = matched(before[task], after[task])
        if left_out := len(before[task]) + len(after[task]) - 2 * len(pairs):
            notes.append(
                f"{task}: {left_out} items of {against} or {model} are not in both and were left out "
                "(another limit, other data?)"
            )
        if other := sum(one.get("prompt_hash") != two.get("prompt_hash") for one, two in pairs):
            notes.append(
                f"{task}: {other} of {len(pairs)} items were asked in other words "
                "(examples, chat template?): the change is not the model's alone"
            )
        for filter_name, metric in dict.fromkeys(
            (one.get("filter"), metric) for one, _ in pairs for metric in metrics_of(one)
        ):
            values = [
                (metrics_of(one)[metric], metrics_of(two).get(metric, math.nan))
                for one, two in pairs
                if one.get("filter") == filter_name and metric in metrics_of(one)
            ]
            known = [pair for pair in values if all(map(math.isfinite, pair))]
            if len(known) < len(values):
                notes.append(
                    f"{task}, {metric}: {len(values) - len(known)} items without a finite value in both were "
                    "left out"
                )
            if known:
                names = {"model": model, "against": against, "task": task, "filter": filter_name}
                rows.append(cast(AbilityRow, {**names, **change_of(metric, np.array(known))}))
    return rows, notes


def matched(first: Sequence[Sample], second: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """The items that are in both, by filter and by the hash of the question, or its number without a hash.

    A question that comes twice is matched in order.
    """
    name = "doc_hash" if all("doc_hash" in sample for sample in (*first, *second)) else "doc_id"

    def keyed(samples: Sequence[Sample]) -> dict[tuple[Any, ...], Sample]:
        seen: Counter[Any] = Counter()
        found = {}
        for sample in samples:
            key = (sample.get("filter"), str(sample[name]))
            found[(*key, seen[key])] = sample
            seen[key] += 1
        return found

    one, two = keyed(first), keyed(second)
    return [(sample, two[key]) for key, sample in one.items() if key in two]


def metrics_of(sample: Sample) -> dict[str, float]:
    """The metrics of an item that are numbers."""
    names = sample.get("metrics") or [name for name in sample if name not in NO_METRICS]
    return {name: float(sample[name]) for name in names if isinstance(sample.get(name), (bool, int, float))}


def change_of(metric: str, values: np.ndarray) -> dict[str, Any]:
    """One metric: McNemar where all values are 0 or 1, else the mean difference and its t interval.

    Args:
        metric: its name. What lm-eval calls perplexity of an item is the log-likelihood of its answer.
        values: (items, 2) before and after.
    """
    before, after = values.T
    if np.isin(values, (0, 1)).all():
        figures = paired_accuracy(before, after).to_dict()
    else:
        estimate = paired_gap(after - before)
        figures = {
            "before": float(before.mean()),
            "after": float(after.mean()),
            "change": estimate.gap,
            "ci95": estimate.to_dict()["ci95"],
            "p": estimate.p if estimate.known else None,
            "n": estimate.n,
            "lost": None,
            "gained": None,
        }
    low = figures["ci95"][0] if figures["ci95"] else None
    name = "log_likelihood" if metric == "perplexity" else metric
    return {"metric": name, **figures, "largest_loss": None if low is None else max(0.0, -low)}
