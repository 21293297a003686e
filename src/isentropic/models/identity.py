"""What tells one model from another: its weights, its configuration, its code."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from isentropic.models.model import text_config
from isentropic.models.sharding import whole

NOT_THE_MODEL = {
    "_name_or_path",
    "architectures",
    "base_model_name_or_path",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "inference_mode",
    "revision",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Entries of a configuration that change no logit: where the model came from,
and what the weights say themselves."""


def model_sha256(model: nn.Module) -> str:
    """A hash of all that makes the logits: parameters and stored buffers by name, dtype, shape and value,
    and the configuration, because the same weights with another ``rope_theta`` are another model.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(stored_tensors(model)):
        value = whole(tensor)
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).cpu().numpy().data)
    digest.update(json.dumps(configuration(model), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that a checkpoint holds; what is tied comes once."""
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}", buffer


def configuration(model: Any) -> list[dict[str, Any]]:
    """What the configurations of a model and of its adapters say about its logits."""
    adapters = getattr(model, "peft_config", {})
    parts = [getattr(model, "config", None), *(adapters[name] for name in sorted(adapters))]
    # Only what differs from the defaults: a newer transformers knows more settings of the same model.
    found = [
        part.to_diff_dict() if hasattr(part, "to_diff_dict") else part.to_dict() for part in parts if part
    ]
    return [without(part, NOT_THE_MODEL) for part in found]


def without(content: Any, names: set[str]) -> Any:
    """A configuration without some entries, on every level of it.

    Example:
        >>> without({"text_config": {"dtype": "float32", "hidden_size": 8}}, {"dtype"})
        {'text_config': {'hidden_size': 8}}
    """
    if isinstance(content, dict):
        return {str(key): without(value, names) for key, value in content.items() if key not in names}
    if isinstance(content, (set, frozenset)):
        return sorted(map(str, content))
    return content


def computation(model: Any) -> list[str]:
    """How the logits are computed: the model's attention kernel and the code it runs."""
    import transformers

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = [str(getattr(text_config(model), "_attn_implementation", None)), transformers.__version__]
    module = type(base).__module__
    if not module.startswith("transformers."):  # code that came with the model
        try:
            code = inspect.getsource(sys.modules[module])
        except (OSError, TypeError, KeyError):
            code = module
        found.append(hashlib.sha256(code.encode()).hexdigest())
    return found
