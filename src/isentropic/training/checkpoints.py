"""Checkpoints: each is whole or does not count. Which one a run resumes from, and what it no longer needs."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.files import MANIFEST, broken_seal, load_object, seal, write_json
from isentropic.schema import Stopped

CHECKPOINT, BEST = "checkpoint", "best"
TRAINED = "trained.json"
"""Written when training has ended: what is left to do is measuring, saving and reporting."""


@dataclass
class Point:
    """How far a run has come: in a checkpoint, or (without one) at the end of its training.

    Attributes:
        step: optimizer steps made.
        stopped: why training stopped there; None if it continues.
        best: step, gap and KL of the best weights so far.
        checkpoint: the folder with weights, optimizer and the rest.
    """

    step: int
    stopped: Stopped | None = None
    best: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None


def numbered(folder: Path, kind: str) -> list[Path]:
    """The folders ``<kind>-<step>``, the newest first."""
    found = [path for path in folder.glob(f"{kind}-*") if re.fullmatch(rf"{kind}-\d+", path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def last_point(folder: Path, max_steps: int) -> tuple[Point | None, list[str]]:
    """The end of training or the newest checkpoint that is whole, and a line on each newer one that is not.

    Args:
        folder: the run's `checkpoints`.
        max_steps: a training that ended after fewer steps than this, for want of steps, has not ended.
    """
    faults: list[str] = []
    if (folder / TRAINED).is_file():
        try:
            point = Point(**load_object(folder / TRAINED))
            fault = best_fault(folder, point.best)
            if fault is None and not (point.stopped == "max_steps" and point.step < max_steps):
                return point, faults
        except (ValueError, TypeError, KeyError):
            fault = f"{TRAINED!r} is damaged"
        if fault:
            faults.append(f"the end of training cannot be used: {fault}")
    for path in numbered(folder, CHECKPOINT):
        fault = broken_seal(path)
        if fault is None:
            found = point_in(path)
            fault = best_fault(folder, found.best)
            if fault is None:
                return found, faults
        faults.append(f"{path.name} cannot be used: {fault}")
    return None, faults


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole."""
    return next((path for path in numbered(folder, CHECKPOINT) if broken_seal(path) is None), None)


def point_in(checkpoint: Path) -> Point:
    """What a whole checkpoint says of the run."""
    state = load_object(checkpoint / "trainer_state.json")
    callbacks = state.get("stateful_callbacks", {})

    def kept(name: str, what: str) -> Any:
        return callbacks.get(name, {}).get("attributes", {}).get(what)

    reason = kept("TargetGapStop", "reason")
    return Point(
        step=state["global_step"],
        stopped=None if reason == "max_steps" else reason,
        best=kept("BestCheckpoint", "facts") or {},
        checkpoint=checkpoint,
    )


def best_fault(folder: Path, best: dict[str, Any]) -> str | None:
    """Why the best weights so far cannot be used; None where they can, or where there are none yet."""
    if not best:
        return None
    path = best_folder(folder, best["step"])
    fault = broken_seal(path)
    return fault and f"the best weights in {path.name}: {fault}"


def best_folder(folder: Path, step: int) -> Path:
    return folder / f"{BEST}-{step}"


def write_trained(folder: Path, point: Point) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TRAINED, {"step": point.step, "stopped": point.stopped, "best": point.best})


def seal_checkpoint(checkpoint: Path, limit: int | None, protected: str | None = None) -> None:
    """Declare a checkpoint whole; the older ones beyond ``limit`` are deleted then, and not before."""
    seal(checkpoint)
    if limit:
        for path in numbered(checkpoint.parent, CHECKPOINT)[limit:]:
            if path != checkpoint and str(path) != protected:
                shutil.rmtree(path, ignore_errors=True)


def check_checkpoint(checkpoint: Path) -> None:
    """Refuse a checkpoint that is not whole: other weights, or a fresh optimizer,
    would be used without a word."""
    fault = broken_seal(checkpoint)
    if fault:
        raise InputError(
            f"checkpoint {str(checkpoint)!r} cannot be used: {fault}; the run would continue as a different "
            "one; give an earlier checkpoint, or start again"
        )


def forget_others(folder: Path, point: Point | None) -> None:
    """Delete what a run does not resume from: what is damaged, what was written later,
    what was half deleted."""
    ended = point is not None and point.checkpoint is None
    if not ended:
        (folder / TRAINED).unlink(missing_ok=True)
    kept = [last_whole(folder) if ended else point and point.checkpoint]
    kept += [best_folder(folder, point.best["step"])] if point and point.best else []
    for kind in (CHECKPOINT, BEST):
        for path in numbered(folder, kind):
            if path not in kept:
                shutil.rmtree(path)


def forget_unused_best(folder: Path) -> None:
    """Delete best weights that no checkpoint needs, before better ones are written."""
    needed = {
        point_in(path).best.get("step")
        for path in numbered(folder, CHECKPOINT)
        if (path / MANIFEST).is_file()
    }
    for path in numbered(folder, BEST):
        if step_of(path) not in needed:
            shutil.rmtree(path)


def forget_finished(folder: Path, *, keep_checkpoints: bool) -> None:
    """Delete what resumes an unfinished run, but for the checkpoints that were asked for."""
    (folder / TRAINED).unlink(missing_ok=True)
    for kind in (BEST,) if keep_checkpoints else (BEST, CHECKPOINT):
        for path in numbered(folder, kind):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # checkpoints or a tracker's files are kept
        folder.rmdir()
