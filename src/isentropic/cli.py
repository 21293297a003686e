"""The door: a command by its name, its settings checked before anything slow is imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from isentropic.commands.faults import guarded
from isentropic.commands.parser import parse, parser, settings_from, train_parser
from isentropic.settings import BehaviourSettings, MeasureSettings, TrainSettings

SETTINGS: dict[str, type] = {
    "train": TrainSettings,
    "measure": MeasureSettings,
    "compare": MeasureSettings,
    "behaviour": BehaviourSettings,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0: done, or stopped by Ctrl-C with a checkpoint; 1: the loss became NaN or infinite; 2: bad input or an
    error of the disk; 3 and 4: the verdict, with ``--gate``; 128 and more: ended by a signal.
    """
    return guarded(lambda: run(**parse(parser(), arguments)))


def train_main(program: str, arguments: Sequence[str] | None = None) -> int:
    """``isentropic train`` under another name: the guide's script at the root."""
    return guarded(lambda: run("train", **parse(train_parser(program), arguments)))


def run(command: str, **given: Any) -> int | None:
    # OpenMP reads this when torch is imported. On a machine that others use too, threads that spin while they
    # wait for each other take the processor from those they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if kind := SETTINGS.get(command):
        names = {setting.name for setting in fields(kind)} | {"config"}
        settings = settings_from(kind, {name: given.pop(name) for name in names & given.keys()})
        if given.pop("print_config", False):
            import yaml

            values = {setting.name: getattr(settings, setting.name) for setting in fields(settings)}
            sys.stdout.write(yaml.safe_dump(values, sort_keys=False))
            return 0
        # How many groups the user's own data has is known later, and checked then.
        settings.check(**({"groups": None} if command == "train" and settings.train_data else {}))
        given["settings"] = settings
    module = importlib.import_module(f"isentropic.commands.{command}")
    code: int | None = getattr(module, f"run_{command}")(**given)
    return code if isinstance(code, int) else 0
