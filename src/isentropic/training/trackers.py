"""The dashboards of ``--report_to``: what is done for them beyond what transformers' own callbacks do."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

log = logging.getLogger("isentropic")


def set_up(callbacks: Sequence[TrainerCallback], output_dir: str, project: str) -> None:
    """Before anything is logged: where TensorBoard writes, W&B's project, and W&B without a login."""
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            # transformers sets it when training begins; what is logged before went to the working directory.
            callback.logging_dir = str(Path(output_dir) / "tensorboard")
        if isinstance(callback, WandbCallback):
            os.environ.setdefault("WANDB_PROJECT", project)
            if "WANDB_MODE" not in os.environ:
                go_offline_without_login(callback._wandb)


def go_offline_without_login(wandb: Any) -> None:
    """W&B without an account would end the run at its first figure."""
    try:
        known = wandb.login(prompt=False)
    except wandb.errors.Error:
        known = False
    if not known:
        os.environ["WANDB_MODE"] = "offline"
        wandb.teardown()  # or it goes by what it read of the environment before
        log.warning("W&B: not logged in; continuing offline. Send the run later with 'wandb sync'.")


def log_table(
    callbacks: Sequence[TrainerCallback],
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    step: int,
) -> None:
    """Give a table to each tracker among a trainer's callbacks. For the first process alone.

    Args:
        callbacks: those of the trainer; they have logged something already.
        name: the table's name there.
        columns: the header of the table.
        rows: texts and numbers.
        step: the optimizer step it belongs to.
    """
    for callback in callbacks:
        if isinstance(callback, WandbCallback):
            table = callback._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            callback._wandb.log({name: table, "train/global_step": step})
        elif isinstance(callback, TrackioCallback):
            table = callback._trackio.Table(columns=list(columns), data=[list(row) for row in rows])
            callback._trackio.log({name: table, "train/global_step": step})
        elif isinstance(callback, TensorBoardCallback):
            callback.tb_writer.add_text(name, markdown_table(columns, rows), step)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; no cell can break its row.

    Example:
        >>> print(markdown_table(["a", "b"], [["1|2", "x\\ny"]]))
        | a | b |
        | --- | --- |
        | 1\\|2 | x y |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
