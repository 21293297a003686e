"""Checkpoints are whole or do not count: which one a run goes on from, whatever is damaged, and what it deletes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import seal, write_json
from isentropic.training.checkpoints import (
    Point,
    check_checkpoint,
    forget_finished,
    forget_others,
    forget_unused_best,
    last_point,
    seal_checkpoint,
    write_trained,
)

BEST = {"step": 4, "gap": 0.1, "kl": 0.0}


def checkpoint(folder: Path, step: int, best: dict | None = None, reason: str = "max_steps") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    callbacks = {
        "TargetGapStop": {"args": {}, "attributes": {"reason": reason}},
        "BestCheckpoint": {"args": {}, "attributes": {"facts": best or {}}},
    }
    write_json(path / "trainer_state.json", {"global_step": step, "stateful_callbacks": callbacks})
    (path / "model.safetensors").write_bytes(b"weights" * 50)
    seal(path)
    return path


def best_weights(folder: Path, step: int) -> Path:
    path = folder / f"best-{step}"
    path.mkdir(parents=True)
    (path / "00000.safetensors").write_bytes(b"best" * 50)
    seal(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_point_is_the_newest_checkpoint_that_is_whole(tmp_path):
    assert last_point(tmp_path, 100) == (None, [])
    for step in (5, 10, 100, 25):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-100" / "manifest.json").unlink()
    (tmp_path / "checkpoint-x").mkdir()
    point, faults = last_point(tmp_path, 100)
    assert point == Point(25, checkpoint=tmp_path / "checkpoint-25")
    assert faults == ["checkpoint-100 cannot be used: it is incomplete"]


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_part_sends_the_run_to_the_checkpoint_before(tmp_path, name, harm):
    checkpoint(tmp_path, 5)
    file = checkpoint(tmp_path, 10) / name
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    {"flip": lambda: file.write_bytes(data), "cut": lambda: file.write_bytes(data[:9]), "gone": file.unlink}[
        harm
    ]()
    point, (fault,) = last_point(tmp_path, 100)
    assert point.step == 5 and "checkpoint-10" in fault and name in fault
    with pytest.raises(InputError, match=name):
        check_checkpoint(tmp_path / "checkpoint-10")
    check_checkpoint(tmp_path / "checkpoint-5")


def test_a_checkpoint_counts_only_with_its_best_weights(tmp_path):
    checkpoint(tmp_path, 5, {**BEST, "step": 4})
    checkpoint(tmp_path, 10, {**BEST, "step": 8})
    best_weights(tmp_path, 4), best_weights(tmp_path, 8)
    assert last_point(tmp_path, 100)[0].best["step"] == 8
    shutil.rmtree(tmp_path / "best-8")
    point, (fault,) = last_point(tmp_path, 100)
    assert point.best["step"] == 4 and "best-8" in fault


@pytest.mark.parametrize(
    ("reason", "stopped"), [("max_steps", None), ("target", "target"), ("max_kl", "max_kl")]
)
def test_a_checkpoint_tells_that_training_had_stopped(tmp_path, reason, stopped):
    checkpoint(tmp_path, 4, reason=reason)
    assert last_point(tmp_path, 100)[0].stopped == stopped


@pytest.mark.parametrize(
    ("reason", "max_steps", "ended"),
    [
        ("max_steps", 10, True),
        ("max_steps", 9, True),
        ("max_steps", 11, False),
        ("target", 11, True),
        ("not_finite", 11, True),
    ],
)
def test_the_end_of_training_counts_unless_more_steps_are_asked_for(tmp_path, reason, max_steps, ended):
    best_weights(tmp_path, 4)
    whole = checkpoint(tmp_path, 10, BEST)
    write_trained(tmp_path, Point(10, reason, BEST))
    point, faults = last_point(tmp_path, max_steps)
    assert faults == []
    assert point == (Point(10, reason, BEST) if ended else Point(10, None, BEST, whole))


@pytest.mark.parametrize(
    "content", ["", "{}", '{"step": 3, "more": 1}', '{"step": 3, "best": {"gap": 1}}', None]
)
def test_a_damaged_end_of_training_sends_the_run_to_its_checkpoint(tmp_path, content):
    best_weights(tmp_path, 4)
    checkpoint(tmp_path, 10, BEST)
    write_trained(tmp_path, Point(12, "max_steps", BEST))
    if content is None:
        shutil.rmtree(tmp_path / "best-4"), best_weights(tmp_path, 3)
    else:
        (tmp_path / "trained.json").write_text(content)
    point, faults = last_point(tmp_path, 12)
    assert faults[0].startswith("the end of training cannot be used")
    assert point is None if content is None else point.step == 10


def test_older_checkpoints_go_when_the_new_one_is_whole(tmp_path):
    old, kept = checkpoint(tmp_path, 3), checkpoint(tmp_path, 5)
    new = checkpoint(tmp_path, 10)
    (new / "manifest.json").unlink()
    seal_checkpoint(new, None)
    assert old.exists() and kept.exists()
    seal_checkpoint(new, 1, protected=str(kept))
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-5"]


def test_what_a_run_does_not_go_on_from_is_deleted(tmp_path):
    def fill() -> None:
        for step in (4, 6, 8):
            checkpoint(tmp_path, step, {**BEST, "step": step}), best_weights(tmp_path, step)
        (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()  # its deletion was cut short
        write_trained(tmp_path, Point(8, "target", BEST))

    (tmp_path / "tensorboard").mkdir()
    for point, left in (
        (Point(8, "target", {**BEST, "step": 6}), ["best-6", "checkpoint-8", "tensorboard", "trained.json"]),
        (
            Point(6, None, {**BEST, "step": 6}, tmp_path / "checkpoint-6"),
            ["best-6", "checkpoint-6", "tensorboard"],
        ),
        (None, ["tensorboard"]),
    ):
        fill()
        forget_others(tmp_path, point)
        assert names(tmp_path) == left
        for name in left[:-1]:
            shutil.rmtree(tmp_path / name) if name != "tensorboard" else None


def test_best_weights_stay_as_long_as_a_checkpoint_needs_them(tmp_path):
    for step in (2, 4, 6):
        best_weights(tmp_path, step)
    checkpoint(tmp_path, 5, BEST)
    torn = checkpoint(tmp_path, 7, {**BEST, "step": 6})
    (torn / "manifest.json").unlink()
    forget_unused_best(tmp_path)
    assert names(tmp_path) == ["best-4", "checkpoint-5", "checkpoint-7"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_finished_run_keeps_the_checkpoints_that_were_asked_for(tmp_path, keep):
    folder = tmp_path / "checkpoints"
    checkpoint(folder, 5, BEST), best_weights(folder, 4)
    write_trained(folder, Point(5, "max_steps", BEST))
    forget_finished(folder, keep_checkpoints=keep)
    assert names(folder) == ["checkpoint-5"] if keep else not folder.exists()
