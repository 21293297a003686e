"""Whole runs of ``isentropic train`` on a tiny model: what they write, how they stop, how they go on, what they refuse."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from isentropic.cli import main
from isentropic.commands.parser import settings_from
from isentropic.commands.screen import Screen
from isentropic.commands.train import train
from isentropic.errors import InputError
from isentropic.measure.cost import answers_of
from isentropic.measure.measurement import measure
from isentropic.models.load import load_model
from isentropic.responses.sample import ResponseSampler, Sampling
from isentropic.run_folder import locked
from isentropic.settings import TrainSettings
from oracles import naive_entropies
from tiny import make_folder, make_prompts, make_tokenizer, rows

FILES = (
    "config.json metrics.jsonl responses.jsonl gap_before.json gap_after.json comparison.json curves.png "
    "report.html report.md result.json final/config.json final/model.safetensors final/README.md"
).split()
SETTINGS: dict[str, Any] = {
    "bf16": "off",
    "max_steps": 5,
    "eval_steps": 2,
    "effective_batch": 16,
    "micro_batch_size": 4,
    "max_new_tokens": 6,
    "learning_rate": 1e-3,
    "target_gap": 1e-6,
    "max_kl": 10.0,
    "save_steps": 0,
}


class Watcher(Screen):
    """A screen that remembers its lines and does something when one holds ``at``."""

    def __init__(self, at: str = "", do: Callable[[], None] = lambda: None) -> None:
        super().__init__(console=Console(file=open(os.devnull, "w")))  # noqa: SIM115 - as long as the tests
        self.at, self.do = at, do
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.at and self.at in line:
            self.at = ""
            self.do()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def go(
    tmp_path: Path, tiny_folder: Path, tiny_file: Path
) -> Callable[..., tuple[dict[str, Any], Path, Watcher]]:
    """``go("name", setting=...)`` makes a run: what ``train`` returned, the run folder, and what was said."""

    def run(
        name: str = "run", screen: Watcher | None = None, **changes: Any
    ) -> tuple[dict[str, Any], Path, Watcher]:
        given = {
            "model_path": str(tiny_folder),
            "train_data": str(tiny_file),
            "output_dir": str(tmp_path / "runs"),
        }
        settings = settings_from(TrainSettings, {**given, **SETTINGS, "run_name": name, **changes})
        screen = screen or Watcher()
        return train(settings, screen), Path(settings.output_dir) / name, screen

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_file: Path) -> Path:
    """The folder of one finished run through the command line. Read it only."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", *flags(tiny_folder, tiny_file, runs), "--run_name", "finished"]) == 0
    return runs / "finished"


def flags(model: Path, data: Path, runs: Path, **changes: Any) -> list[str]:
    settings = {"model_path": model, "train_data": data, "output_dir": runs, **SETTINGS, **changes}
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def exit_code(words: list[str]) -> int:
    """What the shell would see: argparse leaves by itself, our own refusals are returned."""
    try:
        return main(words)
    except SystemExit as left:
        return int(str(left.code))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def plain(folder: Path) -> Any:
    """The model as any user of transformers would load it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in sorted(plain(folder).named_parameters())])


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- the run folder ----------------------------------------------------------------------------------------------


def test_the_run_folder_is_complete(finished):
    missing = [
        name for name in FILES if not (finished / name).is_file() or not (finished / name).stat().st_size
    ]
    assert not missing
    left = {path.name for path in finished.rglob("*")} - {Path(name).name for name in FILES}
    assert not [name for name in left if "best" in name or "tmp" in name or "trained" in name]
    result = read(finished / "result.json")
    assert result["stopped"] == "max_steps" and result["steps"] == 5
    assert {"load", "before", "responses", "training", "after"} <= result["seconds"].keys()
    config = read(finished / "config.json")
    assert config["schema"] == "isentropic.config/1" and config["seed"] == 42 and config["max_steps"] == 5
    assert len(config["data_sha256"]) == len(config["model_sha256"]) == 64
    assert config["data_sha256"] == make_prompts().sha256


def test_metrics_have_every_step_and_every_measurement(finished):
    found = rows(finished / "metrics.jsonl")
    steps = [row for row in found if "loss" in row]
    held_out = [row for row in found if "val_gap" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in held_out] == [0, 2, 4, 5]
    names = {"gap", "gap_signed", "H_male", "H_female", "H_mean", "grad_norm", "learning_rate", "seconds"}
    assert all(names <= row.keys() for row in steps)
    for row in held_out:
        low, high = row["val_ci95"]
        assert low < row["val_gap"] < high and row["val_se"] > 0
        assert row["val_gap"] == pytest.approx(row["val_H_female"] - row["val_H_male"], abs=1e-6)
        assert {"kl", "val_length", "val_distinct_2"} <= row.keys()
    assert [row["learning_rate"] for row in steps] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])


def test_the_cost_is_told_from_the_answers_of_each_model(finished, tiny_folder):
    """Both are scored on the base model's responses; length and repetition are those of their own answers."""
    made = []
    for folder in (tiny_folder, finished / "final"):
        sampling = Sampling(max_new_tokens=6, seed=44)
        made.append(answers_of(ResponseSampler(plain(folder), make_tokenizer(), sampling)))
    costs = [model["cost"] for model in read(finished / "comparison.json")["models"]]
    assert [{key: cost[key] for key in answers} for cost, answers in zip(costs, made, strict=True)] == made


