"""The command line: ``isentropic train | measure | compare | report | prompts``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from isentropic.commands.parser import Parser, add_train_flags, parser, settings_from
from isentropic.errors import InputError
from isentropic.files import disk_fault
from isentropic.settings import MeasureSettings, TrainSettings
from isentropic.text import never_fail, visible

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
    from isentropic.commands.train import train

    result = train(settings)
    if result.get("signal", "SIGINT") != "SIGINT":  # Ctrl-C is the user's own wish, and ends with 0
        return 128 + signal.Signals[result["signal"]]
    if result.get("stopped") != "not_finite":
        return 0
    # All is measured and saved as after any run, but a script must not take it for one that worked.
    sys.stderr.write(
        f"isentropic: error: the loss became NaN or infinite after step {result['steps']}; final/ holds the best good "
        f"weights, those of step {result['best_step']}; lower --learning_rate\n"
    )
    return 1


def run_measure(given: dict[str, Any]) -> None:
    model = given.pop("model")
    settings = settings_from(MeasureSettings, given)
    settings.check()
    from isentropic.commands.measure import run_measure as run

    run(model, settings)


def run_compare(given: dict[str, Any]) -> None:
    models = given.pop("models")
    settings = settings_from(MeasureSettings, given)
    settings.check()
    from isentropic.commands.compare import run_compare as run

    run(models, settings)


def run_report(given: dict[str, Any]) -> None:
    from isentropic.commands.report import run_report as run

    run(given)


def run_prompts(given: dict[str, Any]) -> None:
    from isentropic.commands.prompts import run_prompts as run

    run(given)


COMMANDS: dict[str, Callable[[dict[str, Any]], int | None]] = {
    "train": run_train,
    "measure": run_measure,
    "compare": run_compare,
    "report": run_report,
    "prompts": run_prompts,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0: done, or stopped by Ctrl-C with a checkpoint; 1: the loss became NaN or infinite; 2: bad input or an error of the
    disk; 128 and more: ended by a signal.
    """
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
    never_fail(sys.stdout)
    try:
        return run() or 0
    except InputError as error:
        sys.stderr.write("".join(f"isentropic: error: {visible(line)}\n" for line in str(error).splitlines()))
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
        fault = disk_fault(error)
        if fault is None:
            raise
        sys.stderr.write(
            f"isentropic: error: the disk refuses a file ({fault}); what was saved before is kept; make room or give the "
            f"rights, then run it again\n"
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("isentropic: broken off by Ctrl-C\n")
        return 130
