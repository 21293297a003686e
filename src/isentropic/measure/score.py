"""Response entropies of a prompt set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.models.model import evaluating, precision
from isentropic.models.shared_work import shared_out
from isentropic.responses.batches import Item, collate_rows, pack, row_length, token_batches, tokens_a_batch
from isentropic.responses.response import Entropies, Example, Progress


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
    """Response entropy of each example, (n,) in nats.

    Rows are sorted by length, the longest first: little is padded, and what long rows show is known at once.
    """
    rows = pack(examples, scorer.longest_row(model))
    order = sorted(range(len(rows)), key=lambda i: row_length(rows[i]), reverse=True)
    device = next(model.parameters()).device

    def score(part: Sequence[int]) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        done, total = 0, sum(len(rows[i]) for i in part)
        for chosen in token_batches(part, lambda i: row_length(rows[i]), tokens_a_batch(device)):
            batch = {k: v.to(device) for k, v in collate_rows([rows[i] for i in chosen], pad).items()}
            values = scorer.score(model, **batch).means().cpu().numpy()
            ends = np.cumsum([len(rows[i]) for i in chosen])
            found.update(zip(chosen, np.split(values, ends[:-1]), strict=True))
            done += len(values)
            if progress:
                progress(done, total)
        return found

    with evaluating(model), precision(device, bf16):
        scored = shared_out(model, order, score)
    return np.concatenate([np.empty(0), *(scored[i] for i in range(len(rows)))])


def score_items(
    model: torch.nn.Module,
    scorer: EntropyScorer,
    items: Sequence[Item],
    *,
    pad: int,
    bf16: bool = False,
    progress: Progress | None = None,
    known: Entropies | None = None,
) -> list[np.ndarray]:
    """Response entropies item by item; those of ``known`` prompts and responses are not scored again."""
    flat = [example for item in items for example in item.examples]
    values = np.array([(known or {}).get((x.prompt_ids, x.response_ids), np.nan) for x in flat])
    missing = np.flatnonzero(np.isnan(values))
    values[missing] = score_examples(
        model, scorer, [flat[i] for i in missing], pad=pad, bf16=bf16, progress=progress
    )
    return np.split(values, np.cumsum([len(item.examples) for item in items])[:-1])


def check_finite(entropies: Sequence[np.ndarray], name: str) -> None:
    """Refuse a model whose entropies are not numbers: no gap can be made of them."""
    values = np.concatenate(list(entropies)) if entropies else np.empty(0)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(
            f"model {name!r} gives NaN or infinite entropies for {bad} of {len(values)} responses; its "
            "weights are damaged, or it overflows in this precision, and no gap can be measured; check the "
            "weights, or try --bf16 off"
        )
