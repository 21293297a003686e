"""Flags, presets and config files to settings."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NoReturn

from isentropic.errors import InputError
from isentropic.settings import MeasureSettings, TrainSettings, apply_preset, in_order
from isentropic.text import visible

SECTIONS = {
    "model": "model",
    "data": "prompts",
    "responses": "responses",
    "loss": "loss",
    "steps": "steps and batches",
    "stop": "when to stop",
    "run": "run",
}


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest flag named where one is not known. Its errors are one line and exit code 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        # A command refuses what it does not know by itself: only it knows which of its flags comes nearest.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        known = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments"):
            wrong = message.split(": ", 1)[1].split()[0].split("=")[0]
            nearest = difflib.get_close_matches(wrong, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; see {self.prog} --help"
            message = f"{wrong} is no flag of {self.prog}{hint}"
        message = message.replace("\n", "\\n")
        self.exit(2, f"{self.prog}: error: {visible(message)}\n")


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag a setting, in the sections the settings name."""
    sections = {key: parser.add_argument_group(title) for key, title in SECTIONS.items()}
    for setting in in_order(settings):
        group = sections[setting.metadata["section"]]
        group.add_argument(f"--{setting.name}", **argument_of(setting))


def argument_of(setting: Field) -> dict[str, Any]:
    default = setting.default if setting.default is not MISSING else None
    shown = "" if default in (None, False) else f" (default: {default})"
    argument: dict[str, Any] = {"help": (setting.metadata["help"] + shown).replace("%", "%%")}
    # What the user did not give stays absent, so that presets and config files can tell.
    argument["default"] = argparse.SUPPRESS
    if str(setting.type).startswith("bool"):
        argument["action"] = argparse.BooleanOptionalAction
        return argument
    argument["type"] = {"int": int, "float": float}.get(str(setting.type).split(" ")[0], str)
    if aliases := setting.metadata.get("aliases"):
        argument["type"] = lambda word: aliases.get(word, word)
    if "choices" in setting.metadata:
        argument["choices"] = setting.metadata["choices"]
    else:
        argument["metavar"] = setting.metadata.get("metavar", argument["type"].__name__.upper())
    return argument


def parser(program: str = "isentropic") -> Parser:
    top = Parser(
        prog=program,
        description="Measure how differently a language model hesitates over groups of people, and train it away.",
    )
    top.add_argument("--version", action=ShowVersion)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    train = commands.add_parser(
        "train", help="measure, train until the held-out gap is closed, measure again"
    )
    add_train_flags(train)
    measure = commands.add_parser(
        "measure", help="measure the gap of a model, with its interval and a verdict"
    )
    measure.add_argument("model", nargs="?", default=None, help="folder, hub id, .gguf file or smollm2-135m")
    add_settings(measure, MeasureSettings)
    compare = commands.add_parser("compare", help="several models on the same pairs and the same responses")
    compare.add_argument(
        "models", nargs="+", metavar="MODEL", help="the first is what the others are held against"
    )
    add_settings(compare, MeasureSettings)
    report = commands.add_parser("report", help="write a run's or a measurement's report again")
    report.add_argument("run", help="a run folder, or a JSON file that measure or compare wrote")
    report.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the report")
    report.add_argument(
        "--out",
        default=None,
        help="write the report to this file (.html or .md); a run folder keeps its own otherwise",
    )
    prompts = commands.add_parser(
        "prompts", help="show which prompts a file gives, how they were read, what was left out"
    )
    prompts.add_argument(
        "file", nargs="?", default=None, help="file, hub id or built-in set; the built-in prompts if left out"
    )
    prompts.add_argument("--out", default=None, metavar="FILE", help="write them as JSONL")
    prompts.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    for name in ("text_column", "group_column", "groups", "male_column", "female_column"):
        prompts.add_argument(f"--{name}", default=argparse.SUPPRESS, help="as in train")
    prompts.add_argument("--swap", action="store_true", help="make each prompt's twin with the swap engine")
    prompts.add_argument(
        "--model_path",
        default=None,
        help="the model that --swap asks where grammar cannot decide, as in train",
    )
    prompts.add_argument("--seed", type=int, default=42, help="seed of the splits (default: 42)")
    return top


class ShowVersion(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        words = "show the version and leave"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=words)

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"isentropic {version('isentropic')}\n")
        parser.exit(0)


def add_train_flags(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "--config", default=None, metavar="FILE", help="YAML or JSON file of settings; flags win over it"
    )
    train.add_argument("--print_config", action="store_true", help="print the settings as YAML and leave")
    add_settings(train, TrainSettings)


# --- Settings from flags, presets and files -------------------------------------------------------------------------


def settings_from(kind: type, given: dict[str, Any]) -> Any:
    """Build settings from flags, on top of a config file, on top of a preset."""
    file = given.pop("config", None)
    values = {**(read_config(file, kind) if file else {}), **given}
    return kind(**apply_preset(values))


def read_config(file: str, kind: type) -> dict[str, Any]:
    """The settings in a YAML or JSON file. A run folder's ``config.json`` holds facts besides; they are passed over."""
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {file!r} cannot be read ({error}); give a YAML or JSON file") from error
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise InputError(f"--config {file!r} is no valid YAML ({where}); mend that line") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {file!r} holds no settings; write one 'name: value' a line")
    types = {setting.name: setting for setting in fields(kind)}
    if content.get("schema") == "isentropic.config/1":
        content = {name: value for name, value in content.items() if name in types}
    for name, value in content.items():
        if name not in types:
            nearest = difflib.get_close_matches(str(name), types, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InputError(f"--config {file!r} has the unknown key {name!r}, which would be ignored{hint}")
        content[name] = typed(file, types[name], value)
    return content


def typed(file: str, setting: Field, value: Any) -> Any:
    """The value as the setting takes it, or why it cannot be."""
    expected = str(setting.type)
    if expected.startswith("float") and isinstance(value, str):
        # YAML reads 1e-05 as text, and that is how JSON writes it.
        with contextlib.suppress(ValueError):
            value = float(value)
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "str": isinstance(value, str),
    }[expected.split(" ")[0]]
    if not fits and not (value is None and "None" in expected):
        raise InputError(
            f"--config {file!r} gives {setting.name} the value {value!r}, which is no {expected}; mend that line"
        )
    choices = setting.metadata.get("choices")
    if choices and value is not None and value not in choices:
        raise InputError(
            f"--config {file!r} gives {setting.name} the value {value!r}; choose one of {', '.join(choices)}"
        )
    return value
