"""Untouched, pure, GEE and the predecessor's method: the same pairs, the same responses, equal steps and equal time.

    python benchmarks/compare_methods.py [--seeds 3] [--runs runs/compare_methods] [--docs docs/results.md]

For each seed: `isentropic train` with its defaults (pure), which stops on its own; then GEE and the predecessor's method for
as many steps, and for as many steps as fit into the seconds pure spent on its steps; then `isentropic compare` on all of
them. Pure keeps its best validated weights, the others the last ones. What is finished is read and not made again, so
this can be run in pieces; --keep keeps the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import (
    Row,
    drop_weights,
    into_page,
    isentropic,
    medians,
    model_name,
    number,
    parser,
    publish,
    train_run,
)
from common import table as markdown

METHODS: dict[str, list[str]] = {
    "GEE": ["--loss", "gee"],
    # Its batch again, since flags of the command line would win over the preset's.
    "ancestor": ["--preset", "ancestor", "--micro_batch_size", "2", "--effective_batch", "4"],
}
NEVER = 1e-9  # a target no run meets: nothing stops before its last step


def step_seconds(rows: list[Row]) -> list[float]:
    """Seconds of every step that follows a step, not a held-out measurement."""
    return [
        after["seconds"] - before["seconds"]
        for before, after in zip(rows, rows[1:], strict=False)
        if "loss" in before and "loss" in after
    ]


def train_all(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Train every method; returns the folder of the model that each one gives."""
    runs, extra = args.runs / f"seed{seed}", ["--seed", seed, *args.others]
    pure = train_run(runs, "pure", [*extra, "--save_steps", 0, "--force"], args)
    steps = max(1, pure["result"]["steps"])
    each = step_seconds(pure["steps"])
    budget = steps * statistics.median(each) if each else pure["result"]["seconds"]["training"]
    models = {"pure": runs / "pure" / "final"}
    for method, flags in METHODS.items():
        same = fixed_steps(args, runs, method, flags, steps, extra)
        each = step_seconds(same["steps"])
        one = statistics.median(each) if each else same["result"]["seconds"]["training"] / steps
        longer = min(args.most_steps, max(1, round(budget / one)))
        fixed_steps(args, runs, method, flags, longer, extra)  # the same run where the count is
        for kind, count in (("steps", steps), ("time", longer)):
            run = runs / f"{method}-{count}"
            models[f"{method}, equal {kind}"] = run / "checkpoints" / f"checkpoint-{count}"
    return models


def fixed_steps(
    args: argparse.Namespace,
    runs: Path,
    method: str,
    flags: list[str],
    steps: int,
    extra: list[Any],
) -> Row:
    """A run of a given number of steps. The last weights are kept; the ancestor measures nothing on the way."""
    ancestor = method == "ancestor"
    given = [*extra, "--max_steps", steps, "--target_gap", NEVER, "--force", "--max_kl", 1e9, *flags]
    given += ["--save_steps", steps, *(["--eval_steps", steps] if ancestor else [])]
    return train_run(runs, f"{method}-{steps}", given, args)


