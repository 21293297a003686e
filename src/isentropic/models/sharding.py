"""Weights that are spread over processes (FSDP2, ZeRO-3): tell, gather, put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
