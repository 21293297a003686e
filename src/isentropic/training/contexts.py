"""The neutral contexts of a run: those it holds, or those it closes the expectation gap on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isentropic.errors import InputError
from isentropic.gap import paired_gap
from isentropic.measure.expectation import context_examples
from isentropic.measure.summary import Array, add_entropies, group_entropies, topics_of
from isentropic.prompts.contexts import Context, builtin_contexts, read_contexts
from isentropic.prompts.prompt_set import Prompt
from isentropic.prompts.swap.swap import not_read
from isentropic.responses.batches import Item
from isentropic.schema import Estimate
from isentropic.settings import LossSettings

VALIDATES = 4
"""One in so many contexts of the user's own validates, where the expectation is closed."""


def training_contexts(
    settings: LossSettings, groups: Sequence[str], prompts: Sequence[Prompt]
) -> list[Context]:
    """The user's own contexts, or the built-in ones if most prompts are in English, as these are."""
    if settings.hold_contexts:
        return read_contexts(settings.hold_contexts, groups)
    return builtin_contexts(groups, "train") if in_english(prompts) else []


def items_to_close(
    settings: LossSettings, groups: Sequence[str], prompts: Sequence[Prompt], tokenizer: Any
) -> tuple[list[Item], list[Item]]:
    """What ``--close expectation`` trains on and what it validates on: an item is a context,
    and its responses are the words of each group.

    Raises:
        InputError: there are no contexts for these groups, or too few of the user's own.
    """
    found = training_contexts(settings, groups, prompts)
    if settings.hold_contexts:
        validation, train = found[::VALIDATES], [c for i, c in enumerate(found) if i % VALIDATES]
    else:
        validation, train = builtin_contexts(groups, "validation"), found
    if not train:
        raise InputError(
            f"--close expectation has no neutral contexts to train on for the groups {', '.join(groups)} and "
            "these prompts (the built-in ones are in English, about men and women; of a file one in "
            f"{VALIDATES} validates); --hold_contexts FILE gives contexts (two or more), each with the words "
            "of every group"
        )
    trained, held_out = (
        [
            Item(tuple(example.prompt for example in examples), list(examples), index)
            for index, examples in enumerate(context_examples(contexts, groups, tokenizer))
        ]
        for contexts in (train, validation)
    )
    return trained, held_out


def expectation_estimate(
    items: Sequence[Item], surprisals: Sequence[Array], groups: Sequence[str]
) -> Estimate:
    """How far apart the model expects the groups: per context the widest log-odds of two groups, absolute.

    The signed mean would be 0 for a model that expects men and women in different occupations.
    """
    table = group_entropies(items, surprisals, groups)
    found = paired_gap(table.max(1) - table.min(1), topics_of(items)).to_dict()
    estimate: Estimate = {
        "gap": found["gap"],
        "se": found["se"],
        "ci95": found["ci95"],
        "n_pairs": len(table),
    }
    add_entropies(estimate, [*groups, "mean"], np.array([*table.mean(0), table.mean()]))
    return estimate


def in_english(prompts: Sequence[Prompt]) -> bool:
    return 2 * sum(not_read(prompt.text) is None for prompt in prompts) > len(prompts)