def test_every_figure_follows_from_the_responses(finished, tiny_folder):
    """Anyone can recompute the two test gaps: rows in, naive logits, mean over the pairs."""
    found = rows(finished / "responses.jsonl")
    assert len(found) == 12 * 4
    base, final = plain(tiny_folder), plain(finished / "final")
    for row in found:
        assert row["entropy"] == pytest.approx(
            naive_entropies(base, row["prompt_ids"], row["response_ids"]).mean().item(), abs=1e-4
        )
        assert row["entropy_after"] == pytest.approx(
            naive_entropies(final, row["prompt_ids"], row["response_ids"]).mean().item(), abs=1e-4
        )
        assert row["response"] == make_tokenizer().decode(row["response_ids"])
    for file, name in (("gap_before.json", "entropy"), ("gap_after.json", "entropy_after")):
        means = {g: sum(r[name] for r in found if r["group"] == g) / 24 for g in ("male", "female")}
        summary = read(finished / file)
        assert summary["gap"] == pytest.approx(means["female"] - means["male"], abs=1e-6)
        assert summary["H_male"] == pytest.approx(means["male"], abs=1e-6)
    test_pairs = {p.pair_id for p in make_prompts().split("test").prompts}
    assert {row["pair_id"] for row in found} == test_pairs


def test_final_is_the_best_held_out_step(go, tiny_folder):
    """A rate that does not fall: the best step is not the last, and its weights are what is saved."""
    result, folder, _ = go(learning_rate=3e-4, lr_scheduler_type="constant", max_steps=8)
    held_out = {row["step"]: row for row in rows(folder / "metrics.jsonl") if "val_gap" in row}
    best = min(held_out, key=lambda step: abs(held_out[step]["val_gap"]))
    assert result["best_step"] == best and 0 < best < 8
    comparison = read(folder / "comparison.json")
    assert comparison["models"][1]["cost"]["kl_to_first"] == pytest.approx(held_out[best]["kl"], rel=1e-4)
    # The validation gap of what was saved, measured from outside on the same responses.
    from isentropic.responses.sample import Sampling

    validation = make_prompts().split("validation")
    sampling = Sampling(max_new_tokens=6, seed=42 + 1)
    base = measure(load_model(str(tiny_folder)), validation, sampling=sampling)
    final = measure(load_model(str(folder / "final")), validation, sampling=sampling, items=base.items)
    change = held_out[best]["val_gap"] - held_out[0]["val_gap"]
    assert final.summary["gap"] - base.summary["gap"] == pytest.approx(change, abs=1e-5)
    assert abs(change) > 1e-4
    assert final.summary["model_sha256"] == read(folder / "gap_after.json")["model_sha256"]


def test_the_final_tokenizer_is_the_users(finished, tiny_folder):
    from transformers import AutoTokenizer

    ours, theirs = (
        AutoTokenizer.from_pretrained(finished / "final"),
        AutoTokenizer.from_pretrained(tiny_folder),
    )
    assert ours.get_vocab() == theirs.get_vocab() and ours.eos_token == theirs.eos_token


def test_config_json_runs_again_to_the_same_weights(finished, tmp_path):
    given = ["--config", str(finished / "config.json"), "--run_name", "again", "--output_dir", str(tmp_path)]
    assert main(["train", *given]) == 0
    assert torch.equal(weights(finished / "final"), weights(tmp_path / "again" / "final"))
    assert read(finished / "gap_after.json")["gap"] == read(tmp_path / "again" / "gap_after.json")["gap"]


def test_the_reports_name_the_run(finished):
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "<html" in html and "finished" in html and "http://" not in html.replace("http://www.w3.org", "")
    gap = read(finished / "gap_before.json")["gap"]
    assert f"{abs(gap):.6f}" in html.replace("−", "-")
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "tiny-llama" in (finished / "final" / "README.md").read_text(encoding="utf-8")


# ---- when it stops -----------------------------------------------------------------------------------------------


def test_a_model_within_the_target_is_left_unchanged(go, tiny_folder):
    result, folder, screen = go(target_gap=5.0)
    assert result["stopped"] == "already_within" and result["steps"] == 0
    assert "left unchanged" in screen.text and "--force" in screen.text
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))
    assert read(folder / "gap_before.json")["gap"] == read(folder / "gap_after.json")["gap"]
    assert (folder / "report.html").is_file() and result["advice"] == []


