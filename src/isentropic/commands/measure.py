"""``isentropic measure``: one model, its gap and verdict."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from isentropic.commands.faults import gate
from isentropic.commands.outputs import check_outputs
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import write_jsonl, write_text
from isentropic.labels import expectation_line, gap_line, interval_text
from isentropic.measure.cost import read_text
from isentropic.measure.measurement import Measurement, measure, response_rows
from isentropic.models.load import load_model
from isentropic.models.model import EMBEDDED, LoadedModel, has_bfloat16
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.prompts.swap.swap import swapper
from isentropic.report.render import render_html
from isentropic.responses.batches import Item
from isentropic.responses.encode import chat_line, follows_chat
from isentropic.responses.response import Sampling
from isentropic.responses.stored import stored_chat, stored_items
from isentropic.schema import Ability, Behaviour, Comparison, Summary
from isentropic.settings import BehaviourSettings, MeasureSettings, reading_of
from isentropic.text import short

PROMPT_SETTINGS = "train_data text_column group_column groups male_column female_column swap"
SAMPLING_SETTINGS = "max_new_tokens sample_temp num_responses"
MOST_CELLS = 20
"""Parts of the data whose gaps are printed."""


def run_measure(model: str | None, settings: MeasureSettings) -> int:
    """Measure one model; returns the exit code."""
    check_files(settings, {"the model": model})
    # With --json - the standard output is the JSON alone.
    screen = Screen(quiet=settings.json == "-")
    loaded, bf16 = model_on_device(EMBEDDED if model is None else model, settings)
    prompts, settings = prompts_to_measure(settings, loaded, screen)
    with screen.live():
        measurement = measure_model(
            loaded,
            prompts,
            settings,
            bf16,
            screen,
            text_file=settings.text_file,
            once=settings.responses_out is None,
        )
    # The files first: nothing that goes wrong on the screen may cost them.
    lines = write_responses(measurement, loaded, settings) + write_results(measurement.summary, settings)
    for line in summary_lines(measurement.summary, settings) + lines:
        screen.say(line)
    return gate(measurement.summary["verdict"]) if settings.gate else 0


# --- Before the work ----------------------------------------------------------------------------------------


def check_files(settings: MeasureSettings, models: dict[str, str | None]) -> None:
    """Refuse at once what could not be read or written later, and what would have no effect."""
    given = not_default(settings, PROMPT_SETTINGS)
    if settings.responses_in is not None and given:
        raise InputError(
            f"{given} with --responses_in; the file brings its own prompts and groups, so this would have no "
            "effect; leave out one or the other"
        )
    outputs = {
        "--json": None if settings.json == "-" else settings.json,
        "--html": settings.html,
        "--responses_out": settings.responses_out,
    }
    inputs = {f"--{name}": getattr(settings, name) for name in ("train_data", "responses_in", "text_file")}
    check_outputs(outputs, inputs | models)
    if settings.text_file:
        read_text(settings.text_file)


def not_default(settings: MeasureSettings, names: str) -> str:
    """Which of the settings are not at their defaults, as flags."""
    defaults = type(settings)()
    return ", ".join(
        f"--{name}" for name in names.split() if getattr(settings, name) != getattr(defaults, name)
    )


def check_own(items: Sequence[Item], file: str) -> None:
    """Each prompt has a response of its own.

    Raises:
        InputError: one has none.
    """
    for item in items:
        for prompt in item.prompts:
            if not any(e.prompt == prompt and e.source == prompt.group for e in item.examples):
                raise InputError(
                    f"--responses own, and {file!r} has no response to the prompt {short(prompt.text)}, only "
                    "to its twin; its own entropy would be unknown; leave --responses own out"
                )


# --- Measuring ----------------------------------------------------------------------------------------------


def model_on_device(name: str, settings: MeasureSettings | BehaviourSettings) -> tuple[LoadedModel, bool]:
    """The model on the device it is measured on, and whether its body runs in bfloat16."""
    loaded = load_model(name, trust_remote_code=settings.trust_remote_code)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded.model.to(device)  # type: ignore[arg-type]
    return loaded, has_bfloat16(device) if settings.bf16 == "auto" else settings.bf16 == "on"


def sampling_of(settings: MeasureSettings) -> Sampling:
    return Sampling(**{f.name: getattr(settings, f.name) for f in dataclasses.fields(Sampling)})


def prompts_to_measure(
    settings: MeasureSettings, loaded: LoadedModel, screen: Screen
) -> tuple[PromptSet | None, MeasureSettings]:
    """The prompts that the settings name, and the settings with what was left open: the split,
    and whether it is chat.

    None where stored responses bring their own.
    """
    prompts = None
    if settings.responses_in:
        chat = stored_chat(settings.responses_in, loaded, settings.chat)
        settings = dataclasses.replace(settings, chat=chat, split=settings.split or "all")
        if unused := not_default(settings, SAMPLING_SETTINGS):
            screen.say(
                f"{unused}: has no effect on the responses of {settings.responses_in}, which are there "
                "already"
            )
    else:
        settings = dataclasses.replace(settings, split=settings.split or "test")
        swap = swapper(lambda: loaded) if settings.swap else False
        prompts = part_of(load_prompts(settings.train_data, swap=swap, **reading_of(settings)), settings)
        if settings.chat is None:
            settings = dataclasses.replace(settings, chat=follows_chat(prompts.prompts, loaded.tokenizer))
    screen.say(chat_line(loaded.tokenizer, sampling_of(settings)))
    return prompts, settings


def part_of(prompts: PromptSet, settings: MeasureSettings) -> PromptSet:
    """The prompts of ``--split``, at most ``--pairs`` of them."""
    part = prompts if settings.split == "all" else prompts.split(str(settings.split))
    if not len(part):
        there = sorted({prompt.split for prompt in prompts.prompts} - {"all"})
        raise InputError(
            f"--split is {settings.split!r} and {prompts.name!r} has no prompt of that split; nothing would "
            f"be measured; choose one of {', '.join([*there, 'all'])}"
        )
    return part.first(settings.pairs)


def measure_model(
    loaded: LoadedModel,
    prompts: PromptSet | None,
    settings: MeasureSettings,
    bf16: bool,
    screen: Screen,
    *,
    items: list[Item] | None = None,
    writer: LoadedModel | None = None,
    text_file: str | None = None,
    once: bool = False,
) -> Measurement:
    """Measure a model on sampled responses, on those of a file,
    or on ``items`` that another model was measured on."""
    sampling, responses = sampling_of(settings), settings.responses
    if prompts is None:
        prompts, stored = stored_items(str(settings.responses_in), loaded, sampling, writer=writer)
        for note in prompts.notes:
            screen.say(f"   {note}")
        prompts = part_of(prompts, settings)
        kept = set(prompts.prompts)
        items = items or [item for item in stored if kept.issuperset(item.prompts)]
        if all(example.source == example.prompt.group for item in items for example in item.examples):
            responses = "own"
        if responses == "own":
            check_own(items, str(settings.responses_in))
    found = measure(
        loaded,
        prompts,
        sampling=sampling,
        responses=responses,
        target_gap=settings.target_gap,
        bf16=bf16,
        noise_floor=settings.noise_floor,
        items=items,
        once=once,
        split=str(settings.split),
        text_file=text_file,
        sampling_progress=None if items else screen.bar("sampling responses"),
        progress=screen.bar("scoring"),
    )
    if settings.responses_in:  # how stored responses were drawn is not known here
        for name in SAMPLING_SETTINGS.split():
            del found.summary["settings"][name]
    return found


# --- Results ------------------------------------------------------------------------------------------------


def write_responses(measurement: Measurement, loaded: LoadedModel, settings: MeasureSettings) -> list[str]:
    """Write ``--responses_out``, if asked for; returns a line that says so."""
    if settings.responses_out is None:
        return []
    write_jsonl(Path(settings.responses_out), response_rows(measurement, loaded.tokenizer))
    return [f"responses: {settings.responses_out}"]


def write_results(
    result: Summary | Comparison | Ability | Behaviour, settings: MeasureSettings | BehaviourSettings
) -> list[str]:
    """Write ``--json`` and ``--html``, if asked for; returns a line for each."""
    lines = []
    if settings.json:
        # Where the encoding of the screen has no room for all of Unicode, JSON has escapes of its own.
        narrow = settings.json == "-" and "utf" not in str(sys.stdout.encoding).lower()
        text = json.dumps(result, ensure_ascii=narrow, indent=1, allow_nan=False) + "\n"
        if settings.json == "-":
            sys.stdout.write(text)
        else:
            write_text(Path(settings.json), text)
            lines.append(f"summary: {settings.json}")
    if settings.html:
        write_text(Path(settings.html), render_html(result, settings.lang))
        lines.append(f"report: {settings.html}")
    return lines


def summary_lines(summary: Summary, settings: MeasureSettings) -> list[str]:
    """The measurement in a few lines."""
    lines = [gap_line(summary, settings.lang)]
    needed = summary["pairs_needed"]
    unit = "pairs" if summary["twins"] else "prompts"
    enough = f"; about {needed} {unit} would be enough" if needed else ""
    lines.append(
        f"verdict: {summary['verdict']} for a target of {summary['target_gap']} nats "
        f"({summary['reason']}){enough}"
    )
    if summary["mean_abs_pair_gap"] is not None:
        lines.append(f"mean absolute pair gap {summary['mean_abs_pair_gap']:.4f} nats")
    cells = summary["cells"]
    for cell in cells[:MOST_CELLS]:
        lines.append(f"   {cell['cell']}: gap {cell['gap']:+.4f}, n={cell['n_pairs']}, {cell['verdict']}")
    if len(cells) > MOST_CELLS:
        lines.append(f"   and {len(cells) - MOST_CELLS} more parts; --json has them all")
    if expected := expectation_line(summary["expectation"]):
        lines.append(expected)
    own = summary["own"]
    if own and own["ci95"]:
        lines.append(f"own responses: gap {own['gap']:+.4f}, 95% interval {interval_text(own['ci95'])}")
    floor = summary["noise_floor"]
    if floor and floor["floor"] is not None:
        under = "is under" if floor["gap_is_under_floor"] else "is above"
        lines.append(f"noise floor {floor['floor']:.4f} nats: the gap {under} what chance alone shows")
    quality = summary["quality"]
    if quality and quality["perplexity"] is not None:
        lines.append(f"perplexity of {settings.text_file}: {quality['perplexity']:.2f}")
    return lines + [f"warning: {warning}" for warning in summary["warnings"]]
