"""What a model thinks of the items: log-likelihoods by the one surprisal scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isentropic.behaviour.sets import BenchmarkSet, Form, Item
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.measure.expectation import start_token
from isentropic.measure.score import score_examples
from isentropic.models.model import LoadedModel, vocabulary_size
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.encode import check_vocabulary
from isentropic.responses.response import Example, Progress, Tokens


class Scores(NamedTuple):
    """Log-likelihoods of the items' texts.

    Attributes:
        values: (items, texts) in nats; per token where the form says so.
        tokens: (items, texts) how many tokens each is the sum of, or the mean.
    """

    values: np.ndarray
    tokens: np.ndarray


def score_test_items(
    loaded: LoadedModel,
    benchmark: BenchmarkSet,
    items: Sequence[Item],
    *,
    scorer: EntropyScorer | None = None,
    bf16: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Score every text of every item as the set's formula says.

    Args:
        scorer: one that has scored the model, so that the model need not be tried again.

    Raises:
        InputError: a text without a token, or a model whose log-likelihoods are not numbers.
    """
    pairs = [(item.prompt, text) for item in items for text in item.texts]
    totals, tokens = log_likelihoods(
        loaded, pairs, benchmark.form, scorer=scorer, bf16=bf16, progress=progress
    )
    values = totals / tokens if benchmark.form == "mean" else totals
    shape = (len(items), len(items[0].texts))
    return Scores(values.reshape(shape), tokens.reshape(shape))


def log_likelihoods(
    loaded: LoadedModel,
    texts: Sequence[tuple[str, str]],
    form: Form | str,
    *,
    scorer: EntropyScorer | None = None,
    bf16: bool = False,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of each text and the number of its tokens that were scored.

    Args:
        texts: each with the prompt before it, "" for none.
        form: as in `BenchmarkSet`; or "perplexity", which leaves out the first token and the start token, as
            the loss of transformers does.

    Raises:
        InputError: as `score_test_items`.
    """
    scorer = (scorer or EntropyScorer()).of_surprisal()
    examples, owners = [], []
    vocabulary = vocabulary_size(loaded.model)
    for owner, (prompt, text) in enumerate(texts):
        context, ids = split_tokens(loaded, prompt, text)
        check_vocabulary([*context, *ids], loaded.tokenizer, vocabulary, f"text {text[:40]!r}")
        for before, scored in parts_of(context, ids, form):
            examples.append(Example(Prompt(text, ""), before, scored, ""))
            owners.append(owner)
    counts = np.array([len(example.response_ids) for example in examples])
    values = -score_examples(loaded.model, scorer, examples, pad=loaded.pad, bf16=bf16, progress=progress)
    totals, tokens = (
        np.bincount(owners, weights=weights, minlength=len(texts)) for weights in (values, counts)
    )
    if short := np.flatnonzero(tokens == 0).tolist():
        raise InputError(f"text {texts[short[0]][1]!r} has no token to score; leave its item out")
    if bad := int((~np.isfinite(totals)).sum()):
        raise InputError(
            f"model {loaded.name!r} gives NaN or infinite log-likelihoods for {bad} of {len(texts)} texts; "
            "its weights are damaged, or it overflows in this precision; check the weights, or try --bf16 off"
        )
    return totals, tokens


def split_tokens(loaded: LoadedModel, prompt: str, text: str) -> tuple[Tokens, Tokens]:
    """The tokens before a text, the start token first, and those of the text: encoded as one."""
    tokenizer = loaded.tokenizer
    ids = tokenizer(prompt + text, add_special_tokens=False, verbose=False).input_ids
    before = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids if prompt else []
    shared = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), len(before))
    return (start_token(tokenizer), *ids[:shared]), tuple(ids[shared:])


def parts_of(context: Tokens, ids: Tokens, form: Form | str) -> list[tuple[Tokens, Tokens]]:
    """What is scored after what, by the form.

    Example:
        >>> parts_of((0,), (5, 6, 7), "sum"), parts_of((0,), (5, 6, 7), "mean")
        ([((0,), (5, 6, 7))], [((0,), (5,)), ((5,), (6, 7))])
    """
    first, rest = ids[:1], ids[1:]
    parts = {
        "sum": [(context, ids)],
        "continuation": [(context, ids)],
        "mean": [(context, first), (first, rest)],
        "perplexity": [(first, rest)],
    }[form]
    return [(before, scored) for before, scored in parts if scored]
