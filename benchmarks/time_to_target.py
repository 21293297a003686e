"""Seconds of training until the held-out gap meets the target: ours, GEE and the ancestor's way.

    python benchmarks/time_to_target.py [--seeds 3] [--target_gap 0.01] [--model NAME]

All three run through DebiasingTrainer on the built-in prompts and are measured with one ruler: the validation pairs on
shared responses that the untouched model gave. Ours and GEE stop when the trainer measures a gap within the target. The
other two may take as long as ours took; their held-out measurements are not counted in that time, ours are.
The gap on the test pairs, which nothing is chosen by, is measured before and after.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from typing import Any

from common import Row, medians, model_name, number, parser, publish, run_job
from common import table as markdown

# GEE is ours with another loss; the ancestor's steps are small, so it is measured less often.
SIDES: dict[str, Row] = {
    "isentropic": {},
    "GEE": {"loss": "gee"},
    "ancestor": {"preset": "ancestor", "eval_steps": 10, "max_steps": 2000},
}
STOPS = ("isentropic", "GEE")


def one_run(job: Row) -> Row:
    import torch
    from transformers import TrainerCallback

    from isentropic.callbacks import TargetGapStop
    from isentropic.measure import make_items, summarise
    from isentropic.models import load_model
    from isentropic.prompts import load_prompts
    from isentropic.run_folder import limited
    from isentropic.settings import apply_preset
    from isentropic.trainer import DebiasingConfig, DebiasingTrainer

    if not job["quick"]:
        torch.set_num_threads(job["threads"])

    class Ruler(TrainerCallback):
        """Writes down every held-out measurement, and stops at the time limit."""

        def __init__(self) -> None:
            self.started = time.perf_counter()
            self.measuring = 0.0
            self.points: list[Row] = []

        def stepping(self) -> float:
            return time.perf_counter() - self.started - self.measuring

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if job["limit"] is not None and self.stepping() >= job["limit"]:
                control.should_training_stop = control.should_evaluate = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            metrics = kwargs["metrics"]
            self.points.append(
                {
                    "step": state.global_step,
                    "seconds": time.perf_counter() - self.started,
                    "stepping_seconds": self.stepping(),
                    **{key: metrics.get(f"eval_{key}") for key in ("gap", "gap_low", "gap_high", "H_mean", "kl")},
                }
            )

    class Timed(DebiasingTrainer):
        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            start = time.perf_counter()
            found = super().evaluate(*args, **kwargs)
            ruler.measuring += time.perf_counter() - start
            return found

    loaded = load_model(job["model"])
    prompts = load_prompts(seed=job["seed"])
    ruler = Ruler()
    stop = [TargetGapStop(job["target_gap"], math.inf)] if job["side"] in STOPS else []
    given = apply_preset({"max_steps": job["max_steps"], **SIDES[job["side"]]})
    given.pop("preset", None)
    if job["quick"]:
        given |= {"max_steps": 2, "effective_batch": 4}
    with tempfile.TemporaryDirectory() as folder:
        settings = DebiasingConfig(
            output_dir=folder, seed=job["seed"], target_gap=job["target_gap"], use_cpu=True, **given
        )
        validation = limited(prompts.split("validation"), job["pairs"])
        training = limited(prompts.split("train"), 8 if job["quick"] else None)
        trainer = Timed(
            loaded.model, settings, training, validation, loaded.tokenizer, callbacks=[ruler, *stop]
        )
        start = time.perf_counter()
        trainer.prepare()
        preparing = time.perf_counter() - start
        sampling = settings.sampling(num_responses=1, offset=1)
        trainer.validation_items = make_items(validation, trainer.response_sampler(sampling), shared=True)
        test = limited(prompts.split("test"), job["test_pairs"])
        sampling = settings.sampling(num_responses=1, offset=4)
        items = make_items(test, trainer.response_sampler(sampling), shared=True)

        def test_gap() -> Row:
            found = summarise(items, trainer.score(items), prompts.groups, job["target_gap"])
            return {key: found[key] for key in ("gap", "ci95", "mean_abs_pair_gap", "H_mean")}

        before = test_gap()
        ruler.started = time.perf_counter()
        trainer.train()
        after = test_gap()
    first, last = ruler.points[0], ruler.points[-1]
    met = next((point for point in ruler.points if abs(point["gap"]) <= job["target_gap"]), None)
    return {
        "seconds": last["seconds"],
        "preparing_seconds": preparing,
        "stepping_seconds": last["stepping_seconds"],
        "seconds_to_target": met["seconds"] if met else None,
        "steps": last["step"],
        "gap_before": first["gap"],
        "gap_after": last["gap"],
        "gap_left": abs(last["gap"] / first["gap"]),
        "kl": last["kl"],
        "test_gap_before": before["gap"],
        "test_gap_after": after["gap"],
        "test_gap_left": abs(after["gap"] / before["gap"]),
        "H_before": before["H_mean"],
        "H_after": after["H_mean"],
        "test_before": before,
        "test_after": after,
        "points": ruler.points,
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "time_to_target")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--target_gap", type=float, default=0.01)
    flags.add_argument("--max_steps", type=int, default=20, help="most steps of ours and of GEE")
    flags.add_argument("--pairs", type=int, default=64, help="validation pairs: the ruler")
    flags.add_argument("--test_pairs", type=int, default=96)
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    if args.quick:
        args.seeds, args.pairs, args.test_pairs, args.target_gap = 1, 4, 4, 1e-6
    job = {
        "model": model_name(args),
        **{key: getattr(args, key) for key in ("quick", "threads", "target_gap", "max_steps", "pairs", "test_pairs")},
    }
    runs: dict[str, list[Row]] = {side: [] for side in SIDES}
    for seed in range(args.seeds):
        limit = None
        for side, found in runs.items():
            run = run_job(__file__, {**job, "side": side, "seed": seed, "limit": limit}, one_run)
            found.append({"seed": seed, "limit": limit, **run})
            if side == "isentropic":
                limit = run["seconds"] + run["preparing_seconds"]
    middle = {side: medians(found) for side, found in runs.items()}
    rows = []
    for side, row in middle.items():
        met = [run["seconds_to_target"] for run in runs[side] if run["seconds_to_target"] is not None]
        rows.append(
            [
                number(row["gap_left"]),
                number(row["test_gap_left"]),
                side,
                f"{len(met)} of {args.seeds}",
                number(sorted(met)[len(met) // 2] if met else None, ".1f"),
                number(row["steps"], ".0f"),
                f"{row['preparing_seconds']:.1f} + {row['seconds']:.1f}",
                f"{row['gap_before']:+.4f} to {row['gap_after']:+.4f}",
                f"{row['test_gap_before']:+.4f} to {row['test_gap_after']:+.4f}",
                f"{row['H_before']:.2f} to {row['H_after']:.2f}",
                number(row["kl"], ".4f"),
            ]
        )
    text = markdown(
        ["held-out gap left, share", "test gap left, share", "way", "target met", "seconds to target", "steps",
         "seconds: responses + training", "held-out gap", "test gap", "mean entropy", "KL"],
        rows,
    )  # fmt: skip
    text += f"\n\nTarget {args.target_gap} nats; medians of {args.seeds} seeds. Seconds hold the held-out measurements. "
    text += "GEE and the ancestor's way end at the time of ours, measurements not counted."
    publish(args, "time_to_target", text, {"medians": middle, "runs": runs})


if __name__ == "__main__":
    main()