def test_force_trains_all_the_same(go):
    result, folder, _ = go(target_gap=5.0, force=True)
    assert result["stopped"] == "target" and result["steps"] == 2
    assert [row["step"] for row in rows(folder / "metrics.jsonl") if "loss" in row] == [1, 2]


def test_the_guard_stops_a_model_that_moves_too_far(go, tiny_folder):
    result, folder, _ = go(max_kl=1e-9, eval_steps=1)
    assert result["stopped"] == "max_kl" and result["steps"] == 1 and result["best_step"] == 0
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))


@pytest.mark.parametrize("eval_steps", [1, 3])
def test_not_finite_stops_with_the_best_kept(go, tiny_folder, eval_steps):
    """A learning rate that throws the weights out of the numbers, met by the held-out measurement or by the gradient."""
    result, folder, screen = go(learning_rate=1e30, eval_steps=eval_steps)
    assert result["stopped"] == "not_finite" and result["best_step"] == 0
    assert "not finite" in screen.text and any("learning_rate" in line["zh"] for line in result["advice"])
    assert torch.equal(weights(tiny_folder), weights(folder / "final"))
    assert (folder / "report.html").is_file()
    json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])


def test_not_finite_is_visible_to_scripts(tmp_path, tiny_folder, tiny_file, capsys):
    """Exit code 1 and one line on standard error; what was good is saved and measured all the same."""
    given = flags(tiny_folder, tiny_file, tmp_path, learning_rate=1e30, run_name="lost")
    assert main(["train", *given]) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("isentropic")]
    assert "NaN or infinite" in error and "step 0" in error and "--learning_rate" in error
    assert torch.equal(weights(tiny_folder), weights(tmp_path / "lost" / "final"))


# ---- cut and resumed ---------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for a machine that goes down."""


def crash() -> None:
    raise Crash


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def assert_same_run(cut: Path, whole: Path) -> None:
    assert torch.equal(weights(cut / "final"), weights(whole / "final"))
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder / "metrics.jsonl")]
        for folder in (cut, whole)
    )
    assert ours == theirs
    assert read(cut / "result.json")["best_step"] == read(whole / "result.json")["best_step"]
    assert read(cut / "gap_after.json")["gap"] == read(whole / "gap_after.json")["gap"]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_cut_by_ctrl_c_and_resumed_is_the_run_never_cut(go, step):
    _, whole, _ = go("whole")
    result, cut, screen = go("cut", Watcher(f"Step {step} |", ctrl_c))
    assert result["stopped"] == "interrupted" and step <= result["steps"] <= step + 1
    assert "--resume" in screen.lines[-1]
    assert not (cut / "final").exists()
    result, _, _ = go("cut", resume=True)
    assert result["stopped"] == "max_steps" and result["steps"] == 5
    assert_same_run(cut, whole)


@pytest.mark.parametrize("changes", [{}, {"target_gap": 5.0, "force": True}], ids=["max_steps", "target"])
def test_ctrl_c_after_the_last_step_leaves_a_finished_run(go, changes):
    """It comes while the last step is written down: the run is over, and is finished as if nothing had come."""
    whole, folder, _ = go("whole", **changes)
    late, cut, _ = go("late", Watcher(f"Step {whole['steps']} |", ctrl_c), **changes)
    assert late["stopped"] == whole["stopped"] in ("max_steps", "target")
    assert_same_run(cut, folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"steady": False, "loss": "gee", "adam_beta1": 0.9},
        {"refresh_responses": 1},
        {"refresh_responses": 4, "effective_batch": 32},
        {"responses": "own"},
        {"matched": False, "micro_batch_size": 16},
        {"lora_r": 2, "learning_rate": 1e-2},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()),
)
def test_exact_resume_whatever_the_settings(go, changes):
    if "lora_r" in changes:
        pytest.importorskip("peft")
    _, whole, _ = go("whole", **changes)
    go("cut", Watcher("Step 2 |", ctrl_c), **changes)
    go("cut", resume=True, **changes)
    assert_same_run(cut=whole.parent / "cut", whole=whole)


def test_a_crash_after_a_checkpoint_is_resumed_from_it(go):
    _, whole, _ = go("whole", save_steps=2)
    with pytest.raises(Crash):
        go("cut", Watcher("Step 4 |", crash), save_steps=2)
    cut = whole.parent / "cut"
    assert rows(cut / "metrics.jsonl")[-1]["step"] == 3
    assert not (cut / "result.json").exists()
    go("cut", resume=True, save_steps=2)
    assert_same_run(cut, whole)


def test_a_crash_before_any_checkpoint_starts_again(go):
    _, whole, _ = go("whole")
    with pytest.raises(Crash):
        go("cut", Watcher("Step 3 |", crash))
    _, cut, screen = go("cut", resume=True)
    assert "no checkpoint" in screen.text
    assert_same_run(cut, whole)


