"""Steps of natural length: as long as the loss itself says, without a learning rate or moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from isentropic.models.sharding import whole

SHARE = 0.5
"""The share of the gap that a step takes; the rest keeps the steps where the gap is close to linear."""


def natural_steps(
    parameters: Iterable[nn.Parameter], loss: Callable[[], float], degree: int
) -> torch.optim.Optimizer:
    r"""Gradient descent whose steps close a fixed share of the gap.

    .. math:: w \leftarrow w - \eta \, g \, \nabla g / |\nabla g|^2, \quad \eta = 1/2

    with g the gap in nats. For the losses :math:`L = s |g|^k` that is the step
    :math:`\eta k L / |\nabla L|^2` along :math:`\nabla L` (Polyak's, whose smallest loss is 0): nothing needs
    to be tuned, and nothing is kept from step to step, where Adam keeps two numbers for each weight. It is
    the gap of the step's batch that is halved; that of other prompts falls by less.

    Args:
        parameters: what is trained.
        loss: gives the loss whose gradient the parameters have, when a step is made.
        degree: k, 2 for the squared gap and 1 for its absolute value.

    Example:
        The gap is 3 w; each step halves it.

        >>> w = nn.Parameter(torch.tensor([2.0]))
        >>> value = lambda: (3 * w).square().sum()
        >>> steps = natural_steps([w], lambda: float(value()), degree=2)
        >>> for _ in range(2):
        ...     value().backward(); steps.step(); steps.zero_grad()
        >>> w.item()
        0.5

    Source: Polyak 1987, Introduction to Optimization; Loizou et al. 2021, AISTATS (stochastic).
    """
    optimizer = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=SHARE)

    def scale(*_: object) -> None:
        moved = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(whole(nn.utils.get_total_norm(moved)))
        factor = degree * loss() / norm**2 if norm else 0.0
        for gradient in moved:
            gradient.mul_(factor if math.isfinite(factor) else 0.0)

    optimizer.register_step_pre_hook(scale)
    return optimizer
