"""A loaded model and what is asked of it."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


EMBEDDED = "smollm2-135m"
log = logging.getLogger("isentropic")


@dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer, the name the user gave, a hash,
    and the dtype of the checkpoint where that is known."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str
    stored_dtype: torch.dtype | None = None

    @property
    def pad(self) -> int:
        """The token id that fills rows up to one length: no other token sees it, so the end token will do."""
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return pad if pad is not None else end or 0


def has_bfloat16(device: torch.device) -> bool:
    """Whether matmuls in bfloat16 are fast here: a GPU that knows it, or a CPU with AMX tiles."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def precision(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """bfloat16 autocast for the body of the model where asked for; logits are float32 all the same."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; after it each part is in the mode that it had."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def text_config(model: Any) -> Any:
    """The configuration of the part that reads text, where a model has other parts too."""
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


LENGTHS = re.compile(
    r"max_(target_)?position(s|_embeddings)|n_positions|n_ctx|context_length|(max_)?seq(uence)?_len(gth)?|model_max_length"
)
"""What configurations call the number of positions of a model that reads text."""


def context_length(model: Any) -> int | None:
    """The most tokens that the model can take at once, or None where its configuration does not say."""
    config = text_config(model)
    names = {*config.to_dict(), *getattr(config, "attribute_map", {})}
    found = [getattr(config, name) for name in sorted(names) if LENGTHS.fullmatch(name)]
    lengths = [value for value in found if isinstance(value, int) and value > 0]
    # Where positions begin behind that of padding (RoBERTa), so many of them are never used.
    unused = [
        part.padding_idx + 1
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Embedding)
        and "position" in name.rpartition(".")[2]
        and part.padding_idx is not None
    ]
    return min(lengths) - max(unused, default=0) if lengths else None


def vocabulary_size(model: Any) -> int:
    """Rows of the input embeddings: the token ids the model knows."""
    weight = model.get_input_embeddings().weight
    return int(getattr(weight, "ds_shape", weight.shape)[0])  # ZeRO-3 leaves an empty tensor in its place


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load-time chatter and no bars of transformers' own while the block runs."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def changed_by_trainers(model: PreTrainedModel) -> list[tuple[Any, str, Any]]:
    """What a trainer changes in a model's configurations, the special tokens and the use of a cache: the
    object, the attribute, its value."""
    holders = (getattr(model, "config", None), getattr(model, "generation_config", None))
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
    return [
        (holder, name, getattr(holder, name)) for holder in holders for name in names if hasattr(holder, name)
    ]
