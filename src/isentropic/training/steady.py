"""A steady gap: the training loss starts from the held-out gap and moves with the training responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isentropic.gap import GroupGap
from isentropic.measure.summary import Array, add_entropies, gaps_of, group_entropies, topics_of
from isentropic.responses.batches import Item
from isentropic.schema import Estimate

Scored = tuple[list[Item], list[Array]]
"""Items, and the response entropies of each."""


class Steadying:
    """The control variate of the loss, and the held-out gap that it goes by.

    A batch's gap is noisy since prompts differ; how far its entropies have moved since training began is not.
    So the loss takes

    .. math:: H_i(t) - H_i(0) + a_g

    in place of the entropy H_i(t), in nats. The anchor a_g of group g is set by the first batch after each
    held-out measurement, such that the batch's group means equal the held-out ones. The gap that scales the
    gradient is then the held-out gap, plus what the training responses have moved since. Gradients are not
    touched.

    Without :meth:`start` nothing is changed.

    Example:
        >>> from isentropic.prompts.prompt_set import Prompt
        >>> from isentropic.responses.sample import Example
        >>> he, she = Prompt("he", "male"), Prompt("she", "female")
        >>> item = Item((he, she), [Example(p, (1,), (2,), p.group) for p in (he, she)], index=0)
        >>> steadying = Steadying()
        >>> steadying.start([item], [np.array([2.0, 3.0])])
        >>> steadying.measured({"male": 2.5, "female": 2.75})
        >>> now = torch.tensor([2.1, 3.0], dtype=torch.float64)
        >>> moved = now - torch.from_numpy(steadying.baseline([item]))
        >>> [round(x, 4) for x in steadying.add_anchor(moved, ["male", "female"]).tolist()]
        [2.5, 2.75]
    """

    def __init__(self) -> None:
        self.before: dict[int, Array] = {}
        self.pool: Scored | None = None
        self.at_start: tuple[list[GroupGap], Array] = [], np.empty(0)
        self.validation_before = np.empty(0)
        self.held_out_means: dict[str, float] = {}
        self.anchor: dict[str, float] = {}

    def start(self, items: Sequence[Item], entropies: Sequence[Array]) -> None:
        """Take down the entropies of the training items before the first step."""
        self.before = {item.index: values for item, values in zip(items, entropies, strict=True)}

    def start_pool(self, training: Scored, validation: Scored, groups: Sequence[str]) -> None:
        """Let the training prompts, unseen so far, help to tell the held-out gap before the first step."""
        self.pool = training[0] + validation[0], [*training[1], *validation[1]]
        table = group_entropies(*self.pool, groups)
        self.at_start = gaps_of(table, groups, topics_of(self.pool[0])), table.mean(0)
        self.validation_before = group_entropies(*validation, groups)

    def measured(self, means: dict[str, float]) -> None:
        """The held-out mean entropy of each group: the next batch sets the anchor by it."""
        self.held_out_means = means

    def estimate(self, items: Sequence[Item], now: Sequence[Array], groups: Sequence[str]) -> Estimate | None:
        """The held-out gap from all that was held out: every prompt before training, the validation prompts
        since; None where there is no pool.

        .. math:: \\hat g(t) = g_{pool}(0) + (g_{val}(t) - g_{val}(0))

        Before the first step the training prompts are as unseen as the validation prompts, so both tell the
        gap at step 0; the change since comes from the validation prompts alone, pair by pair. Standard error:
        the root of the two squared. Twins only. With more than two groups it is the widest gap, with an
        interval that holds for all.

        Args:
            items: the validation items.
            now: their response entropies.
        """
        if self.pool is None:
            return None
        at_start, means = self.at_start
        change = group_entropies(items, now, groups) - self.validation_before
        means = means + change.mean(0)
        since = gaps_of(change, groups, topics_of(items))
        k = max(range(len(at_start)), key=lambda k: abs(at_start[k].estimate.gap + since[k].estimate.gap))
        first, second = at_start[k].estimate, since[k].estimate
        gap = first.gap + second.gap
        found: Estimate = {"gap": gap, "se": None, "ci95": None, "n_pairs": first.n}
        if first.known:
            se = math.hypot(first.se, second.se if second.known else 0.0)
            half = (first.ci95[1] - first.gap) / first.se * se  # the quantile of the larger error
            found["se"], found["ci95"] = se, [gap - half, gap + half]
        add_entropies(found, [*groups, "mean"], np.array([*means, means.mean()]))
        return found

    def baseline(self, items: Sequence[Item]) -> Array:
        """(n,) ``H_i(0)``, to be taken from each example's entropy; zeros without steadying."""
        if not self.before:
            return np.zeros(sum(len(item.examples) for item in items))
        return np.concatenate([self.before[item.index] for item in items])

    def add_anchor(self, moves: Tensor, groups: Sequence[str]) -> Tensor:
        """(n,) ``moves + a_g``, with the group of each example in ``groups``."""
        if not self.before:
            return moves
        if self.held_out_means:
            names = np.array(groups)
            values = moves.detach().cpu().double().numpy()
            self.anchor = {
                g: mean - float(values[names == g].mean()) for g, mean in self.held_out_means.items()
            }
            self.held_out_means = {}
        return moves + torch.tensor([self.anchor[group] for group in groups]).to(moves)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides what the base model gives again."""
        return {"anchor": self.anchor, "held_out_means": self.held_out_means}

    def load(self, state: dict[str, Any]) -> None:
        self.anchor, self.held_out_means = state["anchor"], state["held_out_means"]
