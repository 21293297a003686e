"""Two processes through the real command line (torchrun, gloo, CPU): the same run as one process, or a clear end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isentropic.cli import main
from isentropic.prompts.preview import write_prompts
from runs import flags as of_runs
from tiny import make_prompts, rows

ROOT = Path(__file__).parents[2]
TIMEOUT = 180
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="needs gloo"
    ),
]


def flags(model: Path, data: Path, runs: Path, name: str, **changes: Any) -> list[str]:
    return of_runs(model, data, runs, run_name=name, **{"save_steps": 5} | changes)


def torchrun(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        [*launcher, str(script), *words], capture_output=True, text=True, timeout=TIMEOUT, env=environment
    )


def two(*words: str) -> subprocess.CompletedProcess[str]:
    done = torchrun(ROOT / "train_debiasing.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def weights(run: Path, step: int = 5) -> torch.Tensor:
    kept = load_file(run / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    return torch.cat([kept[name].flatten().double() for name in sorted(kept)])


@pytest.mark.parametrize(
    "changes",
    [{}, {"steady": "off", "loss": "gee", "responses": "own", "micro_batch_size": 8}],
    ids=["steady", "gee-own"],
)
def test_two_processes_are_one(tmp_path, tiny_folder, tiny_file, changes):
    changes = dict(changes)
    extra = ["--no-steady"] if changes.pop("steady", "") else []
    given = {"model": tiny_folder, "data": tiny_file, "runs": tmp_path}
    assert main(["train", *flags(**given, name="one", **changes), *extra]) == 0
    done = two(*flags(**given, name="two", **changes), *extra)
    one, other = tmp_path / "one", tmp_path / "two"
    # One process speaks, one folder is written, and whole.
    assert done.stdout.count("📉 Step 1 |") == 1 and done.stdout.count("stopped: max_steps") == 1
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert torch.linalg.norm(weights(one) - weights(other)) < 1e-5 * torch.linalg.norm(weights(one))
    start = load_file(tiny_folder / "model.safetensors")
    base = torch.cat([start[name].flatten().double() for name in sorted(start)])
    moved, apart = weights(one) - base, weights(other) - weights(one)
    assert torch.linalg.norm(apart) < 1e-3 * torch.linalg.norm(moved)
    for a, b in zip(rows(one / "metrics.jsonl"), rows(other / "metrics.jsonl"), strict=True):
        assert a["step"] == b["step"] and a.keys() == b.keys()
        if "loss" in a:
            error = 1e-5 + 1e-6 * a["H_mean"] / a["gap"]
            assert b["gap"] == pytest.approx(a["gap"], rel=error)
            assert b["loss"] == pytest.approx(a["loss"], rel=4 * error)
            assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=4 * error)
        else:
            assert b["val_gap"] == pytest.approx(a["val_gap"], abs=1e-5)
            assert b["kl"] == pytest.approx(a["kl"], abs=1e-5)
    ours, theirs = (json.loads((run / "result.json").read_text(encoding="utf-8")) for run in (one, other))
    assert ours["stopped"] == theirs["stopped"] and ours["best_step"] == theirs["best_step"]


# accelerate shards over GPUs only; here two CPU processes are told to it as a kind of processor that it knows.
SHARDED = """
os.environ |= {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
from accelerate.state import DistributedType, PartialState
begin = PartialState.__init__
def tell(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_XPU
PartialState.__init__ = tell
"""


def test_sharded_weights_are_trained_kept_and_saved_whole(tmp_path, tiny_folder, tiny_file):
    """FSDP: every step is that of one process; the best weights, here those before training, come back from shards."""
    given = {"model": tiny_folder, "data": tiny_file, "runs": tmp_path}
    assert main(["train", *flags(**given, name="one")]) == 0
    done = torchrun(script(tmp_path, SHARDED), *flags(**given, name="two"))
    assert done.returncode == 0 and "its parameters are sharded" in done.stdout + done.stderr, done.stderr
    one, two = tmp_path / "one", tmp_path / "two"
    assert torch.linalg.norm(weights(one) - weights(two)) < 1e-5 * torch.linalg.norm(weights(one))
    results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in (one, two)]
    assert results[0]["best_step"] == results[1]["best_step"] == 0
    ours, theirs = (load_file(run / "final" / "model.safetensors") for run in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6) for name in ours)


def test_merging_into_shards_is_refused(tmp_path, tiny_folder, tiny_file):
    words = [*flags(tiny_folder, tiny_file, tmp_path / "runs", "run"), "--lora_r", "2", "--merge_lora"]
    done = torchrun(script(tmp_path, SHARDED), *words)
    assert done.returncode != 0 and "merge final/ afterwards" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_is_one_process(tmp_path, tiny_folder, tiny_file, stage):
    given = {"model": tiny_folder, "data": tiny_file, "runs": tmp_path, "learning_rate": 1e-4}
    assert main(["train", *flags(**given, name="one", hold="none")]) == 0
    config = (ROOT / "examples" / "accelerate" / f"deepspeed_zero{stage}.yaml").read_text(encoding="utf-8")
    (tmp_path / "zero.yaml").write_text(config.replace("bf16", '"no"'), encoding="utf-8")
    body = f"""
from accelerate.commands.launch import main
sys.argv[1:1] = ["--config_file", {str(tmp_path / "zero.yaml")!r}, {str(ROOT / "train_debiasing.py")!r}]
main()
"""
    (tmp_path / "launch.py").write_text("import sys\n" + body, encoding="utf-8")
    words = [sys.executable, str(tmp_path / "launch.py"), *flags(**given, name="two", hold="none")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(tmp_path / run / "final" / "model.safetensors") for run in ("one", "two"))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6) for name in ours)


def test_processes_stop_together(tmp_path, tiny_folder, tiny_file):
    """A model within its target: both processes leave it unchanged. And both stop at the target when forced on."""
    given = {"model": tiny_folder, "data": tiny_file, "runs": tmp_path, "target_gap": 5}
    assert "left unchanged" in two(*flags(**given, name="within")).stdout
    assert (tmp_path / "within" / "final" / "model.safetensors").is_file()
    two(*flags(**given, name="forced"), "--force")
    result = json.loads((tmp_path / "forced" / "result.json").read_text(encoding="utf-8"))
    assert result["stopped"] == "target" and result["steps"] == 2


SCRIPT = """
import os, sys
from pathlib import Path
rank = int(os.environ["RANK"])
{body}
from isentropic.cli import train_main
sys.exit(train_main("train_debiasing.py"))
"""


def script(folder: Path, body: str) -> Path:
    """The command line, with something that goes wrong in one of the processes."""
    file = folder / "train.py"
    file.write_text(SCRIPT.format(body=body), encoding="utf-8")
    return file


def test_two_processes_with_different_data_are_refused(tmp_path, tiny_folder, tiny_file):
    other = write_prompts(make_prompts().split("train", "validation", "test"), tmp_path / "rank1.jsonl")
    text = other.read_text(encoding="utf-8")
    other.write_text(text.replace("nurse", "nanny"), encoding="utf-8")
    body = f"if rank == 1: sys.argv[sys.argv.index({str(tiny_file)!r})] = {str(other)!r}"
    done = torchrun(script(tmp_path, body), *flags(tiny_folder, tiny_file, tmp_path / "runs", "run"))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("isentropic: error")]
    assert said and all("different prompts" in line and "--train_data" in line for line in said)
    assert not (tmp_path / "runs").exists()


def test_a_batch_that_two_processes_cannot_share_is_refused(tmp_path, tiny_folder, tiny_file):
    words = flags(tiny_folder, tiny_file, tmp_path / "runs", "run", effective_batch=12, micro_batch_size=4)
    done = torchrun(ROOT / "train_debiasing.py", *words)
    assert done.returncode != 0 and "2 processes" in done.stderr and "give 8 or 16" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_process_that_dies_ends_the_run(tmp_path, tiny_folder, tiny_file):
    """No hang: the other ends too, a line says why, and the last checkpoint resumes."""
    body = """
if rank == 1:
    from isentropic.training.callbacks import FiniteGuard
    def die(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), 9)
    FiniteGuard.on_pre_optimizer_step = die
"""
    words = flags(tiny_folder, tiny_file, tmp_path / "runs", "run", save_steps=2)
    start = time.monotonic()
    done = torchrun(script(tmp_path, body), *words)
    assert done.returncode != 0 and time.monotonic() - start < 90
    assert "Signal 9" in done.stderr or "SIGKILL" in done.stderr
    assert "[rank0]: Traceback" not in done.stderr
    run = tmp_path / "runs" / "run"
    assert (run / "checkpoints" / "checkpoint-2" / "trainer_state.json").is_file()
    assert not (run / "result.json").exists()
    two(*words, "--resume")
    assert main(["train", *flags(tiny_folder, tiny_file, tmp_path / "runs", "whole", save_steps=2)]) == 0
    whole = tmp_path / "runs" / "whole"
    assert torch.linalg.norm(weights(run) - weights(whole)) < 1e-5 * torch.linalg.norm(weights(whole))
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [
        row["step"] for row in rows(whole / "metrics.jsonl")
    ]
