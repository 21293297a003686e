"""The loss of the effective batch, the same for any split into micro-batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from isentropic.entropy import EntropySums
from isentropic.entropy.fits import unwrapped
from isentropic.losses import DebiasingLoss, GEELoss
from isentropic.responses.batches import Item
from isentropic.settings import LossSettings
from isentropic.training.steady import Steadying


class ExactLoss:
    """``L(H)`` of the whole effective batch, taken back micro-batch by micro-batch.

    L is a function of the group means of all entropies ``H_i``, so its gradient is that of ``sum_i c_i H_i``
    with ``c_i = dL/dH_i``. There are two ways to the ``c_i``:

    * the *weights* way scores the whole batch first and takes ``c_i`` from autograd on that vector;
    * the *direction* way knows ``dgap/dH_i`` without scoring, minus or plus one over the number of the
      group's examples. The micro-batches go back with it, and the whole gradient is scaled by ``L'(gap)``
      once all entropies are known. It is for losses of the one signed gap, where this process holds the whole
      gradient.

    A step is :meth:`begin`, then :meth:`share` for each micro-batch in its order, then :meth:`finish`.

    Args:
        loss: the loss of a whole batch.
        groups: the group names in order.
        steadying: what takes the noise of the batch out of its gap.
        rank, world_size: of this process.

    Example:
        Two micro-batches of one pair; the second entropy is twice what the first is.

        >>> from isentropic.prompts.prompt_set import Prompt
        >>> from isentropic.responses.sample import Example
        >>> he, she = Prompt("he", "male"), Prompt("she", "female")
        >>> item = Item((he, she), [Example(p, (1,), (2,), p.group) for p in (he, she)])
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> entropies = lambda: torch.stack([w, 2 * w])
        >>> def weighted(c):
        ...     return (c * entropies()).sum(), EntropySums(entropies().detach(), torch.ones(2))
        >>> exact = ExactLoss(DebiasingLoss(), ("male", "female"), Steadying())
        >>> exact.begin([[item], [item]], score=None, by_direction=True)
        >>> for _ in range(2):
        ...     exact.share([item], entropies, weighted).backward()
        >>> loss, slope = exact.finish()
        >>> loss, float(w.grad * slope)  # L = (2w - w)^2, dL/dw = 2w
        (1.0, 2.0)
    """

    def __init__(
        self,
        loss: DebiasingLoss | GEELoss,
        groups: Sequence[str],
        steadying: Steadying,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.loss, self.groups, self.steadying = loss, groups, steadying
        self.rank, self.world_size = rank, world_size
        self.micro_batches = 1
        self.shares: deque[tuple[Tensor, float]] = deque()
        self.directed: DirectedStep | None = None
        self.parts: list[list[dict[str, float]]] = []

    def begin(
        self,
        batches: Sequence[Sequence[Item]],
        score: Callable[[Sequence[Item]], list[np.ndarray]] | None,
        *,
        by_direction: bool,
    ) -> None:
        """Start a step.

        Args:
            batches: the items of each micro-batch of this process.
            score: gives the entropies of items, without gradient.
            by_direction: whether the gradient may be scaled at the end of the step.
        """
        self.start_parts(batches)
        if not batches or (len(batches) == 1 and self.world_size == 1):
            return  # the one micro-batch is the whole batch
        items = [item for batch in batches for item in batch]
        if by_direction and self.loss.of_one_gap:
            weights, value = self.direction(items), 0.0
            self.directed = DirectedStep(items, weights, len(batches))
        else:
            assert score is not None
            loss, weights = self.whole(items, np.concatenate(score(items)))
            value = loss / len(batches)
        # Data-parallel training averages gradients over processes; the loss asks for their sum.
        scaled = (weights * self.world_size).float()
        sizes = [sum(len(item.examples) for item in batch) for batch in batches]
        self.shares.extend((part, value) for part in scaled.split(sizes))

    def start_parts(self, batches: Sequence[Sequence[Item]]) -> None:
        self.micro_batches = len(batches) or 1
        self.shares.clear()
        self.directed = None
        self.parts.append([])

    def share(
        self,
        items: Sequence[Item],
        entropies: Callable[[], Tensor],
        weighted: Callable[[Tensor], tuple[Tensor, EntropySums]],
    ) -> Tensor:
        """The share of the next micro-batch: gradients of all shares add up to that of the loss,
        values to its value.

        Args:
            items: of the micro-batch.
            entropies: gives the (n,) response entropies of its examples, with gradient.
            weighted: gives ``sum_i c_i H_i`` for (n,) weights, with gradient, and the sums that the entropies
                are made of.
        """
        if not self.shares:
            return self.own_loss(items, entropies()) / self.micro_batches
        weights, value = self.shares.popleft()
        total, sums = weighted(weights)
        if self.directed is not None:
            self.directed.seen.append(sums.means())
        return total - total.detach() + value

    def own_loss(self, items: Sequence[Item], entropies: Tensor) -> Tensor:
        """The loss of these items alone."""
        groups, pairs = groups_and_pairs(items)
        moves = entropies - torch.from_numpy(self.steadying.baseline(items)).to(entropies)
        loss, parts = self.loss(self.steadying.add_anchor(moves, groups), groups, pairs)
        self.note(parts)
        return loss

    def finish(self) -> tuple[float, float] | None:
        """After the last micro-batch of a step by direction: the loss,
        and ``L'(gap)`` to scale the gradient with."""
        if self.directed is None or not self.directed.complete:
            return None
        loss, weights = self.whole(self.directed.items, self.directed.entropies())
        return loss, self.directed.slope(weights)

    def direction(self, items: Sequence[Item]) -> Tensor:
        """(n,) ``dgap/dH_i`` of this process's examples:
        minus or plus one over the group's examples of all processes."""
        mine, _ = groups_and_pairs(items)
        names = gather_object(mine) if self.world_size > 1 else mine
        first, second = self.groups
        slopes = {first: -1.0 / names.count(first), second: 1.0 / names.count(second)}
        return torch.tensor([slopes[name] for name in mine], dtype=torch.float64)

    def whole(self, items: Sequence[Item], entropies: np.ndarray) -> tuple[float, Tensor]:
        """The loss of the effective batch over all processes, and (n,)
        ``dL/dH_i`` of this process's examples."""
        groups, pairs = groups_and_pairs(items)
        moves = entropies - self.steadying.baseline(items)
        rows = [
            (self.rank, float(v), g, (self.rank, p)) for v, g, p in zip(moves, groups, pairs, strict=True)
        ]
        if self.world_size > 1:
            rows = gather_object(rows)
        names = [row[2] for row in rows]
        values = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        values = self.steadying.add_anchor(values, names).requires_grad_(True)
        loss, parts = self.loss(values, names, [row[3] for row in rows])
        (weights,) = torch.autograd.grad(loss, values)
        self.note(parts)
        return loss.item(), weights[[row[0] == self.rank for row in rows]]

    def note(self, parts: dict[str, float]) -> None:
        if not self.parts:
            self.parts.append([])
        self.parts[-1].append(parts)

    def last_loss(self) -> float:
        """The loss of the step whose gradient is complete."""
        return self.parts[-1][-1]["loss"]

    def means(self) -> dict[str, float]:
        """The parts of the loss by name, means over the steps since they were last asked for."""
        steps = [parts for parts in self.parts if parts]
        self.parts = []
        by_step = [{name: np.mean([part[name] for part in parts]) for name in parts[0]} for parts in steps]
        names = [name for name in by_step[0] if name != "loss"] if steps else []
        return {name: float(np.mean([step[name] for step in by_step])) for name in names}


