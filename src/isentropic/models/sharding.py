"""What is spread over processes: weights (FSDP2, ZeRO-3: tell, gather, put back), and measuring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_together: ContextVar[bool] = ContextVar("together", default=False)


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds but a part of the tensor."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh")


def whole(parameter: Tensor) -> Tensor:
    """The whole of a tensor, without gradient. Where it is sharded,
    all processes must ask for it together."""
    if hasattr(parameter, "ds_id"):
        from deepspeed import zero

        with zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    value: Any = parameter.detach()
    return value.full_tensor() if is_sharded(value) else value


def put(value: Tensor, parameter: nn.Parameter) -> None:
    """Copy a whole tensor into a parameter. Where that is sharded, all processes must do so together."""
    target: Any = parameter
    with torch.no_grad():
        if hasattr(target, "ds_id"):
            from deepspeed import zero

            with zero.GatheredParameters([target], modifier_rank=0):
                target.copy_(value)
        elif is_sharded(target):
            from torch.distributed.tensor import distribute_tensor

            value = value.to(target.device, target.dtype)
            target.copy_(distribute_tensor(value, target.device_mesh, target.placements))
        else:
            target.copy_(value)


def gathered(model: nn.Module, *, keep: bool = True) -> dict[str, Tensor] | None:
    """The state dict of a sharded model, whole and on the CPU; None where nothing is sharded.

    All processes must call it together; those with ``keep=False`` get an empty one.
    """
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        return None
    state = {}
    for name, value in model.state_dict(keep_vars=True).items():
        full = whole(value)
        if keep:
            state[name] = full.cpu()
    return state


def sharding_of(model: nn.Module) -> str | None:
    """How the model is spread over processes or devices, or None where it is whole."""
    if any(type(part).__name__ in ("FullyShardedDataParallel", "DataParallel") for part in model.modules()):
        return "the model is spread over devices by FSDP or DataParallel"
    if any(is_sharded(parameter) for parameter in model.parameters()):
        return "its parameters are sharded"
    return None


# --- Work ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Inside the block every process is asked for the same; :func:`shared_out` may then divide the work."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


def shared_out(
    model: nn.Module, pieces: Sequence[Piece], work: Callable[[Sequence[Piece]], dict[Piece, Result]]
) -> dict[Piece, Result]:
    """``work(pieces)``: the result of each piece. Processes that work :func:`together` do a part each and
    get the results of all; pieces that are sorted by size are divided evenly."""
    if not divides(model):
        return work(pieces)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, work(pieces[rank::world]))
    return {piece: result for part in parts for piece, result in part.items()}


def agreed(model: nn.Module, said: bool) -> bool:
    """Whether all processes that work :func:`together` say so."""
    world = distributed.get_world_size() if divides(model) else 1
    return all(shared_out(model, range(world), lambda ranks: dict.fromkeys(ranks, said)).values())


def divides(model: nn.Module) -> bool:
    """Whether processes share out the work on a model. One that is sharded needs all in each forward pass."""
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    return _together.get() and several and sharding_of(model) is None
