"""The three estimators of the squared gap at the same settings: what is left on the test pairs, at which cost.

    python benchmarks/loss_table.py [--seeds 3] [--batches 4 16 64] [--max_steps 12] [--runs runs/loss_table] [--no-steady]

Every run is `isentropic train` with its defaults but for the flags of the table; flags this script does not know go to
it. Runs that are finished are read, not made again, so the table can be made in pieces. A false stop: the validation
pairs said "within the target", and the 95 % interval of the test gap lies wholly outside.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import Row, drop_weights, into_page, medians, number, parser, publish, train_run
from common import table as markdown

ESTIMATORS = ("plain", "unbiased", "pairwise")


def one_run(args: argparse.Namespace, name: str, flags: list[Any]) -> Row:
    found = train_run(args.runs, name, flags, args)
    drop_weights(args.runs / name)
    before, after, result = found["before"], found["after"], found["result"]
    low, high = after["ci95"]
    stopped = result["stopped"] == "target"
    return {
        "gap_before": before["gap"],
        "gap": after["gap"],
        "abs_gap": abs(after["gap"]),
        "ci95": [low, high],
        "gap_left": abs(after["gap"] / before["gap"]),
        "mean_abs_pair_gap_before": before["mean_abs_pair_gap"],
        "mean_abs_pair_gap": after["mean_abs_pair_gap"],
        "mean_entropy_before": before["H_mean"],
        "mean_entropy": after["H_mean"],
        "kl": found["kl"],
        "steps": result["steps"],
        "best_step": result["best_step"],
        "seconds": result["seconds"]["training"],
        "stopped": result["stopped"],
        "false_stop": int(stopped and (low > args.target_gap or high < -args.target_gap)),
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "loss_table")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument(
        "--batches", type=int, nargs="+", default=[4, 16, 64], help="pairs of an effective batch"
    )
    flags.add_argument("--max_steps", type=int, default=12)
    flags.add_argument("--target_gap", type=float, default=0.01)
    flags.add_argument("--test_pairs", type=int, default=128)
    flags.add_argument("--runs", type=Path, default=Path("runs/loss_table"), help="where the runs are kept")
    flags.add_argument("--docs", type=Path, help="put the table on this page")
    args, others = flags.parse_known_args(arguments)
    if args.quick:
        args.seeds, args.batches, args.max_steps, args.test_pairs = 1, [2], 1, 4
        others += ["--validation_pairs", "4", "--max_pairs", "4"]
    common = ["--max_steps", args.max_steps, "--target_gap", args.target_gap, "--test_pairs", args.test_pairs]
    common += ["--save_steps", 0, "--force", *others]
    cells: dict[str, list[Row]] = {}
    for seed in range(args.seeds):
        for batch in args.batches:
            for estimator in ESTIMATORS:
                given = ["--estimator", estimator, "--effective_batch", 2 * batch, "--seed", seed, *common]
                run = one_run(args, f"{estimator}-{batch}-seed{seed}", given)
                cells.setdefault(f"{estimator} {batch}", []).append({"seed": seed, **run})
    rows, middle = [], {}
    for batch in args.batches:
        for estimator in ESTIMATORS:
            runs = cells[f"{estimator} {batch}"]
            row = middle[f"{estimator} {batch}"] = medians(runs)
            stops = sum(run["stopped"] == "target" for run in runs)
            gaps = ", ".join(f"{run['gap']:+.4f}" for run in runs)
            rows.append(
                [number(row["gap_left"]), batch, estimator, gaps, number(row["mean_abs_pair_gap"], ".4f"),
                 number(row["mean_entropy"], ".3f"), number(row["kl"], ".5f"), number(row["steps"], ".0f"),
                 number(row["seconds"], ".0f"), f"{sum(run['false_stop'] for run in runs)} of {stops}"]
            )  # fmt: skip
    first = next(iter(cells.values()))[0]
    text = markdown(
        ["test gap left, share", "pairs a batch", "estimator", "test gap of each seed", "mean abs pair gap",
         "mean entropy", "KL", "steps", "seconds", "false stops"],
        rows,
    )  # fmt: skip
    text += (
        f"\n\nMedians of {args.seeds} seeds, at most {args.max_steps} steps, target {args.target_gap}, "
        f"{args.test_pairs} test pairs. Before training (seed 0): test gap {first['gap_before']:+.4f}, mean absolute "
        f"pair gap {first['mean_abs_pair_gap_before']:.4f}, mean entropy {first['mean_entropy_before']:.3f}."
    )
    if others and not args.quick:
        text += f" Further flags: `{' '.join(others)}`."
    page = publish(args, "loss_table", text, {"medians": middle, "runs": cells})
    if args.docs:
        into_page(args.docs, "loss_table", page, "The three estimators of the squared gap")


if __name__ == "__main__":
    main()
