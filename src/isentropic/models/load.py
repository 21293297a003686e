"""What ``--model_path`` may name: a folder, a hub id, a GGUF file, the embedded default."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isentropic.errors import InputError
from isentropic.models.gguf import dequantised_folder, embedded_folder
from isentropic.models.identity import model_sha256
from isentropic.models.model import (
    EMBEDDED,
    LoadedModel,
    log,
    quiet_transformers,
    text_config,
    vocabulary_size,
)
from isentropic.models.reading import reading, reason
from isentropic.models.save import make_savable
from isentropic.models.trial import ordinary_text, same_logits, sentence_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SECONDS_FOR_THE_HUB = 5
LFS = b"version https://git-lfs"


def load_model(
    name: str = EMBEDDED,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: ``smollm2-135m`` (the embedded default), a folder with safetensors (a LoRA adapter's folder
            too), a ``.gguf`` file, or a hub id such as ``org/name``.
        dtype: of the weights. Use float32 for training on a CPU; autocast decides the dtype of matrix
            products.
        trust_remote_code: run code that comes with the model. Off unless asked for.
        load_in_4bit: quantise the weights on a GPU with bitsandbytes, for QLoRA.
        load_in_8bit: quantise them with bitsandbytes, to be measured.

    Raises:
        InputError: nothing is there, it is not a model, it cannot be read, or the weights are a pickle.
    """
    source = located(name)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if load_in_4bit:
        options |= four_bit_options()
    if load_in_8bit:
        options |= eight_bit_options()
    with quiet_transformers(), without_network(name, source):
        adapter = adapter_settings(source, name)
        if adapter is None:
            model, stored_dtype = read_model(source, name, options)
            tokenizer = read_tokenizer(source, name, trust_remote_code)
        else:
            base = load_base(source, name, adapter, options)
            model, stored_dtype = merged(base.model, source, name), base.stored_dtype
            own = has_tokenizer(source, name)
            tokenizer = read_tokenizer(source, name, trust_remote_code) if own else base.tokenizer
        tokenizer = ready_tokenizer(tokenizer, name, vocabulary_size(model))
        check_numbers(model, name)
        on_the_fastest_kernel(model, tokenizer, name)
    dropped = make_savable(model)
    if dropped:
        log.warning(
            "%s: its generation settings contradict each other and could not be saved; left out: %s",
            name,
            ", ".join(dropped),
        )
    return LoadedModel(model, tokenizer, name, model_sha256(model), stored_dtype)


def located(name: str) -> str:
    """The folder or the hub id that a name means."""
    if not name.strip():
        raise InputError(
            f"the model's name is {name!r}; nothing can be loaded by it; give a folder, a .gguf file, a hub "
            f"id such as org/name, or {EMBEDDED!r}"
        )
    if name == EMBEDDED:
        return str(embedded_folder())
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        check_folder(Path(path))
        return os.path.realpath(path)  # an adapter keeps this name of its base, wherever it is loaded from
    if path.lower().endswith(".gguf"):
        return str(dequantised_folder(Path(path)))
    if os.path.exists(path):
        raise InputError(
            f"model path {name!r} is a file but not a .gguf file; a model is a folder with config.json and "
            "safetensors, a .gguf file or a hub id; give one of these"
        )
    if looks_like_a_path(name):
        raise InputError(
            f"model path {shortened(name)!r} does not exist; without it there is nothing to measure or "
            f"train; give a folder, a .gguf file, a hub id such as org/name, or {EMBEDDED!r}"
        )
    return name


def check_there(name: str) -> None:
    """Refuse a model that is not there, before another one has been worked on for an hour."""
    from transformers import PreTrainedConfig

    source = located(name)
    if not os.path.isdir(source):
        with quiet_transformers(), reading_model(name), without_network(name, source):
            if adapter_settings(source, name) is None:
                PreTrainedConfig.get_config_dict(source)


def shortened(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:100]}..."


@contextmanager
def without_network(name: str, source: str) -> Iterator[None]:
    """Ask the hub once whether it is there. Where it is not,
    only what was downloaded before is looked at, instead of trying again for a minute.
    """
    from huggingface_hub import constants, get_session

    if os.path.isdir(source) or constants.HF_HUB_OFFLINE:
        yield
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_FOR_THE_HUB)
    except Exception as error:  # whatever the HTTP client raises: there is no way to the hub
        log.warning(
            "%s cannot be reached (%s); only what was downloaded before can be loaded",
            constants.ENDPOINT,
            reason(error),
        )
    else:
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


# --- Model and tokenizer ------------------------------------------------------------------------------------


def reading_model(name: str) -> AbstractContextManager[None]:
    return reading(
        f"model {shortened(name)!r} cannot be loaded as a causal language model",
        "give a folder with config.json, safetensors weights and a tokenizer, a .gguf file, or a hub id that "
        "can be reached",
    )


