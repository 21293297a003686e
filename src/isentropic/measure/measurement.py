"""A measurement: prompts and a model in; what was scored and what it says out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.cost import known_or_note, perplexity
from isentropic.measure.expectation import LogOdds, expectation_rows, measure_expectation
from isentropic.measure.score import check_finite, score_items
from isentropic.measure.summary import floor_of, quality, summarise, versions
from isentropic.measure.watch import EntropyWatch
from isentropic.models.model import LoadedModel
from isentropic.prompts.prompt_set import PromptSet
from isentropic.responses.batches import Item, prompt_tuples
from isentropic.responses.response import Progress, Sampling
from isentropic.responses.sample import ResponseSampler
from isentropic.schema import MEASURE_SCHEMA, Summary


@dataclass
class Measurement:
    """What was scored, and what it says.

    Attributes:
        items: tuples of prompts with the examples they were scored on.
        entropies: one array per item, the response entropy of each example in nats.
        summary: the data of reports and ``--json``.
        log_odds: the values behind ``summary["expectation"]``: of the twins, and of the neutral contexts.
    """

    items: list[Item]
    entropies: list[np.ndarray]
    summary: Summary
    log_odds: dict[str, LogOdds] = field(default_factory=dict)


def dtype_name(loaded: LoadedModel) -> str:
    """The dtype that a model's weights are stored in, as configurations spell it."""
    dtype = loaded.stored_dtype or next(loaded.model.parameters()).dtype
    return str(dtype).removeprefix("torch.")


def make_items(
    prompt_set: PromptSet, sampler: ResponseSampler, *, shared: bool, progress: Progress | None = None
) -> list[Item]:
    """Sample the responses of a prompt set. Without twins each prompt is an item of its own."""
    tuples = prompt_tuples(prompt_set) if prompt_set.paired else [(prompt,) for prompt in prompt_set.prompts]
    examples = sampler.examples(tuples, shared=shared and prompt_set.paired, progress=progress)
    return [Item(*pair, index) for index, pair in enumerate(zip(tuples, examples, strict=True))]


def measure(
    loaded: LoadedModel,
    prompt_set: PromptSet,
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    responses: str = "shared",
    target_gap: float = 0.01,
    bf16: bool = False,
    noise_floor: bool = True,
    expectation: bool = True,
    items: list[Item] | None = None,
    entropies: list[np.ndarray] | None = None,
    scorer: EntropyScorer | None = None,
    once: bool = False,
    split: str = "all",
    text_file: str | None = None,
    sampling_progress: Progress | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure the entropy gap of a model over a prompt set.

    Long because of its settings: one line for each here and in the call.

    Args:
        loaded: the model.
        prompt_set: the prompts; twins are scored on shared responses unless ``responses`` is ``"own"``.
        sampling: how responses are drawn.
        target_gap: the target gap of the verdict, in nats.
        noise_floor, expectation: measure these too.
        items: prompts with responses drawn earlier; nothing is sampled then.
        entropies: of these items, scored earlier; nothing is scored then.
        once: no other measurement will be compared with this one. Entropies are then taken while responses
            are sampled, and may differ from those of a second measurement by some 1e-6 nats.
        split: the name of this part of the data, for the summary.
        text_file: a text whose perplexity is measured too.

    Returns:
        The entropies and the summary (see docs/schema.md).

    Raises:
        InputError: the model's entropies are not finite.
    """
    scorer = scorer or EntropyScorer()
    scorer.fit_of(loaded.model)  # what is not causal is refused before responses are sampled
    pad = loaded.pad
    watch = EntropyWatch(loaded.model, scorer, pad=pad, bf16=bf16) if once else None
    if items is None:
        sampler = ResponseSampler(
            loaded.model, loaded.tokenizer, sampling, model_sha256=loaded.sha256, bf16=bf16, watch=watch
        )
        items = make_items(
            prompt_set, sampler, shared=responses != "own", progress=sampling_progress or progress
        )
    if entropies is None:
        known = watch.known if watch else {}
        entropies = score_items(
            loaded.model, scorer, items, pad=pad, bf16=bf16, progress=progress, known=known
        )
    check_finite(entropies, loaded.name)
    own, groups = responses == "own", prompt_set.groups
    findings = summarise(items, entropies, groups, target_gap, own=own)
    log_odds = {}
    if expectation:
        log_odds = measure_expectation(loaded, items, findings["widest"], scorer=scorer, bf16=bf16)
    ends = ResponseSampler(loaded.model, loaded.tokenizer, sampling).ends
    summary: Summary = {
        "schema": MEASURE_SCHEMA,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "data": prompt_set.name,
        "data_sha256": prompt_set.sha256,
        "split": split,
        "responses": "own" if own or not prompt_set.paired else "shared",
        "seed": sampling.seed,
        "unit": "nats",
        "settings": {**asdict(sampling), "bf16": bf16, "dtype": dtype_name(loaded)},
        "versions": versions(),
        **findings,
        "noise_floor": floor_of(items, entropies, groups, sampling.seed, own=own) if noise_floor else None,
        "quality": quality(items, entropies, ends),
        "expectation": expectation_rows(log_odds, findings["widest"]) if expectation else None,
        "notes": list(prompt_set.notes),
    }
    if text_file and summary["quality"]:
        found = perplexity(loaded, text_file, bf16=bf16)
        summary["quality"]["perplexity"] = known_or_note(found, "perplexity", summary["warnings"])
    return Measurement(items, entropies, summary, log_odds)


# --- Responses, out and in ----------------------------------------------------------------------------------


def response_rows(measurement: Measurement, tokenizer: Any, **extra: Any) -> Iterator[dict[str, Any]]:
    """One row an example: enough for anyone to recompute each figure."""
    return (
        {
            "split": example.prompt.split,
            **extra,
            "pair_id": example.prompt.pair_id,
            "group": example.prompt.group,
            "topic": example.prompt.topic,
            "filler": example.prompt.filler,
            "cell": example.prompt.cell,
            "source": example.source,
            "sample": example.sample,
            "prompt": example.prompt.text,
            "response": tokenizer.decode(example.response_ids),
            "prompt_ids": list(example.prompt_ids),
            "response_ids": list(example.response_ids),
            "entropy": float(value),
        }
        for item, values in zip(measurement.items, measurement.entropies, strict=True)
        for example, value in zip(item.examples, values, strict=True)
    )
