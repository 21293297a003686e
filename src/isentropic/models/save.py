"""Weights to a folder, and their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isentropic.models.model import quiet_transformers
from isentropic.models.sharding import whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write a folder that plain ``AutoModelForCausalLM`` and ``AutoTokenizer`` can load, as safetensors.

    ``state`` holds the weights where the model's own are sharded (:func:`isentropic.sharding.gathered`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)


def weights_sha256(model: nn.Module) -> str:
    """A hash of all parameters by name, dtype, shape and value."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        value = whole(parameter)
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
