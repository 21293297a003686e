"""A model to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from isentropic.errors import InputError
from isentropic.models.model import quiet_transformers
from isentropic.models.reading import reading
from isentropic.models.trial import same_logits, sentence_logits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write a folder that plain ``AutoModelForCausalLM`` and ``AutoTokenizer`` can load, as safetensors.

    ``state`` holds the weights where the model's own are sharded
    (:func:`isentropic.models.sharding.gathered`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_savable(model)
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)


def make_savable(model: Any) -> list[str]:
    """Make generation settings that can be read, but not written, such that they can;
    returns what was left out.

    transformers reads a temperature beside ``do_sample: false`` and refuses to save it, so that a trained
    model could not be saved. Responses are sampled without these settings anyway.
    """
    for name in getattr(model.config, "_get_generation_parameters", dict)():
        if not hasattr(model.generation_config, name):
            setattr(model.generation_config, name, getattr(model.config, name))
        delattr(model.config, name)
    config = getattr(model, "generation_config", None)
    if config is None or not refused(config):
        return []
    settings = config.to_diff_dict()
    kept: dict[str, Any] = {}
    order = sorted(settings, key=lambda name: (name not in ("do_sample", "num_beams"), name))
    for name in order:
        if not refused(type(config)(**kept, **{name: settings[name]})):
            kept[name] = settings[name]
    model.generation_config = type(config)(**kept)
    return [name for name in order if name not in kept]


def refused(config: Any) -> bool:
    """Whether transformers would not write these generation settings."""
    try:
        config.validate(strict=True)
    except Exception:  # a setting of another type fails in a way of its own
        return True
    return False


# --- What was saved, looked at again ------------------------------------------------------------------------


def saved_otherwise(
    folder: Path,
    truth: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    *,
    trust_remote_code: bool = False,
    **options: Any,
) -> str | None:
    """Load a saved folder as anyone would and hold its logits against those of the model that was measured.

    Args:
        options: of the loading, where the measured model was not loaded plainly, as with 4-bit weights.

    Returns:
        what is wrong with it, or None where it is the same model.
    """
    from transformers import AutoModelForCausalLM

    try:
        with (
            quiet_transformers(),
            reading("it cannot be loaded", "the weights of the run are in checkpoints/"),
        ):
            plain: Any = AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=trust_remote_code, **options
            )
            if not getattr(plain, "is_quantized", False):  # such weights are placed, and keep their dtype
                plain.float().to(truth.device)  # the same arithmetic: what is compared is the weights
            found = sentence_logits(plain, tokenizer)
    except InputError as error:
        return str(error)
    if same_logits(truth, found):
        return None
    largest = float((truth.float() - found.float()).abs().max())
    return (
        "loaded by transformers it is not the model that was measured: its logits differ by up to "
        f"{largest:.2g}"
    )