class OwnLossOfEachMicroBatch(ExactLoss):
    """The loss as the method's public ancestor takes it: the mean of each micro-batch's own.
    It depends on the split."""

    def begin(self, batches: Sequence[Sequence[Item]], score: Any, *, by_direction: bool) -> None:
        self.start_parts(batches)


@dataclass
class DirectedStep:
    """A step whose gradient direction is known beforehand;
    the factor ``L'(gap)`` is applied after the last micro-batch.

    Attributes:
        items: the items of the step, of this process.
        direction: (n,) ``dgap/dH_i`` of their examples.
        batches: number of micro-batches in the step.
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
        return torch.cat(self.seen).cpu().double().numpy()  # a Mac's GPU has no float64

    def slope(self, weights: Tensor) -> float:
        """``L'(gap)``: how many times ``dgap/dH_i`` the weights ``dL/dH_i`` are."""
        return float(weights @ self.direction / (self.direction @ self.direction))


def groups_and_pairs(items: Sequence[Item]) -> tuple[list[str], list[int]]:
    """Group and pair of every example, in the order of the batch's rows."""
    groups = [example.prompt.group for item in items for example in item.examples]
    pairs = [place for place, item in enumerate(items) for _ in item.examples]
    return groups, pairs


def make_loss(settings: LossSettings, groups: Sequence[str]) -> DebiasingLoss | GEELoss:
    """The loss that the settings name."""
    if settings.loss == "gee":
        return GEELoss(settings.lambda_weight, settings.use_l1, groups=groups)
    estimator = settings.estimator if settings.close == "entropy" else "pairwise"
    return DebiasingLoss(settings.use_l1, settings.scale_factor, groups=groups, estimator=estimator)


def without_chance(model: nn.Module) -> None:
    """Put a model into evaluation mode for a training step: no dropout, no jitter, no random routing.

    The loss is then that of the model which is measured and will answer, and the same for any cut of the
    batch. Which attribute a model keeps its dropout under does not matter. Layers under gradient
    checkpointing stay in training mode, for they ask for it, but what they compute, and compute again in the
    backward pass, runs in evaluation mode.

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
