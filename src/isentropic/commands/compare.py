"""``isentropic compare``: several models on the same prompts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from isentropic.commands.measure import (
    check_files,
    measure_model,
    model_on_device,
    prompts_to_measure,
    sampling_of,
    write_results,
)
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.labels import expectation_change_lines, gap_line, interval_text
from isentropic.measure.compare import comparison
from isentropic.measure.cost import NeutralReference, answers_of, neutral_examples, perplexity
from isentropic.measure.measurement import Measurement
from isentropic.models.load import check_there
from isentropic.models.model import LoadedModel, vocabulary_size
from isentropic.responses.sample import ResponseSampler
from isentropic.schema import Comparison
from isentropic.settings import MeasureSettings


def run_compare(models: Sequence[str], settings: MeasureSettings) -> Comparison:
    """Measure several models on the same pairs and the same responses; returns the comparison."""
    check_comparison(models, settings)
    screen = Screen(quiet=settings.json == "-")
    base, bf16 = model_on_device(models[0], settings)
    prompts, settings = prompts_to_measure(settings, base, screen)
    measurements: list[Measurement] = []
    costs: list[dict[str, Any]] = []
    notes: list[str] = []
    with screen.live():
        reference = None
        for name in models:
            loaded = base if not measurements else model_on_device(name, settings)[0]
            fits = same_tokenizer(base, loaded)
            if not fits:
                own = "the stored text, encoded again" if settings.responses_in else "its own answers to them"
                notes.append(
                    f"{name} has a different tokenizer from {models[0]}: on the same prompts it is scored on "
                    f"{own}, and its KL and entropies are not comparable token by token"
                )
            items = measurements[0].items if measurements and fits else None
            found = measure_model(
                loaded, prompts, settings, bf16, screen, items=items, writer=None if fits else base
            )
            measurements.append(found)
            sampler = ResponseSampler(
                loaded.model,
                loaded.tokenizer,
                dataclasses.replace(sampling_of(settings), num_responses=1),
                model_sha256=loaded.sha256,
                bf16=bf16,
            )
            if reference is None:
                texts = neutral_examples(sampler, vocabulary_size(loaded.model))
                reference = NeutralReference(loaded.model, texts, pad=loaded.pad, bf16=bf16)
            kl = reference.kl_to(loaded.model) if fits else {"kl": None, "kl_ci95": None}
            text = settings.text_file
            told = {"perplexity": perplexity(loaded, text, bf16=bf16) if text else None}
            costs.append({**kl, **told, **answers_of(sampler)})
            screen.say(f"{name}: {gap_line(found.summary, settings.lang)}")
    result = comparison(numbered_names(models), measurements, costs)
    result["notes"] += notes
    # The files first: nothing that goes wrong on the screen may cost them.
    lines = write_results(result, settings)
    for line in comparison_lines(result) + lines:
        screen.say(line)
    return result


def check_comparison(models: Sequence[str], settings: MeasureSettings) -> None:
    """Refuse what a comparison cannot do, before a model is loaded."""
    if len(models) < 2:
        raise InputError(f"compare has one model, {models[0]!r}; a comparison needs two; name a second one")
    if settings.responses_out:
        raise InputError(
            f"--responses_out {settings.responses_out!r} with compare, which writes no responses; make them "
            "with measure"
        )
    if settings.gate:
        raise InputError(
            "--gate with compare, which gives a verdict on several models; make each one's with measure"
        )
    check_files(settings, {f"the model {name!r}": name for name in models})
    for name in models:
        check_there(name)


def comparison_lines(result: Comparison) -> list[str]:
    """The comparison in a few lines."""
    lines = []
    for row in result["differences"]:
        p = "unknown" if row["p"] is None else f"{row['p']:.2g}"
        lines.append(
            f"{row['model']} against {row['against']}: gap {row['gap_change']:+.4f}, 95% interval "
            f"{interval_text(row['ci95'])}, p={p}"
        )
        moved_lines = expectation_change_lines(row["expectation_change"], row["groups"])
        lines += [f"{row['model']}: {line}" for line in moved_lines]
    for model in result["models"]:
        cost = model["cost"]
        moved = "unknown" if cost["kl_to_first"] is None else f"{cost['kl_to_first']:.5f} nats a token"
        told = "" if cost["perplexity"] is None else f", perplexity {cost['perplexity']:.2f}"
        lines.append(
            f"{model['name']}: KL to the first {moved}, mean entropy {cost['mean_entropy']:.4f}, mean length "
            f"of its own answers {cost['mean_length']:.1f} tokens{told}"
        )
    return lines + [f"note: {note}" for note in result["notes"]]


def same_tokenizer(a: LoadedModel, b: LoadedModel) -> bool:
    """Whether the same ids mean the same text to both."""
    return a.tokenizer.get_vocab() == b.tokenizer.get_vocab()


def numbered_names(names: Sequence[str]) -> list[str]:
    """Short names of the models, numbered where one comes twice."""
    bases = [os.path.basename(os.path.abspath(name)) for name in names]
    short = [
        base if os.path.exists(name) and base != "final" else name
        for base, name in zip(bases, names, strict=True)
    ]
    return [
        f"{name} ({short[:place].count(name) + 1})" if short.count(name) > 1 else name
        for place, name in enumerate(short)
    ]
