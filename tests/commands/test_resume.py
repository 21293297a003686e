"""Runs that are interrupted, killed, damaged or refused: what is lost (nothing), and how they go on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from isentropic.cli import main
from isentropic.errors import InputError
from isentropic.run_folder import locked
from runs import SETTINGS, Watcher, content, exit_code, flags, read, runner, weights
from tiny import make_folder, rows

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
    assert read(cut / "result.json")["other_sets"] == read(whole / "result.json")["other_sets"]


MET = {"target_gap": 5.0, "force": True, "save_steps": 1}


@pytest.fixture(scope="module")
def keep(tmp_path_factory, tiny_folder, tiny_file):
    """``go`` for runs that several tests read or copy, but do not change."""
    return runner(tmp_path_factory.mktemp("kept"), tiny_folder, tiny_file)


@pytest.fixture(scope="module")
def met(keep):
    """A whole run that met its target."""
    return keep("met", **MET)[1]


@pytest.fixture(scope="module")
def interrupted(keep):
    """A run that Ctrl-C ended after its first steps."""
    return keep("interrupted", Watcher("Step 1 |", ctrl_c))[1]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory, tiny_folder, tiny_file):
    """A run that died in its fourth step, with a checkpoint of the second."""
    runs = tmp_path_factory.mktemp("crashed")
    with pytest.raises(Crash):
        runner(runs, tiny_folder, tiny_file)("run", Watcher("Step 4 |", crash), save_steps=2)
    return runs / "run"


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_cut_by_ctrl_c_and_resumed_is_the_run_never_cut(go, finished, step):
    result, cut, screen = go("cut", Watcher(f"Step {step} |", ctrl_c))
    assert result["stopped"] == "interrupted" and step <= result["steps"] <= step + 1
    assert "--resume" in screen.lines[-1]
    assert not (cut / "final").exists()
    result, _, _ = go("cut", resume=True)
    assert result["stopped"] == "max_steps" and result["steps"] == 5
    assert_same_run(cut, finished)


@pytest.mark.parametrize(
    ("whole", "last", "changes"), [("finished", 5, {}), ("met", 2, MET)], ids=["max_steps", "target"]
)
def test_ctrl_c_after_the_last_step_leaves_a_finished_run(go, request, whole, last, changes):
    """It comes while the last step is written down: the run is over, and is finished as if nothing had come."""
    folder = request.getfixturevalue(whole)
    late, cut, _ = go("late", Watcher(f"Step {last} |", ctrl_c), **changes)
    assert late["stopped"] == read(folder / "result.json")["stopped"] in ("max_steps", "target")
    assert_same_run(cut, folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"steady": False, "loss": "gee", "adam_beta1": 0.9, "responses": "own", "other_pairs": 3},
        {"refresh_responses": 1, "matched": False, "micro_batch_size": 16},
        {"refresh_responses": 4, "effective_batch": 32},
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


def test_a_crash_after_a_checkpoint_is_resumed_from_it(go, tmp_path, crashed, finished):
    cut = Path(shutil.copytree(crashed, tmp_path / "runs" / "cut"))
    assert rows(cut / "metrics.jsonl")[-1]["step"] == 3
    assert not (cut / "result.json").exists()
    go("cut", resume=True, save_steps=2)
    assert_same_run(cut, finished)


def test_a_crash_before_any_checkpoint_starts_again(go, finished):
    with pytest.raises(Crash):
        go("cut", Watcher("Step 3 |", crash))
    _, cut, screen = go("cut", resume=True)
    assert "no checkpoint" in screen.text
    assert_same_run(cut, finished)


def test_resume_with_other_data_another_model_or_other_settings_is_refused(keep, interrupted, tmp_path):
    before = content(interrupted)
    other = write_pairs(tmp_path / "other.jsonl", 30)
    with pytest.raises(InputError, match="other prompts"):
        keep("interrupted", resume=True, train_data=other)
    with pytest.raises(InputError, match="another model"):
        keep("interrupted", resume=True, model_path=str(make_folder(tmp_path / "other-model", seed=3)))
    with pytest.raises(InputError, match=r"--seed \(then 42, now 7\)"):
        keep("interrupted", resume=True, seed=7)
    with pytest.raises(InputError, match=r"--lora_r \(then 0, now 4\)") as caught:
        keep("interrupted", resume=True, lora_r=4, effective_batch=8)
    assert "--effective_batch (then 16, now 8)" in str(caught.value)
    assert content(interrupted) == before


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


# ---- killed, signalled, or refused ---------------------------------------------------------------------------------


def crash_in(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The machine goes down the first time that this function of the command is called."""
    import isentropic.commands.train as module

    owner = next(found for found in (module.Run, module.Saving, module) if hasattr(found, where))
    real, calls = getattr(owner, where), []

    def once(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise Crash
        return real(*args, **options)

    monkeypatch.setattr(owner, where, once)


@pytest.mark.parametrize("where", ["write_trained", "save", "forget_finished"])
def test_a_run_that_met_its_target_does_not_train_on_after_a_crash(go, met, tmp_path, monkeypatch, where):
    crash_in(monkeypatch, where)
    with pytest.raises(Crash):
        go("cut", **MET)
    cut = tmp_path / "runs" / "cut"
    if where == "forget_finished":  # all was written; there is only to tidy up
        with pytest.raises(InputError, match=r"is finished \(target\)"):
            go("cut", resume=True, **MET)
    else:
        assert not (cut / "result.json").exists()
        result, _, screen = go("cut", resume=True, **MET)
        assert result["stopped"] == "target" and result["steps"] == 2 and "Step 3 |" not in screen.text
    assert_same_run(cut, met)
    assert set(content(cut)) == set(content(met))


def test_a_run_that_made_its_last_step_goes_straight_to_the_end_without_any_checkpoint(
    go, finished, monkeypatch
):
    crash_in(monkeypatch, "take_best")
    with pytest.raises(Crash):
        go("cut")
    result, cut, screen = go("cut", resume=True)
    assert result["stopped"] == "max_steps" and result["steps"] == 5 and "Step" not in screen.text
    assert_same_run(cut, finished)


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


@pytest.mark.parametrize("harm", ["optimizer.pt", "steering_0.json", "best"])
def test_a_damaged_checkpoint_is_told_and_never_used(go, tmp_path, crashed, finished, harm):
    checkpoints = Path(shutil.copytree(crashed, tmp_path / "runs" / "cut")) / "checkpoints"
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
    assert_same_run(cut, finished)


def test_fewer_steps_when_resuming(go, tmp_path, interrupted):
    """But not fewer than the run has made."""
    cut = Path(shutil.copytree(interrupted, tmp_path / "runs" / "cut"))
    made, before = read(cut / "result.json")["steps"], content(cut)
    with pytest.raises(InputError, match=f"--max_steps is {made - 1}"):
        go("cut", resume=True, max_steps=made - 1)
    assert content(cut).items() >= {k: v for k, v in before.items() if "gap_before" not in k}.items()
    result, _, _ = go("cut", resume=True, max_steps=4)
    assert result["steps"] == 4
    config = read(cut / "config.json")
    assert config["max_steps"] == 5 and config["resumed"] == [{"after_step": made, "max_steps": 4}]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.slow
def test_a_signal_of_a_cluster_saves_a_checkpoint(tmp_path, tiny_folder, tiny_file, name, capsys):
    """The exit code says which signal it was; the run goes on as if nothing had been."""
    number = getattr(signal, name)
    found = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and then a run ignores it
    metrics = tmp_path / "runs" / "cut" / "metrics.jsonl"

    def send() -> None:
        while not (metrics.is_file() and '"step": 1,' in metrics.read_text()):
            time.sleep(0.005)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher passes on what the cluster sends to all

    sender = threading.Thread(target=send)
    sender.start()
    # It has steps enough for the signal to find it training.
    given = flags(tiny_folder, tiny_file, tmp_path / "runs", run_name="cut", max_steps=10**4, eval_steps=5)
    assert main(["train", *given]) == 128 + number
    sender.join()
    assert signal.getsignal(number) == signal.SIG_DFL
    result = read(tmp_path / "runs" / "cut" / "result.json")
    assert result["stopped"] == "interrupted" and result["signal"] == name
    assert f"{name}: finishing this step" in capsys.readouterr().out
    assert main(["train", *given, "--max_steps", str(result["steps"] + 1), "--resume"]) == 0
    assert signal.getsignal(number) == signal.SIG_DFL
    signal.signal(number, found)


def test_a_folder_that_is_in_use_is_refused(keep, interrupted):
    before, beside = content(interrupted), sorted(interrupted.parent.iterdir())
    with locked(interrupted):
        for flags_ in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="in use by another process"):
                keep("interrupted", **flags_)
    assert content(interrupted) == before and sorted(interrupted.parent.iterdir()) == beside
