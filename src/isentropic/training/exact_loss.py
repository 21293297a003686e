"""The loss of the effective batch, the same for any split into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from isentropic.losses import DebiasingLoss, GEELoss
from isentropic.responses.batches import Item
from isentropic.settings import LossSettings


@dataclass
class AimedStep:
    """A step whose gradient has a known direction, ``dgap/dH_i``, and gets its length when all entropies are seen.

    Attributes:
        items: the items of the step, of this process.
        direction: (n,) ``dgap/dH_i`` of their examples.
        batches: micro-batches of the step.
        seen: the response entropies of each micro-batch so far.
    """

    items: list[Item]
    direction: Tensor
    batches: int
    seen: list[Tensor] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.seen) == self.batches

    def entropies(self) -> np.ndarray:
        return torch.cat(self.seen).double().cpu().numpy()

    def slope(self, weights: Tensor) -> float:
        """``L'(gap)``: how many times ``dgap/dH_i`` the weights ``dL/dH_i`` are."""
        return float(weights @ self.direction / (self.direction @ self.direction))


def names_of(items: Sequence[Item]) -> tuple[list[str], list[int]]:
    """Group and pair of every example, in the order of the batch's rows."""
    groups = [example.prompt.group for item in items for example in item.examples]
    pairs = [place for place, item in enumerate(items) for _ in item.examples]
    return groups, pairs


def make_loss(settings: LossSettings, groups: Sequence[str]) -> DebiasingLoss | GEELoss:
    """The loss that the settings name."""
    if settings.loss == "gee":
        return GEELoss(settings.lambda_weight, settings.use_l1, groups=groups)
    return DebiasingLoss(settings.use_l1, settings.scale_factor, groups=groups, estimator=settings.estimator)


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off: the entropy is to be that of the model that will answer, and the loss the same for any cut."""
    names = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Some attention layers keep a number of their own, taken from the config when they were made.
        for holder in (module, getattr(module, "config", None)):
            for name in names:
                if isinstance(getattr(holder, name, None), float):
                    setattr(holder, name, 0.0)