def read_model(source: str, name: str, options: dict[str, Any]) -> tuple[PreTrainedModel, torch.dtype | None]:
    """A model with its own attention kernel, and the dtype of its checkpoint."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from transformers import AutoConfig, AutoModelForCausalLM

    with reading_model(name):
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=options["trust_remote_code"])
            stored = getattr(config, "dtype", None)
            read: Any = AutoModelForCausalLM.from_pretrained(
                source,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except GatedRepoError as error:
            raise InputError(
                f"hub model {name!r} is gated; its owner asks for a login; accept its terms on the hub, then "
                "run 'hf auth login'"
            ) from error
        except RepositoryNotFoundError as error:
            raise InputError(
                f"hub model {name!r} does not exist or is private; check the spelling, or run 'hf auth "
                "login' if it is yours"
            ) from error
    model, found = read
    check_complete(name, found)
    check_one_part(name, config)
    return model, stored if isinstance(stored, torch.dtype) else None


def check_one_part(name: str, config: Any) -> None:
    """Refuse a checkpoint of two parts: transformers would load its decoder alone and say nothing."""
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"model {name!r} is an encoder and a decoder ({type(config).__name__}); its decoder alone, "
            "without what it was trained to read, would be measured; give a causal language model"
        )


def check_complete(name: str, found: dict[str, Any]) -> None:
    """Refuse incomplete weights: transformers would continue with random numbers in their place."""
    missing, unfit, unused = found["missing_keys"], found["mismatched_keys"], found["unexpected_keys"]
    if unfit:
        key, stored, wanted = min(unfit)
        raise InputError(
            f"model {name!r} cannot be loaded: {key} has the shape {tuple(stored)} in its weights and "
            f"{tuple(wanted)} by config.json; one of the two belongs to another model; give the config.json "
            "of these weights"
        )
    if missing:
        raise InputError(
            f"model {name!r} lacks {len(missing)} of its weights, {min(missing)} among them; they would be "
            "random numbers; give a checkpoint that was saved from the causal language model"
        )
    if unused:
        log.warning(
            "%s: %d weights of the checkpoint have no place in the model and are left out, such as %s",
            name,
            len(unused),
            min(unused),
        )


def read_tokenizer(source: str, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with reading(
        f"the tokenizer of model {shortened(name)!r} cannot be loaded",
        "give a folder with the tokenizer's files, written by a library no newer than this one",
    ):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


def check_numbers(model: Any, name: str) -> None:
    """Refuse weights that are not numbers: every figure would be one of them."""
    for key, parameter in model.named_parameters():
        if parameter.is_floating_point() and bool(parameter.isnan().any()):
            raise InputError(
                f"model {name!r} holds nan in its weights, in {key} for one; no entropy can be computed with "
                "it; give a checkpoint that was saved whole"
            )


def on_the_fastest_kernel(model: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Take plain attention on a CPU, where it trains a third faster on short texts than the fused kernel,
    if a trial gives the logits that the model gives as it is loaded by anyone else.
    """
    if torch.cuda.is_available() or not ordinary_text(tokenizer, model):
        return
    with reading_model(name):
        truth = sentence_logits(model, tokenizer)
    if truth.isnan().any():
        raise InputError(
            f"model {name!r} gives nan for an ordinary sentence; no entropy can be computed with it; check "
            "the numbers in its config.json and its weights"
        )
    own = text_config(model)._attn_implementation
    if own == "eager" or not model._can_set_attn_implementation():
        return
    model.set_attn_implementation("eager")
    if not same_logits(truth, sentence_logits(model, tokenizer)):
        model.set_attn_implementation(own)


# --- Adapters -----------------------------------------------------------------------------------------------


def adapter_settings(source: str, name: str) -> dict[str, Any] | None:
    """What the adapter's own file says; None if the source is not an adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    with reading_adapter(name):
        file = find_adapter_config_file(source)
        content = json.loads(Path(file).read_text(encoding="utf-8")) if file else None
    if file and not isinstance(content, dict):
        raise InputError(
            f"adapter {name!r} cannot be loaded: its adapter_config.json contains no settings; save the "
            "adapter again with save_pretrained(...)"
        )
    return content


def reading_adapter(name: str) -> AbstractContextManager[None]:
    return reading(
        f"adapter {shortened(name)!r} cannot be loaded",
        "give a folder that peft's save_pretrained wrote, with the base model it names",
    )


def load_base(source: str, name: str, adapter: dict[str, Any], options: dict[str, Any]) -> LoadedModel:
    """The base model of an adapter; a path is looked up from the working folder,
    then from the adapter's own."""
    base = adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(
            f"adapter {name!r} names no base model (base_model_name_or_path is {base!r} in "
            "adapter_config.json); it changes a model that is not there; write the base's folder or hub id "
            "there"
        )
    if "quantization_config" in options:
        raise InputError(
            f"load_in_4bit with {name!r}, an adapter: it is merged into its base, and 4-bit weights cannot "
            "take it in; leave it out, or give the merged model"
        )
    beside = os.path.join(source, base)
    if os.path.isdir(source) and not os.path.exists(base) and os.path.isdir(beside):
        base = beside
    if os.path.realpath(base) == os.path.realpath(source):
        raise InputError(
            f"adapter {name!r} names itself as its base model; it changes a model that is not there; write "
            "the base's folder or hub id into adapter_config.json"
        )
    try:
        return load_model(base, dtype=options["dtype"], trust_remote_code=options["trust_remote_code"])
    except (InputError, RecursionError) as error:
        raise InputError(f"the base model of adapter {name!r}: {reason(error)}") from error


