"""What ``--model_path`` may name: a folder, a hub id, a GGUF file, the embedded default. Loading and saving."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isentropic.errors import InputError
from isentropic.models.gguf import dequantised_folder, embedded_folder
from isentropic.models.identity import model_sha256
from isentropic.models.model import EMBEDDED, LoadedModel, quiet_transformers, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    name: str = EMBEDDED,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        name: ``smollm2-135m`` (the embedded default), a folder with safetensors (a LoRA adapter's folder too), a
            ``.gguf`` file, or a hub id such as ``org/name``.
        dtype: of the weights. float32 is what training on a CPU wants; autocast decides what the matmuls run in.
        trust_remote_code: run code that comes with the model. Off unless asked for.
        load_in_4bit: quantise the weights on a GPU with bitsandbytes, for QLoRA.

    Raises:
        InputError: nothing is there, it is no model, the file is cut short, or the weights are a pickle.
    """
    if name == EMBEDDED:
        folder: str | Path = embedded_folder()
    elif name.lower().endswith(".gguf"):
        folder = dequantised_folder(Path(name))
    else:
        folder = name
    path = Path(folder)
    if path.is_dir():
        check_folder(path)
        folder = path.resolve()  # an adapter keeps this name of its base, wherever it is loaded from
    elif path.exists():
        raise InputError(
            f"model path {name!r} is a file but no .gguf file; a model is a folder with config.json and safetensors, "
            f"a .gguf file or a hub id; give one of these"
        )
    elif looks_like_a_path(name):
        raise InputError(
            f"model path {name!r} does not exist; without it there is nothing to measure or train; give a folder, a "
            f".gguf file, a hub id such as org/name, or {EMBEDDED!r}"
        )
    options: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    if not torch.cuda.is_available():
        # On a CPU and short texts plain attention trains a third faster than the fused kernel.
        options["attn_implementation"] = "eager"
    if load_in_4bit:
        options |= four_bit_options()
    model, tokenizer = from_pretrained(str(folder), name, options, trust_remote_code)
    return LoadedModel(
        model, ready_tokenizer(tokenizer, name, vocabulary_size(model)), name, model_sha256(model)
    )


def from_pretrained(
    folder: str, name: str, options: dict[str, Any], trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer by transformers, its refusals told in one line each."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            if (Path(folder) / "adapter_config.json").is_file():
                model = load_adapter(folder, options)
            else:
                read: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
                model, found = read
                check_complete(name, found["missing_keys"])
                check_one_part(name, AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except GatedRepoError as error:
        raise InputError(
            f"hub model {name!r} is gated; its owner asks for a login; accept its terms on the hub, then run "
            f"'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"hub model {name!r} does not exist or is private; check the spelling, or run 'hf auth login' if it is yours"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, HfHubHTTPError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model {name!r} cannot be loaded as a causal language model ({first_line}); give a folder with "
            f"config.json, safetensors weights and a tokenizer, a .gguf file, or a hub id that can be reached"
        ) from error
    return model, tokenizer


def check_one_part(name: str, config: Any) -> None:
    """Refuse a checkpoint of two parts: transformers would load its decoder alone and say nothing."""
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"model {name!r} is an encoder and a decoder ({type(config).__name__}); its decoder alone, without what it was "
            f"trained to read, would be measured; give a causal language model"
        )


def check_complete(name: str, missing: Collection[str]) -> None:
    """Refuse weights that are not all there: transformers would go on with random numbers in their place."""
    if missing:
        raise InputError(
            f"model {name!r} lacks {len(missing)} of its weights, {min(missing)} among them; they would be random "
            f"numbers; give a checkpoint that was saved from the causal language model"
        )


def load_adapter(folder: str, options: dict[str, Any]) -> PreTrainedModel:
    """A LoRA adapter's folder: its base model with the adapter merged in."""
    base = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8")).get(
        "base_model_name_or_path"
    )
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError(
            f"{folder!r} is a LoRA adapter and peft is not installed; pip install 'isentropic[lora]'"
        ) from error
    loaded = load_model(str(base), dtype=options["dtype"], trust_remote_code=options["trust_remote_code"])
    try:
        merged = PeftModel.from_pretrained(loaded.model, folder).merge_and_unload()
        return merged.requires_grad_(True)  # peft had frozen them, and they may be trained further
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"adapter {folder!r} does not fit its base model {base!r} ({str(error).splitlines()[0]}); it was made for "
            f"another one; give the base it names"
        ) from error


def four_bit_options() -> dict[str, Any]:
    """What transformers needs to load 4-bit weights, or why that cannot be here."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "load_in_4bit needs a CUDA GPU and the package bitsandbytes; one of them is not here; leave it out, or "
            "pip install bitsandbytes on a machine with a GPU"
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


def looks_like_a_path(name: str) -> bool:
    """A hub id is ``name`` or ``org/name``; anything else can only be a path."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name.strip()


def check_folder(folder: Path) -> None:
    """Say what is wrong with a model folder before transformers does."""
    if (folder / "adapter_config.json").is_file():
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model folder {str(folder)!r} has no config.json; it is no model that transformers can load; give the "
            f"folder that holds config.json and the weights"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = [
        path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in sorted(folder.glob(pattern))
    ]
    if pickles:
        raise InputError(
            f"model folder {str(folder)!r} holds a pickle checkpoint ({pickles[0]}) and no safetensors; loading a "
            f"pickle can run any code; convert it with save_pretrained(...) where you trust it"
        )
    raise InputError(
        f"model folder {str(folder)!r} has no *.safetensors file; there are no weights to load; give the folder that "
        f"holds them"
    )


# --- Tokenizer, saving, hash ----------------------------------------------------------------------------------------


def ready_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, vocabulary: int
) -> PreTrainedTokenizerBase:
    """Give the tokenizer a pad token if it has none that the model knows. Masks never look at it: end-of-text will do."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name!r} has no end-of-text token; a response could never end; set eos_token in its "
            f"tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= vocabulary:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
