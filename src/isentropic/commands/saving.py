"""``final/``: the trained model in the dtype it is saved in, loaded again to see that it is the one that was
measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isentropic.files import TEMPORARY, sync
from isentropic.models.load import four_bit_options
from isentropic.models.model import LoadedModel
from isentropic.models.rounding import in_dtype, round_weights, rounded_state
from isentropic.models.save import save_model, saved_otherwise
from isentropic.models.trial import same_logits, sentence_logits
from isentropic.run_folder import (
    FINAL,
)
from isentropic.settings import TrainSettings


class Saving:
    """Writes the model of a run.

    Args:
        folder: the run folder.
        model: the trained model, without what trainers wrap it in.
        dtype: of the saved weights.
        warn: is told where what was saved is not what was measured.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        model: Any,
        tokenizer: Any,
        dtype: torch.dtype,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self.settings, self.folder, self.model, self.tokenizer = settings, folder, model, tokenizer
        self.dtype, self.warn = dtype, warn

    def save(self, state: dict[str, Tensor] | None) -> None:
        """Write the model's folder beside its place and move it there when it is whole."""
        final = self.folder / FINAL
        staging = self.folder / TEMPORARY.format(name=FINAL, pid=os.getpid())
        model = self.model
        tokenizer = self.tokenizer
        # A model whose weights are spread over processes cannot be asked by one of them.
        truth = sentence_logits(model, tokenizer) if state is None else None
        try:
            keeps = bool(self.settings.lora_r)  # an adapter, which has a dtype of its own
            if state is not None and not keeps:
                state = rounded_state(state, self.dtype, self.settings.seed)
            with in_dtype(model, self.dtype) if state is None and not keeps else nullcontext():
                save_model(model, tokenizer, staging, state)
            if state is not None and not keeps:  # transformers writes down the dtype of the model itself
                model.config.dtype = self.dtype
                model.config.save_pretrained(staging)
            if truth is None:
                self.warn(
                    f"{FINAL}/ was not loaded again to compare it with the model that was measured, because "
                    "the weights are spread over processes; measure it once before you rely on it"
                )
            else:
                self.look_again(FINAL, staging, truth)
                if self.settings.merge_lora:
                    self.save_merged(model, staging / "merged", truth)
            for path in staging.rglob("*"):
                sync(path)  # the checkpoints are deleted soon
            shutil.rmtree(final, ignore_errors=True)
            staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def save_merged(self, model: Any, folder: Path, truth: Tensor) -> None:
        """Write the base with the adapter merged in, rounded after the merge and not before."""
        whole, tokenizer = model.merge_and_unload(), self.tokenizer
        if not same_logits(truth, sentence_logits(whole, tokenizer)):
            self.warn(f"{FINAL}/merged/: the merged weights are not the model that was measured")
        round_weights(whole, self.dtype, self.settings.seed)
        with in_dtype(whole, self.dtype):
            save_model(whole, tokenizer, folder)
        self.look_again(f"{FINAL}/merged", folder, sentence_logits(whole, tokenizer))

    def look_again(self, name: str, folder: Path, truth: Tensor) -> None:
        """Load what was saved and say where it is not the model in memory."""
        # An adapter was measured on a 4-bit base: on the whole base its logits would be other ones.
        options: dict[str, Any] = {"trust_remote_code": self.settings.trust_remote_code}
        if self.settings.load_in_4bit and name == FINAL:
            options |= {"dtype": torch.float32, **four_bit_options()}
        if wrong := saved_otherwise(folder, truth, self.tokenizer, **options):
            self.warn(f"{name}/: {wrong}")


def dtype_to_save(settings: TrainSettings, loaded: LoadedModel) -> torch.dtype:
    """The dtype of the saved weights: the one asked for, else the checkpoint's own, else that of training."""
    if settings.save_dtype != "auto":
        return getattr(torch, settings.save_dtype)
    stored, now = loaded.stored_dtype, next(loaded.model.parameters()).dtype
    return stored if stored in (torch.bfloat16, torch.float16) else now


def dtype_warnings(settings: TrainSettings, loaded: LoadedModel) -> list[str]:
    """What is to be said where a model is not saved in the dtype of its checkpoint."""
    stored, saved = loaded.stored_dtype, dtype_to_save(settings, loaded)
    if stored is None or stored == saved or not saved.is_floating_point:
        return []
    names = [str(dtype).removeprefix("torch.") for dtype in (stored, saved)]
    return [
        f"the checkpoint is in {names[0]} and the model is saved in {names[1]}, "
        f"{saved.itemsize / stored.itemsize:g} times the size"
    ]
