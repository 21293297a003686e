"""What watches a run: the stop at the target, the guard, the best checkpoint, the monitor."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from isentropic.errors import InputError
from isentropic.files import seal
from isentropic.labels import interval_text, monitor_line
from isentropic.models.sharding import put, whole
from isentropic.report.curves import draw_curves, finite
from isentropic.run_folder import CURVES, append_metrics, read_metrics, write_metrics
from isentropic.schema import Stopped
from isentropic.training.checkpoints import best_fault, best_folder, forget_unused_best

SHARD_BYTES = 64 * 2**20


class NotFiniteError(ArithmeticError):
    """The loss or the gradient is NaN or infinite."""


class TargetGapStop(TrainerCallback, ExportableState):
    """Stop when the held-out gap is within ``stop_gap`` (None: no gap stops the run), or when the guard's
    limit is passed. Never on a minibatch.

    ``stop_gap`` is a share of the target: a run that stops at the very edge of the target lands beyond it on
    new prompts every second time.
    """

    def __init__(self, stop_gap: float | None, max_kl: float) -> None:
        self.stop_gap, self.max_kl = stop_gap, max_kl
        self.reason: Stopped = "max_steps"

    def state(self) -> dict[str, Any]:
        """What transformers keeps of this in a checkpoint."""
        return {"args": {}, "attributes": {"reason": self.reason}}

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if "eval_gap" not in metrics:  # another data set than the validation prompts was measured
            return
        if metrics["eval_kl"] > self.max_kl:
            self.reason, control.should_training_stop = "max_kl", True
        elif self.stop_gap is not None and abs(metrics["eval_gap"]) <= self.stop_gap:
            self.reason, control.should_training_stop = "target", True


class FiniteGuard(TrainerCallback):
    """Stop before an optimizer step whose gradient is not finite, so that the weights stay good."""

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not math.isfinite(float(whole(torch.nn.utils.get_total_norm(gradients)))):
            raise NotFiniteError(f"the gradient of step {state.global_step + 1} is not finite")


class BestCheckpoint(TrainerCallback, ExportableState):
    """Keep the trained weights of the step whose held-out gap is smallest,
    among those within the guard's limit.

    They are kept in the sealed folder ``best-<step>`` (trainable parameters alone). Each checkpoint names the
    best step at its time, and those weights stay as long as the checkpoint does.
    """

    def __init__(self, folder: Path, max_kl: float) -> None:
        self.folder, self.max_kl = folder, max_kl
        self.facts: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """What transformers keeps of this in a checkpoint."""
        return {"args": {}, "attributes": {"facts": self.facts}}

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        if "eval_gap" not in metrics:  # another data set than the validation prompts was measured
            return
        gap = abs(metrics["eval_gap"])
        better = not self.facts or gap < self.facts["gap"]
        if better and math.isfinite(gap) and metrics["eval_kl"] <= self.max_kl:
            self.save(kwargs["model"], state.global_step, state.is_world_process_zero)
            self.facts = {"step": state.global_step, "gap": gap, "kl": metrics["eval_kl"]}

    def save(self, model: nn.Module, step: int, writes: bool = True) -> None:
        """Write the trainable parameters in small shards: safetensors holds a copy of each file it writes.

        All processes take part, since the weights may be spread over them; one of them writes.
        """
        target = best_folder(self.folder, step)
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if writes:
            forget_unused_best(self.folder)
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        shard: dict[str, torch.Tensor] = {}
        for number, (name, parameter) in enumerate(trained):
            value = whole(parameter)
            if not writes:
                continue
            shard[name] = value.cpu().contiguous()
            full = sum(value.nbytes for value in shard.values()) >= SHARD_BYTES
            if full or number == len(trained) - 1:
                save_file(shard, target / f"{number:05d}.safetensors")
                shard = {}
        if writes:
            seal(target)

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back into the model.

        Raises:
            InputError: they are damaged.
        """
        if not self.facts:
            return
        fault = best_fault(self.folder, self.facts)
        if fault:
            raise InputError(
                f"{fault}; other weights would be saved as the best ones; run it again with --resume, which "
                "goes back to the last checkpoint that is whole, or to the first step"
            )
        parameters = dict(model.named_parameters())
        for file in sorted(best_folder(self.folder, self.facts["step"]).glob("*.safetensors")):
            for name, value in load_file(file).items():
                put(value, parameters[name])


class InterruptStop(TrainerCallback):
    """After a signal: finish the step, save a checkpoint, stop.
    A signal during the last step changes nothing."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the signal's number
        self.stopped = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:  # the signal may reach one process a step earlier than another
            self.asked = next((asked for asked in gather_object([self.asked]) if asked), None)
        if self.asked and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    @property
    def name(self) -> str:
        """The signal by its name."""
        return signal.Signals(self.asked).name if self.asked else ""


class Monitor(TrainerCallback):
    """The guide's monitor line, ``metrics.jsonl`` and ``curves.png``, as the run goes.

    Args:
        folder: the run folder.
        say: prints a line.
        advance: called with the step after each one, for a progress bar.
    """

    def __init__(
        self,
        folder: Path,
        target_gap: float | None,
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
        self.rows = read_metrics(folder)
        self.last_gap: float | None = None
        self.started = time.monotonic()
        self.draws = True
        self.next_drawing = self.started + 9

    def go_back(self, step: int) -> None:
        """Drop what an interrupted run had written past ``step``; -1 drops all."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        write_metrics(self.folder, self.rows)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.go_back(state.global_step)
        self.started = time.monotonic()
        self.last_gap = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.advance(state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.draw()

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
            if time.monotonic() >= self.next_drawing:
                self.draw()

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        append_metrics(self.folder, row)

    def draw(self) -> None:
        """Draw the curves so far. A picture that cannot be drawn is said once, and costs nothing else."""
        if not self.draws:
            return
        began = time.monotonic()
        try:
            draw_curves(self.rows, self.folder / CURVES, target_gap=self.target_gap, title=self.title)
        except Exception as error:  # matplotlib, its fonts, its settings, the disk: none is worth a training
            self.draws = False
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.say(f"   {CURVES} cannot be drawn ({reason}); training continues without it")
        # Drawing takes up to a second, whatever the steps take: at most a tenth of the time goes to it.
        self.next_drawing = time.monotonic() + 9 * (time.monotonic() - began)
