"""The loss of the effective batch, the same for any split into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isentropic.entropy.fits import unwrapped
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


def without_chance(model: nn.Module) -> None:
    """Put a model into evaluation mode for a training step: no dropout, no jitter, no random routing.

    The loss is then that of the model which is measured and will answer, and the same for any cut of the batch. Which
    attribute a model keeps its dropout under does not matter. Layers under gradient checkpointing stay in training
    mode, for they ask for it, but what they compute, and compute again in the backward pass, runs in evaluation mode.

    Args:
        model: a model, wrapped or not. Wrappers keep their mode. ``model.train()`` undoes it all.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    part: Any
    for part in unwrapped(model).modules():
        checkpointed = isinstance(part, GradientCheckpointingLayer) and part.gradient_checkpointing
        part.training = checkpointed
        if checkpointed and not isinstance(part._gradient_checkpointing_func, _CheckpointInEvaluation):
            part._gradient_checkpointing_func = _CheckpointInEvaluation(
                part, part._gradient_checkpointing_func
            )


class _CheckpointInEvaluation:
    """A checkpointing function whose layer is in evaluation mode while it runs, each time that it runs."""

    def __init__(self, layer: nn.Module, checkpoint: Callable[..., Any]) -> None:
        self.layer, self.checkpoint = layer, checkpoint

    def __call__(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def evaluated(*inputs: Any, **options: Any) -> Any:
            mode, self.layer.training = self.layer.training, False
            try:
                return forward(*inputs, **options)
            finally:
                self.layer.training = mode

        return self.checkpoint(evaluated, *args, **kwargs)
