"""What watches a run: the monitor's line and file, the stop, the guard, the best weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from isentropic.errors import InputError
from isentropic.labels import monitor_line
from isentropic.training.callbacks import (
    BestCheckpoint,
    FiniteGuard,
    InterruptStop,
    Monitor,
    NotFiniteError,
    TargetGapStop,
)

ALONE = SimpleNamespace(world_size=1)


STEPS = 9


def state(step: int) -> TrainerState:
    return TrainerState(global_step=step, max_steps=STEPS)


def held_out(gap: float, kl: float = 0.001, **more: float) -> dict[str, float]:
    return {"eval_gap": gap, "eval_kl": kl, **more}


# --- The line -------------------------------------------------------------------------------------------------------

PARTS = {"loss": 0.16, "entropy_gap": 0.4, "H_male": 0.45, "H_female": 0.85, "H_mean": 0.65}


@pytest.mark.parametrize(
    ("last", "mark"), [(None, "📉"), (0.5, "📉"), (0.4, "📉"), (0.39, "📈"), (0.0, "📈")]
)
def test_the_line_is_the_guides_and_points_up_where_the_gap_rose(last, mark):
    expected = f"{mark} Step 1 | loss=0.160000 | gap=0.400000 | H_male=0.4500 | H_female=0.8500"
    assert monitor_line(1, PARTS, last) == expected


def test_the_line_names_every_group_in_order():
    parts = {"loss": 1.0, "entropy_gap": 0.5, "H_old": 1.0, "H_young": 1.5, "H_teen": 1.25, "H_mean": 1.25}
    shown = "H_old=1.0000 | H_young=1.5000 | H_teen=1.2500"
    assert monitor_line(12, parts, None).split(" | ")[3:] == shown.split(" | ")


# --- The monitor ----------------------------------------------------------------------------------------------------


class Listener:
    def __init__(self, folder):
        self.lines: list[str] = []
        self.steps: list[int] = []
        self.monitor = Monitor(folder, 0.01, say=self.lines.append, advance=self.steps.append)

    def log(self, step: int, logs: dict) -> None:
        self.monitor.on_log(None, state(step), TrainerControl(), logs=logs)

    def rows(self) -> list[dict]:
        return [json.loads(line) for line in (self.monitor.folder / "metrics.jsonl").read_text().splitlines()]


def training(gap: float) -> dict[str, float]:
    levels = {"H_male": 3.0, "H_female": 3.0 + gap, "H_mean": 3.0 + gap / 2}
    gaps = {"loss": gap**2, "entropy_gap": abs(gap), "entropy_gap_signed": gap}
    return {**gaps, **levels, "grad_norm": 1.5, "learning_rate": 1e-5}


def test_the_monitor_says_and_writes_each_step(tmp_path):
    heard = Listener(tmp_path)
    for step, gap in enumerate((-0.3, -0.1, 0.2), 1):
        heard.log(step, training(gap))
        heard.monitor.on_step_end(None, state(step), TrainerControl())
    assert [line[0] for line in heard.lines] == ["📉", "📉", "📈"] and heard.steps == [1, 2, 3]
    assert heard.lines[2].startswith(
        "📈 Step 3 | loss=0.040000 | gap=0.200000 | H_male=3.0000 | H_female=3.2000"
    )
    rows = heard.rows()
    assert [(row["gap_signed"], row["gap"]) for row in rows] == [(-0.3, 0.3), (-0.1, 0.1), (0.2, 0.2)]
    keys = "step loss gap gap_signed H_male H_female H_mean grad_norm learning_rate seconds"
    assert set(rows[0]) == set(keys.split())


def test_the_monitor_writes_held_out_lines_and_draws(tmp_path):
    heard = Listener(tmp_path)
    bounds = {"eval_gap_low": -0.06, "eval_gap_high": -0.02, "eval_gap_se": 0.01}
    heard.log(0, held_out(-0.04, 0.0, **bounds, eval_H_male=3.0, eval_H_female=2.96, eval_length=11.5))
    assert not (tmp_path / "curves.png").exists()  # a run of a few seconds is drawn at its end alone
    heard.monitor.next_drawing = 0.0
    heard.log(2, held_out(0.01, 0.0012))  # no interval
    assert heard.lines == [
        "   held-out gap=0.0400 (signed -0.0400, 95% interval [-0.0600, -0.0200]) | KL=0.00000",
        "   held-out gap=0.0100 (signed +0.0100, 95% interval unknown) | KL=0.00120",
    ]
    first, second = heard.rows()
    assert (first["val_gap"], first["val_se"], first["val_ci95"]) == (-0.04, 0.01, [-0.06, -0.02])
    levels = {"val_H_male": 3.0, "val_H_female": 2.96, "val_length": 11.5, "kl": 0.0}
    assert first.items() >= levels.items()
    assert second["val_ci95"] is None
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_other_logs_are_not_the_monitors(tmp_path):
    heard = Listener(tmp_path)
    heard.log(3, {"train_runtime": 3.0, "train_loss": 0.1})
    assert heard.lines == [] and not (tmp_path / "metrics.jsonl").exists()


def test_only_the_first_process_writes(tmp_path):
    heard = Listener(tmp_path)
    second = TrainerState(global_step=1, is_world_process_zero=False)
    heard.monitor.on_log(None, second, TrainerControl(), logs=training(0.3))
    assert heard.lines == [] and not (tmp_path / "metrics.jsonl").exists()


def test_a_resumed_run_goes_on_behind_its_checkpoint(tmp_path):
    first = Listener(tmp_path)
    for step in (1, 2, 3, 4):
        first.log(step, training(0.4 / step))
    again = Listener(tmp_path)
    again.monitor.on_train_begin(None, state(2), TrainerControl())
    again.log(3, training(0.7))
    assert [(row["step"], row["gap"]) for row in again.rows()] == [(1, 0.4), (2, 0.2), (3, 0.7)]


# --- The stop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "kl", "stops", "reason"),
    [
        (0.02, 0.001, False, "max_steps"),
        (-0.02, 0.001, False, "max_steps"),
        (0.01, 0.001, True, "target"),
        (-0.004, 0.05, True, "target"),
        (0.2, 0.0501, True, "max_kl"),
        (0.001, 0.0501, True, "max_kl"),  # the guard goes first
        (float("nan"), 0.001, False, "max_steps"),
    ],
)
def test_the_stop_looks_at_held_out_evidence_alone(gap, kl, stops, reason):
    stop, control = TargetGapStop(0.01, 0.05), TrainerControl()
    stop.on_log(None, state(1), control, logs=training(0.0))  # a minibatch without a gap stops nothing
    stop.on_step_end(None, state(1), control)
    assert not control.should_training_stop
    stop.on_evaluate(None, state(2), control, metrics=held_out(gap, kl))
    assert control.should_training_stop is stops and stop.reason == reason


def test_what_is_not_the_validation_set_stops_nothing(tmp_path):
    stop, best, control = TargetGapStop(0.01, 0.05), BestCheckpoint(tmp_path, 0.05), TrainerControl()
    for callback in (stop, best):
        callback.on_evaluate(
            None, state(2), control, metrics={"eval_other_gap": 0.0}, model=torch.nn.Linear(3, 2)
        )
    assert not control.should_training_stop and best.facts == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_behind_the_step_with_a_checkpoint(number):
    stop, control = InterruptStop(), TrainerControl()
    stop.on_step_end(ALONE, state(1), control)
    assert not (control.should_save or control.should_training_stop or stop.stopped)
    stop.asked = number
    stop.on_step_end(ALONE, state(2), control)
    assert control.should_save and control.should_training_stop and stop.stopped
    assert stop.name == signal.Signals(number).name


def test_a_signal_during_the_last_step_changes_nothing():
    stop, control = InterruptStop(), TrainerControl()
    stop.asked = signal.SIGTERM
    stop.on_step_end(ALONE, state(STEPS), control)
    assert not (control.should_save or control.should_training_stop or stop.stopped)


# --- The guard ------------------------------------------------------------------------------------------------------


def with_gradient(value: float) -> torch.nn.Module:
    model = torch.nn.Linear(3, 2)
    model.weight.grad = torch.ones(2, 3)
    model.weight.grad[1, 2] = value  # the bias has no gradient at all
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_step(value):
    with pytest.raises(NotFiniteError, match="step 7 "):
        FiniteGuard().on_pre_optimizer_step(None, state(6), TrainerControl(), model=with_gradient(value))


def test_a_finite_gradient_passes_however_large():
    for model in (with_gradient(1e15), torch.nn.Linear(3, 2)):
        FiniteGuard().on_pre_optimizer_step(None, state(0), TrainerControl(), model=model)


# --- The best weights -----------------------------------------------------------------------------------------------


def fill(model: torch.nn.Module, value: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def visit(best: BestCheckpoint, model: torch.nn.Module, history) -> None:
    """Evaluate at each step, the weights being filled with the step's number."""
    for step, (gap, kl) in enumerate(history):
        best.on_evaluate(
            None, state(step), TrainerControl(), metrics=held_out(gap, kl), model=fill(model, step)
        )


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([(0.3, 0), (-0.1, 0), (0.2, 0)], 1),
        ([(0.3, 0), (0.1, 0), (-0.1, 0)], 1),  # the first of equals
        ([(0.3, 0), (0.01, 0.06), (0.2, 0.04)], 2),  # past the limit of the guard
        ([(0.3, 0), (float("nan"), 0), (0.1, float("nan"))], 0),
        ([(float("nan"), 0), (0.3, 0)], 1),
    ],
)
def test_the_best_weights_come_back(tmp_path, history, expected):
    best, model = BestCheckpoint(tmp_path / "checkpoints", 0.05), torch.nn.Linear(3, 2)
    visit(best, model, history)
    assert best.facts["step"] == expected and best.facts["gap"] == abs(history[expected][0])
    best.restore(fill(model, 99))
    assert all((parameter == expected).all() for parameter in model.parameters())


