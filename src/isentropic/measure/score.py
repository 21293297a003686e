"""Response entropies of a prompt set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.summary import SCHEMA, floor_of, quality, summarise, versions
from isentropic.models.model import LoadedModel, precision
from isentropic.prompts.prompt_set import PromptSet
from isentropic.responses.batches import Item, collate_rows, pack, prompt_tuples, row_length
from isentropic.responses.sample import (
    Example,
    Progress,
    ResponseSampler,
    Sampling,
    evaluating,
    token_batches,
)


@dataclass
class Measurement:
    """What was scored, and what it says.

    Attributes:
        items: tuples of prompts with the examples they were scored on.
        entropies: one array an item, the response entropy of each example in nats.
        summary: the plain dict that reports and ``--json`` are made of.
    """

    items: list[Item]
    entropies: list[np.ndarray]
    summary: dict[str, Any]


# --- Scoring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def score_examples(
    model: torch.nn.Module,
    scorer: EntropyScorer,
    examples: Sequence[Example],
    *,
    pad: int,
    bf16: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Response entropy of each example, (n,) in nats. Rows are sorted by length, so that little is padded."""
    rows = pack(examples, scorer.longest_row(model))
    places = np.split(np.arange(len(examples)), np.cumsum([len(row) for row in rows])[:-1])
    order = sorted(range(len(rows)), key=lambda i: row_length(rows[i]))
    values = np.full(len(examples), np.nan)
    device = next(model.parameters()).device
    done = 0
    with evaluating(model), precision(device, bf16):
        for chosen in token_batches(order, lambda i: row_length(rows[i])):
            batch = {k: v.to(device) for k, v in collate_rows([rows[i] for i in chosen], pad).items()}
            scored = scorer.score(model, **batch).means().cpu().numpy()
            values[np.concatenate([places[i] for i in chosen])] = scored
            done += len(scored)
            if progress:
                progress(done, len(examples))
    return values


def score_items(
    model: torch.nn.Module,
    scorer: EntropyScorer,
    items: Sequence[Item],
    *,
    pad: int,
    bf16: bool = False,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Response entropies item by item."""
    flat = [example for item in items for example in item.examples]
    values = score_examples(model, scorer, flat, pad=pad, bf16=bf16, progress=progress)
    return np.split(values, np.cumsum([len(item.examples) for item in items])[:-1])


# --- Measuring ------------------------------------------------------------------------------------------------------


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
    items: list[Item] | None = None,
    scorer: EntropyScorer | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure the entropy gap of a model over a prompt set.

    Args:
        loaded: the model.
        prompt_set: the prompts; twins are scored on shared responses unless ``responses`` is ``"own"``.
        sampling: how responses are drawn.
        target_gap: what the verdict is about, in nats.
        items: prompts with responses drawn earlier; nothing is sampled then.

    Returns:
        The entropies and the summary dict (see docs/schema.md).
    """
    if items is None:
        sampler = ResponseSampler(
            loaded.model, loaded.tokenizer, sampling, model_sha256=loaded.sha256, bf16=bf16
        )
        items = make_items(prompt_set, sampler, shared=responses != "own", progress=progress)
    pad = loaded.tokenizer.pad_token_id
    scorer = scorer or EntropyScorer()
    entropies = score_items(loaded.model, scorer, items, pad=pad, bf16=bf16, progress=progress)
    summary = {
        "schema": SCHEMA,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "data": prompt_set.name,
        "data_sha256": prompt_set.sha256,
        "responses": responses if prompt_set.paired else "own",
        "seed": sampling.seed,
        "unit": "nats",
        "settings": {**asdict(sampling), "bf16": bf16},
        "versions": versions(),
        **summarise(items, entropies, prompt_set.groups, target_gap, own=responses == "own"),
    }
    if noise_floor:
        summary["noise_floor"] = floor_of(items, entropies, prompt_set.groups, summary, sampling.seed)
    ends = ResponseSampler(loaded.model, loaded.tokenizer, sampling).ends
    summary["quality"] = quality(items, entropies, ends)
    return Measurement(items, entropies, summary)


# --- Responses, out and in ------------------------------------------------------------------------------------------


def response_rows(measurement: Measurement, tokenizer: Any, **extra: Any) -> list[dict[str, Any]]:
    """One row an example: enough for anyone to recompute each figure."""
    return [
        {
            **extra,
            "pair_id": example.prompt.pair_id,
            "group": example.prompt.group,
            "topic": example.prompt.topic,
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
    ]
