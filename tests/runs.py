"""Whole runs of ``isentropic train`` on a tiny model: settings that keep them short, and what is asked of a run folder."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from isentropic.cli import main
from isentropic.commands.parser import settings_from
from isentropic.commands.screen import Screen
from isentropic.commands.train import train
from isentropic.settings import TrainSettings

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
        super().__init__(console=Console(file=io.StringIO()))
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


def runner(output: Path, model: Path, data: Path) -> Callable[..., tuple[dict[str, Any], Path, Watcher]]:
    """A function that makes a run by name: what ``train`` returned, the run folder, and what was said."""

    def run(
        name: str = "run", screen: Watcher | None = None, **changes: Any
    ) -> tuple[dict[str, Any], Path, Watcher]:
        given = {"model_path": str(model), "train_data": str(data), "output_dir": str(output)}
        settings = settings_from(TrainSettings, {**given, **SETTINGS, "run_name": name, **changes})
        screen = screen or Watcher()
        return train(settings, screen), Path(settings.output_dir) / name, screen

    return run


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
