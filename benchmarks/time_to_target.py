"""Seconds of training until the held-out gap meets the target: ours, GEE and the predecessor's method.

    python benchmarks/time_to_target.py [--seeds 3] [--target_gap 0.01] [--model NAME]

All three run through DebiasingTrainer on the built-in prompts. One ruler for all: the test pairs, on shared responses
that the untouched model gave; they choose nothing, and the clock stands still while they are measured. Ours and GEE stop
when the trainer's own held-out measurement says so, which is on the clock. GEE and the predecessor's method may take as long
as ours took, responses included.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from typing import Any

from common import Row, medians, model_name, number, parser, publish, run_job
from common import table as markdown
from isentropic.settings import TrainSettings

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

    from isentropic.measure.measurement import make_items
    from isentropic.measure.summary import summarise
    from isentropic.models.load import load_model
    from isentropic.prompts.load import load_prompts
    from isentropic.responses.response import Draw
    from isentropic.settings import apply_preset
    from isentropic.training.callbacks import TargetGapStop
    from isentropic.training.trainer import DebiasingConfig, DebiasingTrainer

    if not job["quick"]:
        torch.set_num_threads(job["threads"])

    class Limit(TrainerCallback):
        """Stops at the time limit, with a last measurement."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if job["limit"] is not None and trainer.seconds() >= job["limit"]:
                control.should_training_stop = control.should_evaluate = True

    class Timed(DebiasingTrainer):
        """Lays the ruler on at every held-out measurement, with its clock stopped."""

        started = ruling = 0.0
        points: list[Row] = []

        def seconds(self) -> float:
            return time.perf_counter() - self.started - self.ruling

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            # The ancestor measures nothing held out, so it need not spend time on it.
            found = super().evaluate(*args, **kwargs) if stop else {}
            seconds, start = self.seconds(), time.perf_counter()
            self.points.append({"step": self.state.global_step, "seconds": seconds, **self.ruler()})
            self.ruling += time.perf_counter() - start
            return found

        def ruler(self) -> Row:
            assert self.neutral is not None
            row = summarise(items, self.score(items), self.groups, job["target_gap"])
            kept = {key: row[key] for key in ("gap", "ci95", "mean_abs_pair_gap", "H_mean")}
            return {**kept, "kl": self.neutral.kl_to(self.model)["kl"]}

    loaded = load_model(job["model"])
    prompts = load_prompts(seed=job["seed"])
    shared = {"max_steps": job["max_steps"], "learning_rate": job["learning_rate"]}
    if job["side"] in STOPS:  # the ancestor has a batch of its own
        shared |= {"effective_batch": job["effective_batch"], "micro_batch_size": job["micro_batch_size"]}
    given = apply_preset({**shared, **SIDES[job["side"]]})
    given.pop("preset", None)
    if job["quick"]:
        given |= {"max_steps": 2, "effective_batch": 4}
    within = TrainSettings().stop_margin * job["target_gap"]
    stop = [TargetGapStop(within, math.inf)] if job["side"] in STOPS else []
    with tempfile.TemporaryDirectory() as folder:
        settings = DebiasingConfig(
            output_dir=folder, seed=job["seed"], target_gap=job["target_gap"], use_cpu=True, **given
        )
        parts = {split: prompts.split(split) for split in ("train", "validation", "test")}
        for split in ("train", "validation"):
            parts[split] = parts[split].first(job[f"{split}_pairs"])
        if job["quick"]:
            parts = {split: part.first(8) for split, part in parts.items()}
        trainer = Timed(
            loaded.model,
            settings,
            parts["train"],
            parts["validation"],
            loaded.tokenizer,
            callbacks=[Limit(), *stop],
        )
        sampling = settings.sampling(Draw.TEST, num_responses=1)
        test = parts["test"].first(job["test_pairs"])
        items = make_items(test, trainer.response_sampler(sampling), shared=True)
        if stop:
            trainer.base_sha256 = None  # type: ignore[assignment]  # no response comes from the cache
        start = time.perf_counter()
        trainer.prepare()
        preparing = time.perf_counter() - start
        Timed.points = []
        trainer.started = time.perf_counter()
        trainer.train()
    first, last = trainer.points[0], trainer.points[-1]
    met = [point["seconds"] for point in trainer.points if abs(point["gap"]) <= job["target_gap"]]
    return {
        "seconds": last["seconds"],
        # The ancestor samples within its steps.
        "preparing_seconds": preparing if stop else 0.0,
        "stopped": stop[0].reason if stop else "time",
        "seconds_to_target": met[0] if met else None,
        "steps": last["step"],
        "gap_before": first["gap"],
        "gap_after": last["gap"],
        "gap_left": abs(last["gap"] / first["gap"]),
        "H_before": first["H_mean"],
        "H_after": last["H_mean"],
        "kl": last["kl"],
        "points": trainer.points,
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "time_to_target")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--target_gap", type=float, default=0.01)
    flags.add_argument("--max_steps", type=int, default=20, help="most steps of ours and of GEE")
    flags.add_argument("--test_pairs", type=int, default=128, help="the ruler")
    flags.add_argument("--train_pairs", type=int, help="training pairs; all of them if left out")
    flags.add_argument("--validation_pairs", type=int, help="validation pairs; all of them if left out")
    for name in ("learning_rate", "effective_batch", "micro_batch_size"):
        default = getattr(TrainSettings(), name)
        flags.add_argument(
            f"--{name}", type=type(default), default=default, help="as `isentropic train` takes it"
        )
    args = flags.parse_args(arguments)
    if args.job:
        print(json.dumps(one_run(args.job)))
        return
    if args.quick:
        args.seeds, args.test_pairs, args.target_gap = 1, 4, 1e-6
    given = {key: value for key, value in vars(args).items() if key not in ("seeds", "out", "job")}
    job = {**given, "model": model_name(args)}
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
        met = sorted(run["seconds_to_target"] for run in runs[side] if run["seconds_to_target"] is not None)
        stops = sum(run["stopped"] == "target" for run in runs[side])
        rows.append(
            [number(row["gap_left"]), side, f"{row['gap_before']:+.4f} to {row['gap_after']:+.4f}",
             number(row["steps"], ".0f"), f"{row['preparing_seconds']:.1f} + {row['seconds']:.1f}",
             f"{stops} of {args.seeds}" if side in STOPS else "", f"{len(met)} of {args.seeds}",
             number(met[len(met) // 2] if met else None, ".1f"),
             f"{row['H_before']:.2f} to {row['H_after']:.2f}", number(row["kl"], ".4f")]
        )  # fmt: skip
    text = markdown(
        ["gap left, share", "way", "gap on unseen pairs", "steps", "seconds: responses + training",
         "stopped by itself at the target", "unseen pairs within the target", "after seconds", "mean entropy", "KL"],
        rows,
    )  # fmt: skip
    text += f"\n\nTarget {args.target_gap} nats; medians of {args.seeds} seeds; {args.test_pairs} test pairs."
    publish(args, "time_to_target", text, {"medians": middle, "runs": runs})


if __name__ == "__main__":
    main()
