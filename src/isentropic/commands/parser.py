"""Flags, presets and config files to settings."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn

from isentropic.commands.config import config_words
from isentropic.errors import InputError
from isentropic.settings import (
    TASKS,
    BehaviourSettings,
    MeasureSettings,
    TrainSettings,
    apply_preset,
    in_order,
)
from isentropic.text import half_character, short, visible

SECTIONS = {
    "model": "model",
    "data": "prompts",
    "responses": "responses",
    "loss": "loss",
    "steps": "steps and batches",
    "stop": "when to stop",
    "verdict": "verdict",
    "run": "run",
}


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest flag named where one is not known.
    Its errors are one line and exit code 2."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        # Let the subparser report unknown flags: only it can suggest the nearest one.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {self.explained(message)}\n")

    def explained(self, message: str) -> str:
        """The message in one line of at most 300 characters; of an unknown flag,
        with the one that comes nearest."""
        if message.startswith("unrecognized arguments: "):
            wrong = message.removeprefix("unrecognized arguments: ").split(" ")[0].split("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings]
            nearest = difflib.get_close_matches(wrong, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; see {self.prog} --help"
            message = (
                f"unknown flag {wrong[:80]}{hint}"
                if wrong[:1] == "-"
                else f"unexpected word {short(wrong)}{hint}"
            )
        message = visible(message.replace("\n", "\\n"))
        return message if len(message) <= 300 else message[:297] + " …"


class ConfigParser(Parser):
    """Reads the words of a config file; its errors name the file."""

    file = ""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            wrong = message.removeprefix("unrecognized arguments: ").split("=")[0].removeprefix("--")
            known = [action.dest for action in self._actions]
            nearest = difflib.get_close_matches(wrong, known, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            message = f"unknown key {short(wrong)}, which would be ignored{hint}"
        raise InputError(f"--config {self.file!r}: {self.explained(message)}")


def add_settings(parser: argparse.ArgumentParser, settings: type, refused: Sequence[str] = ()) -> None:
    """One flag for each setting, in the sections that the settings name; ``--help`` hides those that the
    command refuses."""
    sections = {key: parser.add_argument_group(title) for key, title in SECTIONS.items()}
    for setting in in_order(settings):
        group = sections[setting.metadata["section"]]
        hidden = {"help": argparse.SUPPRESS} if setting.name in refused else {}
        group.add_argument(f"--{setting.name}", **argument_of(setting) | hidden)


def argument_of(setting: Field) -> dict[str, Any]:
    default = setting.default if setting.default is not MISSING else None
    shown = "" if default is None or default is False else f" (default: {default})"
    argument: dict[str, Any] = {"help": (setting.metadata["help"] + shown).replace("%", "%%")}
    # Leave unset flags out of the namespace, so that presets and config files can fill them.
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


def train_parser(program: str) -> Parser:
    train = Parser(prog=program, description="Pure debiasing: close the entropy gap between the groups.")
    add_train_flags(train)
    return train


def parser(program: str = "isentropic") -> Parser:
    top = Parser(
        prog=program,
        description="Measure how differently a language model hesitates over groups of people, and train it "
        "away.",
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
    measure.add_argument("model", nargs="?", help="folder, hub id or .gguf file (default: smollm2-135m)")
    add_settings(measure, MeasureSettings)
    compare = commands.add_parser("compare", help="several models on the same pairs and the same responses")
    compare.add_argument(
        "models", nargs="+", metavar="MODEL", help="the first is what the others are compared with"
    )
    add_settings(compare, MeasureSettings, refused=("responses_out", "gate"))
    behaviour = commands.add_parser(
        "behaviour", help="models on public tests of stereotypes, compared item by item"
    )
    behaviour.add_argument(
        "models", nargs="+", metavar="MODEL", help="the first is what the others are compared with"
    )
    add_settings(behaviour, BehaviourSettings)
    add_ability(
        commands.add_parser("ability", help="what a change cost: test items answered before and after")
    )
    report = commands.add_parser("report", help="write a run's or a measurement's report again")
    report.add_argument("run", help="a run folder, or a JSON file that measure, compare or behaviour wrote")
    report.add_argument(
        "--lang", choices=("en", "zh"), default="en", help="language of the report (default: en)"
    )
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


def add_ability(ability: argparse.ArgumentParser) -> None:
    ability.add_argument(
        "models", nargs="*", metavar="MODEL", help="the first is what the others are compared with"
    )
    ability.add_argument(
        "--tasks",
        default=None,
        help="tasks of lm-evaluation-harness or YAML files of your own, separated by commas "
        f"(default: {TASKS})",
    )
    ability.add_argument(
        "--limit", type=int, default=None, metavar="N", help="the first N items of each task"
    )
    ability.add_argument(
        "--benchmarks",
        default=None,
        metavar="DIR",
        help="a folder with the public sets as they were published; what it lacks comes from the hub",
    )
    ability.add_argument(
        "--samples",
        nargs="+",
        default=None,
        metavar="DIR",
        help="compare runs that lm-eval has written with --log_samples, in place of models",
    )
    ability.add_argument("--batch_size", type=int, default=8, help="rows in a forward pass (default: 8)")
    ability.add_argument(
        "--json", default=None, metavar="FILE", help="write the figures to this file; - prints them"
    )


class ShowVersion(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        words = "show the version and exit"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=words)

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"isentropic {version('isentropic')}\n")
        parser.exit(0)


def add_train_flags(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "--config", default=None, metavar="FILE", help="YAML or JSON file of settings; flags override it"
    )
    train.add_argument("--print_config", action="store_true", help="print the settings as YAML and exit")
    add_settings(train, TrainSettings)


# --- Settings from flags, presets and files -----------------------------------------------------------------


PATHS = (
    "model_path train_data output_dir text_file json html responses_in responses_out benchmarks behaviour"
).split()


def parse(parser: Parser, arguments: Sequence[str] | None) -> dict[str, Any]:
    """What was given on the command line, by name.

    Raises:
        InputError: a word is empty, as an unset variable of the shell is, or not valid Unicode.
    """
    given = vars(parser.parse_args(arguments))
    for name, value in given.items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and not word.strip() and name != "system":
                raise InputError(
                    f"{name} is empty ({word!r}); it names something; fill it in or leave it out (a variable "
                    "that is not set?)"
                )
            if isinstance(word, str) and half_character(word):
                raise InputError(
                    f"{name} holds bytes that are not UTF-8 ({short(word)}); rename it, or correct the text"
                )
    return given


def settings_from(kind: type, given: dict[str, Any]) -> Any:
    """Build settings from flags, on top of a config file, on top of a preset."""
    file = given.pop("config", None)
    values = apply_preset({**(from_config(file, kind) if file else {}), **given})
    for name in PATHS:
        if isinstance(values.get(name), str):
            values[name] = os.path.expanduser(values[name])
    return kind(**values)


def from_config(file: str, kind: type) -> dict[str, Any]:
    """The settings in a config file, read as flags are: types,
    choices and unknown names come from one place."""
    reader = ConfigParser(add_help=False)
    reader.file = file
    add_settings(reader, kind)
    switches = {setting.name for setting in fields(kind) if str(setting.type).startswith("bool")}
    return vars(reader.parse_args(config_words(file, switches, {setting.name for setting in fields(kind)})))
