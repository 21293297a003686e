"""The trackers of --report_to, the real ones: the same names of metrics in each, and the twins as a table."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import rows

NAMES = "loss entropy_gap entropy_gap_signed H_male H_female H_mean grad_norm learning_rate".split()
HELD_OUT = "gap gap_se gap_low gap_high H_male H_female H_mean kl length distinct_2".split()
METRICS = {f"train/{name}" for name in NAMES} | {f"eval/{name}" for name in HELD_OUT}
COLUMNS = ["topic", "group", "response of", "prompt", "response", "entropy"]
pytestmark = pytest.mark.slow


def needs(package: str) -> Any:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


@pytest.fixture
def logged(tmp_path: Path, tiny_folder: Path, tiny_file: Path) -> Any:
    """``logged("wandb")`` makes a run in a fresh process and home; returns what it said and its metrics.jsonl."""

    def run(tracker: str) -> tuple[str, list[dict[str, Any]]]:
        home = {"HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio"), "WANDB_DIR": str(tmp_path)}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
        given = f"--model_path {tiny_folder} --train_data {tiny_file} --run_name mine --report_to {tracker}"
        quick = "--bf16 off --max_new_tokens 6 --max_steps 2 --effective_batch 16 --target_gap 1e-6"
        done = subprocess.run(
            [sys.executable, "-m", "isentropic", "train", *given.split(), *quick.split()],
            cwd=tmp_path,
            env=kept | home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr, rows(tmp_path / "runs" / "mine" / "metrics.jsonl")

    return run


def assert_twins(rows: list[list[Any]]) -> None:
    """Eight pairs, each twin on the responses of both, entropies included."""
    assert len(rows) == 8 * 4
    assert [row[1:3] for row in rows[:4]] == [[g, s] for g in ("male", "female") for s in ("male", "female")]
    assert all(row[0] and row[3] and row[4] for row in rows) and all(row[5] > 0 for row in rows)


@needs("tensorboard")
def test_tensorboard(go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the run folder, not where transformers would put it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _, run, _ = go(report_to="tensorboard", max_steps=2)
    assert not list((tmp_path / "here").iterdir())
    board = EventAccumulator(str(run / "checkpoints" / "tensorboard"))
    board.Reload()
    assert METRICS <= set(board.Tags()["scalars"])
    gaps = {row["step"]: row["gap"] for row in rows(run / "metrics.jsonl") if "loss" in row}
    written = {event.step: event.value for event in board.Scalars("train/entropy_gap")}
    assert written == pytest.approx(gaps, rel=1e-5)
    tables = [event.tensor_proto.string_val[0].decode() for event in board.Tensors("eval/twins/text_summary")]
    assert len(tables) == 2 and all(table.startswith("| topic | group |") for table in tables)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in tables[0].splitlines()[2:]]
    assert len(cells) == 8 * 4


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """What a W&B file logs: protocol buffers in LevelDB's log format, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record, history = file.read_bytes(), 7, b"", list[dict[str, Any]]()
    while place + 7 <= len(data):
        room = 2**15 - place % 2**15
        if room < 7:
            place += room
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            items = Record.FromString(record).history.item
            history.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
            record = b""
    return history


@needs("wandb")
def test_wandb_without_a_login_goes_on_offline_and_says_so(logged: Any, tmp_path: Path) -> None:
    said, metrics = logged("wandb")
    assert "not logged in; continuing offline" in said
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    history = wandb_history(file)
    assert METRICS <= {key for row in history for key in row}
    gaps = [row["train/entropy_gap"] for row in history if "train/entropy_gap" in row]
    assert gaps == pytest.approx([row["gap"] for row in metrics if "loss" in row])
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("*.table.json")]
    assert len(tables) == 2 and tables[0]["columns"] == COLUMNS
    assert_twins(tables[0]["data"])


@needs("trackio")
def test_trackio_in_a_local_file(logged: Any, tmp_path: Path) -> None:
    _, metrics = logged("trackio")
    with sqlite3.connect(tmp_path / "trackio" / "isentropic.db") as database:
        found = database.execute("select metrics from metrics where run_name = 'mine' order by id").fetchall()
    history = [json.loads(row) for (row,) in found]
    assert METRICS <= {key for row in history for key in row}
    gaps = [row["train/entropy_gap"] for row in history if "train/entropy_gap" in row]
    assert gaps == pytest.approx([row["gap"] for row in metrics if "loss" in row])
    tables = [row["eval/twins"]["_value"] for row in history if "eval/twins" in row]
    assert len(tables) == 2 and list(tables[0][0]) == COLUMNS
    assert_twins([list(row.values()) for row in tables[0]])