def compared(args: argparse.Namespace, seed: int) -> Row:
    """The comparison of one seed's models, with the steps and seconds of each run."""
    file = args.runs / f"seed{seed}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    models = train_all(args, seed)
    scratch = args.runs / f"seed{seed}" / "compare.json"
    pairs = ["--pairs", args.pairs] if args.pairs else []
    words = ["compare", model_name(args), *models.values(), "--seed", seed, *pairs, "--no-noise_floor"]
    isentropic(*words, "--json", scratch, threads=args.threads, quick=args.quick)
    found = json.loads(scratch.read_text(encoding="utf-8"))
    changes = [None, *found["differences"]]
    rows = []
    for name, row, change in zip(["untouched", *models], found["models"], changes, strict=True):
        summary, cost = row["summary"], row["cost"]
        kept = {
            key: summary[key] for key in ("gap", "ci95", "mean_abs_pair_gap", "H_mean", "verdict", "n_pairs")
        }
        kept |= {"kl": cost["kl_to_first"], "change": change}
        rows.append({"method": name, **kept, **run_facts(models.get(name))})
    file.write_text(json.dumps({"seed": seed, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if not args.keep:
        drop_weights(args.runs / f"seed{seed}")
    return {"seed": seed, "rows": rows}


def with_interval(value: float, ci95: list[float]) -> str:
    return f"{value:+.3f} ± {(ci95[1] - ci95[0]) / 2:.3f}"


def run_facts(model: Path | None) -> Row:
    """Steps and step seconds of the run that gave a model."""
    if model is None:
        return {"steps": 0, "seconds": 0.0}
    run = next(folder for folder in model.parents if (folder / "metrics.jsonl").is_file())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = json.loads((run / "result.json").read_text(encoding="utf-8"))["steps"]
    each = step_seconds(rows)
    return {"steps": steps, "seconds": steps * statistics.median(each) if each else None}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "compare_methods")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--pairs", type=int, help="test pairs that are compared; all of them if left out")
    flags.add_argument("--most_steps", type=int, default=500, help="most steps of an equal-time run")
    flags.add_argument(
        "--runs", type=Path, default=Path("runs/compare_methods"), help="where the runs are kept"
    )
    flags.add_argument("--docs", type=Path, help="put the table on this page")
    flags.add_argument("--keep", action="store_true", help="keep the models")
    args, args.others = flags.parse_known_args(arguments)
    if args.quick:
        args.seeds, args.pairs, args.most_steps = 1, 4, 3
        args.others += ["--validation_pairs", "4", "--max_pairs", "4", "--test_pairs", "4"]
        args.others += (
            ["--effective_batch", "4", "--max_steps", "2"] if "--max_steps" not in args.others else []
        )
    else:
        # What `train` measures before and after is measured again, on all models at once, by `compare`.
        args.others = ["--test_pairs", "32", *args.others]
    args.runs.mkdir(parents=True, exist_ok=True)
    seeds = [compared(args, seed) for seed in range(args.seeds)]
    by_method: dict[str, list[Row]] = {}
    for seed in seeds:
        for row in seed["rows"]:
            by_method.setdefault(row["method"], []).append(row)
    untouched = by_method["untouched"]
    rows, middle = [], {}
    for method, found in by_method.items():
        left = [abs(row["gap"] / base["gap"]) for row, base in zip(found, untouched, strict=True)]
        row = middle[method] = {**medians(found), "gap_left": statistics.median(left)}
        gaps = ", ".join(with_interval(r["gap"], r["ci95"]) for r in found)
        changes = [r["change"] for r in found if r["change"]]
        moved = ", ".join(with_interval(change["gap_change"], change["ci95"]) for change in changes)
        rows.append(
            [number(row["gap_left"]), method, gaps, moved, number(row["mean_abs_pair_gap"], ".4f"),
             number(row["H_mean"], ".3f"), number(row["kl"], ".5f"), number(row["steps"], ".0f"),
             number(row.get("seconds"), ".0f")]
        )  # fmt: skip
    text = markdown(
        ["gap left, share", "method", "test gap of each seed, with 95 % interval",
         "its change, same pairs and responses", "mean abs pair gap", "mean entropy", "KL", "steps",
         "seconds of steps"],
        rows,
    )  # fmt: skip
    text += (
        f"\n\nMedians of {args.seeds} seeds; {untouched[0]['n_pairs']} test pairs on shared responses of the untouched "
        "model, the same for every row of a seed. Gap in nats, KL in nats a token of neutral text. Equal time is that of the "
        "steps; pure and GEE sample and score their responses once before them, which `time_to_target.py` counts too."
    )
    page = publish(args, "compare_methods", text, {"medians": middle, "seeds": seeds})
    if args.docs:
        into_page(args.docs, "compare_methods", page, "Results")


if __name__ == "__main__":
    main()
