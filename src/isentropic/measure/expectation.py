"""The expectation gap: which group a model expects, in log-likelihood. Reported beside the entropy gap,
which does not show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch

from isentropic import gap as statistics
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.gap import Labels
from isentropic.labels import EXPECTATION_FORMS
from isentropic.measure.score import score_examples
from isentropic.measure.summary import labels_of
from isentropic.models.model import LoadedModel
from isentropic.prompts.contexts import Context, builtin_contexts
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import Item
from isentropic.responses.response import Example, Tokens
from isentropic.schema import Expectation, ExpectationChange, ExpectationRow, ExpectationShift


def start_token(tokenizer: Any) -> int:
    """The token that a text begins with: the tokenizer's begin token, else its end token,
    as in common evaluations."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def shared_tokens(*texts: Tokens) -> int:
    """How many tokens texts begin with in common."""
    places = enumerate(zip(*texts, strict=False))
    return next((n for n, tokens in places if len(set(tokens)) > 1), min(map(len, texts)))


def twin_examples(items: Sequence[Item], groups: Sequence[str], tokenizer: Any) -> list[tuple[Example, ...]]:
    """The twins' own prompts as texts to be scored; items without both are left out.

    A text begins with the start token. What both begin with is the prompt: it adds the same to both.
    """
    start = start_token(tokenizer)
    found = []
    for item in items:
        encoded = {example.prompt.group: (example.prompt, example.prompt_ids) for example in item.examples}
        if all(group in encoded for group in groups):
            both = [encoded[group] for group in groups]
            texts = [ids if ids[0] == start else (start, *ids) for _, ids in both]
            shared = min(shared_tokens(*texts), *(len(text) - 1 for text in texts))
            if shared:
                found.append(
                    tuple(
                        Example(prompt, text[:shared], text[shared:], prompt.group)
                        for (prompt, _), text in zip(both, texts, strict=True)
                    )
                )
    return found


def context_examples(
    contexts: Sequence[Context], groups: Sequence[str], tokenizer: Any
) -> list[tuple[Example, ...]]:
    """Each context followed by the words of each group.

    The text is encoded whole, so the words get the tokens they have in a text; what differs between the
    groups is scored.

    Raises:
        InputError: one group's text is the beginning of another's, or the same.
    """
    if not contexts:
        return []
    start = start_token(tokenizer)
    texts = [context.text + context.words[group] for context in contexts for group in groups]
    encoded = [(start, *ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]
    found = []
    for place, context in enumerate(contexts):
        each = encoded[place * len(groups) : (place + 1) * len(groups)]
        shared = shared_tokens(*each)
        if any(one[: len(other)] == other for one, other in permutations(each, 2)):
            words = " and ".join(repr(context.words[group]) for group in groups)
            raise InputError(
                f"context {context.text!r} continues with {words}, one of which begins another; their "
                "likelihoods cannot be compared; give other words"
            )
        found.append(
            tuple(
                Example(prompt, ids[:shared], ids[shared:], group)
                for group, ids in zip(groups, each, strict=True)
                for prompt in [Prompt(context.text, group, topic=context.filler, filler=context.frame)]
            )
        )
    return found


def pair_differences(
    model: torch.nn.Module,
    scorer: EntropyScorer,
    pairs: Sequence[tuple[Example, ...]],
    *,
    pad: int,
    bf16: bool = False,
) -> np.ndarray:
    """What the scorer gives for the first example minus what it gives for the second, (n,) in nats.

    Of surprisals these are the log-odds of the second response; of entropies the gap, first group minus
    second.

    .. math:: d_i = s(y_{i1} | x_{i1}) - s(y_{i2} | x_{i2})

    Args:
        scorer: of surprisals or of entropies.
        pairs: what is compared; the responses may differ in length.
    """
    flat = [example for pair in pairs for example in pair]
    values = score_examples(model, scorer, flat, pad=pad, bf16=bf16)
    return values[::2] - values[1::2]


def expectation_row(values: np.ndarray, clusters: Labels) -> ExpectationRow:
    """What a set of log-odds says: mean, interval over clusters, mean absolute value,
    share that prefers the second group."""
    row: ExpectationRow = {
        "gap": float(values.mean()),
        "ci95": None,
        "mean_abs": float(np.abs(values).mean()),
        "prefers_second": float((values > 0).mean()),
        "n": len(values),
    }
    if len(values) > 1:
        row["ci95"] = statistics.paired_gap(values, clusters=clusters).to_dict()["ci95"]
    return row


@dataclass(frozen=True)
class LogOdds:
    """One form of the expectation gap, item by item.

    Attributes:
        values: (n,) log-odds, second group minus first, nats.
        clusters: (n,) what recurs over the items (for contexts the occupation and the frame), or None where
            they are independent.
    """

    values: np.ndarray
    clusters: Labels


def measure_expectation(
    loaded: LoadedModel,
    items: Sequence[Item],
    groups: Sequence[str],
    *,
    scorer: EntropyScorer | None = None,
    bf16: bool = False,
) -> dict[str, LogOdds]:
    """Which of two groups the model expects: by the twins' own prompts, and after neutral contexts.

    Args:
        items: the prompts of a measurement; those that lack a twin are left out.
        groups: the two groups, in the order of the signed gap.
        scorer: one that has scored the model, so that the model need not be tried again.

    Returns:
        ``twins`` and ``contexts``, without those there are none of.
    """
    contexts = builtin_contexts(groups, "test")
    scorer = (scorer or EntropyScorer()).of_surprisal()
    twins = twin_examples(items, groups, loaded.tokenizer)
    forms = {"twins": twins, "contexts": context_examples(contexts, groups, loaded.tokenizer)}
    return {
        name: LogOdds(
            pair_differences(loaded.model, scorer, pairs, pad=loaded.pad, bf16=bf16),
            labels_of(pair[0].prompt for pair in pairs),
        )
        for name, pairs in forms.items()
        if pairs
    }


def expectation_rows(found: Mapping[str, LogOdds], groups: Sequence[str]) -> Expectation:
    """What the log-odds say, as a measurement's summary holds it."""
    rows = {name: expectation_row(form.values, form.clusters) for name, form in found.items()}
    return {"groups": list(groups), "twins": rows.get("twins"), "contexts": rows.get("contexts")}


def expectation_change(
    first: Mapping[str, LogOdds], second: Mapping[str, LogOdds]
) -> ExpectationChange | None:
    """How the expectation moved between two models, item by item; None where they share no form of it.

    The top level is that of the contexts, where there are some, else that of the twins.
    """
    rows: dict[str, ExpectationShift] = {}
    for name in ("twins", "contexts"):
        if name in first and name in second and len(first[name].values) == len(second[name].values):
            before, after = first[name].values, second[name].values
            moved = expectation_row(after - before, first[name].clusters)
            shrunk = expectation_row(np.abs(after) - np.abs(before), first[name].clusters)
            rows[name] = {
                "change": moved["gap"],
                "ci95": moved["ci95"],
                "abs_change": shrunk["gap"],
                "abs_ci95": shrunk["ci95"],
                "n": moved["n"],
            }
    if not rows:
        return None
    form = next(form for form, _ in EXPECTATION_FORMS if form in rows)
    return {"form": form, **rows[form], "twins": rows.get("twins"), "contexts": rows.get("contexts")}
