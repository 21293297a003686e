"""A LoRA adapter on a model, tried on a few tokens: what cannot work is found before a run begins."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed
from transformers.pytorch_utils import Conv1D

from isentropic.errors import InputError
from isentropic.models.model import LoadedModel, evaluating, vocabulary_size

log = logging.getLogger("isentropic")
EVERYWHERE = "all-linear"
TRIAL_TOKENS = 8


def with_saved_adapter(base: LoadedModel, folder: Path) -> LoadedModel:
    """A base model with a saved adapter beside its weights, not merged into them, as PEFT loads it."""
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(base.model, folder)
    return replace(base, model=model.eval())


def add_adapter(model: Any, config: Any, seed: int) -> Any:
    """The model with an adapter, whose first weights depend on the seed alone.

    With ``target_modules="all-linear"`` some families have layers that cannot be adapted: peft refuses them,
    or they return more than a tensor. These are left out, and a warning names them.

    Args:
        model: a causal language model; it is changed in place, and is as before if no adapter can be added.
        config: a peft config.
        seed: draws the adapter's first weights.

    Raises:
        InputError: the config's own layers cannot be adapted, or nothing can.
    """
    if config.is_prompt_learning:
        raise InputError(
            f"peft_config is {type(config).__name__}; its virtual tokens are placed before the prompt and "
            "shift the positions that are scored; give an adapter inside the layers, such as LoraConfig"
        )
    if getattr(config, "lora_dropout", 0.0):
        log.warning(
            "lora_dropout is %s; the loss here is that of the model which is measured, without chance; no "
            "dropout is applied",
            config.lora_dropout,
        )
    try:
        return tried_adapter(model, config, seed)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if getattr(config, "target_modules", None) != EVERYWHERE:
            raise InputError(
                f"the adapter does not work on this model ({reason}); it could not be trained; name other "
                "layers in --lora_target_modules, or leave it out"
            ) from error
    kinds = linear_layers(model)
    usable = [kind for kind in kinds if adapter_works(model, on_layers(config, kinds[kind]), seed)]
    if not usable:
        raise InputError(
            f"no linear layer of this model accepts an adapter ({reason}); there would be nothing to train; "
            "leave --lora_r out"
        )
    log.warning(
        "no adapter on the layers %s, which this model does not allow; adapted are %s",
        ", ".join(kind for kind in kinds if kind not in usable),
        ", ".join(usable),
    )
    names = [name for kind in usable for name in kinds[kind]]
    return tried_adapter(model, on_layers(config, names), seed)


def tried_adapter(model: Any, config: Any, seed: int) -> Any:
    """The model with this adapter after one pass over a few tokens; whatever fails,
    the model is left without it."""
    from peft import get_peft_model

    alone = runs(model)
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    set_seed(seed)
    try:
        adapted = get_peft_model(model, copy.deepcopy(config))
        check_ties(adapted)
        if alone is None and (error := runs(adapted)) is not None:
            raise error
    except Exception:
        remove_adapter(model)
        for parameter, flag in trained.items():
            parameter.requires_grad_(flag)
        raise
    return adapted


@torch.no_grad()
def runs(model: Any) -> Exception | None:
    """The error of a pass over a few tokens, or None."""
    device = next(model.parameters()).device
    ids = torch.arange(TRIAL_TOKENS, device=device)[None] % vocabulary_size(model)
    try:
        with evaluating(model):
            model(input_ids=ids)
    except Exception as error:  # a model's own code may fail in any way
        return error
    return None


def adapter_works(model: Any, config: Any, seed: int) -> bool:
    try:
        tried_adapter(model, config, seed)
    except (
        Exception
    ):  # peft and the model's own code may fail in any way; add_adapter says which layers are left out
        return False
    remove_adapter(model)
    return True


def check_ties(adapted: nn.Module) -> None:
    """An adapter on a weight that two layers share would change both when it is merged,
    but one while it is trained."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    holders: dict[nn.Parameter, int] = {}
    for module in adapted.modules():
        for parameter in module.parameters(recurse=False):
            holders[parameter] = holders.get(parameter, 0) + 1
    for name, module in adapted.named_modules():
        if isinstance(module, BaseTunerLayer):
            shared = any(holders[p] > 1 for p in module.get_base_layer().parameters(recurse=False))
            if shared:
                layer = name.rsplit(".", 1)[-1]
                raise InputError(
                    f"an adapter on {layer!r}, whose weight another layer shares (tied embeddings); merged "
                    "it would change both, and the model would not be the one that was trained; leave "
                    f"{layer!r} out of --lora_target_modules"
                )


def remove_adapter(model: nn.Module) -> None:
    """Put the original layers back, also where adding an adapter stopped half-way."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def linear_layers(model: Any) -> dict[str, list[str]]:
    """The full names of all linear layers but the head, by the last part of their name."""
    head = model.get_output_embeddings()
    kinds: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            kinds.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    return kinds


def on_layers(config: Any, names: list[str]) -> Any:
    """The config for the layers of these names."""
    chosen = copy.deepcopy(config)
    chosen.target_modules = set(names)
    return chosen


def check_trainable(model: Any, adapted: bool, checkpointing: bool) -> None:
    """Refuse a model whose weights cannot be trained, or not in the way that was asked for."""
    if getattr(model, "is_quantized", False) and not adapted:
        raise InputError(
            "the model's weights are quantised, and such weights cannot be trained themselves; give --lora_r "
            "to train an adapter, or the weights that are not quantised"
        )
    if checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(
            f"--gradient_checkpointing with {type(model).__name__}, which does not support it; leave it out, "
            "or save memory with a smaller --micro_batch_size"
        )
