"""``isentropic measure``: one model, its gap and verdict."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch

from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import write_json, write_jsonl
from isentropic.labels import gap_line, interval_text
from isentropic.measure.cost import read_text
from isentropic.measure.measurement import Measurement, make_items, measure, response_rows
from isentropic.models.load import load_model
from isentropic.models.model import EMBEDDED, LoadedModel, has_bfloat16
from isentropic.prompts.load import load_prompts
from isentropic.prompts.prompt_set import PromptSet
from isentropic.prompts.swap.swap import swapper
from isentropic.report.render import render_html
from isentropic.responses.encode import chat_line, follows_chat
from isentropic.responses.sample import ResponseSampler, Sampling
from isentropic.responses.stored import stored_chat, stored_items
from isentropic.schema import Comparison, Summary
from isentropic.settings import MeasureSettings, reading_of


def run_measure(name: str | None, settings: MeasureSettings) -> Summary:
    """Measure one model; returns the summary."""
    check_files(settings)
    # With --json - the standard output is the JSON alone.
    screen = Screen(quiet=settings.json == "-")
    loaded, bf16 = load(name or EMBEDDED, settings)
    prompts, settings = chosen_prompts(settings, loaded, screen)
    with screen.live():
        measurement = measured(loaded, prompts, settings, bf16, screen, text_file=settings.text_file)
    summary = measurement.summary
    tell(measurement, settings, screen)
    if settings.responses_out:
        write_jsonl(
            new_file(settings.responses_out),
            response_rows(measurement, loaded.tokenizer, split=settings.split),
        )
    deliver(summary, settings, screen)
    return summary


# --- Parts ----------------------------------------------------------------------------------------------------------


def load(name: str, settings: MeasureSettings) -> tuple[LoadedModel, bool]:
    """The model on the device it is measured on, and whether its body runs in bfloat16."""
    loaded = load_model(name, trust_remote_code=settings.trust_remote_code)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded.model.to(device)  # type: ignore[arg-type]
    return loaded, has_bfloat16(device) if settings.bf16 == "auto" else settings.bf16 == "on"


def sampling_of(settings: MeasureSettings) -> Sampling:
    shared = {f.name: getattr(settings, f.name) for f in dataclasses.fields(Sampling)}
    return Sampling(**shared)


def chosen_prompts(
    settings: MeasureSettings, loaded: LoadedModel, screen: Screen
) -> tuple[PromptSet | None, MeasureSettings]:
    """The prompts the settings name, a split of them, cut to ``--pairs``; and whether they are chat, if left open.

    None where stored responses bring their own.
    """
    if settings.responses_in:
        chat = stored_chat(settings.responses_in, loaded, settings.chat)
        settings = dataclasses.replace(settings, chat=chat)
        screen.say(chat_line(loaded.tokenizer, sampling_of(settings)))
        return None, settings
    swap = swapper(lambda: loaded) if settings.swap else False
    prompts = load_prompts(settings.train_data, swap=swap, **reading_of(settings))
    if settings.split != "all":
        part = prompts.split(settings.split)
        if not len(part):
            there = sorted({prompt.split for prompt in prompts.prompts})
            raise InputError(
                f"--split is {settings.split!r} and {prompts.name!r} has no prompt of that split; nothing would be "
                f"measured; choose one of {', '.join(there)} or all"
            )
        prompts = part
    if settings.chat is None:
        settings = dataclasses.replace(settings, chat=follows_chat(prompts.prompts, loaded.tokenizer))
    screen.say(chat_line(loaded.tokenizer, sampling_of(settings)))
    return prompts.first(settings.pairs), settings


def measured(
    loaded: LoadedModel,
    prompts: PromptSet | None,
    settings: MeasureSettings,
    bf16: bool,
    screen: Screen,
    items: list | None = None,
    writer: LoadedModel | None = None,
    text_file: str | None = None,
) -> Measurement:
    sampling, responses = sampling_of(settings), settings.responses
    if prompts is None:
        prompts, stored = stored_items(str(settings.responses_in), loaded, sampling, writer=writer)
        items = items or stored
        for note in prompts.notes:
            screen.say(f"   {note}")
        if all(example.source == example.prompt.group for item in items for example in item.examples):
            responses = "own"
    if items is None:
        sampler = ResponseSampler(
            loaded.model, loaded.tokenizer, sampling, model_sha256=loaded.sha256, bf16=bf16
        )
        items = make_items(
            prompts, sampler, shared=settings.responses != "own", progress=screen.bar("sampling responses")
        )
    return measure(
        loaded,
        prompts,
        sampling=sampling,
        responses=responses,
        target_gap=settings.target_gap,
        bf16=bf16,
        noise_floor=settings.noise_floor,
        items=items,
        split=settings.split,
        text_file=text_file,
        progress=screen.bar("scoring"),
    )


def tell(measurement: Measurement, settings: MeasureSettings, screen: Screen) -> None:
    """The measurement in a few lines."""
    summary = measurement.summary
    screen.say(gap_line(summary, settings.lang))
    needed = summary["pairs_needed"]
    unit = "pairs" if summary["twins"] else "prompts"
    enough = f"; about {needed} {unit} would be enough" if needed else ""
    screen.say(
        f"verdict: {summary['verdict']} for a target of {summary['target_gap']} nats ({summary['reason']}){enough}"
    )
    if summary["mean_abs_pair_gap"] is not None:
        screen.say(f"mean absolute pair gap {summary['mean_abs_pair_gap']:.4f} nats")
    for cell in summary["cells"]:
        screen.say(f"   {cell['cell']}: gap {cell['gap']:+.4f}, n={cell['n_pairs']}, {cell['verdict']}")
    own = summary["own"]
    if own and own["ci95"]:
        screen.say(f"own responses: gap {own['gap']:+.4f}, 95% interval {interval_text(own['ci95'])}")
    floor = summary["noise_floor"]
    if floor and floor["floor"] is not None:
        under = "is under" if floor["gap_is_under_floor"] else "is above"
        screen.say(f"noise floor {floor['floor']:.4f} nats: the gap {under} what chance alone shows")
    quality = summary["quality"]
    if quality and quality["perplexity"] is not None:
        screen.say(f"perplexity of {settings.text_file}: {quality['perplexity']:.2f}")
    for warning in summary["warnings"]:
        screen.say(f"warning: {warning}")


def deliver(result: Summary | Comparison, settings: MeasureSettings, screen: Screen) -> None:
    """Write the files that were asked for."""
    if settings.json == "-":
        sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    elif settings.json:
        write_json(new_file(settings.json), result)
        screen.say(f"summary: {settings.json}")
    if settings.html:
        new_file(settings.html).write_text(render_html(result, settings.lang), encoding="utf-8")
        screen.say(f"report: {settings.html}")


def check_files(settings: MeasureSettings) -> None:
    """Refuse before the work what could not be read or written after it."""
    for name in (settings.json, settings.html, settings.responses_out):
        if name and name != "-":
            new_file(name)
    if settings.text_file:
        read_text(settings.text_file)


def new_file(name: str) -> Path:
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"{name!r} cannot be written; it is a folder, or its folder does not exist; give another file"
        )
    return path
