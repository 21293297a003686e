"""What watches a run: the stop at the target, the guard, the best checkpoint, the monitor."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from isentropic.labels import interval_text, monitor_line
from isentropic.models.sharding import put, whole
from isentropic.report.curves import draw_curves, finite

BEST_WEIGHTS, BEST_FACTS = "best", "best.json"
SHARD_BYTES = 64 * 2**20


class NotFiniteError(ArithmeticError):
    """The loss or the gradient is no longer a number."""


class TargetGapStop(TrainerCallback):
    """Stop when the held-out gap is within ``stop_gap``, or when the guard's limit is passed. Never on a minibatch.

    ``stop_gap`` is a share of the target: a run that stops at the very edge of the target lands beyond it on new
    prompts every second time.
    """

    def __init__(self, stop_gap: float, max_kl: float) -> None:
        self.stop_gap, self.max_kl = stop_gap, max_kl
        self.reason = "max_steps"

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if "eval_gap" not in metrics:  # another data set than the validation prompts was measured
            return
        if metrics["eval_kl"] > self.max_kl:
            self.reason, control.should_training_stop = "max_kl", True
        elif abs(metrics["eval_gap"]) <= self.stop_gap:
            self.reason, control.should_training_stop = "target", True


class FiniteGuard(TrainerCallback):
    """Stop before an optimizer step whose gradient is not finite, so that the weights stay good."""

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not math.isfinite(float(whole(torch.nn.utils.get_total_norm(gradients)))):
            raise NotFiniteError(f"the gradient of step {state.global_step + 1} is not finite")


class BestCheckpoint(TrainerCallback):
    """Keep the trained weights of the step whose held-out gap is smallest, among those within the guard's limit.

    The weights are kept in the folder ``best`` (trainable parameters alone), the facts in ``best.json``.
    """

    def __init__(self, folder: Path, max_kl: float) -> None:
        self.folder, self.max_kl = folder, max_kl
        self.facts: dict[str, Any] = {}
        if (folder / BEST_FACTS).is_file():
            self.facts = json.loads((folder / BEST_FACTS).read_text(encoding="utf-8"))

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if "eval_gap" not in metrics:  # another data set than the validation prompts was measured
            return
        gap = abs(metrics["eval_gap"])
        better = not self.facts or gap < self.facts["gap"]
        if not (better and math.isfinite(gap) and metrics["eval_kl"] <= self.max_kl):
            return
        self.facts = {"step": state.global_step, "gap": gap, "kl": metrics["eval_kl"]}
        self.save(kwargs["model"], state.is_world_process_zero)
        if state.is_world_process_zero:
            (self.folder / BEST_FACTS).write_text(json.dumps(self.facts), encoding="utf-8")

    def save(self, model: nn.Module, writes: bool = True) -> None:
        """Write the trainable parameters in small shards: safetensors holds a copy of each file it writes.

        All processes take part, since the weights may be spread over them; one of them writes.
        """
        new, kept = self.folder / f"{BEST_WEIGHTS}.new", self.folder / BEST_WEIGHTS
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if writes:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        shard: dict[str, torch.Tensor] = {}
        for number, (name, parameter) in enumerate(trained):
            value = whole(parameter)
            if not writes:
                continue
            shard[name] = value.cpu().contiguous()
            full = sum(value.nbytes for value in shard.values()) >= SHARD_BYTES
            if full or number == len(trained) - 1:
                save_file(shard, new / f"{number:05d}.safetensors")
                shard = {}
        if writes:
            shutil.rmtree(kept, ignore_errors=True)
            new.rename(kept)

    def restore(self, model: nn.Module) -> None:
        """Put the kept weights back into the model."""
        parameters = dict(model.named_parameters())
        for file in sorted((self.folder / BEST_WEIGHTS).glob("*.safetensors")):
            for name, value in load_file(file).items():
                put(value, parameters[name])


class InterruptStop(TrainerCallback):
    """After a first Ctrl-C: finish the step, save a checkpoint, stop."""

    def __init__(self) -> None:
        self.asked = self.stopped = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:  # the signal may reach one process a step earlier than another
            self.asked = any(gather_object([self.asked]))
        if self.asked:
            self.stopped = control.should_save = control.should_training_stop = True


class Monitor(TrainerCallback):
    """The guide's monitor line, ``metrics.jsonl`` and ``curves.png``, as the run goes.

    Args:
        folder: the run folder.
        say: prints a line.
        advance: told the step after each one, for a progress bar.
    """

    def __init__(
        self,
        folder: Path,
        target_gap: float,
        *,
        say: Callable[[str], None],
        advance: Callable[[int], None] = lambda step: None,
        title: str = "",
    ) -> None:
        self.folder, self.target_gap, self.say, self.advance, self.title = (
            folder,
            target_gap,
            say,
            advance,
            title,
        )
        self.file = folder / "metrics.jsonl"
        self.rows = kept_rows(self.file) if self.file.is_file() else []
        self.last_gap: float | None = None
        self.started = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # A run that resumes drops what an interrupted one had written past its checkpoint.
        self.rows = [row for row in self.rows if row["step"] <= state.global_step]
        self.started = time.monotonic()
        self.last_gap = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.advance(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if not state.is_world_process_zero:
            return
        if "loss" in logs and "entropy_gap" in logs:
            self.say(monitor_line(state.global_step, logs, self.last_gap))
            self.last_gap = logs["entropy_gap"]
            row = {
                "loss": logs["loss"],
                "gap": logs["entropy_gap"],
                "gap_signed": logs.get("entropy_gap_signed"),
            }
            row |= {name: value for name, value in logs.items() if name.startswith("H_")}
            row |= {name: logs.get(name) for name in ("grad_norm", "learning_rate")}
            self.write(
                {"step": state.global_step, **row, "seconds": round(time.monotonic() - self.started, 3)}
            )
        elif "eval_gap" in logs:
            known = "eval_gap_low" in logs
            interval = [logs["eval_gap_low"], logs["eval_gap_high"]] if known else None
            self.say(
                f"   held-out gap={abs(logs['eval_gap']):.4f} (signed {logs['eval_gap']:+.4f}, 95% interval "
                f"{interval_text(interval)}) | KL={logs['eval_kl']:.5f}"
            )
            row = {"val_gap": logs["eval_gap"], "val_se": logs.get("eval_gap_se"), "val_ci95": interval}
            row |= {f"val_{k[5:]}": v for k, v in logs.items() if k.startswith("eval_H_")}
            row |= {"kl": finite(logs["eval_kl"]), "val_length": logs.get("eval_length")}
            row |= {"val_distinct_2": logs.get("eval_distinct_2")}
            self.write(
                {"step": state.global_step, **row, "seconds": round(time.monotonic() - self.started, 3)}
            )
            draw_curves(self.rows, self.folder / "curves.png", target_gap=self.target_gap, title=self.title)

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.file.write_text("".join(json.dumps(kept) + "\n" for kept in self.rows), encoding="utf-8")


def kept_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl`` up to the first that a crash cut short."""
    rows: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "step" not in row:
            break
        rows.append(row)
    return rows