def test_resume_with_other_data_or_another_model_is_refused(go, tmp_path):
    _, cut, _ = go("cut", Watcher("Step 1 |", ctrl_c))
    before = content(cut)
    other = write_pairs(tmp_path / "other.jsonl", 30)
    with pytest.raises(InputError, match="other prompts"):
        go("cut", resume=True, train_data=other)
    with pytest.raises(InputError, match="another model"):
        go("cut", resume=True, model_path=str(make_folder(tmp_path / "other-model", seed=3)))
    assert content(cut) == before


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_resumes(tmp_path, tiny_folder, tiny_file):
    """A real process, a real signal, and the printed command run as printed."""
    command = [sys.executable, "-m", "isentropic"]
    given = flags(tiny_folder, tiny_file, tmp_path, max_steps=400, eval_steps=400, run_name="cut me")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "train", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None and process.stderr is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if "Step 2 |" in line:
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    said += rest.splitlines()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    (printed,) = [line.strip() for line in said if line.strip().endswith("--resume")]
    assert read(tmp_path / "cut me" / "result.json")["stopped"] == "interrupted"
    words = shlex.split(printed)
    assert words[:2] == ["isentropic", "train"]
    # Few steps more: a later flag wins.
    steps = str(read(tmp_path / "cut me" / "result.json")["steps"] + 2)
    ended = subprocess.run(
        [*command, *words[1:], "--max_steps", steps],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
    )
    assert ended.returncode == 0, ended.stderr
    assert read(tmp_path / "cut me" / "result.json")["stopped"] == "max_steps"
    assert (tmp_path / "cut me" / "final" / "model.safetensors").is_file()


# ---- refused, with nothing overwritten -----------------------------------------------------------------------------