def merged(base: PreTrainedModel, source: str, name: str) -> PreTrainedModel:
    """A base model with an adapter merged in, all of it trainable as any other model is."""
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights
    except ImportError as error:
        raise InputError(
            f"{name!r} is an adapter and peft is not installed; pip install 'isentropic[lora]'"
        ) from error

    with reading_adapter(name):
        config = PeftConfig.from_pretrained(source)
        if config.is_prompt_learning:
            raise InputError(
                f"adapter {name!r} is of the kind {config.peft_type.value}; its virtual tokens are placed "
                "before the prompt and cannot be merged into the weights; give an adapter inside the layers, "
                "such as LoRA"
            )
    with reading(
        f"adapter {shortened(name)!r} does not fit its base model {base.name_or_path!r}",
        "its weights are damaged or were made for another base; give the base it was made for",
    ):
        model: Any = PeftModel.from_pretrained(base, source)
        there, wanted = set(load_peft_weights(source, device="cpu")), set(get_peft_model_state_dict(model))
        if not hasattr(model, "merge_and_unload"):
            raise InputError(
                f"adapter {name!r} is of the kind {config.peft_type.value}, which cannot be merged into its "
                "base; give one that can, such as LoRA"
            )
    if there ^ wanted:
        raise InputError(
            f"adapter {name!r} does not fit its base model: {min(there ^ wanted)} is in one of them only; it "
            "was made for another one; give the base it names"
        )
    with reading_adapter(name):
        whole = model.merge_and_unload()
    for parameter in whole.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return whole


def has_tokenizer(source: str, name: str) -> bool:
    """Whether an adapter comes with a tokenizer of its own."""
    from transformers.utils import cached_file

    with reading_adapter(name):
        return any(
            cached_file(source, file, _raise_exceptions_for_missing_entries=False)
            for file in ("tokenizer_config.json", "tokenizer.json")
        )


# --- Refusals before reading --------------------------------------------------------------------------------


def four_bit_options() -> dict[str, Any]:
    """What transformers needs to load 4-bit weights, or why that cannot be here."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "load_in_4bit needs a CUDA GPU and the package bitsandbytes; one of them is missing; leave it "
            "out, or pip install bitsandbytes on a machine with a GPU"
        )
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    }


def eight_bit_options() -> dict[str, Any]:
    """What transformers needs to load 8-bit weights, or why that cannot be here."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "int8 needs the package bitsandbytes, which is not installed; no model could be loaded in it; "
            "pip install bitsandbytes, or leave int8 out"
        )
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}


def looks_like_a_path(name: str) -> bool:
    """A hub id is ``name`` or ``org/name``; anything else can only be a path."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name.strip()


def check_folder(folder: Path) -> None:
    """Say what is wrong with a model folder before transformers does."""
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model") and is_lfs_pointer(file):
            raise InputError(
                f"{file.name} in the model folder {str(folder)!r} is a pointer of Git LFS; the file itself "
                "was not downloaded; run 'git lfs pull' there"
            )
    if (folder / "adapter_config.json").is_file():
        check_weights(folder, "adapter", "adapter_model*.safetensors")
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model folder {str(folder)!r} has no config.json; it is not a model that transformers can load; "
            "give the folder that holds config.json and the weights"
        )
    check_weights(folder, "model", "*.safetensors")


def is_lfs_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(LFS)) == LFS
    except OSError:
        return False  # who reads it will say


def check_weights(folder: Path, what: str, pattern: str) -> None:
    """Refuse a folder without safetensors, and a pickle by name: loading one can run any code."""
    if any(folder.glob(pattern)):
        return
    pickles = [
        path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in sorted(folder.glob(pattern))
    ]
    if pickles:
        raise InputError(
            f"{what} folder {str(folder)!r} holds a pickle checkpoint ({pickles[0]}) and no safetensors; "
            "loading a pickle can run any code; convert it with save_pretrained(...) if you trust it"
        )
    raise InputError(
        f"{what} folder {str(folder)!r} has no {pattern} file; there are no weights to load; give the folder "
        "that holds them"
    )


def ready_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, vocabulary: int
) -> PreTrainedTokenizerBase:
    """Give the tokenizer a pad token if it has none that the model knows. Masks never look at it:
    end-of-text will do."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name!r} has no end-of-text token; a response could never end; set eos_token "
            "in its tokenizer_config.json"
        )
    if tokenizer.eos_token_id >= vocabulary:
        raise InputError(
            f"the tokenizer of {name!r} ends a text with {tokenizer.eos_token!r}, id "
            f"{tokenizer.eos_token_id}, and the model's ids end at {vocabulary - 1}; a response could never "
            "end; give the tokenizer that belongs to the model"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= vocabulary:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
