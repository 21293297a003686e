"""The command line: ``isentropic train | measure | compare | report | prompts``."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NoReturn

from isentropic.errors import InputError
from isentropic.settings import MeasureSettings, TrainSettings, apply_preset, reading_of

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
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag a setting, in the sections the settings name."""
    sections = {key: parser.add_argument_group(title) for key, title in SECTIONS.items()}
    for setting in fields(settings):
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
    report.add_argument("--out", default=None, help="where the report of a JSON file goes")
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


# --- Commands -------------------------------------------------------------------------------------------------------


def run_train(given: dict[str, Any]) -> int:
    show = given.pop("print_config", False)
    settings = settings_from(TrainSettings, given)
    if show:
        import yaml

        sys.stdout.write(
            yaml.safe_dump({f.name: getattr(settings, f.name) for f in fields(settings)}, sort_keys=False)
        )
        return 0
    # Before the slow imports; once more when the groups of the user's data are known.
    settings.check(groups=None if settings.train_data else 2)
    from isentropic.training import train

    result = train(settings)
    if result.get("stopped") != "not_finite":
        return 0
    # All is measured and saved as after any run, but a script must not take it for one that worked.
    sys.stderr.write(
        f"isentropic: error: the training left the numbers after step {result['steps']}; final/ holds the best good "
        f"weights, those of step {result['best_step']}; lower --learning_rate\n"
    )
    return 1


def run_measure(given: dict[str, Any]) -> None:
    model = given.pop("model")
    settings = settings_from(MeasureSettings, given)
    settings.check()
    from isentropic.commands import run_measure as run

    run(model, settings)


def run_compare(given: dict[str, Any]) -> None:
    models = given.pop("models")
    settings = settings_from(MeasureSettings, given)
    settings.check()
    from isentropic.commands import run_compare as run

    run(models, settings)


def run_report(given: dict[str, Any]) -> None:
    from isentropic.report import render_html, render_markdown, write_report
    from isentropic.screen import Screen

    source = Path(given["run"])
    if source.suffix == ".json" and source.is_file():
        try:
            summary = json.loads(source.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{str(source)!r} is no valid JSON ({error}); write it again with measure or compare"
            ) from error
        if not isinstance(summary, dict) or "schema" not in summary:
            raise InputError(
                f"{str(source)!r} has no 'schema'; it was not written by measure or compare; give one that was"
            )
        target = Path(given["out"]) if given["out"] else source.with_suffix(".html")
        render = render_markdown if target.suffix == ".md" else render_html
        page = render(summary, given["lang"])
        try:
            target.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{str(target)!r} cannot be written ({error.strerror}); check its folder and the room there, or give "
                f"another --out"
            ) from error
    else:
        target = write_report(source, given["lang"])
    Screen().say(f"report: {target}")


def run_prompts(given: dict[str, Any]) -> None:
    from isentropic.prompts import load_prompts, prompts_preview, write_prompts
    from isentropic.screen import Screen

    reading = TrainSettings(
        **{f.name: given[f.name] for f in fields(TrainSettings) if given.get(f.name) is not None}
    )
    swap: Any = given["swap"]
    if swap and given["model_path"]:
        from isentropic.models import load_model
        from isentropic.swap import swapper

        swap = swapper(lambda: load_model(given["model_path"]))
    prompts = load_prompts(given["file"], swap=swap, **reading_of(reading))
    screen = Screen()
    screen.say(prompts.ratio_line())
    screen.say(json.dumps(prompts_preview(prompts), ensure_ascii=False, indent=1))
    if given["out"]:
        read = "" if set(prompts.groups) == {"male", "female"} else "; read it with --group_column group"
        screen.say(f"written: {write_prompts(prompts, given['out'], overwrite=given['overwrite'])}{read}")


COMMANDS: dict[str, Callable[[dict[str, Any]], int | None]] = {
    "train": run_train,
    "measure": run_measure,
    "compare": run_compare,
    "report": run_report,
    "prompts": run_prompts,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a training that left the numbers, 2 for bad input."""
    return guarded(lambda: dispatch(arguments))


def dispatch(arguments: Sequence[str] | None) -> int | None:
    given = vars(parser().parse_args(arguments))
    return COMMANDS[given.pop("command")](given)


def train_main(program: str, arguments: Sequence[str] | None = None) -> int:
    """``isentropic train`` under another name: the guide's script at the root."""

    def run() -> int:
        train = Parser(prog=program, description="Pure debiasing: close the entropy gap between the groups.")
        add_train_flags(train)
        return run_train(vars(train.parse_args(arguments)))

    return guarded(run)


def guarded(run: Callable[[], int | None]) -> int:
    """Bad input is one line on standard error and exit code 2; anything else keeps its traceback."""
    try:
        return run() or 0
    except InputError as error:
        sys.stderr.write("".join(f"isentropic: error: {line}\n" for line in str(error).splitlines()))
        return 2
    except ModuleNotFoundError as error:
        if str(error.name).startswith("isentropic"):
            raise
        sys.stderr.write(
            f"isentropic: error: the package {error.name!r} is not installed in {sys.executable}; nothing runs without "
            f"it; run 'make demo', or install requirements.lock and take that Python\n"
        )
        return 2
    except Exception as error:
        if not disk_is_full(error):
            raise
        sys.stderr.write(
            "isentropic: error: the disk is full; what was saved before is kept; make room and run it again\n"
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("isentropic: broken off by Ctrl-C\n")
        return 130


def disk_is_full(error: BaseException | None) -> bool:
    """Whether the error, or one it came of, says so; torch and safetensors have words of their own for it."""
    if error is None:
        return False
    words = ("No space left on device", "PytorchStreamWriter failed writing", "inline_container.cc")
    return any(word in str(error) for word in words) or disk_is_full(error.__cause__ or error.__context__)
