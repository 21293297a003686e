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
from runs import read
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_folder, tiny_file):
    """The run of one process."""
    runs = tmp_path_factory.mktemp("one")
    assert main(["train", *flags(tiny_folder, tiny_file, runs, "one")]) == 0
    return runs / "one"


def test_two_processes_are_one(tmp_path, tiny_folder, tiny_file, whole):
    done = two(*flags(tiny_folder, tiny_file, tmp_path, "two"))
    assert_one(whole, tmp_path / "two", done.stdout, tiny_folder, 5, "max_steps")


def test_two_processes_are_one_that_stops_at_its_target_on_own_responses(tmp_path, tiny_folder, tiny_file):
    changes = {"loss": "gee", "responses": "own", "micro_batch_size": 8, "target_gap": 5, "save_steps": 2}
    one, other = (
        [*flags(tiny_folder, tiny_file, tmp_path, name, **changes), "--no-steady", "--force"]
        for name in ("one", "two")
    )
    assert main(["train", *one]) == 0
    assert_one(tmp_path / "one", tmp_path / "two", two(*other).stdout, tiny_folder, 2, "target")


def assert_one(one: Path, other: Path, said: str, model: Path, step: int, stopped: str) -> None:
    """One process speaks, one folder is written, and whole; what it holds is that of one process."""
    assert said.count("📉 Step 1 |") == 1 and said.count(f"stopped: {stopped}") == 1
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    mine, theirs, start = weights(one, step), weights(other, step), load_file(model / "model.safetensors")
    assert torch.linalg.norm(mine - theirs) < 1e-5 * torch.linalg.norm(mine)
    base = torch.cat([start[name].flatten().double() for name in sorted(start)])
    moved, apart = mine - base, theirs - mine
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
    results = [read(run / "result.json") for run in (one, other)]
    assert results[0]["stopped"] == results[1]["stopped"] == stopped
    assert results[0]["best_step"] == results[1]["best_step"] and results[0]["steps"] == step


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


def test_sharded_weights_are_trained_kept_and_saved_whole(tmp_path, tiny_folder, tiny_file, whole):
    """FSDP: every step is that of one process; the best weights, here those before training, come back from shards."""
    done = torchrun(script(tmp_path, SHARDED), *flags(tiny_folder, tiny_file, tmp_path, "two"))
    assert done.returncode == 0 and "its parameters are sharded" in done.stdout + done.stderr, done.stderr
    sharded = tmp_path / "two"
    assert torch.linalg.norm(weights(whole) - weights(sharded)) < 1e-5 * torch.linalg.norm(weights(whole))
    assert [read(run / "result.json")["best_step"] for run in (whole, sharded)] == [0, 0]
    ours, theirs = (load_file(run / "final" / "model.safetensors") for run in (whole, sharded))
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


def test_both_processes_leave_a_model_within_its_target_unchanged(tmp_path, tiny_folder, tiny_file):
    """One of them alone saves it and measures what it has saved."""
    changes = {"target_gap": 5, "also_measure": "float32"}
    assert "left unchanged" in two(*flags(tiny_folder, tiny_file, tmp_path, "within", **changes)).stdout
    assert (tmp_path / "within" / "final" / "model.safetensors").is_file()
    (row,) = read(tmp_path / "within" / "result.json")["also_measured"]
    assert row["gap_change"] == 0


SHARED_OUT = """
import json, os, sys
os.environ["ISENTROPIC_CACHE"] += os.environ["RANK"]
import torch
from isentropic.measure.measurement import measure
from isentropic.models.load import load_model
from isentropic.models.shared_work import together
from isentropic.prompts.load import load_prompts
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
loaded, prompts = load_model(sys.argv[1]), load_prompts(sys.argv[2]).split("test")
def tell(name):
    totals = {}
    found = measure(
        loaded, prompts, expectation=False,
        sampling_progress=lambda done, total: totals.update(sampled=total),
        progress=lambda done, total: totals.update(scored=total),
    )
    drawn = [example.response_ids for item in found.items for example in item.examples]
    with open(f"{sys.argv[3]}/{name}.json", "w") as file:
        json.dump([totals, drawn, [value for values in found.entropies for value in values.tolist()]], file)
if rank == 0:
    tell("alone")
with together():
    tell(rank)
"""


def test_measuring_is_shared_out(tmp_path, tiny_folder, tiny_file):
    """Also where the responses are in the cache of one process and not in that of the other."""
    (tmp_path / "share.py").write_text(SHARED_OUT, encoding="utf-8")
    done = torchrun(tmp_path / "share.py", str(tiny_folder), str(tiny_file), str(tmp_path))
    assert done.returncode == 0, done.stderr
    (whole, drawn, entropies), *parts = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("alone", 0, 1)
    )
    assert whole == {"sampled": 24, "scored": 48}
    for totals, same, shared in parts:
        assert totals == {"sampled": 12, "scored": 24}
        assert same == drawn and shared == pytest.approx(entropies, abs=1e-6)
    assert parts[0][2] == parts[1][2]


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


def test_a_batch_that_two_processes_cannot_share_is_refused(
    tmp_path, tiny_folder, tiny_file, monkeypatch, capsys
):
    """By each process alone, from what torchrun tells it."""
    launched = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "::1", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    words = flags(tiny_folder, tiny_file, tmp_path / "runs", "run", effective_batch=12, micro_batch_size=4)
    error = (main(["train", *words]), capsys.readouterr().err)
    assert error[0] == 2 and "2 processes" in error[1] and "give 8 or 16" in error[1]
    assert not (tmp_path / "runs").exists()


def test_a_process_that_dies_ends_the_run(tmp_path, tiny_folder, tiny_file, whole):
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
    assert torch.linalg.norm(weights(run) - weights(whole)) < 1e-5 * torch.linalg.norm(weights(whole))
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [
        row["step"] for row in rows(whole / "metrics.jsonl")
    ]