def write_pairs(path: Path, count: int, **more: Any) -> str:
    lines = [
        json.dumps({"male": f"he {n} and he", "female": f"she {n} and she", "topic": f"t{n % 5}", **more})
        + "\n"
        for n in range(count)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def test_a_run_folder_that_exists_is_refused(finished, tiny_folder, tiny_file, capsys):
    before = content(finished)
    given = flags(tiny_folder, tiny_file, finished.parent, run_name="finished")
    assert main(["train", *given]) == 2
    error = capsys.readouterr().err
    assert "exists" in error and "--resume" in error and "--overwrite" in error and error.count("\n") == 1
    assert main(["train", *given, "--resume"]) == 2
    assert "finished (max_steps)" in capsys.readouterr().err
    assert content(finished) == before


def refused(tmp_path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Settings that cannot work, and a word of the line that says so."""
    (tmp_path / "short.txt").write_text("a", encoding="utf-8")
    return {
        "model": ({"model_path": str(tmp_path / "nothing")}, "does not exist"),
        "data": ({"train_data": str(tmp_path / "nothing.jsonl")}, "nothing to read"),
        "few": ({"train_data": write_pairs(tmp_path / "few.jsonl", 3)}, "needs at least two"),
        "tracker": ({"report_to": "nosuchtracker"}, "nosuchtracker"),
        "lora modules": ({"lora_r": 2, "lora_target_modules": "no_such_layer"}, "no_such_layer"),
        "chat": ({"chat": True}, "chat template"),
        "context": ({"max_new_tokens": 255}, "context"),
        "text": ({"text_file": str(tmp_path / "nothing.txt")}, "nothing.txt"),
        "short text": ({"text_file": str(tmp_path / "short.txt")}, "needs at least two"),
        "seed": ({"seed": 2**32}, "32 bits"),
        "four bits": ({"load_in_4bit": True}, "4bit"),
        "chunk": ({"chunk_mb": 1e-6}, "chunk"),
    }


CASES = "model,data,few,tracker,lora modules,chat,context,text,short text,seed,four bits,chunk"


@pytest.mark.parametrize("case", CASES.split(","))
def test_overwrite_deletes_nothing_before_all_is_checked(case, tmp_path, tiny_folder, tiny_file, capsys):
    if case == "four bits" and torch.cuda.is_available():
        pytest.skip("a GPU may have what --load_in_4bit needs")
    changes, word = refused(tmp_path)[case]
    old = tmp_path / "runs" / "old"
    old.mkdir(parents=True)
    (old / "config.json").write_text('{"schema": "isentropic.config/1"}', encoding="utf-8")
    (old / "final.txt").write_text("hours of work", encoding="utf-8")
    before = content(tmp_path)
    given = {"model_path": tiny_folder, "train_data": tiny_file, **SETTINGS, "run_name": "old"}
    given |= {"output_dir": tmp_path / "runs", **changes}
    words = [
        w
        for name, value in given.items()
        for w in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
    assert exit_code(["train", *words, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert word in error and error.startswith("isentropic") and error.count("\n") == 1
    assert content(tmp_path) == before


def test_overwrite_wants_a_run_folder(go, tmp_path):
    mine = tmp_path / "runs" / "photos"
    mine.mkdir(parents=True)
    (mine / "holiday.jpg").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="not a run folder"):
        go("photos", overwrite=True)
    assert (mine / "holiday.jpg").is_file()


def test_overwrite_starts_afresh(go):
    _, folder, _ = go("run", max_steps=2)
    (folder / "old.txt").write_text("x", encoding="utf-8")
    result, _, _ = go("run", max_steps=1, overwrite=True)
    assert result["steps"] == 1 and not (folder / "old.txt").exists()
    assert [row["step"] for row in rows(folder / "metrics.jsonl") if "loss" in row] == [1]


# ---- other ways to train -----------------------------------------------------------------------------------------


def test_own_responses(go):
    result, folder, _ = go(responses="own", max_steps=2)
    assert result["steps"] == 2
    assert read(folder / "gap_before.json")["responses"] == "own"
    assert all(row["source"] == row["group"] for row in rows(folder / "responses.jsonl"))


def test_the_ancestors_preset(go):
    result, folder, _ = go(preset="ancestor", effective_batch=4, micro_batch_size=2, max_steps=2)
    config = read(folder / "config.json")
    assert (
        config["gap_over"] == "micro_batch" and config["matched"] is False and config["preset"] == "ancestor"
    )
    assert result["steps"] == 2


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_models(go, tmp_path, kind):
    model = make_folder(tmp_path / kind, kind, pad=None)
    result, folder, _ = go(model_path=str(model), max_steps=2)
    assert result["steps"] == 2 and plain(folder / "final").config.model_type == kind


def test_unpaired_csv(go, tmp_path):
    """Prompts without twins: own responses, Welch's interval, a report all the same."""
    lines = ["input,gender"] + [f"he has {n} pens,male" for n in range(20)]
    lines += [f"she has {n} pens today,female" for n in range(14)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result, folder, screen = go(train_data=str(file), max_steps=2)
    summary = read(folder / "gap_after.json")
    assert result["steps"] == 2 and summary["cluster_unit"] == "prompt" and summary["responses"] == "own"
    assert "20:14" in screen.text and (folder / "report.html").is_file()


def test_three_groups(go, tmp_path, tiny_folder):
    file = tmp_path / "three.jsonl"
    file.write_text(
        "".join(
            json.dumps({"prompt": f"{who} met {n}", "group": group, "pair_id": n, "topic": f"t{n % 4}"})
            + "\n"
            for n in range(40)
            for group, who in (("young", "a boy"), ("grown", "a man"), ("old", "an old man"))
        ),
        encoding="utf-8",
    )
    result, folder, _ = go(
        train_data=str(file), group_column="group", effective_batch=12, micro_batch_size=3, max_steps=2
    )
    summary = read(folder / "gap_after.json")
    assert result["steps"] == 2 and set(summary["groups"]) == {"young", "grown", "old"}
    assert len(summary["group_gaps"]) == 3
    # A micro-batch of one triple goes through the command line too, which checks before it knows the groups.
    given = flags(tiny_folder, file, tmp_path, group_column="group", effective_batch=12, micro_batch_size=3)
    assert main(["train", *given, "--max_steps", "1"]) == 0
    assert all(
        f"H_{g}" in row for row in rows(folder / "metrics.jsonl") if "loss" in row for g in summary["groups"]
    )


def test_lora_saves_an_adapter_and_the_merged_model(go, tiny_folder):
    pytest.importorskip("peft")
    result, folder, _ = go(lora_r=2, merge_lora=True, learning_rate=1e-2, force=True, seed=1)
    assert (folder / "final" / "adapter_model.safetensors").is_file()
    assert not (folder / "final" / "model.safetensors").exists()
    adapter, merged, base = plain(folder / "final"), plain(folder / "final" / "merged"), plain(tiny_folder)
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        assert torch.allclose(adapter(ids).logits, merged(ids).logits, atol=1e-4)
        assert not torch.allclose(base(ids).logits, merged(ids).logits, atol=1e-4)
    assert result["best_step"] > 0
    again = measure(load_model(str(folder / "final")), make_prompts().split("test"))
    other = measure(
        load_model(str(folder / "final" / "merged")), make_prompts().split("test"), items=again.items
    )
    assert again.summary["gap"] == pytest.approx(other.summary["gap"], abs=1e-5)


def test_an_adapter_is_reloaded_from_anywhere_but_is_no_base_for_another(
    go, tmp_path, tiny_folder, monkeypatch
):
    """A base given by a relative path; a second adapter on the first would lose the first when it is loaded."""
    pytest.importorskip("peft")
    monkeypatch.chdir(tiny_folder.parent)
    lora = {"lora_r": 2, "lora_target_modules": "q_proj,v_proj", "learning_rate": 1e-2}
    _, folder, _ = go(model_path=tiny_folder.name, **lora)
    assert set(read(folder / "final" / "adapter_config.json")["target_modules"]) == {"q_proj", "v_proj"}
    monkeypatch.chdir(tmp_path)
    row = rows(folder / "responses.jsonl")[0]
    adapter = load_model(str(folder / "final")).model
    found = naive_entropies(adapter, row["prompt_ids"], row["response_ids"]).mean().item()
    assert found == pytest.approx(row["entropy_after"], abs=1e-4)
    with pytest.raises(InputError, match="an adapter already"):
        go("second", model_path=str(folder / "final"), **lora)
    assert not (folder.parent / "second").exists()
    config = folder / "final" / "adapter_config.json"
    config.write_text(
        json.dumps(read(config) | {"base_model_name_or_path": str(make_folder(tmp_path / "g", "gpt2"))})
    )
    with pytest.raises(InputError, match="does not fit its base"):
        load_model(str(folder / "final"))


def test_perplexity_before_and_after(go, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The nurse put on her coat and went home. " * 20, encoding="utf-8")
    _, folder, _ = go(text_file=str(text), max_steps=2, force=True)
    before, after = (row["cost"]["perplexity"] for row in read(folder / "comparison.json")["models"])
    assert before > 1 and after > 1


def test_tensorboard_gets_our_names(go, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder, _ = go(report_to="tensorboard", max_steps=4)
    (board_folder,) = {file.parent for file in folder.rglob("events.out.tfevents*")}
    assert not (tmp_path / "here" / "runs").exists()
    board = EventAccumulator(str(board_folder))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    wanted = "loss entropy_gap entropy_gap_signed H_male H_female H_mean grad_norm learning_rate".split()
    assert {f"train/{name}" for name in wanted} <= tags
    assert {f"eval/{name}" for name in ("gap", "gap_se", "kl", "H_male", "H_female")} <= tags
    steps = {row["step"]: row["gap"] for row in rows(folder / "metrics.jsonl") if "loss" in row}
    written = {event.step: event.value for event in board.Scalars("train/entropy_gap")}
    assert written == pytest.approx(steps, rel=1e-5)


def test_a_report_in_chinese(go):
    _, folder, screen = go(max_steps=1, lang="zh")
    assert "偏见" in (folder / "report.html").read_text(encoding="utf-8")
    assert any("偏见" in line for line in screen.lines if line.startswith("before"))


def test_the_monitor_line_is_the_guides(go):
    import re

    _, folder, screen = go(max_steps=3)
    lines = [line for line in screen.lines if "Step" in line and "loss=" in line]
    form = (
        r"(📉|📈) Step \d+ \| loss=\d+\.\d{6} \| gap=\d+\.\d{6} \| H_male=\d+\.\d{4} \| H_female=\d+\.\d{4}"
    )
    assert len(lines) == 3 and all(re.fullmatch(form, line) for line in lines)
    gaps = [row["gap"] for row in rows(folder / "metrics.jsonl") if "loss" in row]
    rose = [line.startswith("📈") for line in lines]
    assert rose == [False] + [b > a for a, b in zip(gaps, gaps[1:], strict=False)]


def mamba_folder(folder: Path) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    config = AutoConfig.for_model("mamba", vocab_size=320, initializer_range=0.5, **sizes, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_lora_on_a_family_that_cannot_be_adapted_everywhere(go, tmp_path):
    pytest.importorskip("peft")
    model = str(mamba_folder(tmp_path / "mamba"))
    _, folder, _ = go(model_path=model, lora_r=2, max_steps=1, force=True)
    named = set(read(folder / "final" / "adapter_config.json")["target_modules"])
    assert {name.rsplit(".", 1)[-1] for name in named} == {"in_proj", "x_proj", "dt_proj"}
    with pytest.raises(InputError, match="out_proj"):
        go("second", model_path=model, lora_r=2, lora_target_modules="out_proj")
    assert not (folder.parent / "second").exists()


def test_an_adapter_on_a_tied_head_is_refused_before_the_run_folder(go, tmp_path):
    pytest.importorskip("peft")
    model = str(make_folder(tmp_path / "tied", "qwen2"))
    for name, layers in (("a", "q_proj,lm_head"), ("b", "embed_tokens")):
        with pytest.raises(InputError, match="another layer shares"):
            go(name, model_path=model, lora_r=2, lora_target_modules=layers, merge_lora=name == "a")
    assert not (tmp_path / "runs").exists()


def test_the_merged_weights_of_an_adapter_folder_are_trained_further(go):
    pytest.importorskip("peft")
    _, folder, _ = go("adapter", lora_r=2, max_steps=1, force=True)
    adapter = str(folder / "final")
    _, further, _ = go("further", model_path=adapter, max_steps=1, save_steps=1, force=True)
    start = dict(load_model(adapter).model.named_parameters())
    end = dict(plain(further / "checkpoints" / "checkpoint-1").named_parameters())
    assert sum(not torch.equal(start[name], end[name]) for name in start) > len(start) / 2


def test_gradient_checkpointing_where_the_model_has_none_is_refused_before_the_run_folder(go, tmp_path):
    from transformers import CTRLConfig, CTRLLMHeadModel

    config = CTRLConfig(vocab_size=320, n_embd=16, dff=16, n_layer=1, n_head=2, n_positions=256)
    CTRLLMHeadModel(config).save_pretrained(tmp_path / "ctrl")
    make_tokenizer().save_pretrained(tmp_path / "ctrl")
    with pytest.raises(InputError, match="does not support it"):
        go(model_path=str(tmp_path / "ctrl"), gradient_checkpointing=True)
    assert not (tmp_path / "runs").exists()


# --- The model that is saved ----------------------------------------------------------------------------------------


@pytest.fixture
def narrow_folder(tiny_folder, tmp_path):
    """The tiny Llama as hub models come: in bfloat16, with generation settings that contradict each other."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    narrow = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).save_pretrained(narrow)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(narrow)
    config = narrow / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": 0, "do_sample": False, "temperature": 0.6}))
    return narrow


def test_a_bfloat16_checkpoint_saved_in_float32_is_said(narrow_folder, tiny_file, tmp_path, capsys):
    words = [
        "train",
        *flags(narrow_folder, tiny_file, tmp_path, max_steps=1, save_dtype="float32"),
        "--force",
    ]
    assert exit_code(words) == 0
    said = "the checkpoint is in bfloat16 and the model is saved in float32, 2 times the size"
    screen = capsys.readouterr()
    assert said in " ".join(screen.out.split()) and "warning: final/" not in screen.out
    (report,) = tmp_path.glob("*/report.md")
    assert said in " ".join(report.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("lora", [{}, {"lora_r": 2, "merge_lora": True}], ids=["full", "lora"])
def test_what_is_certified_is_what_the_folder_gives_in_the_dtype_it_came_in(go, narrow_folder, lora):
    result, folder, screen = go(
        model_path=str(narrow_folder), force=True, max_steps=2, learning_rate=1e-3, **lora
    )
    assert result["warnings"] == []
    before, after = read(folder / "gap_before.json"), read(folder / "gap_after.json")
    assert before["settings"]["dtype"] == after["settings"]["dtype"] == "bfloat16"
    model = plain(folder / "final")  # transformers puts an adapter on its base, in the base's dtype
    assert model.dtype == torch.bfloat16
    rows = [
        json.loads(line) for line in (folder / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for row in rows[:8]:
        plainly = float(naive_entropies(model.float(), row["prompt_ids"], row["response_ids"]).mean())
        assert row["entropy_after"] == pytest.approx(plainly, abs=1e-4)
    if lora:
        assert plain(folder / "final" / "merged").dtype == torch.bfloat16


def test_a_change_is_left_in_bfloat16(go, narrow_folder):
    given = {
        "model_path": str(narrow_folder),
        "force": True,
        "max_steps": 4,
        "learning_rate": 2e-4,
        "seed": 1,
    }
    result, folder, _ = go("auto", **given)
    _, wide, _ = go("wide", save_dtype="float32", **given)
    assert result["best_step"]  # or nothing was trained
    base, saved, trained = (
        torch.cat([p.flatten().float() for p in plain(where).parameters()])
        for where in (narrow_folder, folder / "final", wide / "final")
    )
    moved = (trained - base).double()
    nearest = (trained.bfloat16().float() - base).double()
    left, lost = (float(moved @ change / (moved @ moved)) for change in ((saved - base).double(), nearest))
    assert left == pytest.approx(1, abs=0.1) and lost < 0.8


# ---- killed, signalled, or refused ---------------------------------------------------------------------------------


def crash_in(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The machine goes down the first time that this function of the command is called."""
    import isentropic.commands.train as module

    owner = module.Run if hasattr(module.Run, where) else module
    real, calls = getattr(owner, where), []

    def once(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise Crash
        return real(*args, **options)

    monkeypatch.setattr(owner, where, once)


@pytest.mark.parametrize(
    "where", ["write_trained", "take_best", "save_final", "write_report", "forget_finished"]
)
def test_a_run_that_met_its_target_does_not_train_on_after_a_crash(go, monkeypatch, where):
    met = {"target_gap": 5.0, "force": True, "save_steps": 1}
    _, whole, _ = go("whole", **met)
    crash_in(monkeypatch, where)
    with pytest.raises(Crash):
        go("cut", **met)
    cut = whole.parent / "cut"
    if where == "forget_finished":  # all was written; there is only to tidy up
        with pytest.raises(InputError, match=r"is finished \(target\)"):
            go("cut", resume=True, **met)
    else:
        assert not (cut / "result.json").exists()
        result, _, screen = go("cut", resume=True, **met)
        assert result["stopped"] == "target" and result["steps"] == 2 and "Step 3 |" not in screen.text
    assert_same_run(cut, whole)
    assert set(content(cut)) == set(content(whole))


def test_a_run_that_made_its_last_step_goes_straight_to_the_end_without_any_checkpoint(go, monkeypatch):
    _, whole, _ = go("whole")
    crash_in(monkeypatch, "take_best")
    with pytest.raises(Crash):
        go("cut")
    result, cut, screen = go("cut", resume=True)
    assert result["stopped"] == "max_steps" and result["steps"] == 5 and "Step" not in screen.text
    assert_same_run(cut, whole)


def test_a_finished_run_gets_the_report_and_the_card_that_it_lacks(go):
    _, folder, _ = go("run", max_steps=1, eval_steps=1)
    before = content(folder)
    for name in ("report.html", "report.md", "final/README.md"):
        (folder / name).unlink()
        _, _, screen = go("run", max_steps=1, eval_steps=1, resume=True)
        assert f"{name} written again" in screen.text and content(folder) == before
    (folder / "final" / "README.md").unlink()
    assert main(["report", str(folder)]) == 0 and content(folder) == before
    with pytest.raises(InputError, match="is finished"):
        go("run", resume=True)


@pytest.mark.parametrize(
    "harm", ["model.safetensors", "optimizer.pt", "rng_state.pth", "steering_0.json", "best"]
)
def test_a_damaged_checkpoint_is_told_and_never_used(go, harm):
    _, whole, _ = go("whole", save_steps=2)
    with pytest.raises(Crash):
        go("cut", Watcher("Step 3 |", crash), save_steps=2)
    checkpoints = whole.parent / "cut" / "checkpoints"
    damaged = (
        next(checkpoints.glob("best-*/*.safetensors"))
        if harm == "best"
        else checkpoints / "checkpoint-2" / harm
    )
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 8
    damaged.write_bytes(data)
    _, cut, screen = go("cut", resume=True, save_steps=2)
    assert "checkpoint-2 cannot be used" in screen.text and damaged.name in screen.text
    assert_same_run(cut, whole)


@pytest.mark.parametrize(("steps", "word"), [(1, "--max_steps is 1"), (4, "")])
def test_more_or_fewer_steps_when_resuming(go, steps, word):
    stopped, cut, _ = go("cut", Watcher("Step 2 |", ctrl_c))
    before = content(cut)
    if word:
        with pytest.raises(InputError, match=word):
            go("cut", resume=True, max_steps=steps)
        assert content(cut).items() >= {k: v for k, v in before.items() if "gap_before" not in k}.items()
    else:
        result, _, _ = go("cut", resume=True, max_steps=steps)
        assert result["steps"] == steps
        config = read(cut / "config.json")
        assert config["max_steps"] == 5 and config["resumed"] == [
            {"after_step": stopped["steps"], "max_steps": 4}
        ]


def test_other_settings_are_refused_before_a_model_is_loaded(go, tmp_path):
    _, cut, _ = go("cut", Watcher("Step 1 |", ctrl_c))
    before = content(cut)
    with pytest.raises(InputError, match=r"--seed \(then 42, now 7\)"):
        go("cut", resume=True, seed=7)
    with pytest.raises(InputError, match=r"--lora_r \(then 0, now 4\)") as caught:
        go("cut", resume=True, lora_r=4, effective_batch=8)
    assert "--effective_batch (then 16, now 8)" in str(caught.value) and content(cut) == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_of_a_cluster_saves_a_checkpoint(go, tmp_path, tiny_folder, tiny_file, name, capsys):
    """The exit code says which signal it was; the run goes on as if nothing had been."""
    _, whole, _ = go("whole")
    number = getattr(signal, name)
    metrics = tmp_path / "runs" / "cut" / "metrics.jsonl"

    def send() -> None:
        while not (metrics.is_file() and '"step": 1,' in metrics.read_text()):
            time.sleep(0.005)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher passes on what the cluster sends to all

    sender = threading.Thread(target=send)
    sender.start()
    # The dying run has steps enough for the signal to find it training; the whole one is that of the default.
    given = flags(tiny_folder, tiny_file, tmp_path / "runs", run_name="cut", max_steps=10**4, eval_steps=5)
    assert main(["train", *given]) == 128 + number
    sender.join()
    assert signal.getsignal(number) == signal.SIG_DFL
    result = read(tmp_path / "runs" / "cut" / "result.json")
    assert result["stopped"] == "interrupted" and result["signal"] == name
    assert f"{name}: finishing this step" in capsys.readouterr().out
    assert main(["train", *given, "--max_steps", str(result["steps"] + 1), "--resume"]) == 0
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_folder_that_is_in_use_is_refused(go, tmp_path):
    _, cut, _ = go("cut", Watcher("Step 1 |", ctrl_c))
    before = content(cut)
    with locked(cut):
        for flags_ in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="in use by another process"):
                go("cut", **flags_)
    assert content(cut) == before and [path.name for path in cut.parent.iterdir()] == ["cut"]
