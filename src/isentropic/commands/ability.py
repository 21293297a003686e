"""``isentropic ability``: the same test items before and after a change, by lm-evaluation-harness."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from isentropic.commands.compare import numbered_names
from isentropic.commands.measure import model_on_device, write_results
from isentropic.commands.outputs import check_outputs
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.labels import interval_text
from isentropic.measure.ability import Sample, ability_rows, read_samples
from isentropic.measure.harness import answers, check_installed, harness_tasks
from isentropic.measure.summary import versions
from isentropic.models.load import check_there
from isentropic.schema import ABILITY_SCHEMA, Ability, AbilityRow
from isentropic.settings import TASKS, MeasureSettings, split_names


def run_ability(
    models: Sequence[str],
    *,
    tasks: str | None = None,
    limit: int | None = None,
    benchmarks: str | None = None,
    samples: Sequence[str] | None = None,
    batch_size: int = 8,
    json: str | None = None,
) -> Ability:
    """Ask several models the same questions, or read what they answered before; returns the comparison."""
    sides = samples or models
    if len(sides) < 2 or (samples and models):
        raise InputError(
            f"ability has {len(models)} models and {len(samples or ())} folders of --samples; it compares "
            "two or more of one kind; name the model before and the one after, or two folders"
        )
    asking = {"tasks": tasks, "limit": limit, "benchmarks": benchmarks}
    for name, value in asking.items():
        if samples and value is not None:
            raise InputError(
                f"--{name} {value!r} with --samples; nothing is asked, so it would do nothing; leave it out"
            )
    for name, number in (("limit", limit), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise InputError(f"--{name} is {number}; nothing would be asked; give 1 or more")
    for flag, folder in [("benchmarks", benchmarks), *(("samples", folder) for folder in samples or ())]:
        if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)):
            raise InputError(
                f"--{flag} {folder!r} is not a folder that can be read; its items are needed; check the path"
            )
    check_outputs({"--json": None if json == "-" else json}, {f"{name!r}": name for name in sides})
    screen = Screen(quiet=json == "-")
    if samples:
        runs = [read_samples(folder) for folder in samples]
    else:
        runs = asked(
            models, split_names(TASKS if tasks is None else tasks), limit, benchmarks, batch_size, screen
        )
    first, *others = numbered_names(sides)
    result: Ability = {
        "schema": ABILITY_SCHEMA,
        "models": [first, *others],
        "limit": limit,
        "rows": [],
        "versions": versions("lm_eval"),
        "notes": [],
    }
    for name, run in zip(others, runs[1:], strict=True):
        rows, notes = ability_rows(name, first, runs[0], run)
        result["rows"] += rows
        result["notes"] += notes
    if not result["rows"]:
        why = "; ".join(result["notes"]) or "they have no metric that is a number for each item"
        raise InputError(f"there is no item to compare: {why}; give runs of the same tasks on the same data")
    lines = write_results(result, MeasureSettings(json=json))
    for line in [*map(row_line, result["rows"]), *(f"note: {note}" for note in result["notes"]), *lines]:
        screen.say(line)
    return result


def asked(
    models: Sequence[str],
    tasks: Sequence[str],
    limit: int | None,
    benchmarks: str | None,
    batch_size: int,
    screen: Screen,
) -> list[dict[str, list[Sample]]]:
    """The answers of each model. What is misspelt is said before the first model has answered for an hour."""
    if not tasks:
        raise InputError("--tasks names no task; nothing would be asked; give one, such as arc_easy")
    check_installed()
    for name in models:
        check_there(name)
    runs = []
    with harness_tasks(tasks, benchmarks) as ready:
        for name in models:
            screen.say(f"{name} answers ...")
            loaded, _ = model_on_device(name, MeasureSettings())
            runs.append(answers(loaded, ready, limit=limit, batch_size=batch_size))
    return runs


def row_line(row: AbilityRow) -> str:
    """One metric in one line, the change with its 95 % interval.

    Example:
        >>> row = {"model": "b", "task": "arc_easy", "filter": "none", "metric": "acc", "n": 100}
        >>> row |= {"before": 0.54, "after": 0.53, "change": -0.01, "ci95": [-0.06, 0.04], "p": 1.0}
        >>> row_line(row | {"lost": 3, "gained": 2, "largest_loss": 0.06}).partition("; ")[0]
        'b, arc_easy acc: 54.0 to 53.0 %, change -1.0 [-6.0, +4.0], p=1, n=100, 3 lost, 2 gained'
    """
    share = row["lost"] is not None
    likelihood = row["metric"] == "log_likelihood"

    def number(value: float, sign: str = "") -> str:
        return format(100 * value, sign + ".1f") if share else format(value, sign + ".4f")

    filter_name = "" if row["filter"] in (None, "none") else f" ({row['filter']})"
    line = (
        f"{row['model']}, {row['task']} {row['metric']}{filter_name}: {number(row['before'])} to "
        f"{number(row['after'])}{' %' if share else ''}, change {number(row['change'], '+')} "
        f"{interval_text(row['ci95'], lambda end: number(end, '+'))}"
    )
    if row["p"] is not None:
        line += f", p={row['p']:.2g}"
    line += f", n={row['n']}"
    if share:
        line += f", {row['lost']} lost, {row['gained']} gained"
    if likelihood and min(row["before"], row["after"]) > -100:
        line += f", perplexity {math.exp(-row['before']):.4g} to {math.exp(-row['after']):.4g}"
    if row["largest_loss"] is not None:
        unit = " points" if share else " nats" if likelihood else ""
        line += f"; a loss above {number(row['largest_loss'])}{unit} is excluded"
    return line