def test_a_real_model_with_tied_weights_comes_back_exactly(tmp_path, tiny_model):
    model, best = tiny_model("gpt2"), BestCheckpoint(tmp_path, 0.05)
    best.on_evaluate(None, state(1), TrainerControl(), metrics=held_out(0.1), model=model)
    best.restore(fill(model, 0.0))
    fresh = tiny_model("gpt2")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_only_what_is_trained_is_kept(tmp_path):
    model, best = (
        torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)),
        BestCheckpoint(tmp_path, 0.05),
    )
    model[0].requires_grad_(False)
    visit(best, model, [(0.3, 0), (0.1, 0)])
    kept = {name for file in (tmp_path / "best-1").glob("*.safetensors") for name in load_file(file)}
    assert kept == {"1.weight", "1.bias"}
    best.restore(fill(model, 9))
    assert (model[0].weight == 9).all() and (model[1].weight == 1).all()


def test_large_weights_are_kept_in_several_files(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr("isentropic.training.callbacks.SHARD_BYTES", 20_000)
    model, best = tiny_model(), BestCheckpoint(tmp_path, 0.05)
    best.on_evaluate(None, state(1), TrainerControl(), metrics=held_out(0.1), model=model)
    assert len(list((tmp_path / "best-1").glob("*.safetensors"))) > 2
    best.restore(fill(model, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny_model().parameters(), strict=True))


def test_a_resumed_run_keeps_an_earlier_best(tmp_path):
    model, first = torch.nn.Linear(3, 2), BestCheckpoint(tmp_path, 0.05)
    visit(first, model, [(0.3, 0), (0.1, 0)])
    again = BestCheckpoint(tmp_path, 0.05)
    again.facts = first.state()["attributes"]["facts"]
    again.on_evaluate(None, state(5), TrainerControl(), metrics=held_out(0.2), model=fill(model, 5))
    assert again.facts["step"] == 1
    again.restore(model)
    assert (model.weight == 1).all()
    again.on_evaluate(None, state(6), TrainerControl(), metrics=held_out(0.05), model=fill(model, 6))
    assert again.facts["step"] == 6 and [path.name for path in tmp_path.iterdir()] == ["best-6"]


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "unsealed", "folder"])
def test_damaged_best_weights_are_never_used(tmp_path, harm):
    model, best = torch.nn.Linear(30, 20), BestCheckpoint(tmp_path, 0.05)
    visit(best, model, [(0.1, 0)])
    (file,) = (tmp_path / "best-0").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    damage = {
        "flip": lambda: file.write_bytes(data),
        "cut": lambda: file.write_bytes(data[:-9]),
        "gone": file.unlink,
        "unsealed": (tmp_path / "best-0" / "manifest.json").unlink,
        "folder": lambda: shutil.rmtree(tmp_path / "best-0"),
    }
    damage[harm]()
    fill(model, 7)
    with pytest.raises(InputError, match="--resume"):
        best.restore(model)
    assert (model.weight == 7).all()


# --- The picture ----------------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_drawn_is_said_once_and_ends_nothing(tmp_path):
    (tmp_path / "curves.png").mkdir()
    heard = Listener(tmp_path)
    heard.monitor.next_drawing = 0.0
    for step in (0, 2, 4):
        heard.log(step, held_out(0.1 / (step + 1)))
    assert len([line for line in heard.lines if "cannot be drawn" in line]) == 1
    assert [row["step"] for row in heard.rows()] == [0, 2, 4]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", ""])
def test_curves_are_drawn_whatever_backend_a_notebook_left(tmp_path, backend):
    code = (
        f"from isentropic.report.curves import draw_curves; draw_curves([{{'step': 1, 'gap': 0.4}}], {str(tmp_path / 'c.png')!r}); "
        "import os; print(os.environ['MPLBACKEND'])"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG") and done.stdout.strip() == backend
