"""A model to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from isentropic.models.model import quiet_transformers

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
