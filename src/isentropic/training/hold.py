"""Quantities that training must not move: after each update of the optimizer they are brought back.

.. math:: w \\leftarrow w - a (q(w) - q_0) / |a|^2, \\quad a = \\nabla q(w)

for each held quantity q in turn, with w the weights after the update and q_0 the value before training: a
step of Newton's method, the smallest change of the weights that undoes the drift. So it is undone whatever
the optimizer made of the gradient, to second order too. Projecting the *gradient* in front of Adam does not
do that: Adam's division by the gradient's size bends the direction afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.expectation import context_examples, pair_differences, twin_examples
from isentropic.models.model import precision
from isentropic.prompts.contexts import Context
from isentropic.responses.batches import Item, collate_examples
from isentropic.responses.response import Example
from isentropic.settings import LossSettings
from isentropic.training.contexts import training_contexts
from isentropic.training.exact_loss import without_chance

PAIRS_A_STEP = 16
"""Pairs of texts that a step reads for two groups, shared by the kinds of words. Few are enough: what a step
does to them hardly differs from pair to pair (standard deviation 0.02 nats where the mean is 0.11)."""

PART = 2**22
"""Numbers whose dot product float32 still tells to four digits."""

Quantity = Callable[[nn.Module], tuple[Tensor, float]]
"""A held quantity: returns a scalar whose gradient is the quantity's,
and how far it has drifted since the start."""


class Hold:
    """Keeps quantities where they were while an optimizer moves the weights.

    Call :meth:`after_step` when the optimizer has moved the weights; :meth:`attach` does it by the
    optimizer's own hook. The gradients of the loss have done their work by then and are gone afterwards, so
    no further memory is needed.

    Args:
        model: the model in training.
        quantities: what is held, at least one.

    Example:
        One weight w of two, held at 1: the step moves the other one alone.

        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> hold = Hold(model, [lambda m: (m.weight[0, 0], float(m.weight[0, 0]) - 1)])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> hold.attach(optimizer)
        >>> model(torch.ones(1, 2)).sum().backward(); optimizer.step()
        >>> [round(x, 4) for x in model.weight.flatten().tolist()]
        [1.0, 0.9]
    """

    def __init__(self, model: nn.Module, quantities: Sequence[Quantity]) -> None:
        self.model, self.quantities = model, list(quantities)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold at every step of this optimizer."""
        optimizer.register_step_post_hook(lambda *_: self.after_step())

    def after_step(self) -> None:
        """Undo what the optimizer's update has moved."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        _forget(trained)
        for quantity in self.quantities:
            self.bring_back(quantity, trained)
            _forget(trained)

    def bring_back(self, quantity: Quantity, trained: Sequence[nn.Parameter]) -> None:
        """Undo the drift of one quantity. Nothing but the parameters holds its gradient afterwards."""
        with torch.enable_grad():
            value, drift = quantity(self.model)
            value.backward()
        moved = [(p, p.grad) for p in trained if p.grad is not None]
        gradients = [gradient for _, gradient in moved]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            drift = _averaged(gradients, drift)
        share = drift / size if (size := _squared_norm(gradients)) else math.nan
        if math.isfinite(share):
            with torch.no_grad():
                for parameter, gradient in moved:
                    parameter.sub_(gradient.to(parameter.dtype), alpha=share)


def _forget(trained: Sequence[nn.Parameter]) -> None:
    for parameter in trained:
        parameter.grad = None


def _squared_norm(gradients: Sequence[Tensor]) -> float:
    """Over all shards where processes hold parts. Dot products in float32, a part of a tensor at a time: the
    squares, as a tensor of their own, took as long as the forward pass."""
    parts = [
        part.dot(part) for gradient in gradients for part in _local(gradient).float().flatten().split(PART)
    ]
    total = torch.stack(parts).cpu().double().sum()
    if any(hasattr(gradient, "to_local") for gradient in gradients):
        total = total.to(gradients[0].device)
        torch.distributed.all_reduce(total)
    return float(total)


def _averaged(gradients: Sequence[Tensor], drift: float) -> float:
    """Make whole gradients equal on all processes, to the last bit; returns the mean drift."""
    count = torch.distributed.get_world_size()
    for gradient in gradients:
        if not hasattr(gradient, "to_local"):
            torch.distributed.all_reduce(gradient.div_(count))
    shared = torch.tensor(drift / count, dtype=torch.float64, device=gradients[0].device)
    torch.distributed.all_reduce(shared)
    return float(shared)


def _local(tensor: Any) -> Tensor:
    """This process's part of a sharded tensor, or the tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class HeldDifference:
    """The mean difference between two groups' texts, as a held quantity: a few pairs each step, every pair
    in turn.

    .. math:: q = \\frac{1}{n} \\sum_i s(y_{i1} | x_{i1}) - s(y_{i2} | x_{i2})

    in nats, where s is what the scorer gives: of surprisals it is the mean log-odds of the second group, of
    entropies the gap, first group minus second. The drift compares the pairs of the step with themselves
    under the base model, so it does not depend on which pairs they are.

    Args:
        model: the base model, before any step.
        pairs: first group's text, second group's text.
        scorer: of surprisals or of entropies.
        pad: the padding token.
        step: the number of the step about to be made; it says which pairs are read.
        per_step: how many pairs a step reads.
        seed: of the order in which the pairs come.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: Sequence[tuple[Example, ...]],
        *,
        scorer: EntropyScorer,
        pad: int,
        step: Callable[[], int],
        per_step: int = PAIRS_A_STEP,
        seed: int = 0,
        bf16: bool = False,
    ) -> None:
        self.pairs, self.pad, self.per_step = list(pairs), pad, min(per_step, len(pairs))
        self.step, self.bf16 = step, bf16
        self.scorer = scorer
        self.longest = self.scorer.longest_row(model)
        self.base = pair_differences(model, scorer, self.pairs, pad=pad, bf16=bf16)
        self.order = np.random.default_rng(seed).permutation(len(self.pairs))

    def __call__(self, model: nn.Module) -> tuple[Tensor, float]:
        """The difference of this step's pairs, and how far it has drifted from the base model's."""
        first = self.step() * self.per_step
        chosen = self.order[np.arange(first, first + self.per_step) % len(self.order)]
        examples = [example for index in chosen for example in self.pairs[index]]
        device = next(model.parameters()).device
        weights = torch.tensor([1.0, -1.0], device=device).repeat(len(chosen)) / len(chosen)
        batch = {k: v.to(device) for k, v in collate_examples(examples, self.pad, self.longest).items()}
        owners = batch.pop("owners", None)
        without_chance(model)
        with precision(device, self.bf16):
            value, sums = self.scorer.weighted(model, **batch, row_weights=weights, owners=owners)
        drift = float((weights * sums.means()).sum()) - float(self.base[chosen].mean())
        return value, drift


def make_hold(
    model: nn.Module,
    tokenizer: Any,
    settings: LossSettings,
    groups: Sequence[str],
    items: Sequence[Item],
    *,
    scorer: EntropyScorer,
    pad: int,
    step: Callable[[], int],
    seed: int,
    bf16: bool,
) -> tuple[Hold | None, str]:
    """What the settings hold, and a line that says it.

    The expectation is held in neutral contexts where there are some for these groups, else in the twins' own
    prompts; a run that closes the expectation holds the entropy gap of its prompts. Each group is compared
    with the first.

    Args:
        items: training prompts with their responses.
        scorer: one of entropies.
        step: as in :class:`HeldDifference`.

    Raises:
        InputError: the file of contexts cannot be used.
    """
    closes_entropy = settings.close == "entropy"
    if settings.hold == "none":
        other = "which group the model expects" if closes_entropy else "the entropy gap"
        return None, f"nothing is held: closing the gap may move {other}"
    prompts = [prompt for item in items for prompt in item.prompts]
    contexts = training_contexts(settings, groups, prompts) if closes_entropy else []
    scorer = scorer.of_surprisal() if closes_entropy else scorer
    held = []
    for two in [(groups[0], other) for other in groups[1:]]:
        found = (
            held_pairs(contexts, items, two, tokenizer) if closes_entropy else [same_responses(items, two)]
        )
        share = max(1, PAIRS_A_STEP // max(1, len(found)))
        for pairs in found:
            held.append(
                HeldDifference(
                    model, pairs, scorer=scorer, pad=pad, step=step, per_step=share, seed=seed, bf16=bf16
                )
            )
    if not closes_entropy:
        return Hold(model, held), "held: the entropy gap of the training prompts; --hold none lets it move"
    if not held:
        return None, (
            "nothing is held: there are no neutral contexts for these groups and no twins; closing the gap "
            "may move which group the model expects; --hold_contexts FILE gives contexts"
        )
    where = (
        "after neutral contexts" if contexts else "in the twins' own prompts (there are no contexts for them)"
    )
    line = f"held: which group the model expects {where}; --hold none gives the guide's step"
    return Hold(model, held), line


def held_pairs(
    contexts: Sequence[Context], items: Sequence[Item], groups: tuple[str, str], tokenizer: Any
) -> Sequence[Sequence[tuple[Example, ...]]]:
    """The pairs of texts of each held quantity: contexts of one kind (*she* and *he*, *her* and *him*, ...)
    together, since closing the gap moves them in opposite directions; or the twins."""
    kinds = dict.fromkeys(context.kind for context in contexts)
    together = [
        context_examples([c for c in contexts if c.kind == kind], groups, tokenizer) for kind in kinds
    ]
    return [pairs for pairs in together or [twin_examples(items, groups, tokenizer)] if pairs]


def same_responses(items: Sequence[Item], groups: tuple[str, str]) -> list[tuple[Example, ...]]:
    """The responses after the first group's prompt and after the second's, pair by pair."""
    sides = [[x for item in items for x in item.examples if x.prompt.group == group] for group in groups]
    return list(zip(*sides, strict=True))
